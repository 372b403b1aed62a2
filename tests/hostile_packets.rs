//! Thousands of packets that no well-meaning peer sends, through the whole pipeline: whatever comes in, nothing panics,
//! every packet is accounted for, right checksums stay right, nothing grows without bound and everything ends.
#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use weir::flow::port::PortNumber;
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::{Frame, worker};
use weir::replay::{VirtualSwitch, secret};
use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;
use weir_wire::{Fragment, Layers, checksum};

/// Few, so that the limit is met.
const CONNECTIONS: u32 = 5;

const TABLES: [&str; 6] = [
    include_str!("../examples/nat.flows"),
    include_str!("../examples/acl.flows"),
    include_str!("../examples/acl6.flows"),
    "actions=normal",
    "table=0,priority=9,ip,actions=mod_vlan_vid:7,dec_ttl,mod_nw_src:1.2.3.4,ct(table=1,zone=3),2\n\
     table=0,priority=8,ipv6,actions=push_vlan:0x88a8,set_field:fe80::1->ipv6_dst,ct(table=1),strip_vlan,2\n\
     table=0,priority=7,arp,actions=move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:2->NXM_OF_ARP_OP[],normal\n\
     table=0,priority=1,actions=3,normal,in_port\n\
     table=1,priority=9,tcp,actions=mod_tp_dst:9,ct(commit,nat(dst=10.0.0.1:80)),2\n\
     table=1,priority=9,udp,actions=mod_tp_src:9,ct(commit,nat(src=10.0.0.1:80-81)),2,3\n\
     table=1,priority=9,icmp6,icmp_type=135,actions=set_field:fe80::2->nd_target,2\n\
     table=1,priority=1,ip,actions=ct(table=1)\ntable=1,priority=1,ipv6,actions=ct(table=1)",
    "table=0,ip,actions=ct(table=1,nat)\ntable=0,ipv6,actions=ct(table=1,nat)\n\
     table=1,priority=9,in_port=1,ip,ct_state=+new,actions=ct(commit,nat(src=10.0.0.1-10.0.0.2:5000-5003)),2\n\
     table=1,priority=9,in_port=1,ipv6,ct_state=+new,actions=ct(commit,nat(src=fd01::1)),2\n\
     table=1,priority=8,in_port=2,ip,ct_state=+new,actions=ct(commit,nat(dst=192.168.0.2:8080)),1\n\
     table=1,priority=7,in_port=1,actions=2\ntable=1,priority=7,in_port=2,actions=1",
];

fn switch(table: usize) -> VirtualSwitch {
    let flows = FlowFile::parse("test", TABLES[table].as_bytes(), Command::Add, &NoNames).unwrap().flows;
    let shard =
        ShardConfig { capacity: 2 * CONNECTIONS, max_connections: CONNECTIONS, ..ShardConfig::default() };
    VirtualSwitch::new(&[1, 2, 3], &flows, shard, secret(1)).unwrap()
}

/// One end: few hosts and ports, so that packets meet.
#[derive(Clone, Copy, Debug)]
struct End {
    host: u8,
    port: u16,
}

fn end() -> impl Strategy<Value = End> {
    (2u8..5, prop_oneof![4 => 4000u16..4003, 1 => any::<u16>()]).prop_map(|(host, port)| End { host, port })
}

/// A packet as it would be right.
#[derive(Clone, Debug)]
struct Right {
    port: PortNumber,
    ipv6: bool,
    kind: u8,
    near: End,
    far: End,
    flags: u16,
    number: u32,
    payload: Vec<u8>,
    dress: u8,
}

fn right() -> impl Strategy<Value = Right> {
    let flags = prop_oneof![4 => Just(0x02u16), 2 => Just(0x12), 4 => Just(0x10), 1 => Just(0x11), 1 => Just(0x04), 1 => any::<u16>()];
    let number = prop_oneof![Just(1u32), Just(2), any::<u32>()];
    (1u16..4, any::<bool>(), 0u8..12, end(), end(), flags, number, vec(any::<u8>(), 0..80), any::<u8>())
        .prop_map(|(port, ipv6, kind, near, far, flags, number, payload, dress)| Right {
            port,
            ipv6,
            kind,
            near,
            far,
            flags,
            number,
            payload,
            dress,
        })
}

