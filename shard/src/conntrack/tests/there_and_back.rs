//! Property: what is translated and translated back is what it was, payload, addresses, ports and all, and every
//! checksum is right on the way; also in the errors that routers and hosts of both sides send.

use core::net::IpAddr;

use proptest::prelude::*;
use weir_wire::build::PacketBuilder;
use weir_wire::header::{Ipv4, Ipv6};
use weir_wire::{ChecksumTrust, Extracted};

use super::*;

fn address(v6: bool, net: u8, host: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x20, 1, 0xd, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host])
    } else {
        IpAddr::from([10, net, 0, host])
    }
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    /// Without a checksum, which IPv4 allows.
    BareUdp,
    Sctp,
    Ping,
    Gre,
}

/// A packet of a flow; `back` for an answer. `ends` are the two sides as whoever sees the packet knows them.
fn packet(kind: Kind, ends: [(IpAddr, u16); 2], back: bool, payload: &[u8]) -> Frame {
    let [(src, src_port), (dst, dst_port)] = if back { [ends[1], ends[0]] } else { ends };
    let builder = PacketBuilder::new().ip(src, dst);
    let builder = match kind {
        Kind::Tcp => {
            let flags = if back { 0x12 } else { 0x02 };
            let (seq, ack) = if back { (500, 101) } else { (100, 0) };
            builder.tcp(src_port, dst_port).flags(flags).seq(seq).ack(ack)
        }
        Kind::Udp => builder.udp(src_port, dst_port),
        Kind::BareUdp => builder.udp(src_port, dst_port).without_udp_checksum(),
        Kind::Sctp => {
            let mut chunk = vec![if back { 2 } else { 1 }, 0, 0, 20];
            chunk.extend(if back { [0, 0, 0, 9] } else { [0, 0, 0, 8] });
            chunk.extend([0; 12]);
            builder.sctp(src_port, dst_port, if back { 8 } else { 0 }).payload(&chunk)
        }
        Kind::Ping if back => builder.echo_reply(dst_port, 1),
        Kind::Ping => builder.echo_request(src_port, 1),
        Kind::Gre => builder.protocol(47),
    };
    // TCP's SYN and SCTP's INIT carry nothing else.
    let builder = match kind {
        Kind::Tcp | Kind::Sctp => builder,
        // Of less than 8 bytes no error can be related.
        Kind::Gre => builder.payload(&[&[1; 8], payload].concat()),
        _ => builder.payload(payload),
    };
    let bytes = builder.build();
    Frame { layers: Layers::parse(&bytes), bytes }
}

fn ends_of(frame: &Frame) -> (IpAddr, IpAddr) {
    let l3 = frame.layers.l3_bytes(&frame.bytes);
    if frame.layers.is_ipv6() {
        let ip = Ipv6::new_checked(l3).unwrap();
        (ip.src().into(), ip.dst().into())
    } else {
        let ip = Ipv4::new_checked(l3).unwrap();
        (ip.src().into(), ip.dst().into())
    }
}

/// The packet that an error quotes.
fn quoted(frame: &Frame) -> Vec<u8> {
    match frame.extract() {
        Extracted::IcmpError { inner_layers, .. } => inner_layers.l3_bytes(&frame.bytes).to_vec(),
        Extracted::Packet(tuple) => panic!("no error: {tuple}"),
    }
}

/// An error of `router` about a packet that reached it as `about`.
fn error_from(router: IpAddr, about: &Frame) -> Frame {
    let kind = if router.is_ipv6() { 1 } else { 3 };
    let (sender, _) = ends_of(about);
    let bytes = PacketBuilder::new().ip(router, sender).icmp_error(kind, 1, 0, &about.bytes, 2000).build();
    Frame { layers: Layers::parse(&bytes), bytes }
}

