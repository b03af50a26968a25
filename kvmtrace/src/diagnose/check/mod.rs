//! What can be known without any traffic: faults that stand in the host's configuration. For `kvmtrace check`; a trace
//! tells of them only where a flow suffers.

mod about;
mod bonds;
mod dead;
mod firewall;
mod loops;
mod macvtap;
mod pairs;
mod ports;
mod routed;
mod routes;
mod switch;
mod tables;
mod tunnel;

pub(super) use self::about::is_wanted;
use self::about::{About, interfaces};
use self::dead::dead_uplink;
use super::facts::{bridge, machine};
use super::fix::{self, device, port, stack};
use super::report::{Cause, Finding, Fix, Point, Severity};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::shell;
use crate::event::host::{BridgeState, Link, LinkKind, PortState};
use crate::event::{IfIndex, MacAddress};
use crate::topology::is_served;
use crate::track::Track;
use std::collections::BTreeMap;

/// A tap's ring shorter than this overflows in ordinary bursts (libvirt and QEMU leave the kernel's 1000).
const SHORT_RING: u32 = 64;

/// All of it, the gravest first, of the guests that were asked for.
pub fn findings(track: &Track) -> Vec<Finding> {
    let scene = Scene::of_host(track);
    let mut found = Vec::new();
    let mut bridges: Vec<IfIndex> = Vec::new();
    for (guest, interface) in interfaces(&scene) {
        let Some(link) = scene.link(interface.device) else { continue };
        found.extend(interface_state(&scene, guest, link));
        found.extend(macvtap::findings(&scene, guest, link));
        if let Some(bridge) = scene.bridge_of(link.index) {
            found.extend(port_state(&scene, Some(guest), link, bridge));
            found.extend(ports::findings(&scene, Some(guest), link, bridge));
            found.extend(path_of(&scene, guest, link, bridge));
            if !bridges.contains(&bridge.index) {
                bridges.push(bridge.index);
            }
        }
    }
    for bridge in bridges.iter().filter_map(|index| scene.link(*index)) {
        found.extend(bridge_state(&scene, bridge));
    }
    let uplinks = bridges.iter().flat_map(|bridge| scene.host.uplinks(*bridge)).map(|uplink| uplink.index);
    let own = interfaces(&scene).into_iter().map(|(_, interface)| interface.device);
    let routed = scene.host.routes.iter().filter(|route| route.gateway.is_some()).filter_map(|route| route.device);
    found.extend(bonds::findings(&scene, &uplinks.chain(own).chain(routed).collect::<Vec<_>>()));
    found.extend(switch::findings(&scene));
    found.extend(loops::findings(&scene, &bridges));
    found.extend(duplicate_macs(&scene));
    found.extend(tables::findings(&scene));
    found.sort_by(|a, b| {
        let device = |finding: &Finding| finding.place.as_ref().and_then(|place| place.device.clone());
        (std::cmp::Reverse(a.severity), a.cause, &a.guest, device(a)).cmp(&(
            std::cmp::Reverse(b.severity),
            b.cause,
            &b.guest,
            device(b),
        ))
    });
    found
}

/// The tap itself: in a bridge or an address on it, up, a process behind it, its ring.
fn interface_state(scene: &Scene<'_>, guest: &str, link: &Link) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = |cause, severity| About {
        scene,
        cause,
        severity,
        guest: Some(guest),
        device: link.index,
        point: Point::TapIngress,
    };
    let name = &link.name;
    let tap = link.kind == LinkKind::Tun;
    let held = scene
        .host
        .guest_of(link.index)
        .and_then(|owner| Some((owner, machine::trouble(owner, scene.interface(link.index)?, link)?)));
    if let Some((owner, trouble)) = held {
        found.push(about(fix::machine::cause(trouble), Severity::Warning).at(Point::Guest).say(
            format!("{guest} {}.", trouble.text(owner, name)),
            trouble.evidence(owner, link),
            fix::machine::fixes(trouble, owner, link),
        ));
    } else if !link.up {
        found.push(about(Cause::LinkDown, Severity::Error).say(
            format!("{name}, the interface of {guest}, is administratively down: nothing passes it."),
            format!("{name}: not up"),
            vec![device::up(scene.host, scene.host, link)],
        ));
    } else if tap && !link.carrier {
        found.push(about(Cause::GuestGone, Severity::Error).say(
            format!("No process holds {name}: the guest behind it has ended, or was never started."),
            format!("{name}: NO-CARRIER"),
            vec![Fix::advice(format!("Start the guest that belongs to {name}, or delete the tap."))],
        ));
    }
    if tap && link.master.is_none() && !is_served(scene.host, link) {
        let bridges = scene.host.links.values().filter(|link| matches!(link.kind, LinkKind::Bridge(_)));
        let fixes: Vec<Fix> = bridges
            .map(|bridge| device::enslave(link, bridge, format!("Makes {name} a port of {}.", bridge.name)))
            .collect();
        let advice = Fix::advice(format!("Make {name} a port of the bridge that the guest belongs to."));
        found.push(about(Cause::BridgePortDetached, Severity::Error).say(
            format!("{name}, the interface of {guest}, is in no bridge and has no address: its frames end there."),
            format!("{name}: no master, no address, no route"),
            if fixes.is_empty() { vec![advice] } else { fixes },
        ));
    }
    if tap && link.queue_length < SHORT_RING {
        found.push(about(Cause::GuestNotReading, Severity::Warning).say(
            format!(
                "The ring of {name} holds {} packets: a short burst overflows it before {guest} can read.",
                link.queue_length
            ),
            format!("{name}: txqueuelen {}", link.queue_length),
            vec![Fix::run(
                format!("ip link set dev {} txqueuelen 1000", shell::quote(name)),
                format!("ip link set dev {} txqueuelen {}", shell::quote(name), link.queue_length),
                "Gives the ring the kernel's ordinary length, at once.",
            )],
        ));
    }
    found
}

