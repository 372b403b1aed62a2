//! FTP through the whole pipeline: active and passive, both families, with and without translation.

use std::net::IpAddr;

use weir_shard::ExpectationView;
use weir_wire::header::Tcp;

use super::*;

/// `rel` packets leave a copy at port 4, `inv` ones go to port 3; everything else goes from 1 to 2 and back. What is
/// related has to show its parent's mark, label and tuple from its first packet on.
fn tables(nat: [&str; 2]) -> String {
    let mut flows = String::new();
    for (ip, tcp) in [("ip", "tcp"), ("ipv6", "tcp6")] {
        flows += &format!("table=0,{ip},ct_state=-trk,actions=ct(nat,table=1)\n");
        flows += &format!("table=1,priority=100,{ip},ct_state=+trk+inv,actions=3\n");
        for (port, other, nat) in [(1, 2, nat[0]), (2, 1, nat[1])] {
            if !nat.is_empty() && nat.contains('.') != (ip == "ip") {
                continue;
            }
            let parent = "ct_mark=7,ct_label=0x55,ct_nw_proto=6,ct_tp_src=4000,ct_tp_dst=2121";
            flows += &format!(
                "table=1,priority=90,{tcp},ct_state=+trk+new+rel,{parent},in_port={port},actions=ct(commit,nat),4,{other}
                table=1,priority=80,{tcp},ct_state=+trk+new-rel,in_port={port},actions=ct(commit,alg=ftp{nat},\
                exec(load:7->NXM_NX_CT_MARK[],load:0x55->NXM_NX_CT_LABEL[0..63])),{other}
                table=1,priority=70,{tcp},ct_state=+trk+est+rel,{parent},in_port={port},actions=4,{other}
                table=1,priority=60,{tcp},ct_state=+trk+est-rel,in_port={port},actions={other}\n"
            );
        }
    }
    flows.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    No,
    Source,
    Destination,
}

/// A client and a server with a control connection between them.
struct Session {
    bench: Bench,
    client_port: PortNumber,
    server_port: PortNumber,
    /// Client and server as they know themselves, and as the other one knows them.
    client: IpAddr,
    server: IpAddr,
    client_seen: IpAddr,
    server_seen: IpAddr,
    /// The client's port as the server knows it.
    client_seen_port: u16,
}

/// A TCP segment that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    ends: String,
    seq: u32,
    ack: u32,
    payload: String,
    options: Vec<u8>,
}

const CLIENT_ISN: u32 = u32::MAX - 20;
const SERVER_ISN: u32 = 70_000;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn packet(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    flags: u16,
    numbers: (u32, u32),
    payload: &str,
) -> PacketBuilder {
    PacketBuilder::new()
        .ip(from.0, to.0)
        .tcp(from.1, to.1)
        .flags(flags)
        .seq(numbers.0)
        .ack(numbers.1)
        .payload(payload.as_bytes())
}

fn read(frame: &[u8]) -> Segment {
    let layers = Layers::parse(frame);
    let tuple =
        Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE).expect("right checksums").lookup().to_owned();
    let tcp = Tcp::new_checked(layers.l4_bytes(frame)).unwrap();
    let bytes = layers.l4_bytes(frame);
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    Segment {
        ends: format!("{}:{} > {}:{}", tuple.src(), tuple.src_port(), tuple.dst(), tuple.dst_port()),
        seq: word(4),
        ack: word(8),
        payload: String::from_utf8(tcp.payload().to_vec()).unwrap(),
        options: bytes[20..tcp.header_len()].to_vec(),
    }
}

const PUSH: u16 = flag::PSH | flag::ACK;

impl Session {
    fn new(nat: Nat, v6: bool) -> Self {
        Self::divided(nat, v6, Layout::default())
    }

