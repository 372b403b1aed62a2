//! Finds the installed DPDK with pkg-config, compiles the shim for its inline functions and generates the bindings.
//!
//! Linking is shared, so that EAL can load every driver of the installation. What is missing ends the build with
//! the command that mends it; no release from 22.11 on is refused.

use std::env;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const MEND: &str = "on Debian and Ubuntu: apt-get install libdpdk-dev libclang-dev clang pkg-config";
const OLDEST: &str = "22.11";

/// The functions the wrapper calls; everything else of DPDK stays out of the bindings.
const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_(eal_init|eal_cleanup|strerror|version|get_tsc_hz|thread_register|thread_unregister)",
    "rte_log_(set_global_level|set_level_pattern)",
    "rte_dev_(probe|remove)",
    "rte_pktmbuf_pool_create",
    "rte_mempool_(free|avail_count|lookup)",
    "rte_eth_dev_(info_get|configure|adjust_nb_rx_tx_desc|start|stop|close|is_valid_port|socket_id|get_mtu|set_mtu)",
    "rte_eth_dev_(get_name_by_port|get_port_by_name|rss_reta_update|rss_reta_query|rss_hash_update|rss_hash_conf_get)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_(add|remove)_rx_callback|rte_free",
    "rte_eth_(macaddr_get|stats_get|stats_reset|promiscuous_enable|promiscuous_disable|promiscuous_get)",
    "rte_eth_iterator_(init|next|cleanup)",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\ndpdk-sys: {reason}\n{MEND}\n");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "shim/shim.h", "shim/shim.c"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in
        ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR", "LIBCLANG_PATH"]
    {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let library = pkg_config::Config::new()
        .atleast_version(OLDEST)
        .statik(false)
        .probe("libdpdk")
        .map_err(|e| format!("DPDK {OLDEST} or later (libdpdk) was not found.\n{e}"))?;
    // A DPDK upgraded in place must not meet bindings of the old one.
    if let Ok(directory) = pkg_config::get_variable("libdpdk", "includedir") {
        let versions = ["rte_version.h", "dpdk/rte_version.h"].map(|name| Path::new(&directory).join(name));
        // A path that is not there would rebuild every time.
        for path in versions.iter().filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    println!("cargo::metadata=version={}", library.version);
    let flags = compiler_flags()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    compile_shim(&flags)?;
    bindings(&flags)?.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

/// All of `pkg-config --cflags`: the pkg-config crate gives include paths only, and DPDK needs its `-include` and `-march`.
fn compiler_flags() -> Result<Vec<String>, Box<dyn Error>> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(program).args(["--cflags", "libdpdk"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
}

fn compile_shim(flags: &[String]) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build.file("shim/shim.c").warnings(true).extra_warnings(true).flag_if_supported("-Wno-unused-parameter");
    // The shim is DPDK's code on the packet path: optimised in every profile.
    build.opt_level(3);
    for flag in flags {
        build.flag(flag);
    }
    build
        .try_compile("weir_dpdk_shim")
        .map_err(|e| format!("the C shim does not compile with this DPDK: {e}").into())
}

fn bindings(flags: &[String]) -> Result<bindgen::Bindings, Box<dyn Error>> {
    let mut builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(true)
        .generate_comments(false)
        .derive_default(true)
        .allowlist_var("SHIM_.*")
        .allowlist_type(
            "shim_mbuf_layout|rte_eth_(conf|dev_info|stats|rss_reta_entry64|rss_conf|rxconf|txconf)",
        )
        // Reached through shim constants and functions only: their layout is none of the bindings' business.
        .blocklist_type("rte_(mbuf|mempool|device)_.*")
        .opaque_type("rte_mbuf")
        .opaque_type("rte_eth_rxtx_callback")
        .opaque_type("rte_mempool")
        .opaque_type("rte_device");
    for pattern in FUNCTIONS {
        builder = builder.allowlist_function(*pattern);
    }
    // bindgen panics where libclang cannot be opened; the panic's text has been printed by then.
    catch_unwind(AssertUnwindSafe(move || builder.generate()))
        .map_err(|_| "libclang could not be loaded; the bindings are generated with it.")?
        .map_err(|e| format!("the bindings could not be generated: {e}").into())
}
