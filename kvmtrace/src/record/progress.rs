//! A progress bar for long work, on a terminal only.

use super::Recording;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;

/// Recordings smaller than this are read before a bar could be seen.
const WORTH_A_BAR: u64 = 8 << 20;
/// Events between two looks at the position.
const EVERY: u32 = 4096;

/// How far the reading of a recording is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    events: u32,
}

impl Progress {
    /// A bar on standard error, unless that is no terminal, or `quiet`.
    pub fn new(recording: &Recording, quiet: bool) -> Self {
        let shown = !quiet && recording.total() >= WORTH_A_BAR && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(recording.total()), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        Self { bar, events: 0 }
    }

    /// Another event was read.
    pub fn step(&mut self, recording: &Recording) {
        self.events = self.events.wrapping_add(1);
        if self.events.is_multiple_of(EVERY) {
            self.bar.set_position(recording.position());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
