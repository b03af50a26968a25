//! Flows that only the packet itself joins. Both ends are translated: a guest reaches a guest by a port that this host
//! forwards, with this host's address as the source (hairpin), or a machine of the LAN does so where this host also
//! masquerades towards its guests. Or the source alone is, on the way from one guest to another: each form is a guest's flow
//! by itself. No address and maybe no port is left to go by, so they are one flow only if the very same packet had both keys,
//! or if the flows that they answer are one: the kernel turns a connection's tuples around for its answers
//! (`nf_ct_invert_tuple`).

use super::group::{Group, untagged};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::FlowDirection;
use crate::event::{Address, FlowKey};
use crate::track::Flow;
use std::collections::{BTreeMap, BTreeSet};

/// Joins what is one: the flow as the sending guest sees it, else as the receiving one does, with its other form.
pub(in crate::diagnose) fn join<'a>(
    scene: &Scene<'a>,
    groups: &mut Vec<Group<'a>>,
    rest: &[&'a Flow],
    taken: &mut BTreeSet<FlowKey>,
) {
    let pairs = pairs(scene);
    if pairs.is_empty() {
        return;
    }
    let mut of_guests: BTreeMap<FlowKey, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        for flow in group.flows() {
            of_guests.insert(untagged(flow.key), index);
        }
    }
    let others: BTreeMap<FlowKey, &Flow> =
        rest.iter().filter(|flow| !taken.contains(&flow.key)).map(|flow| (untagged(flow.key), *flow)).collect();
    let mut absorbed = BTreeSet::new();
    for (before, after) in pairs {
        match (of_guests.get(&before).copied(), of_guests.get(&after).copied()) {
            (Some(sender), Some(receiver)) => absorbed.extend(absorb(groups, sender, receiver)),
            (Some(sender), None) => {
                adopt(groups.get_mut(sender), others.get(&after).copied(), FlowDirection::FromGuest, taken);
            }
            (None, Some(receiver)) => {
                adopt(groups.get_mut(receiver), others.get(&before).copied(), FlowDirection::ToGuest, taken);
            }
            (None, None) => {}
        }
    }
    let mut index = 0..;
    groups.retain(|_| index.next().is_none_or(|index: usize| !absorbed.contains(&index)));
}

/// The keys before and after the translation of both ends, or of the source to an address of this host.
fn pairs(scene: &Scene<'_>) -> BTreeMap<FlowKey, FlowKey> {
    let seen = scene.track.translations();
    let own = |address: Address| address.ip().is_some_and(|address| scene.is_host_address(address));
    let is_double = |before: &FlowKey, after: &FlowKey| {
        // The host's own address in place of the source: the receiver answers to it, and so by this host.
        // An address of a pool is nobody's here.
        let pool = || scene.guest_by_address(after.source).is_none();
        before.source != after.source && (before.destination != after.destination || own(after.source) || pool())
    };
    // It died before the source's turn came.
    let died_between = |before: &FlowKey, after: &FlowKey| {
        let died = |flow: &Flow| flow.places.is_empty() && !flow.drops.is_empty();
        before.source == after.source
            && before.destination != after.destination
            && scene.track.get(after).is_some_and(died)
    };
    let mut pairs: BTreeMap<FlowKey, FlowKey> = seen
        .iter()
        .copied()
        .filter(|(before, after)| is_double(before, after) || died_between(before, after))
        .collect();
    for (before, after) in seen.iter().filter(|(before, after)| is_double(before, after)) {
        pairs.entry(after.reverse()).or_insert_with(|| before.reverse());
    }
    pairs
}

/// One guest's flow to another: the sender's is told.
fn absorb(groups: &mut [Group<'_>], sender: usize, receiver: usize) -> Option<usize> {
    let is_between = |from: &&Group<'_>| from.translated.is_none() && from.direction == FlowDirection::GuestToGuest;
    let from = groups.get(sender).filter(|from| is_open(from, FlowDirection::FromGuest) || is_between(from))?;
    let to = groups.get(receiver).filter(|to| to.translated.is_none() && sender != receiver)?;
    let device = match to.direction {
        FlowDirection::ToGuest => to.device,
        FlowDirection::GuestToGuest if to.device == from.device => to.peer,
        FlowDirection::FromGuest | FlowDirection::GuestToGuest | FlowDirection::Host => None,
    }?;
    let (key, flows): (FlowKey, Vec<&Flow>) = (to.main.key, to.flows().collect());
    let from = groups.get_mut(sender)?;
    from.others.extend(flows);
    from.translated = Some(key);
    from.direction = FlowDirection::GuestToGuest;
    from.peer = Some(device);
    Some(receiver)
}

/// A guest's flow from or to beyond.
fn adopt<'a>(
    group: Option<&mut Group<'a>>,
    other: Option<&'a Flow>,
    direction: FlowDirection,
    taken: &mut BTreeSet<FlowKey>,
) {
    if let (Some(group), Some(other)) = (group.filter(|group| is_open(group, direction)), other)
        && taken.insert(other.key)
    {
        group.others.push(other);
        group.translated = Some(other.key);
    }
}

fn is_open(group: &Group<'_>, direction: FlowDirection) -> bool {
    group.translated.is_none() && group.direction == direction
}
