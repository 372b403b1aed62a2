//! The configuration as it is written: keys and their plain values with their places in the text, before
//! anything is checked. The checks are in `check`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::steering::{Role, Scheme};
use super::types::Profile;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) profile: Option<Profile>,
    pub(super) socket: Option<Spanned<String>>,
    pub(super) lcores: Option<Spanned<String>>,
    pub(super) memory_mib: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) conntrack: Conntrack,
    #[serde(default)]
    pub(super) steering: Steering,
    #[serde(default)]
    pub(super) pool: Pool,
    #[serde(default)]
    pub(super) tuning: Tuning,
    #[serde(default)]
    pub(super) bridge: Vec<Bridge>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conntrack {
    pub(super) capacity: Option<Spanned<i64>>,
    pub(super) max_connections: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) liberal_tcp: bool,
    pub(super) accounting: Option<bool>,
    /// By their names, which `check` knows from the tracker's table.
    #[serde(default)]
    pub(super) timeouts: BTreeMap<Spanned<String>, Spanned<i64>>,
    pub(super) zone_limit: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) zone: Vec<Zone>,
    #[serde(default)]
    pub(super) fragments: Fragments,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Zone {
    pub(super) id: Spanned<i64>,
    pub(super) limit: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) timeouts: BTreeMap<Spanned<String>, Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragments {
    pub(super) v4: Option<bool>,
    pub(super) v6: Option<bool>,
    pub(super) min_size_v4: Option<Spanned<i64>>,
    pub(super) min_size_v6: Option<Spanned<i64>>,
    pub(super) max: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Steering {
    pub(super) key_word: Option<Spanned<i64>>,
    pub(super) table_size: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) zone: Vec<SteeredZone>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SteeredZone {
    pub(super) id: Spanned<i64>,
    pub(super) scheme: Spanned<Scheme>,
    pub(super) pool: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) inside: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) mbufs: Option<Spanned<i64>>,
    pub(super) data_room: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tuning {
    pub(super) burst: Option<Spanned<i64>>,
    pub(super) trajectories: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) name: Spanned<String>,
    pub(super) groups: Option<Spanned<String>>,
    pub(super) flows: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) port: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Spanned<String>,
    pub(super) number: Option<Spanned<i64>>,
    pub(super) devargs: Spanned<String>,
    pub(super) peer: Option<Peer>,
    pub(super) rx_queues: Option<Spanned<i64>>,
    pub(super) role: Option<Spanned<Role>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) dev: Spanned<String>,
    pub(super) netns: Option<Spanned<String>>,
}
