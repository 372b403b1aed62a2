//! `make demo`: the NAT example at work, every step shown as the command that anybody could type, and checked.
//! Ends with an error if anything does not come out as it must.

use std::io::IsTerminal;

use weir_tools::lab;

mod live;
mod replay;

/// Why the demonstration did not go through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Process(#[from] weir_tools::process::ProcessError),
    #[error(transparent)]
    Check(#[from] weir_tools::lab::checks::CheckError),
    #[error("{0}")]
    Unexpected(String),
    #[error("{what}: {source}")]
    File { what: String, source: std::io::Error },
}

/// Between real programs if we are root, else (or if asked for) on the capture of the repository.
pub(crate) fn run(replay: bool) -> Result<(), DemoError> {
    if replay || !lab::is_root() {
        if !replay {
            note("Without root there are no namespaces: the same tables work on a capture instead.");
        }
        return replay::run();
    }
    live::run()
}

fn styled(style: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Starts a section.
fn heading(text: &str) {
    println!("\n{}", styled("1;36", &format!("== {text}")));
}

/// Shows what is being done.
fn command(text: &str) {
    println!("{}", styled("1", &format!("$ {text}")));
}

/// Shows what came out, indented, at most `most` lines of it.
fn outcome(text: &str, most: usize) {
    for line in text.lines().take(most) {
        println!("    {line}");
    }
    let more = text.lines().count().saturating_sub(most);
    if more > 0 {
        println!("    ... and {more} more");
    }
}

/// Says what the reader should see in it.
fn note(text: &str) {
    println!("  {}", styled("32", text));
}
