//! File transfers with real programs through weir: protocols that announce their data connections, which the
//! helpers must follow and translation must keep true.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::net::IpAddr;
use std::time::Duration;

use weir_tools::lab::checks::CheckError;
use weir_tools::lab::files::{Client, FileServer, Mode, OFFERED};
use weir_tools::lab::weir::Driver;
use weir_tools::lab::{self, Pair, Resolution, Weir};
use weir_tools::process;

const MEGABYTES: usize = 3_000_000;

/// The tables of this file: the control connection gets its helper (and translation, `{NAT}`), what it announces
/// comes back as related, everything else has to be established.
const HELPED: &str = "\
table=0,priority=9,arp,actions=normal
table=0,priority=9,icmp6,icmp_type=135,actions=normal
table=0,priority=9,icmp6,icmp_type=136,actions=normal
table=0,priority=5,{IP},ct_state=-trk,actions=ct(nat,table=1)
table=1,priority=9,ct_state=+trk+inv,actions=drop
table=1,in_port=1,{CONTROL},ct_state=+trk+new-rel,actions=ct(commit,alg={ALG}{NAT}),2
table=1,in_port=1,{IP},ct_state=+trk+new+rel,actions=ct(commit,nat),2
table=1,in_port=2,{IP},ct_state=+trk+new+rel,actions=ct(commit,nat),1
table=1,in_port=1,{IP},ct_state=+trk+est,actions=2
table=1,in_port=2,{IP},ct_state=+trk+est,actions=1
";

fn helped(ip: &str, control: &str, helper: &str, translation: &str) -> String {
    HELPED
        .replace("{IP}", ip)
        .replace("{CONTROL}", control)
        .replace("{ALG}", helper)
        .replace("{NAT}", translation)
}

struct Bench {
    weir: Weir,
    pair: Pair,
}

fn hold<T, E: std::fmt::Display>(checked: Result<T, E>) -> T {
    checked.unwrap_or_else(|error| panic!("{error}"))
}

impl Bench {
    fn new(driver: Driver, flows: &str) -> Self {
        let pair = hold(Pair::new(Resolution::Dynamic));
        let weir = hold(Weir::start(&pair, driver, flows));
        Self { weir, pair }
    }

    fn appctl(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["appctl"].into_iter().chain(words.iter().copied()).collect();
        hold(self.weir.ctl(&words))
    }

    fn connections(&self) -> Vec<String> {
        hold(self.weir.connections())
    }

    /// After a flush nothing is left, neither of connections nor of what was expected, and weir ends as it should.
    fn finish(mut self) {
        assert_eq!(self.appctl(&["dpctl/dump-conntrack-exp"]), "", "every expectation has served");
        self.appctl(&["dpctl/flush-conntrack"]);
        assert_eq!(self.connections(), Vec::<String>::new());
        assert_eq!(self.appctl(&["dpctl/dump-conntrack-exp"]), "");
        assert!(self.weir.is_running(), "weir has ended by itself");
        assert!(hold(self.weir.terminate()), "weir ended with an error");
    }
}

#[test]
fn ftp_try() {
    if !lab::root_or_skip() {
        return;
    }
    let bench =
        Bench::new(Driver::AfXdp, &helped("ip", "tcp,tp_dst=21", "ftp", ",nat(src=10.0.0.1-10.0.0.3)"));
    let server = hold(FileServer::ftp(&bench.pair, &bench.pair.outside, 21, MEGABYTES));
    for mode in Mode::ALL {
        println!("{mode:?}");
        let client = Client::ftp(&bench.pair, bench.pair.outside.v4, 21, mode);
        let names = client.list();
        println!("{names:?}");
        println!("{:?}", client.read(&server));
        println!("{:?}", client.write(&server, mode.command()));
        println!("{:#?}", bench.connections());
        println!("{:#?}", bench.appctl(&["dpctl/dump-conntrack-exp"]));
        bench.appctl(&["dpctl/flush-conntrack"]);
    }
    println!("{}", server.log());
    println!("{}", bench.appctl(&["coverage/show"]));
    bench.finish();
}