    fn divided(nat: Nat, v6: bool, layout: Layout) -> Self {
        let [inside, outside, public] = if v6 {
            ["fd00::2", "2001:db8::2", "2001:db8::ffff:1"]
        } else {
            ["192.168.0.2", "198.51.100.2", "10.0.0.9"]
        };
        let range = if v6 { format!("[{public}]") } else { public.to_owned() };
        let (source, destination) =
            (format!(",nat(src={range})"), format!(",nat(dst={})", if v6 { "[fd00::2]" } else { inside }));
        let flows = match nat {
            Nat::No => tables(["", ""]),
            Nat::Source => tables([&source, ""]),
            Nat::Destination => tables(["", &destination]),
        };
        let [inside, outside, public] = [address(inside), address(outside), address(public)];
        let (ports, [client, server, client_seen, server_seen]) = match nat {
            Nat::No => ((1, 2), [inside, outside, inside, outside]),
            Nat::Source => ((1, 2), [inside, outside, public, outside]),
            Nat::Destination => ((2, 1), [outside, inside, outside, public]),
        };
        let (client_port, server_port) = ports;
        let mut session = Self {
            bench: Bench::divided(&flows, layout),
            client_port,
            server_port,
            client,
            server,
            client_seen,
            server_seen,
            client_seen_port: 4000,
        };
        let syn = session.client_says(flag::SYN, (CLIENT_ISN, 0), "");
        let (from, _) = syn.ends.split_once(" > ").unwrap();
        session.client_seen_port = from.rsplit_once(':').unwrap().1.parse().unwrap();
        session.server_says(flag::SYN | flag::ACK, (SERVER_ISN, CLIENT_ISN.wrapping_add(1)), "");
        session.client_says(flag::ACK, (CLIENT_ISN.wrapping_add(1), SERVER_ISN + 1), "");
        session
    }

    /// What comes out at the other side, which must be all but copies for port 4.
    fn pass(&mut self, port: PortNumber, frame: &[u8]) -> (Segment, bool) {
        let sent = self.bench.send(port, frame);
        let related = sent.iter().any(|(port, _)| *port == 4);
        let out: Vec<_> = sent.iter().filter(|(port, _)| *port != 4).collect();
        assert_eq!(out.len(), 1, "{sent:?}");
        assert_eq!(out[0].0, 3 - port, "to port {}", out[0].0);
        (read(&out[0].1), related)
    }

    fn client_segment(&self, flags: u16, numbers: (u32, u32), payload: &str) -> PacketBuilder {
        packet((self.client, 4000), (self.server_seen, 2121), flags, numbers, payload)
    }

    fn server_segment(&self, flags: u16, numbers: (u32, u32), payload: &str) -> PacketBuilder {
        packet((self.server, 2121), (self.client_seen, self.client_seen_port), flags, numbers, payload)
    }

    fn client_says(&mut self, flags: u16, numbers: (u32, u32), payload: &str) -> Segment {
        let frame = self.client_segment(flags, numbers, payload).build();
        let (segment, related) = self.pass(self.client_port, &frame);
        assert!(!related);
        segment
    }

    fn server_says(&mut self, flags: u16, numbers: (u32, u32), payload: &str) -> Segment {
        let frame = self.server_segment(flags, numbers, payload).build();
        let (segment, related) = self.pass(self.server_port, &frame);
        assert!(!related);
        segment
    }

    fn expectations(&mut self) -> Vec<String> {
        let now = self.bench.0.now();
        let mut lines = Vec::new();
        let mut visit = |view: &ExpectationView| lines.push(view.to_string());
        for worker in self.bench.0.workers() {
            assert_eq!(worker.shard().dump_expectations(now, 0, 100, &mut visit), None);
        }
        lines
    }

