//! Every packet script of tests/scripts against weir, each a test of its own: `cargo nextest run --test scripts
//! tcp/window`. No device, thread or clock takes part. `tools/tests/ovs_compare.rs` runs the same ones against Open
//! vSwitch.

use libtest_mimic::{Arguments, Failed, Trial};
use weir_tools::scripts;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let trials = scripts::all()?.into_iter().map(|(name, script)| {
        let short = name.strip_prefix(scripts::DIRECTORY).unwrap_or(&name).trim_start_matches('/');
        Trial::test(short.trim_end_matches(".pkt").to_owned(), move || {
            let script = script.map_err(|error| Failed::from(error.to_string()))?;
            scripts::weir(&script).map_err(Failed::from)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit()
}
