//! The README's console examples that need no root: what it shows is what the program prints. A line of dots there
//! stands for lines that it leaves out.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command of the README, and the lines that it prints there.
struct Example {
    command: String,
    output: Vec<String>,
}

/// The examples whose prompt is `$`: those with `#` are root's.
fn examples() -> Vec<Example> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md is there");
    let mut examples: Vec<Example> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines().skip_while(|line| !line.starts_with("$ ")) {
            match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => {
                    examples.push(Example { command: command.to_owned(), output: Vec::new() });
                }
                (None, Some(example)) => example.output.push(line.to_owned()),
                (None, None) => {}
            }
        }
    }
    examples
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the shell prints for all `commands`, standard error included.
fn run(commands: &str, directory: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_weir"));
    let mut path = program.parent().expect("a directory").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1; {commands}")])
        .env("PATH", path)
        .current_dir(directory)
        .output()
        .expect("a shell runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether `printed` is what `shown` says, where a line of dots stands for any lines.
fn agree(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "..." => {
            (0..=printed.len()).any(|skipped| agree(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed.first() == Some(&line.as_str()) && agree(rest, &printed[1..]),
    }
}

#[test]
fn the_console_examples_print_what_the_readme_shows() {
    let directory = std::env::temp_dir().join(format!("weir-readme-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the examples");
    let copied = run(&format!("cp -r '{}' .", root().join("examples").display()), &directory);
    assert_eq!(copied, "");
    let examples = examples();
    assert!(
        examples.iter().any(|example| example.command.starts_with("weir replay")),
        "the README has changed"
    );
    let mut before = String::new();
    let mut wrong = Vec::new();
    for Example { command, output } in examples {
        if command.starts_with("cd ") {
            before = format!("{command} && ");
            continue;
        }
        let printed = run(&format!("{before}{command}"), &directory);
        let lines: Vec<&str> = printed.lines().collect();
        // Empty lines before the end of a block belong to the README's layout.
        let shown: Vec<String> =
            output.iter().rev().skip_while(|line| line.is_empty()).cloned().collect::<Vec<_>>();
        let shown: Vec<String> = shown.into_iter().rev().collect();
        if !agree(&shown, &lines) {
            wrong.push(format!("$ {command}\nprints\n{printed}and the README shows\n{}", shown.join("\n")));
        }
    }
    // Best effort: a directory that stays behind fails nobody.
    let _ = std::fs::remove_dir_all(&directory);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