    /// A data connection from `caller` at `port` to what was announced has to reach `target`, both ways.
    fn data(
        &mut self,
        port: PortNumber,
        caller: (IpAddr, u16),
        announced: (IpAddr, u16),
        target: (IpAddr, u16),
        seen: IpAddr,
    ) {
        let (syn, related) = self.pass(port, &packet(caller, announced, flag::SYN, (9000, 0), "").build());
        assert!(related, "the first packet is related");
        assert_eq!(syn.ends, format!("{seen}:{} > {}:{}", caller.1, target.0, target.1));
        let answer = packet(target, (seen, caller.1), flag::SYN | flag::ACK, (100, 9001), "").build();
        let (answer, related) = self.pass(3 - port, &answer);
        assert!(related);
        assert_eq!(answer.ends, format!("{}:{} > {}:{}", announced.0, announced.1, caller.0, caller.1));
        let (data, related) =
            self.pass(port, &packet(caller, announced, PUSH, (9001, 101), "PORT is data here\r\n").build());
        assert!(related);
        assert_eq!(data.payload, "PORT is data here\r\n");
    }
}

/// Every translation on one shard and on several.
fn everywhere() -> impl Iterator<Item = (Nat, Layout)> {
    let nats = [Nat::No, Nat::Source, Nat::Destination];
    nats.into_iter().flat_map(|nat| layouts().map(|layout| (nat, layout)))
}

fn commas(address: IpAddr, port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    format!("{},{high},{low}", address.to_string().replace('.', ","))
}

fn number(isn: u32, bytes: usize) -> u32 {
    isn.wrapping_add(1).wrapping_add(u32::try_from(bytes).unwrap())
}

#[test]
fn active_clients_are_called_back_over_both_families_and_any_translation() {
    for (nat, layout) in everywhere() {
        for (v6, extended) in [(false, false), (false, true), (true, true)] {
            println!("{nat:?} v6 {v6} extended {extended} {layout:?}");
            let mut session = Session::divided(nat, v6, layout);
            let (client, seen) = (session.client, session.client_seen);
            let command = |address: IpAddr| match (extended, v6) {
                (false, _) => format!("PORT {}\r\n", commas(address, 8080)),
                (true, false) => format!("EPRT |1|{address}|8080|\r\n"),
                (true, true) => format!("EPRT |2|{address}|8080|\r\n"),
            };
            let (told, wanted) = (command(client), command(seen));
            let (first, next) = (number(CLIENT_ISN, 0), number(CLIENT_ISN, told.len()));
            let there = session.client_says(PUSH, (first, SERVER_ISN + 1), &told);
            assert_eq!((there.seq, there.payload.as_str()), (first, wanted.as_str()));
            assert_eq!(session.expectations().len(), 1);
            // The server knows the edited command only, the client its own.
            let acked = number(CLIENT_ISN, wanted.len());
            let back = session.server_says(PUSH, (SERVER_ISN + 1, acked), "200 PORT\r\n");
            assert_eq!((back.seq, back.ack), (SERVER_ISN + 1, next));
            let list = session.client_says(PUSH, (next, SERVER_ISN + 11), "LIST\r\n");
            assert_eq!((list.seq, list.ack, list.payload.as_str()), (acked, SERVER_ISN + 11, "LIST\r\n"));
            // Sent once more, it is the same.
            assert_eq!(session.client_says(PUSH, (first, SERVER_ISN + 1), &told), there);

            let (server, server_seen) = (session.server, session.server_seen);
            session.data(session.server_port, (server, 20), (seen, 8080), (client, 8080), server_seen);
            assert_eq!(session.expectations(), <[&str; 0]>::default(), "it has served");
            session.bench.balance();
        }
    }
}