/// A port of a bridge: the guest's, or an uplink (then `guest` is null).
fn port_state(scene: &Scene<'_>, guest: Option<&str>, link: &Link, bridge: &Link) -> Option<Finding> {
    let port = link.port.as_ref()?;
    let point = if guest.is_some() { Point::TapIngress } else { Point::BridgeEgress };
    let about = |cause, severity| About { scene, cause, severity, guest, device: link.index, point };
    let name = &link.name;
    // A bridge or a port that is down disables the port: told as such.
    if port.state == PortState::Inoperative {
        let command = |state: &str| format!("ip link set dev {} state {state}", shell::quote(name));
        return Some(about(Cause::BridgePortDown, Severity::Error).say(
            format!(
                "{name} is not operational (dormant), so {} has disabled its port: it forwards nothing.",
                bridge.name
            ),
            format!("{name}: up, carrier, not running"),
            vec![Fix::run(command("up"), command("dormant"), format!("Declares {name} operational."))],
        ));
    }
    // Of two uplinks spanning tree blocks one: that is what it is for.
    let redundant = guest.is_none() && port.state == PortState::Blocking && bridge::has_stp(bridge);
    if port.state == PortState::Forwarding || redundant || !link.up || !link.carrier || !bridge.up {
        return None;
    }
    let state = format!("{:?}", port.state).to_lowercase();
    let (severity, told) = match bridge::waits(link, bridge) {
        Some(seconds) => (
            Severity::Warning,
            format!(
                "Spanning tree on {} keeps {name} in state {state}: for {seconds} s after it came up it forwards nothing, and a guest that starts gets no address meanwhile.",
                bridge.name
            ),
        ),
        None => {
            (Severity::Error, format!("{name} is a port of {} in STP state {state}: it forwards nothing.", bridge.name))
        }
    };
    Some(about(Cause::BridgePortBlocked, severity).say(
        told,
        format!("{name}: state {state}"),
        vec![port::let_forward(scene.host, link, bridge)],
    ))
}

/// The uplink carries what the guest's port takes; where a tunnel's underlay would have to carry more than it does, the guest's
/// interface comes first.
fn widen(scene: &Scene<'_>, uplink: &Link, link: &Link) -> Vec<Fix> {
    let raise = device::mtu(uplink, link.mtu, format!("Lets {} carry all that {} takes.", uplink.name, link.name));
    let room = stack::room(scene.host, uplink, link.mtu);
    if room >= link.mtu {
        return vec![raise, Fix::advice(format!("Or set the MTU of the guest's interface to {}.", uplink.mtu))];
    }
    let lower = format!("Set the MTU of the guest's interface to {}, or less.", room.max(uplink.mtu));
    let wider = (room > uplink.mtu)
        .then(|| device::mtu(uplink, room, format!("Lets {} carry what the device below has room for.", uplink.name)));
    std::iter::once(Fix::advice(lower)).chain(wider).chain([raise]).collect()
}

