//! `frames-reflected`: a guest's own frames come back by the port of the bridge that they left by. A switch beyond sends them back
//! (hairpin, a loop, two legs of a bond on a switch that knows nothing of it). The bridge learns the guest's MAC address there
//! (`br_fdb_update`), and sends nothing back by the port that it came in by (`should_deliver`, `net/bridge/br_forward.c`).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, FlowDirection, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{FdbEntry, Link};
use crate::event::{Direction, IfIndex, MacAddress, Place};
use crate::forward::effect::Effect;
use crate::track::Flow;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref().filter(|drop| drop.is_unspecified() && drop.within(Site::BridgeForward))?;
    let scene = case.scene;
    let port = scene.link(drop.device()?).filter(|link| scene.interface(link.index).is_none())?;
    let bridge = scene.bridge_of(port.index)?;
    let place = || at(scene, port.index, Point::BridgeForward).of(drop);
    let elsewhere = Fix::advice(format!(
        "Look at the switch behind {}: a loop, a port that sends frames back (hairpin, reflective relay), or a bond whose legs it takes for two machines.",
        port.name
    ));
    if case.is_from_guest() && case.group.flows().any(|flow| came_back(flow, port.index)) {
        let explanation = format!(
            "{} came back by {}, after leaving by it: a switch beyond sends them back. {} drops what comes back, and takes the guest to be out there until it is heard again.",
            words::packets(drop.totals.packets),
            port.name,
            bridge.name
        );
        let judgement = Judgement::dropped(Cause::FramesReflected, place(), explanation).severity(Severity::Warning);
        return Some(judgement.verdict(Verdict::Delivered).fix(elsewhere));
    }
    let guest = case.group.device.filter(|_| case.group.direction == FlowDirection::ToGuest)?;
    let mac = case.destination_mac().filter(|mac| scene.guest_by_mac(*mac) == Some(guest))?;
    let seen = reflected(scene, guest, port.index)?;
    let explanation = format!(
        "{} for {} came in by {} and were to go back by it: the guest's own frames come back there, so {} has learned {mac} behind {2}.",
        case.dropped_share(),
        scene.guest_name(guest).unwrap_or_else(|| mac.to_string()),
        port.name,
        bridge.name
    );
    let tap = scene.link(guest)?;
    Some(
        Judgement::dropped(Cause::FramesReflected, place(), explanation)
            .evidence([format!(
                "{} → {} left by {} and came in by it",
                seen.key.source, seen.key.destination, port.name
            )])
            .fix(pinned(mac, tap, bridge, case.key().vlan))
            .fix(elsewhere),
    )
}

/// The flow was counted as it left by the port, and as it came in by it, not earlier.
fn came_back(flow: &Flow, port: IfIndex) -> bool {
    let first = |direction| Some(flow.places.get(&Place { device: port, direction })?.first);
    first(Direction::Egress).zip(first(Direction::Ingress)).is_some_and(|(left, came)| came >= left)
}

/// A flow of the guest behind the interface that came back.
fn reflected<'a>(scene: &Scene<'a>, guest: IfIndex, port: IfIndex) -> Option<&'a Flow> {
    let mut flows = scene.track.flows();
    flows.find(|flow| came_back(flow, port) && scene.entry(flow).is_some_and(|(place, _)| place.device == guest))
}

/// An entry that does not move, whatever comes in elsewhere (`BR_FDB_STICKY`).
fn pinned(mac: MacAddress, tap: &Link, bridge: &Link, vlan: Option<u16>) -> Fix {
    let name = quote(&tap.name);
    let tag = vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let entry = FdbEntry {
        mac,
        device: tap.index,
        bridge: Some(bridge.index),
        vlan,
        permanent: false,
        fixed: true,
        sticky: true,
        remote: None,
    };
    Fix::run(
        format!("bridge fdb replace {mac} dev {name} master static sticky{tag}"),
        format!("bridge fdb del {mac} dev {name} master{tag}"),
        format!("{} keeps the guest's address at its own port then.", bridge.name),
    )
    .risk("The entry stays when the guest moves to another host: delete it then.")
    .persist("The switch that reflects is what has to be mended; the entry goes with the tap.")
    .effect(Effect::FdbAdd(entry))
}