#[test]
fn passive_servers_are_reached_over_both_families_and_any_translation() {
    for (nat, layout) in everywhere() {
        for (v6, extended) in [(false, false), (false, true), (true, true)] {
            println!("{nat:?} v6 {v6} extended {extended} {layout:?}");
            let mut session = Session::divided(nat, v6, layout);
            let (server, seen) = (session.server, session.server_seen);
            let reply = |address: IpAddr| {
                if extended {
                    "229 Extended (|||30001|)\r\n".to_owned()
                } else {
                    format!("227 Passive ({})\r\n", commas(address, 30001))
                }
            };
            let (told, wanted) = (reply(server), reply(seen));
            let asked = number(CLIENT_ISN, 6);
            session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), "PASV\r\n");
            let there = session.server_says(PUSH, (SERVER_ISN + 1, asked), &told);
            assert_eq!(
                (there.seq, there.ack, there.payload.as_str()),
                (SERVER_ISN + 1, asked, wanted.as_str())
            );
            let list = session.client_says(PUSH, (asked, number(SERVER_ISN, wanted.len())), "LIST\r\n");
            assert_eq!((list.seq, list.ack), (asked, number(SERVER_ISN, told.len())));
            let ready = session.server_says(PUSH, (number(SERVER_ISN, told.len()), asked + 6), "150 go\r\n");
            assert_eq!((ready.seq, ready.payload.as_str()), (number(SERVER_ISN, wanted.len()), "150 go\r\n"));

            let (client, client_seen) = (session.client, session.client_seen);
            session.data(session.client_port, (client, 5555), (seen, 30001), (server, 30001), client_seen);
            assert_eq!(session.expectations(), <[&str; 0]>::default());
            session.bench.balance();
        }
    }
}

#[test]
fn selective_acknowledgements_follow_the_edits() {
    let mut session = Session::new(Nat::Source, false);
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    let wanted = format!("PORT {}\r\n", commas(session.client_seen, 8080));
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    let end = number(CLIENT_ISN, wanted.len());
    let mut options = vec![1, 5, 10];
    options.extend_from_slice(&end.to_be_bytes());
    options.extend_from_slice(&(end + 6).to_be_bytes());
    let missing =
        session.server_segment(flag::ACK, (SERVER_ISN + 1, number(CLIENT_ISN, 0)), "").tcp_options(&options);
    let (seen, _) = session.pass(session.server_port, &missing.build());
    assert_eq!(seen.ack, number(CLIENT_ISN, 0), "in front of the edit");
    let own = number(CLIENT_ISN, told.len());
    assert_eq!(seen.options[3..7], own.to_be_bytes());
    assert_eq!(seen.options[7..11], (own + 6).to_be_bytes());
}

#[test]
fn several_edits_add_up_in_both_directions() {
    let mut session = Session::new(Nat::Source, false);
    let (client, seen) = (session.client, session.client_seen);
    let (mut own, mut told) = (number(CLIENT_ISN, 0), number(CLIENT_ISN, 0));
    let mut server = SERVER_ISN + 1;
    for round in 0..20u16 {
        let port = 5000 + round * 777;
        let (sent, wanted) =
            (format!("PORT {}\r\n", commas(client, port)), format!("PORT {}\r\n", commas(seen, port)));
        let there = session.client_says(PUSH, (own, server), &sent);
        assert_eq!((there.seq, there.ack, there.payload.as_str()), (told, server, wanted.as_str()));
        own = own.wrapping_add(u32::try_from(sent.len()).unwrap());
        told = told.wrapping_add(u32::try_from(wanted.len()).unwrap());
        let back = session.server_says(PUSH, (server, told), "200\r\n");
        assert_eq!((back.seq, back.ack), (server, own));
        server += 5;
        assert!(session.expectations().len() <= 4);
    }
    assert_eq!(session.bench.0.worker().shard().companions(), 1);
}

#[test]
fn two_commands_in_one_segment_are_both_edited() {
    let mut session = Session::new(Nat::Source, false);
    let command = |address, port| format!("PORT {}\r\n", commas(address, port));
    let sent = format!("NOOP\r\n{}{}", command(session.client, 8080), command(session.client, 8081));
    let there = session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &sent);
    let seen = session.client_seen;
    assert_eq!(there.payload, format!("NOOP\r\n{}{}", command(seen, 8080), command(seen, 8081)));
    assert_eq!(session.expectations().len(), 2);
}

