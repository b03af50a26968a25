//! What is healthy about DHCP: answers come from port 67 to an address that the client does not have yet, and servers ask
//! whether anybody has an address before they give it away.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::case::Case;
use crate::event::{FlowKey, IfIndex, Protocol};
use crate::track::Flow;
use std::net::IpAddr;

/// Nothing is missing: the request was answered, or the answer that is missing belongs to an address that is being given
/// away just now.
pub fn is_served(case: &Case<'_>) -> bool {
    let key = case.key();
    if is_request(&key) {
        return case.device().is_some_and(|device| offers(case.scene).any(|flow| came_to(case.scene, flow, device)));
    }
    // dnsmasq asks whether anybody has the address before it offers it.
    let asked = case.group.main.target.or(key.destination.ip());
    let probe = key.protocol.is_echo_request() || case.is_neighbour_traffic();
    probe && asked.is_some_and(|asked| is_given_away(case.scene, asked))
}

/// Who answered requests for leases from behind this interface.
pub fn serves(scene: &Scene<'_>, device: IfIndex) -> bool {
    offers(scene).any(|flow| flow.places.keys().any(|place| place.device == device && scene.is_entry(*place)))
}

/// A client asks for a lease.
pub fn is_request(key: &FlowKey) -> bool {
    key.protocol == Protocol::Udp && key.destination_port == Some(67) && key.source_port == Some(68)
}

fn offers<'a>(scene: &Scene<'a>) -> impl Iterator<Item = &'a Flow> {
    scene.track.flows().filter(|flow| {
        let key = flow.key;
        key.protocol == Protocol::Udp && key.source_port == Some(67) && key.destination_port == Some(68)
    })
}

fn came_to(scene: &Scene<'_>, flow: &Flow, device: IfIndex) -> bool {
    flow.places.keys().any(|place| place.device == device && scene.is_exit(*place))
}

fn is_given_away(scene: &Scene<'_>, address: IpAddr) -> bool {
    offers(scene).any(|flow| flow.key.destination.ip() == Some(address))
}
