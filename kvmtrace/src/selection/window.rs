//! A stretch of a recording's time, as a trace of that time would have recorded it.

use super::moment::Moment;
use crate::event::{Event, EventKind, Timestamp};
use crate::track::rebase::{Latest, Rebase};

/// From when to when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Nothing before.
    pub since: Option<Moment>,
    /// Nothing after.
    pub until: Option<Moment>,
}

/// Events on their way through a window.
#[derive(Debug)]
pub struct Passage {
    window: Window,
    start: Option<Timestamp>,
    latest: Latest,
    rebase: Option<Rebase>,
    ended: bool,
}

impl Window {
    /// For the events of one recording, from its first on.
    pub fn passage(self) -> Passage {
        Passage { window: self, start: None, latest: Latest::default(), rebase: None, ended: false }
    }
}

impl Passage {
    /// What a trace of the window has of this event: counters count from the window's begin, and what such a trace knows at its
    /// begin comes first.
    pub fn take(&mut self, event: Event) -> Vec<Event> {
        if self.ended {
            return Vec::new();
        }
        let start = *self.start.get_or_insert(event.time);
        let at = |moment: Option<Moment>| moment.map(|moment| moment.in_recording(start));
        if let Some(until) = at(self.window.until)
            && event.time > until
        {
            self.ended = true;
            return vec![Event { time: until, kind: EventKind::Ended }];
        }
        let Some(since) = at(self.window.since) else { return vec![event] };
        if event.time < since && !matches!(event.kind, EventKind::Ended) {
            self.latest.note(&event);
            return Vec::new();
        }
        let (first, rebase) = match &self.rebase {
            Some(rebase) => (Vec::new(), rebase),
            None => (self.latest.preamble(since), &*self.rebase.insert(Rebase::new(&self.latest, since))),
        };
        first.into_iter().chain(rebase.apply(&event)).collect()
    }

    /// Nothing more passes.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}
