//! A switch that a capture goes through, and what can be said of it without naming the ports that it has drawn.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use weir::pipeline::{DropCause, Frame, HeapFrame};
use weir::replay::VirtualSwitch;
use weir_shard::{ConnectionView, DumpCursor, Shard};
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers, Tuple, checksum};

use crate::capture::{ANNOUNCED, SERVICES, Step, answer};

/// A step's number, and what came out for its packet: the port, and the frame.
pub(crate) type Sent = (usize, u16, Vec<u8>);

type Endpoint = (IpAddr, u16);

/// Counters of shards that depend on how many there are: the steps of asking, homes that could give away no more, and
/// how long a search was.
const MAY_DIFFER: [&str; 4] = ["asks", "refused_by_home", "redirects_refused", "refused_unsettled"];

/// Steps that all packets of a capture need at the most, each taking some 200 hops of up to 20 steps.
const LONGEST_WAY: u32 = 60 * 200 * 20;

pub(crate) struct Bench {
    pub(crate) switch: VirtualSwitch,
    pub(crate) now: u64,
    /// By step.
    sent: Vec<Vec<(u16, Vec<u8>)>>,
    /// Reply tuples with a drawn port, from the side that is translated, and the connections' original tuples.
    labels: HashMap<(u8, Endpoint, Endpoint), String>,
    drawn: HashSet<(u8, Endpoint)>,
    is_crowded: bool,
    /// A drawn port is one that the capture itself names, or is drawn again for what came from there: nobody can tell
    /// which of both a packet means.
    pub(crate) is_ambiguous: bool,
    /// Connections with a translated destination that differ in nothing else, by what they have in common.
    services: HashMap<String, Tuple>,
    /// Two of them may have wanted the same address, and its home has decided.
    pub(crate) is_contended: bool,
}

/// Of what packets showed nothing: a drop by cause, and what trackers counted.
pub(crate) type Counts = BTreeMap<String, u64>;

impl Bench {
    pub(crate) fn new(switch: VirtualSwitch, steps: usize, is_crowded: bool) -> Self {
        Self {
            switch,
            now: 0,
            sent: vec![Vec::new(); steps],
            labels: HashMap::new(),
            drawn: HashSet::new(),
            is_crowded,
            is_ambiguous: false,
            services: HashMap::new(),
            is_contended: false,
        }
    }

    /// The packet of a step: none if there was nothing to answer, or it is no packet.
    pub(crate) fn packet(&self, step: &Step) -> Option<(u16, Vec<u8>)> {
        match step {
            Step::Packet { port, bytes } => Some((*port, bytes.clone())),
            Step::Answer { to, how } => {
                let (port, frame) = self.sent.get(*to)?.first()?;
                Some((*port, answer(frame, how)?))
            }
            Step::Pause(_) => None,
        }
    }

    pub(crate) fn pause(&mut self, by: u64) {
        self.now += by;
        self.switch.advance(self.now);
    }

    pub(crate) fn inject(&mut self, number: usize, (port, bytes): (u16, Vec<u8>)) {
        let frame = HeapFrame::new(&bytes).stamped(number as u64);
        self.switch.inject_frame(port, frame, self.now);
    }

