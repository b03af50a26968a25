//! Bridges that are joined twice: what is flooded goes round for ever.

use super::about::About;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::{Cause, Finding, Fix, Point, Severity};
use crate::diagnose::shell::quote;
use crate::event::IfIndex;
use crate::event::host::{BridgeState, Link, LinkKind, PortState};
use std::collections::BTreeMap;

/// The pairs that close a ring of bridges; of the rings that the guests' bridges are in.
pub(super) fn findings(scene: &Scene<'_>, guests: &[IfIndex]) -> Vec<Finding> {
    let mut rings = Rings::default();
    let mut closing = Vec::new();
    for link in scene.host.links.values() {
        let Some(peer) = link.peer.filter(|peer| *peer > link.index).and_then(|peer| scene.link(peer)) else {
            continue;
        };
        let (Some(one), Some(other)) = (joins(scene, link), joins(scene, peer)) else { continue };
        if !rings.join(one.index, other.index) {
            closing.push((link, peer, one, other));
        }
    }
    let of_guests = |bridge: &Link| guests.iter().any(|guest| rings.head(*guest) == rings.head(bridge.index));
    let told = closing.into_iter().filter(|(_, _, bridge, _)| of_guests(bridge));
    told.map(|(link, peer, one, other)| found(scene, link, peer, one, other)).collect()
}

/// The bridge that floods into this end of a pair, with nothing that would break a ring: no spanning tree, no VLANs of
/// which each pair may carry others.
fn joins<'a>(scene: &Scene<'a>, link: &Link) -> Option<&'a Link> {
    let port = link.port.as_ref().filter(|port| port.state == PortState::Forwarding)?;
    let takes = port.broadcast_flood && !port.isolated && link.up && link.carrier;
    let bridge = scene.bridge_of(link.index).filter(|bridge| bridge.up && takes)?;
    matches!(bridge.kind, LinkKind::Bridge(BridgeState { stp: false, vlan_filtering: false, .. })).then_some(bridge)
}

fn found(scene: &Scene<'_>, link: &Link, peer: &Link, one: &Link, other: &Link) -> Finding {
    let told = if one.index == other.index {
        format!("{} and {}, the two ends of a pair, are both ports of {}", link.name, peer.name, one.name)
    } else {
        format!("{} and {} join {} and {}, which are joined already", link.name, peer.name, one.name, other.name)
    };
    let (cause, severity, point) = (Cause::BridgeLoop, Severity::Error, Point::BridgeForward);
    let name = quote(&link.name);
    About { scene, cause, severity, guest: None, device: link.index, point }.say(
        format!("{told}: what is flooded goes round for ever, for no spanning tree breaks the ring."),
        format!("{}: port of {}; {}: port of {}", link.name, one.name, peer.name, other.name),
        vec![
            Fix::run(
                format!("ip link set dev {name} nomaster"),
                format!("ip link set dev {name} master {}", quote(&one.name)),
                format!("Opens the ring: {} no longer belongs to {}.", link.name, one.name),
            )
            .persist("Take the pair out of the network configuration that makes it."),
        ],
    )
}

/// Which bridges hang together.
#[derive(Default)]
struct Rings {
    towards: BTreeMap<IfIndex, IfIndex>,
}

impl Rings {
    fn head(&self, bridge: IfIndex) -> IfIndex {
        let mut head = bridge;
        while let Some(next) = self.towards.get(&head) {
            head = *next;
        }
        head
    }

    /// Joins two; not where they hang together already.
    fn join(&mut self, one: IfIndex, other: IfIndex) -> bool {
        let (one, other) = (self.head(one), self.head(other));
        if one != other {
            self.towards.insert(one, other);
        }
        one != other
    }
}
