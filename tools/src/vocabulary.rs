//! Random packet scripts from a small vocabulary: few hosts and ports, so that packets meet; mostly what a
//! real peer would send next, sometimes what it never would. The same seed gives the same script.

use std::time::Duration;

use crate::script::{
    About, AboutKind, ErrorKind, Host, Kind, Line, Place, Placed, Script, Setting, Step, Table,
};

/// A generator of repeatable numbers (Vigna's splitmix64, public domain): good enough for tests.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `sides` - 1.
    pub fn below(&mut self, sides: u32) -> u32 {
        u32::try_from(self.roll() % u64::from(sides.max(1))).unwrap_or(0)
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.below(sides) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(u32::try_from(from.len()).unwrap_or(u32::MAX));
        usize::try_from(at).ok().and_then(|at| from.get(at)).copied()
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
/// What a host might send at random, valid or not.
const ODD_FLAGS: [u8; 10] = [0, FIN, SYN | FIN, SYN | RST, SYN | ACK, RST, RST | ACK, ACK, PSH, FIN | ACK];
const WINDOWS: [u32; 4] = [65535, 65535, 1024, 0];
/// What a SYN with a window scale announces in place of 65535: no scale rounds it up to 65536, which
/// Open vSwitch takes for 0 (tests/scripts/tcp/window-unscaled.pkt).
const SCALED_WINDOW: u32 = 3 << 14;
/// Milliseconds that pass at times: around the timeouts of the reference page. No few of them add up to whole
/// seconds, at which switches may differ: a timeout is over at or just after its last millisecond.
const PAUSES: [u64; 8] = [1_050, 5_050, 29_050, 31_050, 46_050, 61_050, 901_050, 86_401_050];

/// A TCP conversation as its two ends see it.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    inside: Place,
    outside: Place,
    /// Next sequence number of inside and outside.
    next: [u32; 2],
}

/// A random script of `length` packets for `table`.
pub fn script(seed: u64, length: usize, table: Table) -> Script {
    let mut author = Author { dice: Dice::new(seed), conversations: Vec::new() };
    let steps = (1..=length).map(|number| Placed { number, step: author.step(), excuse: None }).collect();
    Script {
        name: format!("seed {seed}, {length} packets, {}", table.name()),
        tables: vec![table],
        flows: None,
        weir_only: None,
        steps,
    }
}

struct Author {
    dice: Dice,
    conversations: Vec<Conversation>,
}

impl Author {
    fn step(&mut self) -> Step {
        if self.dice.one_in(40) {
            return Step::Wait(Duration::from_millis(self.dice.pick(&PAUSES).unwrap_or(1)));
        }
        let mut line = match self.dice.below(10) {
            0..=5 => self.tcp(),
            6 | 7 => self.udp(),
            8 if self.dice.one_in(3) => self.other(),
            8 => self.echo(),
            _ => self.error(),
        };
        // What stands around the packet is nothing to its connection.
        for key in ["vlan", "ip-options", "extension"] {
            if self.dice.one_in(15) {
                line.options.push((key.into(), self.dice.below(10).into()));
            }
        }
        if self.dice.one_in(25) {
            let damage = ["bad-checksum", "bad-ip-checksum", "longer"];
            if let Some(key) = self.dice.pick(&damage) {
                line.options.push((key.into(), Setting::Number(1)));
            }
        }
        Step::Packet(line)
    }

    fn place(&mut self, hosts: &[Host], ports: &[u16]) -> Place {
        // Both lists are constants of this file and not empty.
        let host = self.dice.pick(hosts).unwrap_or(Host::INSIDE[0]);
        Place::new(host, self.dice.pick(ports).unwrap_or(1))
    }

    fn ends(&mut self) -> (Place, Place) {
        (self.place(&Host::INSIDE, &[4000, 4001]), self.place(&Host::OUTSIDE[..2], &[80, 53]))
    }

    /// A line in the direction given by `outward`.
    fn line(kind: Kind, inside: Place, outside: Place, outward: bool) -> Line {
        let (port, src, dst) = if outward { (1, inside, outside) } else { (2, outside, inside) };
        Line::any(port, kind, src, dst)
    }

