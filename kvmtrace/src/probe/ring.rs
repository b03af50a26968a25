//! The ring buffer in user space, and when to look into it.

use aya::maps::{MapData, RingBuf};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Where every packet is a record, the programs don't wake this process for each: it looks by itself so often.
const RING_POLL: Duration = Duration::from_millis(5);

/// The ring, with the file descriptor that becomes readable when it has records.
pub(super) struct Ring(pub(super) RingBuf<MapData>);

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

/// When to look into a ring whose records wake nobody.
pub(super) fn ticks() -> Interval {
    let mut ticks = interval(RING_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The ring is to be looked into; never where its records wake this process.
pub(super) async fn next_look(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