/// It cannot wait for its end: who sends it may wait for its acknowledgement first.
#[test]
fn a_command_that_is_cut_in_two_goes_on_announces_nothing_and_is_counted() {
    for cut in [1, 4, 5, 12, 24] {
        let mut session = Session::new(Nat::Source, false);
        let command = |address, port| format!("PORT {}\r\n", commas(address, port));
        let (whole, next) = (command(session.client, 8080), command(session.client, 8081));
        let (first, second) = whole.split_at(cut);
        for (at, piece) in [(0, first), (cut, second)] {
            let there = session.client_says(PUSH, (number(CLIENT_ISN, at), SERVER_ISN + 1), piece);
            assert_eq!((there.seq, there.payload.as_str()), (number(CLIENT_ISN, at), piece), "{cut}");
        }
        let counted = u64::from(cut > 5);
        assert_eq!(session.bench.0.worker().shard().counters().cut_control, counted, "{cut}");
        // The server may have acknowledged it: sent again as a whole it is what it was.
        let there = session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &whole);
        assert_eq!((there.seq, &there.payload), (number(CLIENT_ISN, 0), &whole), "{cut}");
        assert_eq!(session.bench.0.worker().shard().counters().cut_control, counted + 1, "{cut}");
        assert_eq!(session.expectations(), [""; 0]);
        // The next one is translated, and a piece of it that is sent again is nothing new.
        for (piece, counted) in [(&*next, counted + 1), (&next[..12], counted + 1)] {
            let there = session.client_says(PUSH, (number(CLIENT_ISN, whole.len()), SERVER_ISN + 1), piece);
            assert_eq!(there.seq, number(CLIENT_ISN, whole.len()));
            assert!(command(session.client_seen, 8081).starts_with(&there.payload), "{}", there.payload);
            assert_eq!(session.bench.0.worker().shard().counters().cut_control, counted, "{cut}");
        }
        assert_eq!(session.expectations().len(), 1);
    }
}

/// The server may have acknowledged the later segment by its own numbers, which an edit before it would change.
#[test]
fn a_command_that_a_later_segment_has_overtaken_is_not_edited() {
    let mut session = Session::new(Nat::Source, false);
    let command = |address, port| format!("PORT {}\r\n", commas(address, port));
    let late = command(session.client, 8080);
    for (at, text) in [(late.len(), "NOOP\r\n"), (0, &*late), (0, &*late), (late.len(), "NOOP\r\n")] {
        let there = session.client_says(PUSH, (number(CLIENT_ISN, at), SERVER_ISN + 1), text);
        assert_eq!((there.seq, &*there.payload), (number(CLIENT_ISN, at), text));
    }
    assert_eq!(session.bench.0.worker().shard().counters().cut_control, 2);
    assert_eq!(session.expectations(), [""; 0]);
    // What comes behind is translated, and stays so when it is sent again.
    let next = command(session.client, 8081);
    for _ in 0..2 {
        let there = session.client_says(PUSH, (number(CLIENT_ISN, late.len() + 6), SERVER_ISN + 1), &next);
        assert_eq!(there.payload, command(session.client_seen, 8081));
    }
    assert_eq!(session.expectations().len(), 1);
}

#[test]
fn a_command_that_is_cut_in_two_leaks_nothing_where_nothing_is_translated() {
    let mut session = Session::new(Nat::No, false);
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), "PORT 192,168");
    let shard = session.bench.0.worker().shard();
    assert_eq!((shard.counters().cut_control, shard.companions()), (0, 0));
}

