use std::sync::Arc;
#[derive(Debug, Default)]
pub struct RuleStats;
impl RuleStats { pub fn add(&self, _p: u64, _b: u64, _u: u64) {} }
#[derive(Debug)]
pub struct Rule { pub priority: u16, pub matching: super::Match, pub actions: Vec<super::Action>, pub stats: Arc<RuleStats> }
