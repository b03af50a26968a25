//! The probe that is proposed for what is under the cursor.

use super::errand::Probed;
use super::state::State;
use super::{choice, group};
use std::net::IpAddr;

/// What is proposed for the guest or the flow under the cursor: whose probe, and its words.
pub(super) fn proposed(state: &State) -> Option<(Probed, String)> {
    let snapshot = state.snapshot();
    let addresses_of = |device: &str| {
        let interfaces = snapshot.report.guests.iter().flat_map(|guest| &guest.interfaces);
        let addresses = interfaces.filter(|interface| interface.device == device).flat_map(|one| &one.addresses);
        addresses.filter_map(|address| address.parse().ok()).collect::<Vec<IpAddr>>()
    };
    if let Some(index) = choice::flow(state) {
        let flow = snapshot.report.flows.get(index)?;
        let keys = snapshot.flows.get(index)?.groups;
        let peer = group::peer(flow);
        peer.parse::<IpAddr>().ok()?;
        let peer_is_source = flow.source == peer;
        let port = if peer_is_source { flow.source_port } else { flow.destination_port };
        let packet = match (flow.protocol.as_str(), port.filter(|_| keys.from_service == peer_is_source)) {
            ("tcp", Some(port)) => format!("tcp {port}"),
            ("udp", Some(port)) => format!("udp {port}"),
            ("arp", _) => "arp".to_owned(),
            _ => "icmp".to_owned(),
        };
        let (device, guest) = (flow.device.clone()?, flow.guest.clone()?);
        let own = if peer_is_source { &flow.destination } else { &flow.source };
        let addresses = own.parse().into_iter().chain(addresses_of(&device)).collect();
        return Some((Probed { device, guest, addresses }, format!("{peer} {packet}")));
    }
    let facts = snapshot.guests.get(choice::guest(state)?)?;
    let guest = snapshot.report.guests.get(facts.index)?;
    let device = guest.interfaces.first()?.device.clone();
    let addresses = addresses_of(&device);
    Some((Probed { device, guest: guest.name.clone(), addresses }, "gateway icmp".to_owned()))
}