/// The way from the guest's port to the uplinks: MTU, VLAN, isolation.
fn path_of(scene: &Scene<'_>, guest: &str, link: &Link, bridge: &Link) -> Vec<Finding> {
    let mut found = Vec::new();
    for uplink in scene.host.uplinks(bridge.index).filter(|uplink| uplink.up && uplink.carrier) {
        if uplink.mtu < link.mtu {
            let about = About {
                scene,
                cause: Cause::BridgeMtuExceeded,
                severity: Severity::Warning,
                guest: Some(guest),
                device: uplink.index,
                point: Point::BridgeEgress,
            };
            found.push(about.say(
                format!(
                    "{} takes packets of {} bytes from {guest}, {} lets {} out: a bridge drops what is longer without telling the sender.",
                    link.name, link.mtu, uplink.name, uplink.mtu
                ),
                format!("{}: MTU {}; {}: MTU {}", link.name, link.mtu, uplink.name, uplink.mtu),
                widen(scene, uplink, link),
            ));
        }
        let isolated = |link: &Link| link.port.as_ref().is_some_and(|port| port.isolated);
        if isolated(link) && isolated(uplink) {
            let about = About {
                scene,
                cause: Cause::BridgePortIsolated,
                severity: Severity::Error,
                guest: Some(guest),
                device: uplink.index,
                point: Point::BridgeForward,
            };
            found.push(about.say(
                format!(
                    "{} and {} are both isolated: the bridge forwards nothing between them.",
                    link.name, uplink.name
                ),
                format!("{}: isolated on; {}: isolated on", link.name, uplink.name),
                vec![device::port_flag(
                    uplink,
                    "isolated",
                    false,
                    "Guests stay isolated from each other, not from the uplink.",
                )],
            ));
        }
        found.extend(vlan(scene, guest, link, uplink, bridge));
    }
    found
}

/// With VLAN filtering on: the VLAN of the guest's untagged frames must be let out by the uplink.
fn vlan(scene: &Scene<'_>, guest: &str, link: &Link, uplink: &Link, bridge: &Link) -> Option<Finding> {
    let LinkKind::Bridge(state @ BridgeState { vlan_filtering: true, .. }) = &bridge.kind else { return None };
    let (port, out) = (link.port.as_ref()?, uplink.port.as_ref()?);
    let about = |device| About {
        scene,
        cause: Cause::BridgeVlanFiltered,
        severity: Severity::Warning,
        guest: Some(guest),
        device,
        point: Point::BridgeForward,
    };
    let Some(own) = port.vlans.iter().find(|vlan| vlan.pvid) else {
        return port.vlans.is_empty().then(|| {
            about(link.index).say(
                format!(
                    "{} belongs to no VLAN of {}, which filters by VLAN: it forwards nothing.",
                    link.name, bridge.name
                ),
                format!("{}: no VLAN", link.name),
                vec![join(link, state)],
            )
        });
    };
    if out.vlans.iter().any(|vlan| vlan.covers(own.id)) {
        return None;
    }
    let name = shell::quote(&uplink.name);
    Some(about(uplink.index).say(
        format!("The frames of {guest} belong to VLAN {}, which {} does not let out.", own.id, uplink.name),
        format!("{}: PVID {}; {}: not a member of it", link.name, own.id, uplink.name),
        vec![Fix::run(
            format!("bridge vlan add dev {name} vid {}", own.id),
            format!("bridge vlan del dev {name} vid {}", own.id),
            format!("Makes {} a member of VLAN {}, tagged.", uplink.name, own.id),
        )],
    ))
}

/// Into the VLAN that new ports of the bridge get, if they get one.
fn join(link: &Link, bridge: &BridgeState) -> Fix {
    let (name, vlan) = (shell::quote(&link.name), bridge.default_pvid);
    if vlan == 0 {
        return Fix::advice(format!(
            "Add {} to its VLAN: bridge vlan add dev {name} vid VLAN pvid untagged.",
            link.name
        ));
    }
    Fix::run(
        format!("bridge vlan add dev {name} vid {vlan} pvid untagged"),
        format!("bridge vlan del dev {name} vid {vlan}"),
        format!("Puts {} into VLAN {vlan}, which the bridge gives to new ports.", link.name),
    )
}