#[test]
fn broken_control_and_somebody_elses_address_are_invalid_and_announce_nothing() {
    for nat in [Nat::No, Nat::Source] {
        for payload in [
            "PORT 192,168,0,2,31\r\n",
            "PORT 192,168,0,7,31,144\r\n",
            "EPRT |2|fd00::2|8080|\r\n",
            "EPRT |1|192.168.0.2|80800|\r\n",
            "PORT 192,168,0,2,1,1\r\nPORT 192,168,0,2,1,1\r\nPORT 192,168,0,2,1,1\r\nPORT 192,168,0,2,1,1\r\nPORT 192,168,0,2,1,1\r\n",
        ] {
            let mut session = Session::new(nat, false);
            let frame =
                session.client_segment(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), payload).build();
            let sent = session.bench.send(1, &frame);
            assert_eq!(ports(&sent), [3], "{payload:?}");
            let source = read(&sent[0].1).ends.split(':').next().unwrap().to_owned();
            assert_eq!(source, session.client_seen.to_string(), "no private address even so");
            session.bench.balance();
        }
        let mut session = Session::new(nat, false);
        let payload = "227 Passive (198,51,100,77,117,49)\r\n";
        let frame = session.server_segment(PUSH, (SERVER_ISN + 1, number(CLIENT_ISN, 0)), payload).build();
        assert_eq!(ports(&session.bench.send(2, &frame)), [3]);
        assert_eq!(session.expectations(), <[&str; 0]>::default());
        assert_eq!(session.bench.0.worker().shard().counters().broken_control, 1);
    }
}

#[test]
fn expectations_show_their_parent_and_end_with_their_time_or_with_it() {
    let mut session = Session::new(Nat::Source, false);
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    assert_eq!(
        session.expectations(),
        ["tcp,orig=(src=198.51.100.2,dst=10.0.0.9,sport=0,dport=8080),\
          parent=(src=192.168.0.2,dst=198.51.100.2,sport=4000,dport=2121),mark=7,labels=0x55,helper=ftp"]
    );
    let later = session.bench.0.now() + 60_000;
    let call = packet((session.server, 20), (session.client_seen, 8080), flag::SYN, (9000, 0), "").build();
    let sent = session.bench.send_at(later, 2, &call);
    assert_eq!(ports(&sent), [1], "new, as nobody expects it any more");
    assert_eq!(read(&sent[0].1).ends, "198.51.100.2:20 > 10.0.0.9:8080");
    assert_eq!(session.expectations(), <[&str; 0]>::default());

    let mut session = Session::new(Nat::Source, false);
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    let mut cursor = DumpCursor::default();
    let now = session.bench.0.now();
    let removed = session.bench.0.worker().shard_mut().flush(now, &mut cursor, usize::MAX, &mut |_| true);
    assert_eq!(removed, 1);
    let shard = session.bench.0.worker().shard();
    assert_eq!((shard.len(), shard.expectations(), shard.companions()), (0, 0, 0));
}

#[test]
fn data_connections_outlive_their_parent_and_leave_nothing() {
    let mut session = Session::new(Nat::Source, false);
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    let (server, client, seen) = (session.server, session.client, session.client_seen);
    session.data(2, (server, 20), (seen, 8080), (client, 8080), server);
    let more = session.bench.connections();
    assert!(
        more.iter().any(|line| line.contains("sport=20,dport=8080") && line.contains("mark=7,labels=0x55"))
    );
    let mut cursor = DumpCursor::default();
    let now = session.bench.0.now();
    let shard = session.bench.0.worker().shard_mut();
    assert_eq!(shard.flush(now, &mut cursor, usize::MAX, &mut |view| view.helper.is_some()), 1);
    let frame = packet((server, 20), (seen, 8080), PUSH, (9020, 101), "more").build();
    let (data, related) = session.pass(2, &frame);
    assert!(related && data.ends.ends_with("192.168.0.2:8080"), "{data:?}");
    session.bench.0.advance(session.bench.0.now() + 2 * 86_400_000);
    let shard = session.bench.0.worker().shard();
    assert_eq!((shard.len(), shard.expectations(), shard.companions()), (0, 0, 0));
}

