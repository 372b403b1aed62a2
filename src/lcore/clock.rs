//! Milliseconds from the time stamp counter: one reading a burst, no system call and no division.

/// Turns time stamp counter readings into milliseconds since a common start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// Milliseconds a cycle, times 2^64.
    scale: u64,
}

impl Clock {
    /// A clock that reads 0 at `start` (in cycles) and runs at `hz` cycles a second.
    #[must_use]
    pub fn new(start: u64, hz: u64) -> Self {
        let scale = (1000u128 << 64) / u128::from(hz.max(1_000_000));
        Self { start, scale: u64::try_from(scale).unwrap_or(u64::MAX) }
    }

    /// Milliseconds at the counter reading `cycles`. A reading from before the start gives 0: the counters of
    /// two sockets may differ by a little.
    #[inline]
    #[must_use]
    pub fn milliseconds(&self, cycles: u64) -> u64 {
        ((u128::from(cycles.saturating_sub(self.start)) * u128::from(self.scale)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_cycles_is_a_thousand_milliseconds_after_a_year_too() {
        let hz = 2_600_000_000;
        let clock = Clock::new(5, hz);
        assert_eq!(clock.milliseconds(0), 0);
        let year = 365 * 86_400;
        let read = clock.milliseconds(5 + year * hz);
        assert!(read.abs_diff(year * 1000) <= 20, "{read}");
    }
}