impl Right {
    fn addresses(&self, builder: PacketBuilder, backwards: bool) -> PacketBuilder {
        let (inside, outside) = (self.near.host, self.far.host);
        let swap = (self.port == 2) != backwards;
        if self.ipv6 {
            let far = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, outside];
            let near = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, inside];
            if swap { builder.ipv6(far, near) } else { builder.ipv6(near, far) }
        } else {
            // Outside knows inside by the pool's addresses.
            let near = if swap { [10, 0, 0, inside] } else { [192, 168, 0, inside] };
            let far = [198, 51, 100, outside];
            if swap { builder.ipv4(far, near) } else { builder.ipv4(near, far) }
        }
    }

    fn transport(&self, builder: PacketBuilder, kind: u8, backwards: bool) -> PacketBuilder {
        let (mut src, mut dst) = (self.near.port, self.far.port);
        if (self.port == 2) != backwards {
            (src, dst) = (dst, src);
        }
        match kind {
            0..=2 => {
                builder.tcp(src, dst).flags(self.flags & 0xfff).seq(self.number).ack(self.number).window(1000)
            }
            3 | 4 => builder.udp(src, dst),
            5 => builder.sctp(src, dst, self.number),
            6 => builder.echo_request(src, 1),
            7 => builder.echo_reply(src, 1),
            8 => builder.icmp(self.flags as u8, 0, self.number),
            _ => builder.protocol(self.flags as u8),
        }
        .payload(&self.payload)
    }

    fn frame(&self) -> Vec<u8> {
        let mut builder =
            PacketBuilder::new().ethernet([2, 0, 0, 0, 0, self.near.host], [2, 0, 0, 0, 0, self.far.host]);
        match self.dress % 16 {
            0 => builder = builder.vlan(self.flags),
            1 => builder = builder.service_vlan(self.flags).vlan(5),
            2 => builder = builder.ipv4_options(&self.payload),
            3 => builder = builder.extension(60, &self.payload),
            4 => builder = builder.fragment(self.number, self.flags & 0x18, self.number & 1 == 1),
            5 => builder = builder.pad_to(100),
            6 => builder = builder.ttl(1),
            _ => {}
        }
        if self.kind == 11 && self.dress & 0x40 != 0 {
            let mac = [2, 0, 0, 0, 0, self.near.host];
            let (sender, target) = ([192, 168, 0, self.near.host], [192, 168, 0, self.far.host]);
            return builder.arp(self.flags, (mac, sender), ([0; 6], target)).build();
        }
        builder = self.addresses(builder, false);
        if matches!(self.kind, 9 | 10) {
            // An error about what the other side may have sent.
            let quoted = self.addresses(PacketBuilder::new(), true);
            let quoted = self.transport(quoted, self.dress % 9, true).build();
            let kind = if self.ipv6 { 1 } else { 3 };
            let length = usize::from(self.dress) + 8;
            return builder.icmp_error(kind, 1, 0, &quoted, length).build();
        }
        self.transport(builder, self.kind, false).build()
    }
}

/// What happens to it on the way.
#[derive(Clone, Debug)]
enum Harm {
    None,
    Cut(usize),
    Longer(Vec<u8>),
    Flip(Vec<(usize, u8)>),
    /// 16 bits at a place, and every checksum right again.
    Forge(usize, u16),
    Noise(Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        8 => Just(Harm::None),
        2 => any::<usize>().prop_map(Harm::Cut),
        1 => vec(any::<u8>(), 0..2000).prop_map(Harm::Longer),
        2 => vec((any::<usize>(), any::<u8>()), 1..4).prop_map(Harm::Flip),
        3 => (12usize..80, any::<u16>()).prop_map(|(at, value)| Harm::Forge(at, value)),
        1 => vec(any::<u8>(), 0..200).prop_map(Harm::Noise),
        1 => (1500usize..70_000).prop_map(|length| Harm::Longer(vec![0xa5; length])),
    ]
}

