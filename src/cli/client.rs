//! `weir ofctl`, `appctl` and `vsctl`: checks what can be checked without the daemon, reads the files that
//! arguments name, sends the command and prints the answer. Messages and exit statuses are those of Open
//! vSwitch's programs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use super::colour;
use super::{AppctlArgs, NativeArgs, OfctlArgs, VsctlArgs};
use crate::control::commands::{Action, Call, CommandError, FileArgument, RunLocal, vsctl_syntax_error};
use crate::control::output::Output;
use crate::control::protocol::{End, MAX_REQUEST_BYTES, Options, Request, SortKey};
use crate::control::{Client, ClientError, Family};

/// Exit status when the pipe that output went to was closed: what a shell shows for SIGPIPE.
pub(super) const PIPE_CLOSED: u8 = 128 + 13;

/// Runs `weir ofctl`; the exit status.
#[must_use]
pub fn ofctl(args: OfctlArgs) -> u8 {
    let complain = |message: &str| complain(Family::Ofctl, message);
    let mut words = args.words.into_iter();
    let Some(name) = words.next() else { return complain("missing command name; use --help for help") };
    let rest: Vec<String> = words.collect();
    if name == "help" {
        return print(&Family::Ofctl.help());
    }
    let Some(spec) = Family::Ofctl.find(&name) else { return complain(&Family::Ofctl.unknown(&name)) };
    if let Some(error) = spec.count_error(Family::Ofctl, rest.len()) {
        return complain(&error);
    }
    let mut files = BTreeMap::new();
    if let Some(path) = named_file(spec.file, &rest) {
        match read_file(path) {
            Ok(content) => files.insert(path.to_owned(), content),
            Err(message) => return complain(&message),
        };
    }
    let key = |descending| move |field| SortKey { field, descending };
    let sort = args.sort.into_iter().map(key(false)).chain(args.rsort.into_iter().map(key(true)));
    let request = Request {
        command: format!("ofctl {name}"),
        args: rest,
        files,
        options: Options {
            strict: args.strict,
            no_stats: args.no_stats,
            names: args.names && !args.no_names,
            readd: args.readd,
            may_create: args.may_create,
            bare: args.bare,
            bad_csum: args.bad_csum,
            sort: sort.collect(),
        },
        json: args.target.json,
    };
    match spec.action {
        Action::Local(run) => run_here(&request, run),
        _ => {
            let flows = name == "dump-flows" && !request.json && args.color.applies();
            let paint = if flows { Some(colour::flows as Paint) } else { None };
            call_painted(Family::Ofctl, &args.target.socket, args.timeout, &request, paint)
        }
    }
}

/// Runs a command that needs no daemon.
fn run_here(request: &Request, run: RunLocal) -> u8 {
    let mut stdout = io::stdout().lock();
    let mut print = |text: &str| stdout.write_all(text.as_bytes());
    let mut output = Output::new(&mut print);
    let Request { args, files, options, json, .. } = request;
    let result = run(&Call { args, files, options, json: *json }, &mut output);
    match result.and_then(|()| Ok(output.flush()?)) {
        Ok(()) if output.warnings().is_empty() => 0,
        Ok(()) => {
            complain(Family::Ofctl, output.warnings());
            0
        }
        Err(CommandError::Gone(_)) => PIPE_CLOSED,
        Err(error) => complain(Family::Ofctl, &error.to_string()),
    }
}

/// Runs `weir appctl`; the exit status.
#[must_use]
pub fn appctl(args: AppctlArgs) -> u8 {
    let (mut words, json) = without_json(args.words, args.target.json);
    if words.is_empty() {
        return complain(
            Family::Appctl,
            "at least one non-option argument is required (use --help for help)",
        );
    }
    let name = words.remove(0);
    let request = Request { command: format!("appctl {name}"), args: words, json, ..Request::default() };
    let socket = args.target_socket.unwrap_or(args.target.socket);
    call(Family::Appctl, &socket, args.timeout, &request)
}

/// Runs `weir vsctl`; the exit status.
#[must_use]
pub fn vsctl(args: VsctlArgs) -> u8 {
    let (words, json) = without_json(args.words, args.target.json);
    if let Some(error) = vsctl_syntax_error(&words, json) {
        return complain(Family::Vsctl, &error);
    }
    let request = Request { command: "vsctl".into(), args: words, json, ..Request::default() };
    call(Family::Vsctl, &args.target.socket, args.timeout, &request)
}

