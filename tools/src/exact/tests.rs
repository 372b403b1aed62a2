use super::*;
use crate::weir::WeirSwitch;

const FORWARD: &str = "flows forward\n";
const NAT: &str = "flows translate nat=src=10.0.0.1:5000-5001\nlet $p in 5000-5001\n";

fn failures(text: &str) -> Vec<String> {
    let script = Script::parse("s", text).unwrap();
    run(&mut WeirSwitch::start().unwrap(), &script, false).unwrap().failures
}

#[track_caller]
fn passes(text: &str) {
    assert_eq!(failures(text), [""; 0], "{text}");
}

#[track_caller]
fn fails(text: &str, part: &str) {
    let failures = failures(text);
    assert!(failures.len() == 1 && failures[0].contains(part), "{text}: {failures:#?}");
}

#[test]
fn what_is_true_passes() {
    passes(&format!(
        "{FORWARD}1 udp a:1 > x:2 len=3 new\n2 udp x:2 > a:1 len=3 est+rpl\n2 udp x:9 > a:1 new -> 10\n\
         1 udp a:1 > x:2 bad-checksum=1 inv -> 10\nconnections 1\ndump\n  \
         udp,orig=(src=192.168.0.2,dst=198.51.100.2,sport=1,dport=2),reply=(src=198.51.100.2,dst=192.168.0.2,sport=2,dport=1)\n\
         appctl dpctl/ct-get-nconns\n  1\nappctl dpctl/ct-set-maxconns x\n  *\nwait 31\nconnections 0\n"
    ));
    passes(&format!(
        "{NAT}1 tcp a:1 > x:2 S seq=1 new -> 2 10.0.0.1:$p > x:2\n2 tcp x:2 > 10.0.0.1:$p SA seq=1 ack=2 \
         est+rpl+dnat -> 1 x:2 > a:1\nlet $q\n1 udp b:1 > x:2 new -> 2 10.0.0.1:$q > x:2\n"
    ));
}

#[test]
fn a_wrong_state_fails() {
    fails(&format!("{FORWARD}1 udp a:1 > x:2 est\n"), "its state was new");
    fails(&format!("{FORWARD}1 udp a:1 > x:2 new+snat\n"), "its state was new");
    fails(&format!("{FORWARD}1 udp a:1 > x:2 untracked\n"), "its state was new");
    fails("flows\n  ip,actions=ct(table=1)\n  table=1,actions=2\n1 udp a:1 > x:2 new\n", "shows no state");
}

#[test]
fn a_wrong_zone_mark_or_label_fails() {
    let flows = "flows\n  table=0,ip,actions=ct(commit,zone=7,exec(set_field:5->ct_mark,set_field:6->ct_label),table=1)\n  \
                 table=1,actions=show,2\n";
    passes(&format!("{flows}1 udp a:1 > x:2 new zone=7 mark=5 label=6\n"));
    for wrong in ["zone=8 mark=5 label=6", "zone=7 mark=4 label=6", "zone=7 mark=5 label=7", ""] {
        fails(&format!("{flows}1 udp a:1 > x:2 new {wrong}\n"), "it had zone=7 mark=0x5 label=0x6");
    }
}

#[test]
fn a_wrong_port_fails_and_so_does_a_packet_too_many_or_too_few() {
    fails(&format!("{FORWARD}1 udp a:1 > x:2 new -> 10\n"), "left through [2]");
    fails(&format!("{FORWARD}1 udp a:1 > x:2 new -> drop\n"), "left through [2]");
    fails(&format!("{FORWARD}1 udp a:1 > x:2 new\n  -> 2\n  -> 10\n"), "left through [2]");
    fails("flows\n  actions=drop\n1 udp a:1 > x:2 new\n", "nothing left, counted as action");
    fails("flows\n  actions=2,10\n1 udp a:1 > x:2 any -> 2\n", "left through [2, 10]");
}

#[test]
fn a_drop_for_another_reason_fails() {
    passes("flows\n  actions=drop\n1 udp a:1 > x:2 -> drop action\n");
    fails("flows\n  actions=drop\n1 udp a:1 > x:2 -> drop nat_exhausted\n", "counted as action");
    fails("flows\n  actions=drop\n1 udp a:1 > x:2 -> held\n", "it was not kept, counted as action");
}

#[test]
fn a_wrong_rewrite_fails() {
    let open = format!("{NAT}1 tcp a:1 > x:2 S seq=1 new -> 2 ");
    fails(&format!("{open}10.0.0.2:$p > x:2\n"), "differs from byte");
    fails(&format!("{open}10.0.0.1:4000 > x:2\n"), "differs from byte");
    fails(&format!("{open}10.0.0.1:$p > x:3\n"), "differs from byte");
    fails(&format!("{open}10.0.0.1:$p > x:2 seq=2\n"), "differs from byte");
    fails(&format!("{open}10.0.0.1:$p > x:2 ttl=63\n"), "differs from byte");
    fails(&format!("{open}10.0.0.1:$p > x:2 len=1\n"), "differs from byte");
    fails(&format!("{NAT}1 tcp a:1 > x:2 S seq=1 new\n"), "differs from byte");
    fails(
        &format!("{open}10.0.0.1:$q > x:2\nlet $r\n1 tcp b:1 > x:2 S new -> 2 10.0.0.1:$q > x:2\n"),
        "was 500",
    );
    let out_of_range = format!("{NAT}let $p in 1-9\n1 tcp a:1 > x:2 S seq=1 new -> 2 10.0.0.1:$p > x:2\n");
    assert!(failures(&out_of_range)[0].contains("not in 1-9"));
    fails(&format!("{NAT}2 tcp x:2 > 10.0.0.1:$p S any\n"), "$p is not known yet");
}