impl Harm {
    fn to(&self, mut frame: Vec<u8>) -> Vec<u8> {
        match self {
            Self::None => {}
            Self::Cut(at) => frame.truncate(at % (frame.len() + 1)),
            Self::Longer(more) => frame.extend(more),
            Self::Flip(changes) => {
                for (at, bits) in changes {
                    let at = at % frame.len().max(1);
                    if let Some(byte) = frame.get_mut(at) {
                        *byte ^= bits;
                    }
                }
            }
            Self::Forge(at, value) => {
                if let Some(place) = frame.get_mut(*at..at + 2) {
                    place.copy_from_slice(&value.to_be_bytes());
                }
                let layers = Layers::parse(&frame);
                checksum::fill(&mut frame, &layers);
            }
            Self::Noise(noise) => frame.clone_from(noise),
        }
        frame
    }
}

/// What the receiver of a frame might answer: every end swapped, a SYN acknowledged, a query answered.
fn answer(frame: &[u8], flags: u8) -> Vec<u8> {
    let layers = Layers::parse(frame);
    let mut answer = frame.to_vec();
    let mut swap = |a: usize, b: usize, length: usize| {
        if b + length <= answer.len() {
            let (first, second) = answer.split_at_mut(b);
            first[a..a + length].swap_with_slice(&mut second[..length]);
        }
    };
    swap(0, 6, 6);
    let (l3, l4) = (usize::from(layers.l3), usize::from(layers.l4));
    if layers.is_ipv4() {
        swap(l3 + 12, l3 + 16, 4);
    } else if layers.is_ipv6() {
        swap(l3 + 8, l3 + 24, 16);
    }
    if l4 == 0 {
        return answer;
    }
    match layers.protocol {
        6 => {
            swap(l4, l4 + 2, 2);
            swap(l4 + 4, l4 + 8, 4);
            if let Some(segment) = answer.get_mut(l4..l4 + 20) {
                let next =
                    segment[8..12].iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)).wrapping_add(1);
                segment[8..12].copy_from_slice(&next.to_be_bytes());
                segment[13] = if segment[13] & 0x02 != 0 { 0x12 } else { flags };
            }
        }
        17 | 132 => swap(l4, l4 + 2, 2),
        1 | 58 => {
            if let Some(kind) = answer.get_mut(l4) {
                *kind = [(8, 0), (13, 14), (128, 129)]
                    .iter()
                    .find(|(ask, _)| ask == kind)
                    .map_or(*kind, |(_, to)| *to);
            }
        }
        _ => {}
    }
    checksum::fill(&mut answer, &layers);
    answer
}

/// An error that a router might send about a frame.
fn complaint(frame: &[u8], length: usize) -> Vec<u8> {
    let layers = Layers::parse(frame);
    let packet = layers.l3_bytes(frame);
    let builder = PacketBuilder::new().ethernet([2; 6], [4; 6]);
    let builder = if let (true, Some(to)) = (layers.is_ipv4(), packet.get(12..16)) {
        builder.ipv4([198, 51, 100, 9], <[u8; 4]>::try_from(to).unwrap())
    } else if let (true, Some(to)) = (layers.is_ipv6(), packet.get(8..24)) {
        builder.ipv6([7; 16], <[u8; 16]>::try_from(to).unwrap())
    } else {
        return frame.to_vec();
    };
    builder.icmp_error(if layers.is_ipv6() { 1 } else { 3 }, 1, 0, frame, length).build()
}

/// Whether everything that can be verified of a frame is right; None where nothing can.
fn is_right(frame: &[u8]) -> Option<bool> {
    let layers = Layers::parse(frame);
    let header = match (layers.is_ipv4(), layers.is_ipv6()) {
        (true, _) => checksum::ipv4_header_is_valid(frame, &layers),
        (_, true) => true,
        _ => return None,
    };
    if layers.l4 == 0 || layers.fragment != Fragment::No {
        return Some(header);
    }
    Some(header && checksum::l4_is_valid(frame, &layers))
}

/// What comes in.
#[derive(Clone, Debug)]
enum What {
    Packet(Right),
    /// The answer to what was sent last, with these flags if it is TCP.
    Answer(u8),
    /// An error about what was sent last, quoting so many bytes of it.
    Complaint(usize),
}

