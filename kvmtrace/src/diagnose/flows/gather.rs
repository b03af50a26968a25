//! All that belongs to a flow, put together as the case that the rules look at.

use super::case::Case;
use super::group::Group;
use super::{journey, noise};
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::scene::Scene;
use crate::event::{FlowKey, Protocol};
use crate::track::{Flow, IcmpError};

/// The case of a group, with the ICMP errors about it.
pub fn gather<'a>(
    scene: &'a Scene<'a>,
    layer2: &'a Layer2,
    group: &'a Group<'a>,
    errors: Vec<&'a IcmpError>,
) -> Case<'a> {
    let mut case = Case {
        scene,
        layer2,
        group,
        answers: answers(scene, group),
        errors,
        drops: Vec::new(),
        focus: None,
        hops: Vec::new(),
    };
    case.drops = group
        .flows()
        .flat_map(|flow| flow.drops.iter().map(move |(site, totals)| Dropped { flow, site, totals }))
        .filter(|drop| drop.totals.packets > 0 && !noise::is_noise(&case, drop))
        .collect();
    case.drops.sort_by_key(|drop| (std::cmp::Reverse(drop.totals.packets), drop.totals.first, drop.site));
    case.hops = journey::hops(&case);
    case
}

fn answers<'a>(scene: &Scene<'a>, group: &Group<'a>) -> Vec<&'a Flow> {
    let mut answers: Vec<&Flow> = group.flows().filter_map(|flow| scene.track.get(&flow.key.reverse())).collect();
    if let Some(translated) = group.translated {
        answers.extend(scene.track.get(&translated.reverse()));
    }
    let key = group.main.key;
    let untagged = FlowKey { vlan: None, ..key }.reverse();
    if key.vlan.is_some() {
        answers.extend(scene.track.get(&untagged));
    }
    if let (Protocol::Icmpv6 { kind: 135, .. }, Some(target)) = (key.protocol, group.main.target) {
        // What the same neighbour tells others answers nobody here.
        let heard = |flow: &&&Flow| {
            let to = flow.key.destination;
            to == key.source || to.ip().is_some_and(|to| to.is_multicast())
        };
        answers.extend(scene.advertisements(target).iter().filter(heard));
    }
    answers.sort_by_key(|flow| flow.key);
    answers.dedup_by_key(|flow| flow.key);
    answers
}
