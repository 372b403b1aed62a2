//! Every packet script of tests/scripts against weir, each a test of its own: `cargo nextest run --test scripts
//! tcp/window`. No device, thread or clock takes part. `tools/tests/ovs_compare.rs` runs the same ones against Open
//! vSwitch. Each runs three times: on one shard, and as `three-shards/...` and `three-shards-late/...` on three of which
//! every packet comes to a wrong one, steered at once or at its `ct`.

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use weir::replay::Layout;
use weir_tools::scripts;

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
            trials.push(Trial::test(format!("{prefix}{short}"), move || {
                let script = script.as_ref().as_ref().map_err(|error| Failed::from(error.to_string()))?;
                scripts::weir_divided(script, layout).map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}
