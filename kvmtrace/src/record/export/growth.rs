//! How much each event adds to the sums: counters in a recording are absolute since its start, a row of a table is what is new.

use crate::event::{DropSite, Event, EventKind, FlowKey, Place, UnlistedPlace};
use crate::track::remembered::Remembered;

/// Flows at places whose counters are remembered; a report follows as many.
const PLACES: usize = 1 << 20;
/// Flows at drop sites, as above.
const SITES: usize = 1 << 18;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Counts {
    /// What these have more than `before`; all of them where a counter began anew.
    fn since(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if before.packets <= self.packets => {
                Self { packets: self.packets - before.packets, bytes: self.bytes.saturating_sub(before.bytes) }
            }
            Some(_) | None => self,
        }
    }
}

/// The counters of one trace so far.
#[derive(Debug)]
pub(super) struct Growth {
    flows: Remembered<(FlowKey, Place), Counts>,
    drops: Remembered<(FlowKey, DropSite), Counts>,
    unlisted: Remembered<UnlistedPlace, Counts>,
}

impl Default for Growth {
    fn default() -> Self {
        Self { flows: Remembered::new(PLACES), drops: Remembered::new(SITES), unlisted: Remembered::new(SITES) }
    }
}

impl Growth {
    /// What this event counts that no event before it did; `None` for events that count nothing, such as single packets.
    pub(super) fn step(&mut self, event: &Event) -> Option<Counts> {
        let (now, before) = match &event.kind {
            EventKind::Flow(sample) => {
                let now = Counts { packets: sample.counters.packets, bytes: sample.counters.bytes };
                (now, self.flows.insert((sample.flow, sample.place), now))
            }
            EventKind::Drop(sample) => {
                let now = Counts { packets: sample.packets, bytes: sample.bytes };
                (now, self.drops.insert((sample.flow, sample.site.clone()), now))
            }
            EventKind::Unlisted(unlisted) => {
                let now = Counts { packets: unlisted.packets, bytes: unlisted.bytes };
                (now, self.unlisted.insert(unlisted.place.clone(), now))
            }
            EventKind::Started(_)
            | EventKind::Host(_)
            | EventKind::Packet(_)
            | EventKind::RuleDrop(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Ended => return None,
        };
        Some(now.since(before))
    }
}
