//! A guest's flow whose destination alone this host translates (DNAT to a machine of the LAN or to a neighbour: a service of
//! a cluster, a forwarded port). Both forms have the guest as their source, so each is the guest's flow by itself. The form
//! behind the translation never came in by the guest's interface, and the form before it never left by any device: where
//! source and port agree, they are one.
//!
//! With br_netfilter the translation happens in the bridge (`br_nf_pre_routing`), before the bridge device itself counts.

use super::group::{Group, untagged};
use crate::diagnose::report::FlowDirection;
use crate::event::{Direction, FlowKey, IfIndex, Place};
use crate::track::Flow;
use std::collections::{BTreeMap, BTreeSet};

/// Joins the two forms, and the two forms of their answers.
pub(super) fn join(groups: &mut Vec<Group<'_>>) {
    let pairs = pairs(groups);
    let mut by_key: BTreeMap<FlowKey, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        by_key.insert(untagged(group.main.key), index);
    }
    let mut absorbed = BTreeSet::new();
    for (before, after) in pairs {
        let keys = |index: usize| groups.get(index).map(|group| (untagged(group.main.key), group.translated));
        let (Some((asked, _)), Some((sent, beyond))) = (keys(before), keys(after)) else { continue };
        absorb(groups, before, after, &mut absorbed);
        // The answers come in by the last form and reach the guest by the first.
        let came = by_key.get(&sent.reverse()).or_else(|| by_key.get(&untagged(beyond?).reverse()));
        if let (Some(near), Some(far)) = (by_key.get(&asked.reverse()), came)
            && is_open_answer(groups, *near, *far)
        {
            absorb(groups, *near, *far, &mut absorbed);
        }
    }
    let mut index = 0..;
    groups.retain(|_| index.next().is_none_or(|index: usize| !absorbed.contains(&index)));
}

/// Groups before and after the translation of the destination.
fn pairs(groups: &[Group<'_>]) -> Vec<(usize, usize)> {
    let source = |flow: &Flow| (flow.key.protocol, flow.key.source, flow.key.source_port);
    let mut asked: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let flow = group.main;
        let stays = !flow.places.keys().any(|place| place.direction == Direction::Egress) && flow.drops.is_empty();
        if is_sent(group) && entered(flow, group.device) && stays && group.past.is_none() {
            asked.entry((group.device, source(flow))).or_default().push(index);
        }
    }
    let mut pairs = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let flow = group.main;
        if !is_sent(group) || flow.places.is_empty() || flow.key.source_port.is_none() || entered(flow, group.device) {
            continue;
        }
        let fits = |before: &&usize| {
            groups.get(**before).is_some_and(|before| {
                before.main.key.destination != flow.key.destination && before.main.first <= flow.first
            })
        };
        let age = |before: &&usize| {
            groups.get(**before).map_or(u64::MAX, |before| flow.first.0.saturating_sub(before.main.first.0))
        };
        let candidates = asked.get(&(group.device, source(flow))).into_iter().flatten();
        pairs.extend(candidates.filter(fits).min_by_key(age).map(|before| (*before, index)));
    }
    pairs
}

fn is_sent(group: &Group<'_>) -> bool {
    matches!(group.direction, FlowDirection::FromGuest | FlowDirection::GuestToGuest)
}

/// It was seen as it came in by the guest's own interface.
fn entered(flow: &Flow, device: Option<IfIndex>) -> bool {
    device.is_some_and(|device| flow.places.contains_key(&Place { device, direction: Direction::Ingress }))
}

/// The first is the form that the guest gets, the second one that never reached it.
fn is_open_answer(groups: &[Group<'_>], near: usize, far: usize) -> bool {
    let (Some(near), Some(far)) = (groups.get(near), groups.get(far)) else { return false };
    let reached = |group: &Group<'_>| {
        let exit = near.device.map(|device| Place { device, direction: Direction::Egress });
        exit.is_some_and(|exit| group.main.places.contains_key(&exit))
    };
    near.translated.is_none() && near.direction == FlowDirection::ToGuest && reached(near) && !reached(far)
}

/// `after` becomes the other form of `before`.
fn absorb(groups: &mut [Group<'_>], before: usize, after: usize, absorbed: &mut BTreeSet<usize>) {
    let Some(other) = groups.get(after).filter(|_| before != after && !absorbed.contains(&before)) else { return };
    let (key, translated) = (other.main.key, other.translated);
    let (direction, peer) = (other.direction, other.peer);
    let flows: Vec<&Flow> = other.flows().collect();
    let Some(group) = groups.get_mut(before).filter(|_| absorbed.insert(after)) else { return };
    group.others.extend(flows);
    group.translated = group.translated.or(translated).or(Some(key));
    if direction == FlowDirection::GuestToGuest {
        group.direction = direction;
        group.peer = peer;
    }
}