#[test]
fn two_clients_behind_one_address_are_given_different_ports() {
    let mut session = Session::new(Nat::Source, false);
    let (server, seen) = (session.server, session.client_seen);
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    let other = address("192.168.0.3");
    let mut send = |port: PortNumber, from, to, flags, numbers, payload| {
        session.pass(port, &packet(from, to, flags, numbers, payload).build())
    };
    let (syn, _) = send(1, (other, 4000), (server, 2121), flag::SYN, (1, 0), "");
    let known_as: u16 = syn.ends.split([':', ' ']).nth(1).unwrap().parse().unwrap();
    assert_ne!(known_as, 4000);
    send(2, (server, 2121), (seen, known_as), flag::SYN | flag::ACK, (1, 2), "");
    let command = format!("PORT {}\r\n", commas(other, 8080));
    let (there, _) = send(1, (other, 4000), (server, 2121), PUSH, (2, 2), &command);
    assert_eq!(there.payload, format!("PORT {}\r\n", commas(seen, 8081)));
    let (again, _) = send(1, (other, 4000), (server, 2121), PUSH, (2, 2), &command);
    assert_eq!(again, there);
    let (call, related) = send(2, (server, 20), (seen, 8081), flag::SYN, (9000, 0), "");
    assert!(related);
    assert_eq!(call.ends, "198.51.100.2:20 > 192.168.0.3:8080");
    session.data(2, (server, 20), (seen, 8080), (session.client, 8080), server);
}

#[test]
fn a_retransmission_that_is_cut_differently_gives_the_same_stream() {
    let mut session = Session::new(Nat::Source, false);
    let (told, wanted) = (
        format!("PORT {}\r\n", commas(session.client, 8080)),
        format!("PORT {}\r\n", commas(session.client_seen, 8080)),
    );
    let first = number(CLIENT_ISN, 0);
    session.client_says(PUSH, (first, SERVER_ISN + 1), &told);
    for cut in 1..told.len() {
        let head = session.client_says(PUSH, (first, SERVER_ISN + 1), &told[..cut]);
        let tail = session.client_says(PUSH, (number(CLIENT_ISN, cut), SERVER_ISN + 1), &told[cut..]);
        assert_eq!(head.payload.clone() + &tail.payload, wanted, "{cut}");
        assert_eq!(tail.seq, first.wrapping_add(u32::try_from(head.payload.len()).unwrap()), "{cut}");
    }
}

#[test]
fn an_announcement_seen_in_one_ct_is_edited_in_the_one_that_translates() {
    let mut session = Session::new(Nat::Source, false);
    // Looked at first, translated afterwards, in one zone.
    session.bench.change(
        Command::Add,
        "table=0,ip,ct_state=-trk,actions=ct(table=9)\ntable=9,ip,actions=ct(nat,table=1)\n",
    );
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    let wanted = format!("PORT {}\r\n", commas(session.client_seen, 8080));
    let there = session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    assert_eq!((there.seq, there.payload.as_str()), (number(CLIENT_ISN, 0), wanted.as_str()));
    let list = session.client_says(PUSH, (number(CLIENT_ISN, told.len()), SERVER_ISN + 1), "LIST\r\n");
    assert_eq!(list.seq, number(CLIENT_ISN, wanted.len()));
}

