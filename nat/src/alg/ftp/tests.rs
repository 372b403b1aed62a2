use proptest::prelude::*;

use super::*;

/// Text, address and port of each.
type Found = Vec<Result<(String, Option<String>, u16), Broken>>;

fn read(text: &str, side: Side) -> Found {
    announcements(text.as_bytes(), side)
        .map(|found| {
            found.map(|it| {
                (text[it.range.clone()].to_owned(), it.address.map(|address| address.to_string()), it.port)
            })
        })
        .collect()
}

fn one(range: &str, address: &str, port: u16) -> Found {
    let address = (!address.is_empty()).then(|| address.to_owned());
    vec![Ok((range.to_owned(), address, port))]
}

#[test]
fn port_is_read_in_any_case_and_with_any_number_of_spaces() {
    for text in ["PORT 192,168,0,2,31,144\r\n", "port  192,168,0,2,31,144\n"] {
        assert_eq!(read(text, Side::Client), one("192,168,0,2,31,144", "192.168.0.2", 8080));
    }
    assert_eq!(
        read("PORT 192,168,0,2,031,144\r\n", Side::Client),
        one("192,168,0,2,031,144", "192.168.0.2", 8080)
    );
}

#[test]
fn a_port_that_announces_nothing_is_broken() {
    for text in [
        "PORT\r\n",
        "PORT \r\n",
        "PORT 1\r\n",
        "PORT 192,168,0,2,31\r\n",
        "PORT 192,168,0,2,31,256\r\n",
        "PORT 300,168,0,2,31,144\r\n",
        "PORT 192,168,0,2,31,1444\r\n",
        "PORT 192.168.0.2.31.144\r\n",
        "PORT 192, 168,0,2,31,144\r\n",
        "PORT a,b,c,d,e,f\r\n",
        "PORT ,,,,,\r\n",
    ] {
        assert_eq!(read(text, Side::Client), [Err(Broken)], "{text:?}");
    }
}

#[test]
fn other_commands_cut_lines_and_port_0_announce_nothing() {
    for text in [
        "",
        "\r\n",
        "NOOP\r\n",
        "PORTAL 192,168,0,2,31,144\r\n",
        "xPORT 192,168,0,2,31,144\r\n",
        "PORT 192,168,0,2,31,144",
        "PORT 192,168,0,2,0,0\r\n",
        "EPRT |1|192.168.0.2|0|\r\n",
        "227 (192,168,0,2,31,144)\r\n",
        "PASV\r\n",
        "EPSV\r\n",
    ] {
        assert_eq!(read(text, Side::Client), [], "{text:?}");
    }
}

#[test]
fn passive_replies_are_found_however_servers_wrap_them() {
    for text in [
        "227 Entering Passive Mode (198,51,100,2,117,49).\r\n",
        "227 Entering Passive Mode 198,51,100,2,117,49\r\n",
        "227 =198,51,100,2,117,49\r\n",
        "227 Mode 7 of 9, as you wish (198,51,100,2,117,49)\r\n",
        "227-Entering Passive Mode (198,51,100,2,117,49)\r\n",
    ] {
        assert_eq!(read(text, Side::Server), one("198,51,100,2,117,49", "198.51.100.2", 30001), "{text:?}");
    }
    for text in ["227 foo\r\n", "227 (198,51,100,2,117)\r\n", "227 (198,51,100,2,117,490)\r\n", "227 \r\n"] {
        assert_eq!(read(text, Side::Server), [Err(Broken)], "{text:?}");
    }
    for text in
        ["227-foo\r\n", "2270 (198,51,100,2,117,49)\r\n", "227 (198,51,100,2,117,49)", "PORT 1,2,3,4,5,6\r\n"]
    {
        assert_eq!(read(text, Side::Server), [], "{text:?}");
    }
}

#[test]
fn extended_commands_take_any_delimiter_and_both_families() {
    for text in ["EPRT |1|192.168.0.2|8080|\r\n", "eprt !1!192.168.0.2!8080!\r\n"] {
        let range = &text[8..text.len() - 3];
        assert_eq!(read(text, Side::Client), one(range, "192.168.0.2", 8080), "{text:?}");
    }
    let text = "EPRT |2|fd00:0:0:0:0:0:0:2|8080|\r\n";
    assert_eq!(read(text, Side::Client), one("fd00:0:0:0:0:0:0:2|8080", "fd00::2", 8080));
    for text in [
        "EPRT\r\n",
        "EPRT |2|fd00::2|80800|\r\n",
        "EPRT |2|fd00::2|\r\n",
        "EPRT |2|fd00::2|8080\r\n",
        "EPRT |1|fd00::2|8080|\r\n",
        "EPRT |2|192.168.0.2|8080|\r\n",
        "EPRT |3|192.168.0.2|8080|\r\n",
        "EPRT |2|fd00::2%eth0|8080|\r\n",
        "EPRT 11119211681012|8080|\r\n",
        "EPRT |2|\u{e4}|8080|\r\n",
    ] {
        assert_eq!(read(text, Side::Client), [Err(Broken)], "{text:?}");
    }
}

