//! The shard's own time, made from the clock readings that callers hand in. It never runs backwards and never
//! leaps further than any connection lives, so that deadlines fit 32 bits whatever a capture's timestamps do.

/// Milliseconds of a monotonic clock that the caller gives.
pub type Millis = u64;

/// Milliseconds of the shard's own time; starts at 0.
pub(crate) type Moment = u64;

/// log2 of the milliseconds in a tick, the unit in which deadlines are stored: 16 ms.
const TICK_SHIFT: u32 = 4;

/// The longest leap: 64 days. More than any timeout (`timeouts::LONGEST`), so a longer one makes no difference:
/// everything has expired either way.
pub(crate) const LONGEST_LEAP: Millis = 64 * 86_400_000;

/// A clock that went back by no more than this (captures merged a little out of order) is waited for; one that
/// went back further was set, and time goes on from the new reading.
const PATIENCE: Millis = 10_000;

/// Turns the caller's readings into [`Moment`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    last: Option<Millis>,
    moment: Moment,
}

impl Clock {
    /// Takes a reading.
    #[inline]
    pub(crate) fn advance(&mut self, now: Millis) -> Moment {
        match self.last {
            // All packets of a burst have the same reading.
            Some(last) if now == last => return self.moment,
            Some(last) if now > last => self.moment += (now - last).min(LONGEST_LEAP),
            Some(last) if last - now <= PATIENCE => return self.moment,
            _ => {}
        }
        self.last = Some(now);
        self.moment
    }

    /// What [`Clock::advance`] would return.
    pub(crate) fn peek(mut self, now: Millis) -> Moment {
        self.advance(now)
    }

    /// The last reading.
    pub(crate) fn reading(&self) -> Millis {
        self.last.unwrap_or(0)
    }

    /// What has to be taken from a reading to make it a moment, wrapping; it changes only when the caller's clock is
    /// set or leaps.
    pub(crate) fn origin(&self) -> u64 {
        self.reading().wrapping_sub(self.moment)
    }

    /// The moment of a reading by an [`Clock::origin`]; 0 for readings from before it.
    pub(crate) fn moment_since(origin: u64, now: Millis) -> Moment {
        u64::try_from(now.wrapping_sub(origin).cast_signed()).unwrap_or(0)
    }

    /// The moment of the last reading.
    #[inline]
    pub(crate) fn moment(&self) -> Moment {
        self.moment
    }
}

/// The tick that `moment` lies in.
#[inline]
pub(crate) const fn tick(moment: Moment) -> u64 {
    moment >> TICK_SHIFT
}

/// Milliseconds of so many ticks.
pub(crate) const fn ticks(ticks: u32) -> Millis {
    (ticks as u64) << TICK_SHIFT
}

/// When a connection ends, as 32 bits of ticks. Comparable within 397 days, which [`LONGEST_LEAP`] keeps far away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Deadline(u32);

impl Deadline {
    /// For [`Deadline::from_bits`].
    #[inline]
    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The first tick that is at least `milliseconds` after `moment`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "deadlines wrap by design")]
    pub(crate) const fn after(moment: Moment, milliseconds: u64) -> Self {
        Self((moment + milliseconds).div_ceil(1 << TICK_SHIFT) as u32)
    }

    /// True from the deadline on.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "deadlines wrap by design")]
    pub(crate) const fn is_past(self, moment: Moment) -> bool {
        self.0.wrapping_sub(tick(moment) as u32).cast_signed() <= 0
    }

    /// True if `self` comes before `other`.
    #[inline]
    pub(crate) const fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }

    /// The whole tick number, given any tick within 397 days of it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "deadlines wrap by design")]
    pub(crate) const fn near(self, reference: u64) -> u64 {
        let distance = self.0.wrapping_sub(reference as u32).cast_signed();
        reference.saturating_add_signed(distance as i64)
    }

    /// Milliseconds left at `moment`; 0 once past.
    pub(crate) const fn remaining(self, moment: Moment) -> u64 {
        (self.near(tick(moment)) << TICK_SHIFT).saturating_sub(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_waits_for_small_steps_back_and_goes_on_after_large_ones() {
        let mut clock = Clock::default();
        assert_eq!(clock.advance(1_000_000), 0);
        assert_eq!(clock.advance(1_000_500), 500);
        assert_eq!(clock.advance(1_000_400), 500);
        assert_eq!(clock.advance(1_000_600), 600);
        assert_eq!(clock.advance(10), 600);
        assert_eq!(clock.advance(20), 610);
        assert_eq!(clock.peek(30), 620);
        assert_eq!(clock.moment(), 610);
        for (reading, moment) in [(20, 610), (21, 611), (1000, 1590)] {
            assert_eq!(Clock::moment_since(clock.origin(), reading), moment);
        }
    }

    #[test]
    fn readings_from_before_the_first_are_the_beginning() {
        let mut clock = Clock::default();
        clock.advance(1_000_000);
        assert_eq!(Clock::moment_since(clock.origin(), 999_999), 0);
        assert_eq!(Clock::moment_since(clock.origin(), 1_000_007), 7);
    }

    #[test]
    fn leaps_are_cut_to_what_outlives_every_connection() {
        let mut clock = Clock::default();
        clock.advance(0);
        assert_eq!(clock.advance(u64::MAX), LONGEST_LEAP);
    }

    #[test]
    fn a_deadline_lasts_at_least_its_timeout_and_at_most_a_tick_more() {
        for start in [0u64, 1, 15, 16, 17, (u64::from(u32::MAX) << 4) - 3, 1 << 40] {
            for timeout in [0u64, 1, 16, 1000, 30_000, 86_400_000] {
                let deadline = Deadline::after(start, timeout);
                assert!(timeout == 0 || !deadline.is_past(start + timeout - 1), "{start} {timeout}");
                assert!(deadline.is_past(start + timeout + 16), "{start} {timeout}");
                let remaining = deadline.remaining(start);
                assert!(remaining >= timeout && remaining < timeout + 16, "{start} {timeout} {remaining}");
            }
        }
    }
}