#[test]
fn a_data_connection_that_is_translated_by_nobody_is_related_all_the_same() {
    let flows = tables(["", ""]).replace("actions=ct(commit,nat),4", "actions=ct(commit),4");
    let mut session = Session::new(Nat::No, false);
    session.bench.change(Command::Add, &flows);
    let told = format!("PORT {}\r\n", commas(session.client, 8080));
    session.client_says(PUSH, (number(CLIENT_ISN, 0), SERVER_ISN + 1), &told);
    let (server, client) = (session.server, session.client);
    session.data(2, (server, 20), (client, 8080), (client, 8080), server);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// A client's commands, sent once as clients send them, then again in any pieces and any order, some lost; with
    /// acknowledgements of whatever had arrived. All of it fits the one stream that the server is to see.
    #[test]
    fn a_control_connection_arrives_as_the_edited_stream_whatever_is_lost(
        lines in proptest::collection::vec((0u8..3, 1u16..), 1..4),
        pieces in proptest::collection::vec((0usize..200, 1usize..80), 1..40),
    ) {
        let mut session = Session::new(Nat::Source, false);
        let (client, seen) = (session.client, session.client_seen);
        let line = |kind: u8, address: IpAddr, port: u16| match kind {
            0 => "NOOP\r\n".to_owned(),
            1 => format!("PORT {}\r\n", commas(address, port)),
            _ => format!("EPRT |1|{address}|{port}|\r\n"),
        };
        let (mut sent, mut wanted) = (String::new(), String::new());
        // As clients send it, line by line.
        for &(kind, port) in &lines {
            let numbers = (number(CLIENT_ISN, sent.len()), SERVER_ISN + 1);
            let there = session.client_says(PUSH, numbers, &line(kind, client, port));
            proptest::prop_assert_eq!(there.seq, number(CLIENT_ISN, wanted.len()));
            proptest::prop_assert_eq!(&there.payload, &line(kind, seen, port));
            sent += &line(kind, client, port);
            wanted += &line(kind, seen, port);
        }
        for (start, length) in pieces {
            let start = start % sent.len();
            let piece = &sent[start..(start + length).min(sent.len())];
            let there = session.client_says(PUSH, (number(CLIENT_ISN, start), SERVER_ISN + 1), piece);
            let at = usize::try_from(there.seq.wrapping_sub(number(CLIENT_ISN, 0))).unwrap();
            proptest::prop_assert_eq!(&wanted[at..at + there.payload.len()], &there.payload);
            if start + piece.len() == sent.len() {
                proptest::prop_assert_eq!(at + there.payload.len(), wanted.len());
            }
            // The server acknowledges what it has, and the client understands.
            let acked = number(CLIENT_ISN, at + there.payload.len());
            let back = session.server_says(flag::ACK, (SERVER_ISN + 1, acked), "");
            let own = usize::try_from(back.ack.wrapping_sub(number(CLIENT_ISN, 0))).unwrap();
            proptest::prop_assert!(own <= sent.len());
            if own == sent.len() {
                proptest::prop_assert_eq!(at + there.payload.len(), wanted.len());
            }
        }
        session.bench.balance();
    }

    /// A client whose system cuts its commands anywhere: some go on as they are, but what the server has once received
    /// is what it receives again, under the same numbers.
    #[test]
    fn a_stream_that_is_cut_anywhere_is_one_stream_however_it_is_sent_again(
        lines in proptest::collection::vec((0u8..3, 1u16..), 1..4),
        cuts in proptest::collection::vec(1usize..60, 1..30),
        pieces in proptest::collection::vec((0usize..200, 1usize..80), 1..40),
    ) {
        let mut session = Session::new(Nat::Source, false);
        let client = session.client;
        let sent: String = lines
            .iter()
            .map(|&(kind, port)| match kind {
                0 => "NOOP\r\n".to_owned(),
                1 => format!("PORT {}\r\n", commas(client, port)),
                _ => format!("EPRT |1|{client}|{port}|\r\n"),
            })
            .collect();
        let (mut received, mut start) = (String::new(), 0);
        for cut in cuts.into_iter().cycle() {
            let end = (start + cut).min(sent.len());
            let there =
                session.client_says(PUSH, (number(CLIENT_ISN, start), SERVER_ISN + 1), &sent[start..end]);
            proptest::prop_assert_eq!(there.seq, number(CLIENT_ISN, received.len()));
            received += &there.payload;
            start = end;
            if start == sent.len() {
                break;
            }
        }
        for (start, length) in pieces {
            let start = start % sent.len();
            let piece = &sent[start..(start + length).min(sent.len())];
            let there = session.client_says(PUSH, (number(CLIENT_ISN, start), SERVER_ISN + 1), piece);
            let at = usize::try_from(there.seq.wrapping_sub(number(CLIENT_ISN, 0))).unwrap();
            proptest::prop_assert!(at + there.payload.len() <= received.len(), "{received:?}");
            proptest::prop_assert_eq!(&received[at..at + there.payload.len()], &there.payload);
        }
        session.bench.balance();
    }
}