#[test]
fn extended_passive_replies_name_a_port_alone() {
    for text in [
        "229 Entering Extended Passive Mode (|||30001|)\r\n",
        "229 Entering Extended Passive Mode (!!!30001!)\r\n",
        "229 Wait... here: |||30001|\r\n",
    ] {
        assert_eq!(read(text, Side::Server), one("30001", "", 30001), "{text:?}");
    }
    for text in ["229 (|||99999|)\r\n", "229 (|||30001)\r\n", "229 (|||3000a|)\r\n", "229 (|||300010|)\r\n"] {
        assert_eq!(read(text, Side::Server), [Err(Broken)], "{text:?}");
    }
    for text in ["229 nothing\r\n", "229 (|||0|)\r\n", "229 (|1||30001|)\r\n"] {
        assert_eq!(read(text, Side::Server), [], "{text:?}");
    }
}

#[test]
fn every_whole_line_of_a_segment_is_read() {
    let text = "NOOP\r\nPORT 1,2,3,4,5,6\r\nLIST\r\nEPRT |1|1.2.3.4|7|\r\nPORT 1,2,3,4";
    let found: Vec<_> = announcements(text.as_bytes(), Side::Client).map(Result::unwrap).collect();
    assert_eq!(
        found.iter().map(|it| &text[it.range.clone()]).collect::<Vec<_>>(),
        ["1,2,3,4,5,6", "1.2.3.4|7"]
    );
}

#[test]
fn a_replacement_keeps_the_form_and_is_refused_where_the_form_cannot_carry_it() {
    let first = |text: &str, side| announcements(text.as_bytes(), side).next().unwrap().unwrap();
    let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.9".parse().unwrap(), "2001:db8::9".parse().unwrap());
    let port = first("PORT 192,168,0,2,31,144\r\n", Side::Client);
    assert_eq!(port.text(v4, 258).unwrap().as_str(), "10,0,0,9,1,2");
    assert_eq!(port.text(v6, 258), None);
    let extended = first("EPRT !2!fd00::2!8080!\r\n", Side::Client);
    assert_eq!(extended.text(v6, 9).unwrap().as_str(), "2001:db8::9!9");
    assert_eq!(extended.text(v4, 9), None);
    let passive = first("229 (|||30001|)\r\n", Side::Server);
    assert_eq!(passive.text(v6, 65535).unwrap().as_str(), "65535");
    let longest: IpAddr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
    assert_eq!(extended.text(longest, 65535).unwrap().len(), 45);
}

#[test]
fn a_line_that_breaks_off_is_unfinished_if_it_may_announce_something() {
    for (payload, side, wanted) in [
        ("PORT 1", Side::Client, Some((0, true))),
        ("NOOP\r\nport 192,168,0,2,19,13", Side::Client, Some((6, true))),
        ("PORT 192,168,0,2,19,137\r", Side::Client, Some((0, true))),
        ("EPRT |1|192.168.0.2|50", Side::Client, Some((0, true))),
        ("227 Entering Passive Mode (192,", Side::Server, Some((0, true))),
        ("229-Extended (|||70", Side::Server, Some((0, true))),
        ("PORT ", Side::Client, Some((0, false))),
        ("p", Side::Client, Some((0, false))),
        ("227 Entering Passive Mode (", Side::Server, Some((0, false))),
        ("220 hello\r\n22", Side::Server, Some((11, false))),
        // No such command, the other side's, and the whole of it.
        ("PASV", Side::Client, None),
        ("PORTAL 9", Side::Client, None),
        ("PORT 192,168", Side::Server, None),
        ("227 (192,168", Side::Client, None),
        ("RETR 227 9", Side::Client, None),
        ("PORT 192,168,0,2,19,137\r\n", Side::Client, None),
        ("PORT 192,168,0,2,19,137\r\nLIST", Side::Client, None),
        ("", Side::Client, None),
    ] {
        let wanted = wanted.map(|(start, has_address)| Unfinished { start, has_address });
        assert_eq!(unfinished(payload.as_bytes(), side), wanted, "{payload:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm_and_ranges_lie_inside_in_order(
        payload in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"PORTEpasv 0123456789,|().:\r\n27-".to_vec())], 0..300),
        server: bool,
    ) {
        let mut end = 0;
        for found in announcements(&payload, if server { Side::Server } else { Side::Client }).flatten() {
            prop_assert!(found.range.start >= end && found.range.start < found.range.end);
            prop_assert!(found.range.end <= payload.len() && found.port != 0);
            end = found.range.end;
        }
    }

    #[test]
    fn what_a_replacement_says_is_read_back(address: IpAddr, port in 1u16.., old: IpAddr) {
        let (command, side) = match (old, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => ("PORT 9,9,9,9,9,9\r\n".to_owned(), Side::Client),
            (IpAddr::V6(old), _) => (format!("EPRT |2|{old}|5|\r\n"), Side::Client),
            (IpAddr::V4(_), IpAddr::V6(_)) => ("229 (|||5|)\r\n".to_owned(), Side::Server),
        };
        let found = announcements(command.as_bytes(), side).next().unwrap().unwrap();
        if let Some(text) = found.text(address, port) {
            let mut edited = command.clone();
            edited.replace_range(found.range.clone(), &text);
            let again = announcements(edited.as_bytes(), side).next().unwrap().unwrap();
            prop_assert_eq!(again.port, port);
            prop_assert!(again.address.is_none_or(|it| it == address));
            prop_assert_eq!(&edited[again.range], text.as_str());
        } else {
            prop_assert!(old.is_ipv6() && address.is_ipv4());
        }
    }
}
