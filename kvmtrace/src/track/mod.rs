//! Which events belong together: flows, their paths, their answers, their drops.
#![forbid(unsafe_code)]

use crate::event::Event;

/// Everything known of the trace so far.
#[derive(Debug, Default)]
pub struct Track {}

impl Track {
    /// Takes one event in.
    pub fn apply(&mut self, _event: &Event) {}
}