    fn tcp(&mut self) -> Line {
        let (inside, outside) = self.ends();
        let found =
            self.conversations.iter().position(|known| (known.inside, known.outside) == (inside, outside));
        let at = found.unwrap_or_else(|| {
            let next = [self.dice.below(1 << 31), self.dice.below(1 << 31)];
            self.conversations.push(Conversation { inside, outside, next });
            self.conversations.len() - 1
        });
        let mut now = self.conversations[at];
        let outward = self.dice.one_in(2);
        let (own, other) = if outward { (0, 1) } else { (1, 0) };
        let mut options = vec![("win".to_owned(), self.dice.pick(&WINDOWS).unwrap_or(1024))];
        let (mut seq, mut ack) = (now.next[own], now.next[other]);
        let flags = match self.dice.below(16) {
            0..=2 if outward => {
                // A first SYN, or one for a connection that is thought closed.
                if self.dice.one_in(3) {
                    seq = self.dice.below(u32::MAX);
                }
                now.next[own] = seq.wrapping_add(1);
                ack = 0;
                if self.dice.one_in(2) {
                    options.push(("ws".into(), self.dice.below(15)));
                }
                SYN
            }
            0..=2 => {
                now.next[own] = seq.wrapping_add(1);
                if self.dice.one_in(2) {
                    options.push(("ws".into(), self.dice.below(15)));
                }
                SYN | ACK
            }
            3..=6 => ACK,
            7..=9 => {
                let length = 1 + self.dice.below(1000);
                options.push(("len".into(), length));
                now.next[own] = seq.wrapping_add(length);
                PSH | ACK
            }
            10 => {
                now.next[own] = seq.wrapping_add(1);
                FIN | ACK
            }
            11 => RST,
            12 => {
                // A retransmission.
                seq = seq.wrapping_sub(1 + self.dice.below(100));
                options.push(("len".into(), self.dice.below(100)));
                PSH | ACK
            }
            13 => {
                // Far out of the window, on either side.
                seq = seq.wrapping_add(self.dice.below(u32::MAX));
                ACK
            }
            14 => {
                ack = ack.wrapping_add(self.dice.below(u32::MAX));
                ACK
            }
            _ => self.dice.pick(&ODD_FLAGS).unwrap_or(0),
        };
        self.conversations[at] = now;
        if options.iter().any(|(key, _)| key == "ws") {
            options[0].1 = options[0].1.min(SCALED_WINDOW);
        }
        options.push(("seq".into(), seq));
        options.push(("ack".into(), ack));
        let options = options.into_iter().map(|(key, value)| (key, value.into())).collect();
        Line { options, ..Self::line(Kind::Tcp(flags), inside, outside, outward) }
    }

    fn udp(&mut self) -> Line {
        let (inside, outside) = self.ends();
        let outward = self.dice.one_in(2);
        let mut line = Self::line(Kind::Udp, inside, outside, outward);
        line.options.push(("len".into(), self.dice.below(200).into()));
        if self.dice.one_in(20) {
            line.options.push(("udp-length".into(), self.dice.below(300).into()));
        }
        line
    }

    fn echo(&mut self) -> Line {
        let (mut inside, mut outside) = (self.ends().0, self.ends().1);
        let (asked_inside, outward) = (self.dice.below(4) != 0, self.dice.one_in(2));
        // The identifier belongs to whoever asks.
        if asked_inside {
            outside = outside.without_port();
        } else {
            inside = inside.without_port();
        }
        let kinds = if self.dice.one_in(4) {
            [Kind::Timestamp, Kind::TimestampReply]
        } else {
            [Kind::Echo, Kind::EchoReply]
        };
        Self::line(kinds[usize::from(asked_inside != outward)], inside, outside, outward)
    }

    /// A protocol without ports.
    fn other(&mut self) -> Line {
        let (mut inside, mut outside) = self.ends();
        (inside, outside) = (inside.without_port(), outside.without_port());
        let kind = if self.dice.one_in(2) { Kind::Gre } else { Kind::Esp };
        let outward = self.dice.one_in(2);
        let mut line = Self::line(kind, inside, outside, outward);
        line.options.push(("len".into(), self.dice.below(100).into()));
        line
    }

    fn error(&mut self) -> Line {
        let (inside, mut outside) = self.ends();
        let about =
            self.dice.pick(&[AboutKind::Tcp, AboutKind::Udp, AboutKind::Echo]).unwrap_or(AboutKind::Udp);
        let outward = self.dice.one_in(4);
        let router = Place::new(Host::OUTSIDE[2], 0);
        let outbound = if self.dice.one_in(2) { router } else { outside.without_port() };
        if about == AboutKind::Echo {
            outside = outside.without_port();
        }
        let (src, dst) = if outward { (outside, inside) } else { (inside, outside) };
        let kind = Kind::Error(ErrorKind::Unreachable, About { kind: about, src, dst });
        Self::line(kind, inside.without_port(), outbound, outward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_script_and_it_can_be_read_back() {
        for seed in 0..50 {
            let one = script(seed, 100, Table::Nat);
            assert_eq!(one, script(seed, 100, Table::Nat));
            let read = Script::parse("again", &one.to_string()).unwrap();
            let texts = |script: &Script| script.steps.iter().map(|s| s.step.to_string()).collect::<Vec<_>>();
            assert_eq!(texts(&read), texts(&one));
        }
    }
}
