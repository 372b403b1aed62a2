//! The pipeline as a whole: flow tables as people write them, packets in, packets out.

use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;

use super::{DropCause, Frame};
use crate::flow::{Command, FlowFile, NoNames};
use crate::replay::{VirtualSwitch, secret};

const NAT: &str = include_str!("../../examples/nat.flows");
const ACL: &str = include_str!("../../examples/acl.flows");

fn switch(flows: &str) -> VirtualSwitch {
    let flows = FlowFile::parse("test", flows.as_bytes(), Command::Add, &NoNames).unwrap().flows;
    VirtualSwitch::new(&[1, 2], &flows, ShardConfig::default(), secret(7)).unwrap()
}

#[test]
fn smoke() {
    let mut s = switch(NAT);
    let _ = &mut s;
    let _ = (ACL, DropCause::Action, PacketBuilder::new(), <crate::pipeline::HeapFrame as Frame>::bytes);
}
