//! The dependency arrows and the other rules of the house that no compiler checks.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which packages of ours each may depend on, besides what those depend on themselves.
const ARROWS: [(&str, &[&str]); 9] = [
    ("weir-tools", &["weir"]),
    ("weir-perf", &["weir"]),
    ("weir", &["weir-shard", "weir-numa", "weir-ffi"]),
    ("weir-shard", &["weir-nat", "weir-numa"]),
    ("weir-nat", &["weir-wire"]),
    ("weir-wire", &[]),
    ("weir-numa", &[]),
    ("weir-ffi", &["dpdk-sys"]),
    ("dpdk-sys", &[]),
];

/// Packages without a line of `unsafe`, and where it may stand elsewhere.
const FORBIDS_UNSAFE: [&str; 4] = ["wire", "nat", "src", "tools"];
const MAY_BE_UNSAFE: [&str; 5] =
    ["ffi/", "numa/src/", "shard/src/table", "shard/src/mailbox", "shard/src/epoch"];

/// Packages that know neither clock nor thread nor file nor socket.
const SANS_IO: [&str; 3] = ["wire/src", "nat/src", "shard/src"];
const IO: [&str; 8] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "tracing::",
];
/// Files that are tests or models and nothing else.
const TESTS: [&str; 3] = ["/tests.rs", "/models.rs", "/loom.rs"];
/// What reads and writes capture files is handed a reader or writer, but may offer to open a path.
const SANS_IO_EXCEPT: [&str; 1] = ["wire/src/pcap"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ lies in the workspace").to_owned()
}

/// Our packages with their normal and build dependencies on one another.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let ours: BTreeSet<_> = packages.iter().map(|package| text(&package["name"])).collect();
    let arrows = |package: &Value| {
        list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .map(|dependency| text(&dependency["name"]))
            .filter(|name| ours.contains(name))
            .collect()
    };
    packages.iter().map(|package| (text(&package["name"]), arrows(package))).collect()
}

/// Everything that `name` may reach by [`ARROWS`].
fn allowed(name: &str) -> BTreeSet<String> {
    let direct = ARROWS.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
    direct.iter().flat_map(|to| allowed(to).into_iter().chain([(*to).to_owned()])).collect()
}

/// Every Rust file below `directory`, as a path from the root.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name == "target");
            let inside = fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path());
            open.extend(inside.filter(|path| !hidden(path)));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("readable")));
        }
    }
    found
}

/// The code of a line, without its comment: good enough for words that stand in no string.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|one| one == word)
}

#[test]
fn dependency_arrows_run_one_way() {
    let packages = packages();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<_> = packages.keys().cloned().collect();
    assert_eq!(found, known, "a package that ARROWS does not know, or the other way round");
    let mut wrong = Vec::new();
    for (name, dependencies) in &packages {
        let allowed = allowed(name);
        wrong.extend(dependencies.difference(&allowed).map(|other| format!("{name} -> {other}")));
    }
    assert!(wrong.is_empty(), "arrows that the design does not have: {}", wrong.join(", "));
}

#[test]
fn unsafe_code_stands_only_where_it_may() {
    for directory in FORBIDS_UNSAFE {
        let places = [format!("{directory}/src/lib.rs"), format!("{directory}/lib.rs")];
        let library = places.iter().find_map(|place| fs::read_to_string(root().join(place)).ok());
        let library = library.unwrap_or_else(|| panic!("{directory} has no lib.rs"));
        assert!(library.contains("#![forbid(unsafe_code)]"), "{directory} must forbid unsafe code");
    }
    let mut wrong = Vec::new();
    for directory in ["src", "wire", "nat", "shard", "numa", "perf", "tools"] {
        for (file, text) in sources(directory) {
            if MAY_BE_UNSAFE.iter().any(|place| file.starts_with(place)) || file.ends_with("/architecture.rs")
            {
                continue;
            }
            let uses = text.lines().enumerate().filter(|(_, line)| has_word(code(line), "unsafe"));
            wrong.extend(uses.map(|(at, line)| format!("{file}:{}: {}", at + 1, line.trim())));
        }
    }
    assert!(wrong.is_empty(), "unsafe code where none may stand:\n{}", wrong.join("\n"));
}

#[test]
fn the_sans_io_packages_read_no_clock_and_start_no_thread() {
    let mut wrong = Vec::new();
    for directory in SANS_IO {
        for (file, text) in sources(directory) {
            if SANS_IO_EXCEPT.iter().any(|place| file.starts_with(place)) {
                continue;
            }
            // Tests and models of a lock-free structure need threads.
            if TESTS.iter().any(|name| file.ends_with(name)) {
                continue;
            }
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            let product = product.split("#[cfg(all(test").next().unwrap_or_default();
            for (at, line) in product.lines().enumerate() {
                if IO.iter().any(|word| code(line).contains(word)) {
                    wrong.push(format!("{file}:{}: {}", at + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a clock, thread, file, socket or log where none may be:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_stay_small_enough_to_read() {
    let all = ["src", "wire", "nat", "shard", "ffi", "numa", "perf", "tools"];
    let large = all.into_iter().flat_map(sources).filter(|(file, text)| {
        !file.contains("/tests/") && !file.contains("/benches/") && text.len() > 40 * 1024
    });
    let large: Vec<_> = large.map(|(file, text)| format!("{file}: {} bytes", text.len())).collect();
    assert!(large.is_empty(), "files of more than 40 KiB: {}", large.join(", "));
}
