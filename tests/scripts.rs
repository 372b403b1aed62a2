//! Every packet script of tests/scripts against weir, each a test of its own: `cargo nextest run --test scripts
//! tcp/window`. No device, thread or clock takes part. `tools/tests/ovs_compare.rs` runs the same ones against Open
//! vSwitch. Each runs three times: on one shard, and as `three-shards/...` and `three-shards-late/...` on three of which
//! every packet comes to a wrong one, steered at once or at its `ct`.

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use weir::replay::Layout;
use weir_tools::scripts;

/// Scripts that name a port which one shard chooses, most of them the packet's own. A shard among several chooses
/// among the ports that bring replies home to it. They are shown as ignored.
const NAMES_A_PORT: &[&str] = &[
    "commands/flush-by-reply-tuple",
    "errors/translated-echo",
    "errors/translated-from-destination",
    "errors/translated-outward",
    "errors/translated-quoted-shortly",
    "floating-ip/both-directions",
    "floating-ip/crossing-calls",
    "ftp/active-translated",
    "ftp/cut",
    "ftp/eprt-translated",
    "ftp/ipv6-translated",
    "ftp/passive-translated",
    "ftp/port-taken",
    "ftp/selective-acknowledgements",
    "ftp/sent-again",
    "hairpin/two-zones",
    "limits/translated-and-refused",
    "limits/zone-translated",
    "nat-null/collision",
    "nat-source/extension-headers",
    "nat-source/icmp",
    "nat-source/icmp-neighbours",
    "nat-source/icmp-timestamp",
    "nat-source/icmp6",
    "nat-source/identifiers",
    "nat-source/invalid-segments",
    "nat-source/ip-options",
    "nat-source/odd-lengths",
    "nat-source/persistent",
    "nat-source/port-class-ephemeral",
    "nat-source/port-class-registered",
    "nat-source/port-class-system",
    "nat-source/port-classes",
    "nat-source/port-kept",
    "nat-source/second-translation-ignored",
    "nat-source/tables-that-forget-nat",
    "nat-source/two-rules",
    "nat-source/udp-without-checksum",
    "nat-source/udp6-range",
    "nat-source/vlan",
    "original-tuple/under-translation",
    "zones/source-here-destination-there",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut trials = Vec::new();
    for (name, script) in scripts::all()? {
        let short = name.strip_prefix(scripts::DIRECTORY).unwrap_or(&name).trim_start_matches('/');
        let short = short.trim_end_matches(".pkt");
        let script = Arc::new(script);
        for (prefix, layout) in [
            ("", Layout::default()),
            ("three-shards/", scripts::three_shards(true)),
            ("three-shards-late/", scripts::three_shards(false)),
        ] {
            let script = Arc::clone(&script);
            let chooses_otherwise = !prefix.is_empty() && NAMES_A_PORT.contains(&short);
            let trial = Trial::test(format!("{prefix}{short}"), move || {
                let script = script.as_ref().as_ref().map_err(|error| Failed::from(error.to_string()))?;
                scripts::weir_divided(script, layout).map_err(Failed::from)
            });
            trials.push(trial.with_ignored_flag(chooses_otherwise));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}
