//! Any text as a configuration: a configuration or an error with a place, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = weir::config::parse(text, Path::new("/etc/weir/weir.toml")) {
        assert!(!error.to_string().is_empty());
    }
});