#[test]
fn a_wrong_checksum_fails() {
    let emission = |line: &str, damage: &str, flows: &str| {
        let script = Script::parse("s", &format!("flows\n1 {line} {damage} any\n{flows}")).unwrap();
        let Step::Packet(line) = &script.steps[0].step else { panic!("a packet") };
        line.packet(false, |_, end, _| end).frame([0; 6], [0; 6])
    };
    for (line, name) in [
        ("tcp a:1 > x:2 A", "L4"),
        ("udp a6:1 > x6:2", "L4"),
        ("sctp a:1 > x:2 INIT", "L4"),
        ("echo a:1 > x", "L4"),
        ("unreachable x > a about=udp,a:1,x:2", "L4"),
    ] {
        assert_eq!(checksums(&emission(line, "", "")), None, "{line}");
        let wrong = checksums(&emission(line, "bad-checksum=1", "")).unwrap();
        assert!(wrong.ends_with(name), "{line}: {wrong}");
    }
    assert!(checksums(&emission("udp a:1 > x:2", "bad-ip-checksum=1", "")).unwrap().contains("IP"));
    let inner = emission("unreachable x > a about=udp,a:1,x:2", "inner-bad-checksum=1", "");
    assert!(checksums(&inner).unwrap().contains("inner L4"));
    // And a switch that sends one is caught, though the script says nothing of it.
    let mut switch = Careless(WeirSwitch::start().unwrap());
    let script = Script::parse("s", "flows\n  actions=2\n1 udp a:1 > x:2 any -> 2\n").unwrap();
    let failures = run(&mut switch, &script, false).unwrap().failures;
    assert!(failures[0].contains("wrong checksums: L4"), "{failures:?}");
}

/// Sends what weir sends with the UDP checksum off by one.
struct Careless(WeirSwitch);

impl Switch for Careless {
    type Error = crate::weir::WeirError;
    fn name(&self) -> &str {
        "careless"
    }
    fn load(&mut self, flows: &str) -> Result<(), Self::Error> {
        self.0.load(flows)
    }
    fn inject(&mut self, port: u32, frame: &[u8]) -> Result<Vec<Emission>, Self::Error> {
        let mut emissions = self.0.inject(port, frame)?;
        emissions.iter_mut().for_each(|emission| emission.frame[41] ^= 1);
        Ok(emissions)
    }
    fn advance(&mut self, by: std::time::Duration) -> Result<(), Self::Error> {
        self.0.advance(by)
    }
    fn connections(&mut self) -> Result<Vec<String>, Self::Error> {
        self.0.connections()
    }
    fn flows(&mut self) -> Result<Vec<String>, Self::Error> {
        self.0.flows()
    }
    fn command(&mut self, family: &str, words: &[&str]) -> Result<Result<String, String>, Self::Error> {
        self.0.command(family, words)
    }
}

#[test]
fn wrong_connections_answers_and_counters_fail() {
    let open = format!("{FORWARD}1 udp a:1 > x:2 new\n");
    fails(&format!("{open}connections 2\n"), "there are 1");
    fails(&format!("{open}dump\n"), "too many");
    fails(&format!("{open}dump\n  udp,orig=(*,*,*,*),reply=(*,*,*,*)\n  more\n"), "missing:\n    more");
    fails(&format!("{open}appctl dpctl/ct-get-nconns\n  2\n"), "it answered:\n    1");
    fails(&format!("{open}appctl dpctl/nonsense\n"), "it answered:\n    error: ");
    fails(&format!("{open}counter conntrack_created +2\n"), "it grew by 1");
    fails(&format!("{open}counter nonsense +2\n"), "no such counter");
    passes(&format!("{open}counter conntrack_created +1\ncounter conntrack_created +0\n"));
}

#[test]
fn variables_that_must_differ_and_do_not_fail() {
    let open = format!("{NAT}let $q\n1 tcp a:1 > x:2 S new -> 2 10.0.0.1:$p > x:2\n");
    fails(
        &format!("{open}1 tcp a:1 > x:2 S new+snat -> 2 10.0.0.1:$q > x:2\ndiffer $p $q\n"),
        "are both 500",
    );
    passes(&format!("{open}1 tcp b:1 > x:2 S new -> 2 10.0.0.1:$q > x:2\ndiffer $p $q\n"));
}

#[test]
fn an_excuse_counts_for_the_reference_alone_and_must_be_needed() {
    let script =
        Script::parse("s", "flows\n  actions=2\n1 udp a:1 > x:2 any -> 10\n  ovs otherwise\n").unwrap();
    assert_eq!(run(&mut WeirSwitch::start().unwrap(), &script, false).unwrap().failures.len(), 1);
    assert!(run(&mut WeirSwitch::start().unwrap(), &script, true).unwrap().failures.is_empty());
    let idle = Script::parse("s", "flows\n  actions=2\n1 udp a:1 > x:2 any -> 2\n  ovs otherwise\n").unwrap();
    let failures = run(&mut WeirSwitch::start().unwrap(), &idle, true).unwrap().failures;
    assert!(failures[0].contains("drop the line `ovs otherwise`"), "{failures:?}");
}

#[test]
fn patterns_take_variables_and_stars() {
    let mut switch = WeirSwitch::start().unwrap();
    let mut run = Run {
        switch: &mut switch,
        variables: Variables::default(),
        counted: BTreeMap::new(),
        lines: Vec::new(),
    };
    assert!(!run.matches("a=$p,b=*,c", "a=7,b=xy"));
    assert!(run.matches("a=$p,b=*,c", "a=7,b=xy,c"));
    assert!(run.matches("$p", "7"));
    assert!(!run.matches("$p", "8"));
    assert!(!run.matches("$p x", "7 y"));
}
