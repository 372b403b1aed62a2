//! The pipeline as a whole: flow tables as people write them, packets in, packets out.

mod acl;
mod actions;
mod burst;
mod caches;
mod counters;
mod express;
mod fragments;
mod ftp;
mod groups;
mod headers;
mod nat;
mod normal;
mod recirculation;
mod shards;
mod tftp;
mod zones;

use weir_shard::{ConnectionView, DumpCursor, ShardConfig};
use weir_wire::build::PacketBuilder;
use weir_wire::extract::ChecksumTrust;
use weir_wire::header::tcp::flag;
use weir_wire::{Layers, Tuple};

use super::{DropCause, Frame};
use crate::flow::port::PortNumber;
use crate::flow::{Command, FlowFile, NoNames};
use crate::replay::{Arrival, Layout, VirtualSwitch, secret};

const NAT: &str = include_str!("../../examples/nat.flows");
const ACL: &str = include_str!("../../examples/acl.flows");
const ACL6: &str = include_str!("../../examples/acl6.flows");

/// A switch with four ports, driven one packet at a time.
struct Bench(VirtualSwitch);

/// What a dropped packet leaves by.
const NOWHERE: [PortNumber; 0] = [];

type Sent = Vec<(PortNumber, Vec<u8>)>;

fn parse(flows: &str, command: Command) -> Vec<crate::flow::flow::FlowMod> {
    FlowFile::parse("test", flows.as_bytes(), command, &NoNames).unwrap().flows
}

fn shard() -> ShardConfig {
    ShardConfig { capacity: 4096, ..ShardConfig::default() }
}

impl Bench {
    fn new(flows: &str) -> Self {
        Self::with(flows, shard())
    }

    fn with(flows: &str, shard: ShardConfig) -> Self {
        Self::divided_with(flows, shard, Layout::default())
    }

    /// On several shards.
    fn divided(flows: &str, layout: Layout) -> Self {
        Self::divided_with(flows, shard(), layout)
    }

    fn divided_with(flows: &str, shard: ShardConfig, layout: Layout) -> Self {
        let flows = parse(flows, Command::Add);
        let switch =
            VirtualSwitch::with_layout(&[1, 2, 3, 4], &[], &flows, shard, secret(7), layout).unwrap();
        Self(switch)
    }

    /// What comes out for one packet, right now.
    fn send(&mut self, port: PortNumber, frame: &[u8]) -> Sent {
        let now = self.0.now();
        self.burst(port, &[frame], now)
    }

    fn send_at(&mut self, now: u64, port: PortNumber, frame: &[u8]) -> Sent {
        self.burst(port, &[frame], now)
    }

    /// What comes out for packets that are received together.
    fn burst(&mut self, port: PortNumber, frames: &[&[u8]], now: u64) -> Sent {
        for frame in frames {
            self.0.inject(port, frame, now);
        }
        self.0.take_sent().into_iter().map(|(port, frame)| (port, frame.bytes().to_vec())).collect()
    }

    /// Ports that the packet leaves by.
    fn ports(&mut self, port: PortNumber, frame: &[u8]) -> Vec<PortNumber> {
        self.send(port, frame).into_iter().map(|(port, _)| port).collect()
    }

    /// What comes out of port 2 for a packet at port 1, which must be all.
    fn through(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut sent = self.send(1, frame);
        assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [2]);
        sent.remove(0).1
    }

    fn change(&mut self, command: Command, flows: &str) {
        self.0.apply(&parse(flows, command)).unwrap();
    }

    fn dropped(&mut self, cause: DropCause) -> u64 {
        self.0.counters().dropped(cause)
    }

    /// Every packet that came in or was copied has been sent, or counted as dropped or handed over, by the worker
    /// that had it.
    fn balance(&mut self) {
        self.0.flush();
        self.balance_now();
        assert_eq!(self.0.under_way(), 0);
    }

    /// As [`Bench::balance`], while packets may be under way.
    fn balance_now(&mut self) {
        let mut sum = super::Counters::default();
        for worker in self.0.workers_now() {
            let counters = worker.counters();
            assert_eq!(
                counters.received + counters.copies + counters.taken_over_in_all(),
                counters.sent
                    + counters.dropped_in_all()
                    + worker.held_fragments()
                    + counters.handed_over_in_all(),
                "{counters:?}"
            );
            sum.add(counters);
        }
        assert_eq!(sum.handed_over_in_all(), sum.taken_over_in_all() + self.0.under_way(), "{sum:?}");
    }

    /// Connections, sorted.
    fn connections(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.0.connections(&mut |view: &ConnectionView| lines.push(view.to_string()));
        lines.sort_unstable();
        lines
    }
}

/// One shard, and three of which every packet comes to a wrong one: steered at once, or at its `ct`.
fn layouts() -> [Layout; 3] {
    let three = Layout { shards: 3, arrival: Arrival::Adverse, seed: 5, ..Layout::default() };
    [Layout::default(), three, Layout { steered_early: false, ..three }]
}

/// The packet's tuple, all checksums verified; or what is wrong with it.
fn tuple(frame: &[u8]) -> String {
    match Tuple::extract(frame, &Layers::parse(frame), 0, ChecksumTrust::NONE) {
        Ok(extracted) => extracted.lookup().to_string(),
        Err(invalid) => invalid.to_string(),
    }
}

fn ports(sent: &[(PortNumber, Vec<u8>)]) -> Vec<PortNumber> {
    sent.iter().map(|(port, _)| *port).collect()
}

const A: [u8; 4] = [192, 168, 0, 1];
const B: [u8; 4] = [192, 168, 0, 2];
const X: [u8; 4] = [203, 0, 113, 9];

fn udp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Vec<u8> {
    PacketBuilder::new().ipv4(src, dst).udp(sport, dport).payload(b"hello").build()
}

fn tcp(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, flags: u16, seq: u32, ack: u32) -> Vec<u8> {
    PacketBuilder::new().ipv4(src, dst).tcp(sport, dport).flags(flags).seq(seq).ack(ack).build()
}

fn syn(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Vec<u8> {
    tcp(src, sport, dst, dport, flag::SYN, 1000, 0)
}
