//! Where events come from: the kernel, a recording or a script.

use crate::event::Event;
use std::collections::VecDeque;

/// A door through which events come in.
pub trait Source {
    /// The next event; `None` after the last one. Cancel-safe: no event is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Option<Event>>> + Send;

    /// What the kernel's side has cost since it was loaded, where the kernel counts that.
    fn cost(&self) -> Option<ProgramCost> {
        None
    }
}

/// What BPF programs have cost, by the kernel's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Time spent in all of them together, in nanoseconds.
    pub nanoseconds: u64,
    /// Packets that they have seen.
    pub packets: u64,
}

/// Events that were written down before: scenarios of tests.
#[derive(Clone, Debug, Default)]
pub struct Script {
    events: VecDeque<Event>,
}

impl Script {
    /// A source of just these events.
    pub fn new(events: impl IntoIterator<Item = Event>) -> Self {
        Self { events: events.into_iter().collect() }
    }
}

impl Source for Script {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        Ok(self.events.pop_front())
    }
}
