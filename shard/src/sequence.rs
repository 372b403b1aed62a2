//! A TCP stream with edits: texts replaced in it by others of another length, and what that does to the sequence
//! numbers behind them. One [`Stream`] follows one direction of an edited connection. Sender's numbers are those of
//! the side that wrote the stream; receiver's numbers are what the other side sees of it. The tracker, the edits and
//! everything that is kept are in sender's numbers.
//!
//! The edited stream is a function of the sender's stream alone: byte `k` of a replaced text turns into byte `k` of
//! the new text, its last byte into all that is left. So a segment gives the same bytes however often and however cut
//! it is sent again, and an acknowledgement of any receiver's number means one sender's number. All arithmetic is
//! modulo 2^32 (RFC 9293 section 3.4).

use arrayvec::ArrayVec;
use weir_nat::alg::{Edits, MAX_EDITS, Replacement, Text};

/// Edits that are remembered word by word. FTP is a dialogue: an announcement is answered before the next one is
/// made, so what is older than this was acknowledged long ago and counts with its change of length alone.
const REMEMBERED: usize = MAX_EDITS;

/// How far behind the stream an edit may lie before it is forgotten, so that it never comes up in front again when
/// numbers wrap round.
const HORIZON: u32 = 1 << 30;

/// One replacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit {
    /// Sender's number of the first byte replaced.
    start: u32,
    /// Bytes replaced, at least 1.
    old: u16,
    text: Text,
    /// The port that the text announces.
    pub(crate) port: u16,
}

/// Which of two sender's numbers a receiver's number in between stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// The last one whose byte is not complete: right for the end of what has arrived.
    Down,
    /// The first one whose byte is complete: right for the start of what has arrived.
    Up,
}

/// One direction of an edited connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// Ascending, without overlap.
    edits: ArrayVec<Edit, REMEMBERED>,
    /// What was added in front of them.
    shift: u32,
    /// Where the last piece ends that went on as it was, though its line may have had to be edited.
    passed: Option<u32>,
}

const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

impl Edit {
    const fn end(&self) -> u32 {
        self.start.wrapping_add(self.old as u32)
    }

    /// Bytes of the new text; never more than `MAX_TEXT`.
    fn added(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(0)
    }

    fn growth(&self) -> u32 {
        self.added().wrapping_sub(u32::from(self.old))
    }

    /// How much of the new text lies before byte `offset` of the old one.
    fn before(&self, offset: u32) -> u32 {
        if offset < u32::from(self.old) { offset.min(self.added()) } else { self.added() }
    }

    /// The new text of the old one's bytes from `from` to `to`.
    fn part(&self, from: u32, to: u32) -> Text {
        let at = |offset| usize::try_from(self.before(offset)).unwrap_or(usize::MAX);
        self.text.get(at(from)..at(to)).and_then(|part| Text::from(part).ok()).unwrap_or_default()
    }
}

impl Stream {
    /// The edit that begins at `start` and replaces `old` bytes, if there is one.
    pub(crate) fn edit_at(&self, start: u32, old: usize) -> Option<&Edit> {
        self.edits.iter().find(|edit| edit.start == start && usize::from(edit.old) == old)
    }

    /// True if `start` lies behind all earlier edits, where alone a stream can still be changed.
    pub(crate) fn may_edit(&self, start: u32) -> bool {
        self.edits.last().is_none_or(|last| !is_before(start, last.end()))
    }

    /// Has `text` replace `old` bytes from `start` on. False where it [may not](Self::may_edit), or if nothing is
    /// replaced.
    pub(crate) fn record(&mut self, start: u32, old: u16, text: Text, port: u16) -> bool {
        if old == 0 || !self.may_edit(start) {
            return false;
        }
        if self.edits.is_full() {
            self.forget_first();
        }
        self.edits.push(Edit { start, old, text, port });
        true
    }

    /// A piece of a line went on as it was; it ends at `end`.
    pub(crate) fn pass(&mut self, end: u32) {
        if !self.passed.is_some_and(|passed| is_before(end, passed)) {
            self.passed = Some(end);
        }
    }

    /// True if what begins at `seq` is the next of such a line.
    pub(crate) fn goes_on_at(&self, seq: u32) -> bool {
        self.passed == Some(seq)
    }

    /// True if `seq` went on as it was and must do so again.
    pub(crate) fn has_passed(&self, seq: u32) -> bool {
        self.passed.is_some_and(|passed| is_before(seq, passed))
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.edits.pop_at(0) {
            self.shift = self.shift.wrapping_add(first.growth());
        }
    }

    /// Forgets what lies far behind `seq`.
    pub(crate) fn forget_before(&mut self, seq: u32) {
        let horizon = seq.wrapping_sub(HORIZON);
        self.passed = self.passed.filter(|passed| !is_before(*passed, horizon));
        while self.edits.first().is_some_and(|first| is_before(first.end(), horizon)) {
            self.forget_first();
        }
    }

    /// The receiver's number for a sender's number.
    pub(crate) fn forward(&self, seq: u32) -> u32 {
        let mut shift = self.shift;
        for edit in &self.edits {
            if !is_before(edit.start, seq) {
                break;
            }
            if is_before(seq, edit.end()) {
                return edit
                    .start
                    .wrapping_add(shift)
                    .wrapping_add(edit.before(seq.wrapping_sub(edit.start)));
            }
            shift = shift.wrapping_add(edit.growth());
        }
        seq.wrapping_add(shift)
    }

    /// The sender's number for a receiver's number.
    pub(crate) fn backward(&self, seq: u32, round: Round) -> u32 {
        let mut shift = self.shift;
        for edit in &self.edits {
            let start = edit.start.wrapping_add(shift);
            if !is_before(start, seq) {
                break;
            }
            let (inside, old) = (seq.wrapping_sub(start), u32::from(edit.old));
            if is_before(seq, start.wrapping_add(edit.added())) {
                return match round {
                    Round::Down => edit.start.wrapping_add(inside.min(old - 1)),
                    Round::Up => edit.start.wrapping_add(inside.min(old)),
                };
            }
            shift = shift.wrapping_add(edit.growth());
        }
        seq.wrapping_sub(shift)
    }

    /// What has to change in a segment whose payload of `length` bytes begins at `seq`.
    pub(crate) fn edits_in(&self, seq: u32, length: u16) -> Edits {
        let (mut edits, length) = (Edits::new(), i64::from(length));
        for edit in &self.edits {
            // Where the edit lies in the payload, which may be partly outside.
            let start = i64::from(edit.start.wrapping_sub(seq).cast_signed());
            let (from, to) = (start.max(0), (start + i64::from(edit.old)).min(length));
            if from >= to {
                continue;
            }
            let inside = |at: i64| u32::try_from(at - start).unwrap_or(0);
            let (Ok(at), Ok(remove)) = (u16::try_from(from), u16::try_from(to - from)) else { continue };
            // There is room for as many as are remembered.
            let _ = edits.try_push(Replacement { at, remove, text: edit.part(inside(from), inside(to)) });
        }
        edits
    }
}

#[cfg(test)]
mod tests;
