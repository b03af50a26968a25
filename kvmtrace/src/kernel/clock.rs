//! The only place of the library that reads a clock.

use crate::event::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// How the kernel's monotonic clock stands to the time of day, as it was when the trace began: times within one trace
/// never jump, even when somebody sets the clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: u64,
}

fn nanoseconds(clock: ClockId) -> u64 {
    // These two clocks always exist.
    clock_gettime(clock).map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}

impl Clock {
    /// Compares the clocks.
    pub fn read() -> Self {
        let monotonic = nanoseconds(ClockId::CLOCK_MONOTONIC);
        Self { offset_ns: nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(monotonic) }
    }

    /// A kernel time as time of day.
    pub fn time(self, monotonic_ns: u64) -> Timestamp {
        Timestamp(self.offset_ns.saturating_add(monotonic_ns))
    }

    /// Now.
    pub fn now(self) -> Timestamp {
        self.time(nanoseconds(ClockId::CLOCK_MONOTONIC))
    }
}