/// Runs a command of one of weir's own families; the exit status.
#[must_use]
pub fn native(family: Family, args: NativeArgs) -> u8 {
    let (mut words, json) = without_json(args.words, args.target.json);
    if words.is_empty() {
        return complain(family, "missing command name; use --help for help");
    }
    let name = words.remove(0);
    if name == "help" {
        return print(&family.help());
    }
    let Some(spec) = family.find(&name) else { return complain(family, &family.unknown(&name)) };
    if let Some(error) = spec.count_error(family, words.len()) {
        return complain(family, &error);
    }
    let command = format!("{} {name}", family.name());
    let request = Request { command, args: words, json, ..Request::default() };
    call(family, &args.target.socket, args.timeout, &request)
}

/// `--json` is ours wherever it stands; everything else behind the command's name is the command's.
pub(super) fn without_json(mut words: Vec<String>, given: bool) -> (Vec<String>, bool) {
    let before = words.len();
    words.retain(|word| word != "--json");
    let found = words.len() != before;
    (words, given || found)
}

fn named_file(argument: FileArgument, args: &[String]) -> Option<&str> {
    let name = |index: usize| args.get(index).map(String::as_str);
    match argument {
        FileArgument::None => None,
        FileArgument::Path(index) => name(index),
        FileArgument::Dash(index) => name(index).filter(|name| *name == "-"),
    }
}

fn read_file(path: &str) -> Result<String, String> {
    // One byte more than fits, so that too long is noticed without reading all of it.
    let limit = u64::try_from(MAX_REQUEST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut content = Vec::new();
    let read = if path == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut content)
    } else {
        let file = std::fs::File::open(path).map_err(|error| format!("{path}: open ({})", brief(&error)))?;
        file.take(limit).read_to_end(&mut content)
    };
    read.map_err(|error| format!("{path}: read ({})", brief(&error)))?;
    if content.len() > MAX_REQUEST_BYTES {
        return Err(format!("{path}: longer than {MAX_REQUEST_BYTES} bytes; split it"));
    }
    String::from_utf8(content).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("{path}:{line}: not text (a byte that is no UTF-8)")
    })
}

pub(super) fn call(family: Family, socket: &Path, timeout: Option<u32>, request: &Request) -> u8 {
    call_painted(family, socket, timeout, request, None)
}

/// What is done to output, whole lines at a time, before it is printed.
type Paint = fn(&str) -> String;

fn call_painted(
    family: Family,
    socket: &Path,
    timeout: Option<u32>,
    request: &Request,
    paint: Option<Paint>,
) -> u8 {
    let timeout = timeout.filter(|&seconds| seconds != 0).map(|seconds| Duration::from_secs(seconds.into()));
    let mut stdout = io::stdout().lock();
    let mut print = |text: &str| match paint {
        Some(paint) => stdout.write_all(paint(text).as_bytes()),
        None => stdout.write_all(text.as_bytes()),
    };
    let end = Client::connect(socket, timeout).and_then(|mut client| client.call(request, &mut print));
    let flushed = stdout.flush();
    match (end, flushed) {
        (Err(ClientError::Output(error)), _) | (Ok(_), Err(error)) => {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return PIPE_CLOSED;
            }
            complain(family, &format!("cannot write the output: {error}"))
        }
        (Err(error), _) => complain(family, &error.to_string()),
        (Ok(end), Ok(())) => {
            if !end.stderr.is_empty() {
                report(family, socket, &end);
            }
            end.exit
        }
    }
}

/// A command's message, as its program would have put it.
fn report(family: Family, socket: &Path, end: &End) {
    let mut stderr = io::stderr().lock();
    let message = &end.stderr;
    let _ = match family {
        Family::Appctl if end.exit != 0 => {
            writeln!(stderr, "{message}\nweir appctl: {}: server returned an error", socket.display())
        }
        _ => writeln!(stderr, "weir {}: {message}", family.name()),
    };
}

/// Prints an error of the client's own; the exit status, 1 in every family.
pub(super) fn complain(family: Family, message: &str) -> u8 {
    let _ = writeln!(io::stderr(), "weir {}: {message}", family.name());
    1
}

pub(super) fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => PIPE_CLOSED,
    }
}

/// The system's words without Rust's "(os error N)".
fn brief(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}
