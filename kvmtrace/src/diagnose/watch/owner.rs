//! Whose a flow is, and by which id the report knows it, found without making a report.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::attribute::whose;
use crate::diagnose::identity::flow_id;
use crate::diagnose::report::FlowDirection;
use crate::event::{FlowKey, IfIndex, Timestamp};
use crate::track::remembered::Remembered;
use crate::track::{Flow, Track};

/// Flows that are remembered.
const REMEMBERED: usize = 1 << 16;
/// What was nobody's is asked again after this time, in nanoseconds.
const AGAIN_NS: u64 = 500_000_000;

/// The guest's flow that packets belong to.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Its key, as its guest sees it.
    pub(super) key: FlowKey,
    pub(super) id: String,
    pub(super) direction: FlowDirection,
    pub(super) device: Option<IfIndex>,
    pub(super) peer: Option<IfIndex>,
}

/// Owners that were found.
#[derive(Debug)]
pub(super) struct Owners(Remembered<FlowKey, (Timestamp, Option<Owner>)>);

impl Default for Owners {
    fn default() -> Self {
        Self(Remembered::new(REMEMBERED))
    }
}

impl Owners {
    /// The host is another: what was found is found anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whose flow it is; none where it touches no guest and only guests' flows are wanted.
    pub(super) fn get(&mut self, key: FlowKey, track: &Track, now: Timestamp) -> Option<Owner> {
        self.find(key, track, now, false)
    }

    /// The same, asked again at once where it was nobody's.
    pub(super) fn get_again(&mut self, key: FlowKey, track: &Track, now: Timestamp) -> Option<Owner> {
        self.find(key, track, now, true)
    }

    fn find(&mut self, key: FlowKey, track: &Track, now: Timestamp, again: bool) -> Option<Owner> {
        if let Some((asked, owner)) = self.0.get(&key)
            && (owner.is_some() || !again && now.since(*asked).0 < AGAIN_NS)
        {
            return owner.clone();
        }
        let owner = find(key, track);
        self.0.insert(key, (now, owner.clone()));
        owner
    }
}

fn find(key: FlowKey, track: &Track) -> Option<Owner> {
    let scene = Scene::of_host(track);
    of_variants(&scene, key)
        .or_else(|| {
            let untagged = FlowKey { vlan: None, ..key };
            let before = track.translations().into_iter().find(|(_, after)| *after == untagged)?.0;
            of_variants(&scene, before)
        })
        .or_else(|| of_address(&scene, key))
        .or_else(|| {
            let id = flow_id(None, &key);
            scene.wants_all().then_some(Owner { key, id, direction: FlowDirection::Host, device: None, peer: None })
        })
}

/// The flow, or the same with another VLAN tag: the one that was seen first gives its name to all.
fn of_variants(scene: &Scene<'_>, key: FlowKey) -> Option<Owner> {
    let named = |flow: &Flow| (flow.places.is_empty(), flow.first);
    let owned = scene.track.variants(key).filter_map(|flow| Some((flow, whose(scene, flow)?)));
    let (flow, (direction, device, peer)) = owned.min_by_key(|(flow, _)| named(flow))?;
    let id = flow_id(Some(&scene.name(device)), &flow.key);
    Some(Owner { key: flow.key, id, direction, device: Some(device), peer })
}

/// A flow of which no more than one packet is known.
fn of_address(scene: &Scene<'_>, key: FlowKey) -> Option<Owner> {
    if scene.track.get(&key).is_some() {
        return None;
    }
    let sender = scene.guest_by_address(key.source);
    let device = sender.or_else(|| scene.guest_by_address(key.destination))?;
    let direction = if sender.is_some() { FlowDirection::FromGuest } else { FlowDirection::ToGuest };
    let id = flow_id(Some(&scene.name(device)), &key);
    Some(Owner { key, id, direction, device: Some(device), peer: None })
}
