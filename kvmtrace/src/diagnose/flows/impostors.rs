//! One key, two senders: a guest sends with the addresses and ports of another's traffic. The flow is its owner's, and what
//! the guest adds to it in the other's name is a flow of its own, with the drops that it made: no guest touches what is said
//! of its neighbour's packets.
//!
//! Once it is routed, only its source MAC address tells whose a packet was. A guest that has used the owner's in this very flow
//! could have sent any of them: then what died is the owner's only where the owner's packets did not arrive.

use super::group::Group;
use crate::diagnose::facts::dropped::macs;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::facts::trace::Owned;
use crate::event::{Direction, IfIndex, Place};
use crate::track::{DropTotals, Flow, IcmpError};
use std::net::IpAddr;

/// Flows with two senders, taken apart.
#[derive(Debug, Default)]
pub struct Parted {
    /// What their owners sent, by key.
    pub owned: Owned,
    /// What others sent under the same keys.
    pub impostors: Vec<Flow>,
}

impl Parted {
    /// The error is about packets of this group: what this host refused of an owner's flow that lost nothing was another's.
    pub fn concerns(&self, scene: &Scene<'_>, group: &Group<'_>, error: &IcmpError) -> bool {
        let Some(own) = group.flows().find_map(|flow| self.owned.get(&flow.key)) else { return true };
        group.impostor || !own.drops.is_empty() || !scene.is_host_address(error.about.from)
    }
}

/// Takes apart what several send under one key.
pub fn part(scene: &Scene<'_>) -> Parted {
    let mut parted = Parted::default();
    for flow in scene.track.flows() {
        let Some(impostor) = impostor(scene, flow) else { continue };
        let (own, others) = divide(scene, flow, impostor);
        parted.owned.insert(flow.key, own);
        parted.impostors.push(others);
    }
    parted
}

/// The guest's interface that sends as another, where what the owner sends came in elsewhere.
fn impostor(scene: &Scene<'_>, flow: &Flow) -> Option<IfIndex> {
    let origins = flow.places.keys().filter(|place| is_origin(scene, **place));
    origins.clone().nth(1)?;
    let source = flow.key.source.ip().filter(|source| !is_of_no_one(*source))?;
    origins
        .filter(|place| scene.is_entry(**place) && !scene.forwards(place.device, source))
        .map(|place| place.device)
        .find(|device| scene.true_owner(*device, source).is_some())
}

/// Packets begin here, as this host sees them: at a guest's port, or where a machine beyond sends to it.
fn is_origin(scene: &Scene<'_>, place: Place) -> bool {
    scene.is_entry(place) || place.direction == Direction::Ingress && scene.role(place.device) == Role::Nic
}

fn is_of_no_one(source: IpAddr) -> bool {
    source.is_unspecified() || source.is_multicast()
}

/// What the owner sent, and what came in by the impostor's port.
fn divide(scene: &Scene<'_>, flow: &Flow, impostor: IfIndex) -> (Flow, Flow) {
    let (mut own, mut others) = (flow.clone(), flow.clone());
    own.places.retain(|place, _| !(place.device == impostor && scene.is_entry(*place)));
    others.places.retain(|place, _| place.device == impostor && scene.is_entry(*place) || !is_origin(scene, *place));
    let (ours, theirs): (Vec<_>, Vec<_>) = flow.other_macs.iter().partition(|(place, _)| place.device != impostor);
    (own.other_macs, others.other_macs) = (ours, theirs);
    let owner_mac = own
        .places
        .iter()
        .filter(|(place, _)| is_origin(scene, **place))
        .map(|(_, counters)| counters.source_mac)
        .next();
    let sent: u64 = counted(&own, |place| is_origin(scene, place));
    let arrived = counted(&own, |place| place.direction == Direction::Egress);
    let forged = others
        .places
        .values()
        .map(|counters| counters.source_mac)
        .chain(others.other_macs.iter().map(|(_, mac)| *mac))
        .any(|mac| Some(mac) == owner_mac);
    let is_owners = |totals: &DropTotals| {
        let example = totals.example.as_deref();
        // Until it was routed, a packet knows the port where it came in (`skb->skb_iif`).
        let input = example.and_then(|record| record.input_device).filter(|input| scene.interface(*input).is_some());
        match (input, example.and_then(macs)) {
            (Some(input), _) => input != impostor,
            (None, Some((mac, _))) if Some(mac) != owner_mac => false,
            (None, Some(_)) if !forged => true,
            (None, _) => arrived < sent,
        }
    };
    own.drops.retain(|_, totals| is_owners(totals));
    others.drops.retain(|site, _| !own.drops.contains_key(site));
    (own, others)
}

/// The largest count at places of a kind.
fn counted(flow: &Flow, of: impl Fn(Place) -> bool) -> u64 {
    flow.places.iter().filter(|(place, _)| of(**place)).map(|(_, counters)| counters.packets).max().unwrap_or(0)
}
