//! DPDK's log, captured: the last lines stay in memory so that an error can quote them, and every line goes on to the
//! sink the program chose. Any thread may log, lcores too (rarely); what is kept is bounded in lines and bytes.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dpdk_sys as sys;

/// Lines kept for errors to quote.
const KEPT_LINES: usize = 128;
/// Longer lines are cut: DPDK's own are under 200 bytes.
const KEPT_CHARS: usize = 512;
/// Lines an error quotes.
const QUOTED_LINES: usize = 6;

/// How bad a line of DPDK's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Emergency, alert, critical and error.
    Error,
    /// Warnings.
    Warning,
    /// Notices and information.
    Info,
    /// Debugging.
    Debug,
}

impl Severity {
    /// From DPDK's scale, syslog's plus one: 1 emergency, 4 error, 5 warning, 6 notice, 7 information, 8 debug.
    fn of_level(level: u32) -> Self {
        match level {
            0..=4 => Self::Error,
            5 => Self::Warning,
            6 | 7 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// One line of DPDK's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// How bad it is.
    pub severity: Severity,
    /// The line without its end; DPDK prefixes the component ("EAL: ...").
    pub text: String,
}

/// Receives every line of DPDK's log, on the thread that logged it.
pub type LogSink = Box<dyn Fn(&LogLine) + Send + Sync>;

#[derive(Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    /// Lines ever logged; the newest kept line has the number `total - 1`.
    total: u64,
    /// The last message did not end its line.
    open: bool,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { lines: VecDeque::new(), total: 0, open: false });
static SINK: OnceLock<LogSink> = OnceLock::new();

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A moment in the log, to ask later what was said since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// Now.
pub(crate) fn mark() -> Mark {
    Mark(kept().total)
}

/// What DPDK complained about since `mark`, oldest first and without repetitions; where it did not complain, what it
/// said at all.
pub(crate) fn complaints_since(Mark(mark): Mark) -> Vec<String> {
    let kept = kept();
    let new = usize::try_from(kept.total.saturating_sub(mark)).unwrap_or(usize::MAX).min(kept.lines.len());
    let since = || kept.lines.iter().skip(kept.lines.len() - new);
    let mut quoted: Vec<String> = Vec::new();
    let bad = since().any(|line| line.severity <= Severity::Warning);
    for line in since().filter(|line| !bad || line.severity <= Severity::Warning) {
        if !quoted.contains(&line.text) {
            quoted.push(line.text.clone());
        }
    }
    // The first complaint is the driver's, the later ones come from the layers above it.
    quoted.truncate(QUOTED_LINES);
    quoted
}

/// Takes a message of this crate into the log, for what cannot be returned (errors while dropping).
pub(crate) fn report(severity: Severity, text: &str) {
    record(severity, format!("weir-ffi: {text}\n").as_bytes());
}

fn record(severity: Severity, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut complete = Vec::new();
    {
        let mut kept = kept();
        for piece in text.split_inclusive('\n') {
            let piece_text = piece.trim_end_matches(['\n', '\r']);
            if kept.open {
                if let Some(last) = kept.lines.back_mut() {
                    let room = KEPT_CHARS.saturating_sub(last.text.chars().count());
                    last.text.extend(piece_text.chars().take(room));
                }
            } else {
                if piece_text.trim().is_empty() {
                    continue;
                }
                if kept.lines.len() == KEPT_LINES {
                    kept.lines.pop_front();
                }
                let text = piece_text.chars().take(KEPT_CHARS).collect();
                kept.lines.push_back(LogLine { severity, text });
                kept.total += 1;
            }
            kept.open = !piece.ends_with('\n');
            if !kept.open && SINK.get().is_some() {
                complete.extend(kept.lines.back().cloned());
            }
        }
    }
    // Outside the lock: the sink may log through DPDK itself.
    if let Some(sink) = SINK.get() {
        complete.iter().for_each(sink);
    }
}

extern "C" fn receive(level: u32, text: *const c_char, bytes: usize) {
    if text.is_null() || bytes == 0 {
        return;
    }
    // SAFETY: stdio calls with a buffer of `bytes` initialised bytes that lives for the call.
    let message = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), bytes) };
    // Unwinding may not enter C.
    let _ = catch_unwind(AssertUnwindSafe(|| record(Severity::of_level(level), message)));
}

/// Points DPDK's log here; called once, before EAL starts.
pub(crate) fn capture(sink: Option<LogSink>) -> std::io::Result<()> {
    if let Some(sink) = sink {
        let _ = SINK.set(sink);
    }
    // SAFETY: `receive` has the expected signature and lives as long as the program.
    if unsafe { sys::shim_log_open(Some(receive)) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the log is the process's.
    #[test]
    fn the_log_quotes_complaints_joins_pieces_and_stays_bounded() {
        let before = mark();
        record(Severity::Info, b"EAL: hello\n");
        assert_eq!(complaints_since(before), ["EAL: hello"]);
        record(Severity::Error, b"EAL: it ");
        record(Severity::Error, b"broke\nEAL: it broke\nEAL: badly\n");
        assert_eq!(complaints_since(before), ["EAL: it broke", "EAL: badly"]);
        for _ in 0..10_000 {
            record(Severity::Error, &[b'x'; 4096]);
            record(Severity::Error, b"\n");
        }
        assert!(kept().lines.len() <= KEPT_LINES);
        assert!(kept().lines.iter().all(|line| line.text.len() <= KEPT_CHARS));
        let after = mark();
        assert!(complaints_since(after).is_empty());
    }
}