fn nat(destination: bool, to: IpAddr, ports: Option<(u16, u16)>) -> CtAction {
    let addresses = Some(match to {
        IpAddr::V4(to) => AddressRange::V4(to, to),
        IpAddr::V6(to) => AddressRange::V6(to, to),
    });
    let range = NatRange { addresses, ports, selection: PortSelection::Default, persistent: false };
    let nat = if destination { NatAction::Destination(range) } else { NatAction::Source(range) };
    CtAction { commit: true, nat: Some(nat), ..CtAction::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn translated_there_and_back_a_packet_is_what_it_was_and_errors_quote_what_was_sent(
        v6: bool,
        kind in prop::sample::select(vec![
            Kind::Tcp, Kind::Udp, Kind::BareUdp, Kind::Sctp, Kind::Ping, Kind::Gre,
        ]),
        destination: bool,
        ports in (1u16.., 1u16..),
        range in prop::option::of((1u16.., 1u16..)),
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let kind = if v6 && kind == Kind::BareUdp { Kind::Udp } else { kind };
        let range = range.map(|(a, b)| (a.min(b), a.max(b)));
        let (client, server) = (address(v6, 1, 1), address(v6, 2, 2));
        let (public, near, far) = (address(v6, 3, 3), address(v6, 1, 9), address(v6, 2, 9));
        let has_ports = !matches!(kind, Kind::Ping | Kind::Gre);
        let ports = match kind {
            Kind::Gre => (0, 0),
            Kind::Ping => (ports.0, 0),
            _ => ports,
        };
        let mut lab = Lab::new();
        // As the client knows both ends: it calls the server by its public address if that is translated.
        let called = if destination { public } else { server };
        let to = if destination { server } else { public };
        let known_to_client = [(client, ports.0), (called, ports.1)];
        let sent = packet(kind, known_to_client, false, &payload);
        let (out, meta) = lab.send(&sent, &nat(destination, to, range));
        prop_assert_eq!(name(meta.state), if destination { "new trk dnat" } else { "new trk snat" });
        let translated = out.tuple();
        prop_assert_eq!(translated.src(), if destination { client } else { public });
        prop_assert_eq!(translated.dst(), server);
        if let (Some((min, max)), true) = (range, has_ports || kind == Kind::Ping && !destination) {
            let drawn = if destination { translated.dst_port() } else { translated.src_port() };
            prop_assert!((min..=max).contains(&drawn));
        }
        // The same packet written by somebody who knows the translated ends.
        let far_ports = if kind == Kind::Ping { 0 } else { translated.dst_port() };
        let known_to_server = [(translated.src(), translated.src_port()), (server, far_ports)];
        let expected = packet(kind, known_to_server, false, &payload);
        prop_assert_eq!(&out.bytes, &expected.bytes);

        let answer = packet(kind, known_to_server, true, &payload);
        let (back, meta) = lab.send(&answer, &apply());
        prop_assert_eq!(name(meta.state), if destination { "est rpl trk snat" } else { "est rpl trk dnat" });
        let expected = packet(kind, known_to_client, true, &payload);
        prop_assert_eq!(&back.bytes, &expected.bytes);

        // Errors about the packet on the far side, from the server and from a router there.
        for router in [server, far] {
            let (error, _) = lab.send(&error_from(router, &out), &apply());
            prop_assert!(Tuple::extract(&error.bytes, &error.layers, 0, ChecksumTrust::NONE).is_ok());
            prop_assert_eq!(quoted(&error), sent.layers.l3_bytes(&sent.bytes));
            let (src, dst) = ends_of(&error);
            prop_assert_eq!(dst, client);
            // Behind a destination translation not even a router may be seen; before it, it is who it is.
            prop_assert_eq!(src, if destination { public } else { router });
        }
        // And about the answer on the near side.
        for router in [client, near] {
            let (error, _) = lab.send(&error_from(router, &back), &apply());
            prop_assert!(Tuple::extract(&error.bytes, &error.layers, 0, ChecksumTrust::NONE).is_ok());
            prop_assert_eq!(quoted(&error), answer.layers.l3_bytes(&answer.bytes));
            let (src, dst) = ends_of(&error);
            prop_assert_eq!(dst, server);
            prop_assert_eq!(src, if destination { router } else { public });
        }
    }
}
