//! Who says of itself that it is a router (RFC 4861, 4.2).

use crate::diagnose::facts::scene::Scene;
use crate::event::{IfIndex, Protocol};
use crate::track::Flow;

/// All router advertisements that were seen.
pub fn advertisements<'a>(scene: &Scene<'a>) -> impl Iterator<Item = &'a Flow> {
    scene.track.flows().filter(|flow| matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 134, .. }))
}

/// The guest behind this interface advertised itself.
pub fn advertises(scene: &Scene<'_>, device: IfIndex) -> bool {
    advertisements(scene).any(|flow| flow.places.keys().any(|place| place.device == device && scene.is_entry(*place)))
}
