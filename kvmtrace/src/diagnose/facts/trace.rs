//! The trace as flows are judged by it: a flow that two send under one key is its owner's alone.

use crate::event::FlowKey;
use crate::track::{Flow, Track};
use std::collections::BTreeMap;
use std::ops::Deref;

/// Flows without what another has sent in their sender's name, by key.
pub type Owned = BTreeMap<FlowKey, Flow>;

static NONE: Owned = Owned::new();

/// The trace, with the flows of two senders in their owners' form.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    track: &'a Track,
    owned: &'a Owned,
}

impl<'a> Trace<'a> {
    /// As it was taken.
    pub fn new(track: &'a Track) -> Self {
        Self { track, owned: &NONE }
    }

    /// With flows that take the place of those of the same key.
    #[must_use]
    pub fn with(self, owned: &'a Owned) -> Self {
        Self { owned, ..self }
    }

    /// With whatever any sender put under one key.
    pub fn as_taken(self) -> &'a Track {
        self.track
    }

    /// A flow by its key.
    pub fn get(self, key: &FlowKey) -> Option<&'a Flow> {
        self.owned.get(key).or_else(|| self.track.get(key))
    }

    /// The flow and those that differ from it by their VLAN tag alone.
    pub fn variants(self, key: FlowKey) -> impl Iterator<Item = &'a Flow> {
        self.track.variants(key).map(move |flow| self.own(flow))
    }

    /// All flows, ordered by key.
    pub fn flows(self) -> impl Iterator<Item = &'a Flow> {
        self.track.flows().map(move |flow| self.own(flow))
    }

    fn own(self, flow: &'a Flow) -> &'a Flow {
        if self.owned.is_empty() { flow } else { self.owned.get(&flow.key).unwrap_or(flow) }
    }
}

impl Deref for Trace<'_> {
    type Target = Track;

    fn deref(&self) -> &Track {
        self.track
    }
}
