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
    "commands/flush-by-reply-tuple ... FAILED",
    "errors/translated-echo",
    "errors/translated-echo ... FAILED",
    "errors/translated-from-destination",
    "errors/translated-from-destination ... FAILED",
    "errors/translated-outward",
    "errors/translated-outward ... FAILED",
    "errors/translated-quoted-shortly",
    "errors/translated-quoted-shortly ... FAILED",
    "floating-ip/both-directions",
    "floating-ip/both-directions ... FAILED",
    "floating-ip/crossing-calls",
    "floating-ip/crossing-calls ... FAILED",
    "ftp/active-translated",
    "ftp/active-translated ... FAILED",
    "ftp/cut",
    "ftp/cut ... FAILED",
    "ftp/eprt-translated",
    "ftp/eprt-translated ... FAILED",
    "ftp/ipv6-translated",
    "ftp/ipv6-translated ... FAILED",
    "ftp/passive-translated",
    "ftp/passive-translated ... FAILED",
    "ftp/port-taken",
    "ftp/port-taken ... FAILED",
    "ftp/selective-acknowledgements",
    "ftp/selective-acknowledgements ... FAILED",
    "ftp/sent-again",
    "ftp/sent-again ... FAILED",
    "hairpin/two-zones",
    "hairpin/two-zones ... FAILED",
    "limits/translated-and-refused",
    "limits/translated-and-refused ... FAILED",
    "limits/zone-translated",
    "limits/zone-translated ... FAILED",
    "nat-null/collision",
    "nat-null/collision ... FAILED",
    "nat-source/extension-headers",
    "nat-source/extension-headers ... FAILED",
    "nat-source/icmp",
    "nat-source/icmp ... FAILED",
    "nat-source/icmp-neighbours",
    "nat-source/icmp-neighbours ... FAILED",
    "nat-source/icmp-timestamp",
    "nat-source/icmp-timestamp ... FAILED",
    "nat-source/icmp6",
    "nat-source/icmp6 ... FAILED",
    "nat-source/identifiers",
    "nat-source/identifiers ... FAILED",
    "nat-source/invalid-segments",
    "nat-source/invalid-segments ... FAILED",
    "nat-source/ip-options",
    "nat-source/ip-options ... FAILED",
    "nat-source/odd-lengths",
    "nat-source/odd-lengths ... FAILED",
    "nat-source/persistent",
    "nat-source/persistent ... FAILED",
    "nat-source/port-class-ephemeral",
    "nat-source/port-class-ephemeral ... FAILED",
    "nat-source/port-class-registered",
    "nat-source/port-class-registered ... FAILED",
    "nat-source/port-class-system",
    "nat-source/port-class-system ... FAILED",
    "nat-source/port-classes",
    "nat-source/port-classes ... FAILED",
    "nat-source/port-kept",
    "nat-source/port-kept ... FAILED",
    "nat-source/second-translation-ignored",
    "nat-source/second-translation-ignored ... FAILED",
    "nat-source/tables-that-forget-nat",
    "nat-source/tables-that-forget-nat ... FAILED",
    "nat-source/two-rules",
    "nat-source/two-rules ... FAILED",
    "nat-source/udp-without-checksum",
    "nat-source/udp-without-checksum ... FAILED",
    "nat-source/udp6-range",
    "nat-source/udp6-range ... FAILED",
    "nat-source/vlan",
    "nat-source/vlan ... FAILED",
    "original-tuple/under-translation",
    "original-tuple/under-translation ... FAILED",
    "zones/source-here-destination-there",
    "zones/source-here-destination-there ... FAILED",
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