/// (what, whether it is handed over at once, milliseconds before it)
type Arrival = (What, Harm, bool, u64);

fn arrival() -> impl Strategy<Value = Arrival> {
    let pause = prop_oneof![12 => Just(0u64), 2 => 1u64..100, 1 => 1000u64..100_000];
    let flags = prop_oneof![6 => Just(0x10u8), 1 => Just(0x11), 1 => Just(0x04), 1 => any::<u8>()];
    let what = prop_oneof![
        6 => right().prop_map(What::Packet),
        5 => flags.prop_map(What::Answer),
        1 => (20usize..100).prop_map(What::Complaint),
    ];
    (what, harm(), any::<bool>(), pause)
}

fn balanced(switch: &mut VirtualSwitch) -> Result<(), TestCaseError> {
    let counters = *switch.worker().counters();
    let held = switch.worker().held_fragments();
    prop_assert_eq!(
        counters.received + counters.copies,
        counters.sent + counters.dropped_in_all() + held,
        "{:?}",
        counters
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(5000), failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))), ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_is_accounted_for_and_ends(table in 0..TABLES.len(), arrivals in vec(arrival(), 1..40)) {
        let mut switch = switch(table);
        let mut now = 0;
        let mut last: Option<(PortNumber, Vec<u8>)> = None;
        for (what, harm, at_once, pause) in &arrivals {
            let (port, frame) = match (what, &last) {
                (What::Packet(right), _) => (right.port, right.frame()),
                (_, None) => continue,
                (What::Answer(flags), Some((port, frame))) => (*port, answer(frame, *flags)),
                (What::Complaint(length), Some((port, frame))) => (*port, complaint(frame, *length)),
            };
            let frame = harm.to(frame);
            now += pause;
            let before = is_right(&frame);
            if *at_once {
                // What waits from before is none of this frame.
                drop(switch.take_sent());
            }
            switch.inject(port, &frame, now);
            if *at_once {
                for (to, sent) in switch.take_sent() {
                    let text = || format!("{frame:02x?} at {port} became {:02x?} at {to}", sent.bytes());
                    prop_assert!(before != Some(true) || is_right(sent.bytes()) != Some(false), "{}", text());
                    prop_assert!(sent.bytes().len() <= frame.len() + 4, "{}", text());
                    last = Some((to, sent.bytes().to_vec()));
                }
                balanced(&mut switch)?;
            }
            prop_assert!(switch.worker().shard().len() <= CONNECTIONS);
        }
        balanced(&mut switch)?;
        let translations = switch.worker().counters().translations as usize;
        let (megaflows, masks) = switch.worker().megaflow_sizes();
        prop_assert!(megaflows <= translations.min(worker::DEFAULT_MEGAFLOWS) && masks <= megaflows);
        prop_assert!(switch.worker().recirculation_contexts() <= 2 * worker::DEFAULT_MEGAFLOWS);
        // A day and more later.
        switch.advance(now + 90_000_000);
        prop_assert_eq!(switch.worker().shard().len(), 0);
        switch.worker().clear_megaflows();
        prop_assert_eq!(switch.worker().megaflow_sizes(), (0, 0));
        prop_assert_eq!(switch.worker().recirculation_contexts(), 0);
    }
}

#[test]
fn a_flood_of_different_packets_fills_nothing_beyond_its_limit() {
    let mut switch = switch(4);
    for number in 0..20_000u32 {
        let [a, b, c, d] = number.to_be_bytes();
        let frame = PacketBuilder::new()
            .ethernet([2, a, b, c, d, 1], [2, d, c, b, a, 2])
            .ipv4([10, b, c, d], [11, d, c, b])
            .ttl(d)
            .udp(1 + number as u16 % 60_000, 53)
            .build();
        switch.inject(1, &frame, u64::from(number));
    }
    let worker = switch.worker();
    assert!(worker.shard().len() <= CONNECTIONS);
    assert!(worker.megaflow_sizes().0 <= worker::DEFAULT_MEGAFLOWS);
}
