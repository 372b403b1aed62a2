use super::*;

#[test]
fn a_script_prints_as_it_reads() {
    let text = "# t\ntables acl nat\n1 tcp a:4000 > x:80 FS seq=1000 ws=7 new\n\
                2 unreachable r > a about=udp,a:1,x:2 rel+rpl\nwait 1.5\n1 gre b > y any\n\
                1 tcp a > x - inv\n2 icmp42 x > a inv\n\
                1 timestamp a:7 > x vlan=8197 ip-options=2 new\n1 esp a > x extension=1 new\nconnections 3\n";
    let script = Script::parse("t", text).unwrap();
    assert_eq!(script.to_string(), text);
    assert_eq!(script.tables, [Table::Acl, Table::States, Table::Nat, Table::StatesNat]);
}

#[test]
fn a_script_with_flows_prints_as_it_reads() {
    let text = "# t\nweir-only for a reason\nflows\n  table=0,actions=show,2\nlet $n in 10.0.0.1-10.0.0.9\nlet $p\n\
                1 tcp a:4000 > [2001:db8::9]:80 PA seq=1 sack=1-2,3-4 data=\"a \\\"b\\\"\\r\\n\" est mark=0x7 \
                -> 2 $n:$p > 1.2.3.4:80 len=3\n  -> 10\n  ovs may be otherwise\n\
                2 too-big r6 > a6 about=udp,a6:1,x6:2 mtu=1280 rel+rpl+dnat -> 1 r6 > c6 about=udp,c6:1,x6:2\n\
                1 sctp a:1 > x:2 INIT,ABORT.T itag=5 -> drop nat_exhausted\n1 udp a:1 > x:2 from=0 to=8 -> held\n\
                1 raw hex=0102 any\ndump -s zone=1\n  udp,orig=(...)\nappctl dpctl/flush-conntrack \"a b\"\n  error: no\n\
                counter created +2\ndiffer $p $q\n";
    assert_eq!(Script::parse("t", text).unwrap().to_string(), text);
}

#[test]
fn a_wrong_line_is_pointed_at() {
    for (text, column, part) in [
        ("1 tcp a:1 > x:2 S", 17, "the state is missing"),
        ("1 tcp a:1 > x:2 S nonsense", 19, "must be a state"),
        ("1 tcp a:1 > x:2 seq=1 -> drop", 3, "needs flags"),
        ("1 tcp a:1 > q:2 S new", 13, "no host is called q"),
        ("1 tcp a:1 > x:99999 S new", 13, "no number that fits"),
        ("1 udp a:1 > x:2 colour=1 new", 17, "unknown option colour"),
        ("1 udp a:1 > x:2 len=z new", 21, "no number that fits"),
        ("1 udp a:1 > x:2 data=\"z new", 22, "not closed"),
        ("1 udp a:1 > x:2 new old", 21, "the state stands before"),
        ("1 udp a:1 > x:2 new ->", 21, "the port is missing"),
        ("1 udp a:1 > x:2 new -> 2 x", 26, "expected SOURCE"),
        ("1 sctp a:1 > x:2 HELLO new", 18, "no SCTP chunk"),
        ("1 raw hex=012 any", 11, "even number"),
        ("2 unreachable r > a rel", 3, "needs about"),
        ("2 warble r > a rel", 3, "unknown kind"),
        ("let p", 5, "expected a variable"),
        ("let $p in 1-x", 11, "neither an address nor a port"),
        ("hello", 1, "expected a packet"),
        ("wait -1", 6, "negative"),
        ("tables", 1, "either"),
        ("tables wood", 8, "no table is called wood"),
        ("flows wood", 7, "no flows are called wood"),
        ("  -> 2", 3, "there is none"),
    ] {
        let error = Script::parse("t", text).unwrap_err();
        let at = (error.line, error.column);
        assert!(at == (1, column) && error.what.contains(part), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("t:1:{column}: ")), "{error}");
    }
}

#[test]
fn variables_are_replaced_in_places_and_payload() {
    let text = "flows\n1 tcp $n:$p > x:21 A data=\"PORT ${n.commas},${p.hi},${p.lo}\" any\n";
    let script = Script::parse("t", text).unwrap();
    let Step::Packet(line) = &script.steps[0].step else { panic!("a packet") };
    let mut variables = Variables::default();
    assert!(line.bound(&variables).is_err());
    variables.bind(Name::new("n").unwrap(), Value::Address([10, 0, 0, 1].into())).unwrap();
    variables.bind(Name::new("p").unwrap(), Value::Number(5001)).unwrap();
    let packet = line.bound(&variables).unwrap().packet(false, |_, end, _| end);
    assert_eq!(packet.data, b"PORT 10,0,0,1,19,137");
    assert_eq!(packet.src, Endpoint { address: [10, 0, 0, 1].into(), port: 5001 });
}
