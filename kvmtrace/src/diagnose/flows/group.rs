//! A flow with its other forms, as one verdict reports it.

use crate::diagnose::report::FlowDirection;
use crate::event::{FlowKey, IfIndex};
use crate::track::Flow;

/// A flow as one verdict will tell it.
#[derive(Debug)]
pub struct Group<'a> {
    /// The flow as its guest sees it.
    pub main: &'a Flow,
    /// The same packets under other keys.
    pub others: Vec<&'a Flow>,
    /// Its key on the other side of NAT.
    pub translated: Option<FlowKey>,
    /// Its key after a translation of the destination alone, whose answers go past this host.
    pub past: Option<FlowKey>,
    /// Which way.
    pub direction: FlowDirection,
    /// The guest's interface.
    pub device: Option<IfIndex>,
    /// The other guest's interface, between two guests.
    pub peer: Option<IfIndex>,
    /// It goes under the key of another's flow (see [`super::impostors`]).
    pub impostor: bool,
}

impl<'a> Group<'a> {
    /// All flows that it is made of.
    pub fn flows(&self) -> impl Iterator<Item = &'a Flow> {
        std::iter::once(self.main).chain(self.others.iter().copied())
    }
}

/// The key without its VLAN.
pub(in crate::diagnose) fn untagged(key: FlowKey) -> FlowKey {
    FlowKey { vlan: None, ..key }
}