/// The bridge and its uplinks; whether the host forwards for it.
fn bridge_state(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = |cause, severity, device, point| About { scene, cause, severity, guest: None, device, point };
    if !bridge.up {
        found.push(about(Cause::BridgeDown, Severity::Error, bridge.index, Point::BridgeForward).say(
            format!("{} is down, and with it all its ports: they forward nothing.", bridge.name),
            format!("{}: not up", bridge.name),
            vec![device::up(scene.host, scene.host, bridge)],
        ));
    }
    let uplinks: Vec<&Link> = scene.host.uplinks(bridge.index).collect();
    for uplink in &uplinks {
        // One socket of several: what is plugged nowhere need not be. A pair may lead to a container.
        let leads_out = |other: &&&Link| other.up && other.carrier && other.kind != LinkKind::Veth;
        let others = uplinks.iter().filter(leads_out).any(|other| other.index != uplink.index);
        let dead =
            dead_uplink(scene, uplink, &format!("{} uplink of {}", if others { "an" } else { "the" }, bridge.name));
        found
            .extend(dead.map(|dead| Finding { severity: if others { Severity::Info } else { dead.severity }, ..dead }));
        found.extend(port_state(scene, None, uplink, bridge));
        found.extend(ports::findings(scene, None, uplink, bridge));
        found.extend(ports::addressed(scene, uplink));
        found.extend(tunnel::too_big(scene, uplink));
    }
    let pairs = pairs::findings(scene, bridge);
    // A bridge that it is joined with may lead on, or be this host's.
    let joined = scene.host.joined(bridge.index);
    let mut joined = joined.into_iter().filter_map(|bridge| scene.link(bridge));
    let private = uplinks.is_empty() && joined.all(|bridge| bridge.addresses.is_empty()) && pairs.is_empty();
    found.extend(pairs);
    if private {
        // A private network is made just so.
        found.push(about(Cause::BridgePortDetached, Severity::Info, bridge.index, Point::BridgeEgress).say(
            format!(
                "{} has no port that leads away from this host, and no address: its guests reach only each other.",
                bridge.name
            ),
            format!("{}: guests' ports only", bridge.name),
            vec![Fix::advice(format!(
                "If its guests are meant to reach more: make the NIC that leads there a port of {}.",
                bridge.name
            ))],
        ));
    }
    if !uplinks.is_empty() {
        found.extend(firewall::bridged(scene, bridge));
        found.extend(firewall::of_bridges(scene, bridge));
    } else if !bridge.addresses.is_empty() {
        found.extend(routed::findings(scene, bridge));
    }
    found
}

/// Two guests' interfaces with one MAC address on one bridge.
fn duplicate_macs(scene: &Scene<'_>) -> Vec<Finding> {
    let mut owners: BTreeMap<(IfIndex, MacAddress), Vec<(&str, IfIndex)>> = BTreeMap::new();
    for (guest, interface) in interfaces(scene) {
        if let (Some(mac), Some(bridge)) = (interface.mac, scene.bridge_of(interface.device)) {
            owners.entry((bridge.index, mac)).or_default().push((guest, interface.device));
        }
    }
    let hosts = owners.iter().filter_map(|((bridge, mac), owners)| {
        let (guest, device) = *owners.first()?;
        own_mac(scene, guest, device, *bridge, *mac)
    });
    let hosts: Vec<Finding> = hosts.collect();
    owners
        .into_iter()
        .filter(|(_, owners)| owners.len() > 1)
        .map(|((_, mac), owners)| {
            let names: Vec<String> =
                owners.iter().map(|(guest, device)| format!("{guest} ({})", scene.name(*device))).collect();
            let (guest, device) = owners.first().copied().unwrap_or(("", IfIndex(0)));
            let about = About {
                scene,
                cause: Cause::MacConflict,
                severity: Severity::Error,
                guest: Some(guest),
                device,
                point: Point::TapIngress,
            };
            about.say(
                format!(
                    "{} have the same MAC address {mac}: the bridge sends each one's frames now here, now there.",
                    names.join(" and ")
                ),
                format!("{mac}: {}", names.join(", ")),
                vec![Fix::advice("Give one of the guests another MAC address in its definition, and restart it.")],
            )
        })
        .chain(hosts)
        .collect()
}

/// The bridge takes frames to an address of its own or of its ports for the host's.
fn own_mac(scene: &Scene<'_>, guest: &str, device: IfIndex, bridge: IfIndex, mac: MacAddress) -> Option<Finding> {
    let own = scene.link(bridge).into_iter().chain(scene.host.uplinks(bridge)).find(|link| link.mac == Some(mac))?;
    let (cause, severity, point) = (Cause::MacConflict, Severity::Error, Point::TapIngress);
    Some(About { scene, cause, severity, guest: Some(guest), device, point }.say(
        format!(
            "{guest} ({}) has the MAC address {mac} of this host's {}: the host takes its frames.",
            scene.name(device),
            own.name
        ),
        format!("{mac}: {guest}, {}", own.name),
        vec![Fix::advice("Give the guest another MAC address in its definition, and restart it.")],
    ))
}

#[cfg(test)]
mod tests;