    /// Lets all packets arrive.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        if self.switch.settle(LONGEST_WAY) { Ok(()) } else { Err("packets travel for ever".into()) }
    }

    /// What came out meanwhile, by step and port.
    pub(crate) fn collect(&mut self) -> Vec<Sent> {
        self.learn();
        let sent = self.switch.take_sent_now();
        let sent =
            sent.into_iter().map(|(port, frame)| (frame.stamp() as usize, port, frame.bytes().to_vec()));
        let mut sent: Vec<Sent> = sent.collect();
        for (step, port, frame) in &sent {
            self.sent[*step].push((*port, frame.clone()));
        }
        sent.sort();
        sent
    }

    /// Learns which ports are drawn ones.
    pub(crate) fn learn(&mut self) {
        let Self { switch, labels, drawn, now, is_ambiguous, services, is_contended, .. } = self;
        for worker in switch.workers_now() {
            visit(worker.shard(), *now, &mut |view| {
                let original = view.original;
                if view.destination_nat {
                    let (proto, from, zone) = (original.protocol(), original.src(), view.zone);
                    let key =
                        format!("{proto} {from} {} {} {zone}", original.src_port(), original.dst_port());
                    *is_contended |= *services.entry(key).or_insert(original) != original;
                }
                if view.source_nat {
                    let (proto, near, far) = (view.reply.protocol(), near(&view.reply), far(&view.reply));
                    let ends = [view.original.src(), view.original.dst()].into_iter();
                    let ports = [view.original.src_port(), view.original.dst_port()];
                    // The packet that it began with may itself have gone to a drawn port, or come from one.
                    let ends = ends.zip(ports).map(|end| match drawn.contains(&(proto, end)) {
                        true => format!("{} drawn", end.0),
                        false => format!("{} {}", end.0, end.1),
                    });
                    let label = ends.collect::<Vec<_>>().join(" > ");
                    let is_named_anew = label.contains("drawn");
                    let old = labels.insert((proto, near, far), label);
                    *is_ambiguous |= is_named_anew && old.is_some_and(|old| !old.contains("drawn"));
                    drawn.insert((proto, near));
                    *is_ambiguous |= near.1 != ports[0]
                        && !view.reply.is_icmp()
                        && (SERVICES.contains(&near.1) || ANNOUNCED.contains(&near.1));
                }
            });
        }
    }

    /// A port as it is compared: one that was drawn is named after its connection.
    fn name(&self, proto: u8, own: Endpoint, other: Endpoint) -> String {
        let address =
            if self.is_crowded && is_public(own.0) { String::from("pool") } else { own.0.to_string() };
        let other = if is_icmp(proto) { (other.0, 0) } else { other };
        match self.labels.get(&(proto, own, other)) {
            Some(label) if !label.contains("drawn") => format!("{address} port of {label}"),
            _ if self.drawn.contains(&(proto, own)) => format!("{address} port drawn"),
            _ => format!("{address}:{}", own.1),
        }
    }

    fn tuple(&self, tuple: &Tuple) -> String {
        let (two, one) = (near(tuple), near(&tuple.reversed()));
        let proto = tuple.protocol();
        let kind = if tuple.is_icmp() {
            tuple.to_string().replace(&format!("id={}", one.1), "id")
        } else {
            String::new()
        };
        let kind = kind.rsplit(',').take(3).collect::<Vec<_>>().join(",");
        let (mut from, mut to) = (self.name(proto, one, two), self.name(proto, two, one));
        // The identifier is both ends'.
        match (tuple.is_icmp(), from.contains("port"), to.contains("port")) {
            (true, true, false) => to = two.0.to_string(),
            (true, false, true) => from = one.0.to_string(),
            _ => {}
        }
        format!("{proto} {from} > {to} {kind}")
    }

    /// All connections, as they are compared.
    pub(crate) fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for worker in self.switch.workers_now() {
            visit(worker.shard(), self.now, &mut |view| {
                lines.push(format!(
                    "{} | {} zone={} mark={} label={} {:?} {:?} nat={}{} left={} age={} {:?} {:?} parent={:?}",
                    self.tuple(&view.original),
                    self.tuple(&view.reply),
                    view.zone,
                    view.mark,
                    view.label,
                    view.state,
                    view.scales,
                    view.source_nat,
                    view.destination_nat,
                    view.remaining,
                    view.age,
                    view.helper,
                    view.traffic,
                    view.parent.map(|parent| self.tuple(&parent)),
                ));
            });
        }
        lines.sort();
        lines
    }

    /// Tuples that stand in two tables: there is to be none.
    pub(crate) fn twice(&self) -> Vec<String> {
        let (mut seen, mut twice) = (BTreeSet::new(), Vec::new());
        for worker in self.switch.workers_now() {
            visit(worker.shard(), self.now, &mut |view| {
                let both = [view.original, view.reply].map(|tuple| format!("{tuple:?} {}", view.zone));
                let is_first = both[0] == both[1];
                for text in both.into_iter().skip(usize::from(is_first)) {
                    if !seen.insert(text.clone()) {
                        twice.push(text);
                    }
                }
            });
        }
        twice
    }

    /// Sums over all shards of what has to agree.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        let mut add = |name: &str, count: u64| {
            if count > 0 && !MAY_DIFFER.contains(&name) {
                *counts.entry(name.to_owned()).or_default() += count;
            }
        };
        for worker in self.switch.workers_now() {
            worker.shard().counters().iter().for_each(|(name, count, _)| add(name, count));
            let counters = worker.counters();
            counters.drops().for_each(|(cause, count)| add(cause.name(), count));
            add("sent", counters.sent);
            add("received", counters.received);
            add("recirculations", counters.recirculations);
            add("held", worker.held_fragments());
        }
        counts
    }

    /// Drops that only a divided switch knows: there have to be `full` by full mailboxes, and no others.
    pub(crate) fn loses(&mut self, full: u64) -> Result<(), String> {
        let counters = self.switch.counters();
        let lost = [DropCause::MailboxFull, DropCause::HandoverHops].map(|cause| counters.dropped(cause));
        if lost == [full, 0] {
            return Ok(());
        }
        Err(format!("{lost:?} packets lost by full mailboxes and by travelling for too long, not {full}"))
    }

    /// All that came out.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.sent.iter().flatten().map(|(_, frame)| frame.as_slice())
    }

    /// True if something came out for the packet of a step.
    pub(crate) fn has_sent(&self, step: usize) -> bool {
        self.sent.get(step).is_some_and(|sent| !sent.is_empty())
    }

    /// A frame as it is compared: drawn ports by name, and checksums by whether they are right.
    pub(crate) fn show(&self, frame: &[u8]) -> String {
        let (mut bytes, mut names) = (frame.to_vec(), String::new());
        let layers = Layers::parse(frame);
        if layers.is_ipv4() || layers.is_ipv6() {
            if layers.fragment == Fragment::No {
                names += if checksum::l4_is_valid(frame, &layers) { "right " } else { "wrong " };
            }
            if layers.is_ipv4() {
                names += if checksum::ipv4_header_is_valid(frame, &layers) { "right " } else { "wrong " };
            }
            self.blank(frame, &layers, &mut bytes, &mut names, false);
            if layers.l4 != 0 && is_error(frame, &layers) {
                let inner = layers.parse_quoted(frame, layers.l4 + 8);
                self.blank(frame, &inner, &mut bytes, &mut names, true);
            }
        }
        format!("{names}{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Takes out of a packet's bytes what depends on the ports drawn.
    fn blank(&self, frame: &[u8], layers: &Layers, bytes: &mut [u8], names: &mut String, is_quoted: bool) {
        let l3 = usize::from(layers.l3);
        let (at, length) = if layers.is_ipv4() { (12, 4) } else { (8, 16) };
        let address = |at: usize| -> Option<IpAddr> {
            let bytes = frame.get(l3 + at..l3 + at + length)?;
            match length {
                4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
                _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
            }
        };
        let (Some(src), Some(dst)) = (address(at), address(at + length)) else { return };
        let mut zero = |from: usize, length: usize| {
            let from = from.min(bytes.len());
            let end = (from + length).min(bytes.len());
            bytes[from..end].fill(0);
        };
        if self.is_crowded {
            [(src, at), (dst, at + length)]
                .iter()
                .filter(|(of, _)| is_public(*of))
                .for_each(|(_, at)| zero(l3 + at, length));
            if layers.is_ipv4() {
                zero(l3 + 10, 2);
            }
        }
        if layers.l4 == 0 || layers.fragment == Fragment::Later {
            return;
        }
        let l4 = usize::from(layers.l4);
        let port =
            |at: usize| frame.get(l4 + at..l4 + at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
        let proto = layers.protocol;
        let (ports, sum) = match proto {
            protocol::TCP => ([0, 2], (16, 2)),
            protocol::UDP => ([0, 2], (6, 2)),
            protocol::SCTP => ([0, 2], (8, 4)),
            protocol::ICMP | protocol::ICMPV6 => ([4, 4], (2, 2)),
            _ => return,
        };
        let is_icmp = ports == [4, 4];
        if is_icmp && is_error(frame, layers) {
            return zero(l4 + 2, 2);
        }
        let (Some(sport), Some(dport)) = (port(ports[0]), port(ports[1])) else { return };
        let ends = [(src, sport), (dst, dport)];
        for (at, own, other) in [(ports[0], ends[0], ends[1]), (ports[1], ends[1], ends[0])] {
            let name = self.name(proto, own, other);
            if name.contains("port") {
                *names += &format!("[{name}] ");
                zero(l4 + at, 2);
            }
        }
        if !is_quoted || names.contains("port") {
            zero(l4 + sum.0, sum.1);
        }
    }
}

fn visit(shard: &Shard, now: u64, with: &mut dyn FnMut(&ConnectionView)) {
    let mut cursor = DumpCursor::default();
    while !cursor.is_done() {
        shard.dump(now, &mut cursor, usize::MAX, with);
    }
}

fn is_error(frame: &[u8], layers: &Layers) -> bool {
    let kind = frame.get(usize::from(layers.l4)).copied().unwrap_or(0);
    match layers.protocol {
        protocol::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        protocol::ICMPV6 => kind < 128,
        _ => false,
    }
}

/// True for addresses that the tables translate to.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [10, 0, 0],
        IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 1],
    }
}

/// The end that a reply goes to; of echoes, the identifier stands for both ports.
fn near(reply: &Tuple) -> Endpoint {
    (reply.dst(), if reply.is_icmp() { reply.src_port() } else { reply.dst_port() })
}

fn far(reply: &Tuple) -> Endpoint {
    (reply.src(), if reply.is_icmp() { 0 } else { reply.src_port() })
}

fn is_icmp(proto: u8) -> bool {
    matches!(proto, protocol::ICMP | protocol::ICMPV6)
}
