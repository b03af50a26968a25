//! The host's address stands on a port of the guest's bridge in place of the bridge: what comes in goes up by the bridge, and
//! what the host sends to that network leaves by the port alone, where the guest is not. Nothing is dropped but, seconds
//! later, what waits for the guest's MAC address.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::way_back;
use crate::diagnose::fix::device::move_addresses;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::words;
use crate::event::host::Link;
use std::net::IpAddr;

/// A guest that this host hears and can't answer, or asks for in the wrong direction.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let key = case.key();
    let own = |address: IpAddr| scene.is_host_address(address);
    let asked = case.group.main.target.or(key.destination.ip());
    let (guest, host) = if case.is_from_guest() {
        (key.source.ip()?, asked.filter(|asked| own(*asked))?)
    } else {
        (asked?, key.source.ip().filter(|source| own(*source))?)
    };
    if !case.is_from_guest() && case.way() == Way::Unknown {
        return None;
    }
    let bridge = case.bridge()?;
    let port = answers_by(case, guest, host).filter(|port| port.master == Some(bridge.index))?;
    if Some(port.index) == case.device() || scene.interface(port.index).is_some() {
        return None;
    }
    let fix = move_addresses(scene.host, port, bridge)?;
    let explanation = format!(
        "{} between {guest} and this host ({host}): {1} is a port of {2} and bears the address, so what this host sends to {guest} leaves by {1} alone and never reaches the guests of {2}.",
        words::packets(case.packets()),
        port.name,
        bridge.name
    );
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, at(scene, port.index, Point::Neighbour), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!("{}: port of {}, bears {host}", port.name, bridge.name)])
            .fix(Fix::advice(format!(
                "Give the address to {} in place of {}, in the network configuration; the commands below do so until the next boot.",
                bridge.name, port.name
            )))
            .fix(fix),
    )
}

/// The device by which this host's answers to the guest leave.
fn answers_by<'a>(case: &Case<'a>, guest: IpAddr, host: IpAddr) -> Option<&'a Link> {
    let route = way_back(case.scene, guest, Some(host));
    case.scene.link(route.unicast()?.device?)
}
