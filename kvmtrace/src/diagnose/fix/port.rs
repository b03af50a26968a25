//! Commands that let a port forward, or make a device a port.

use super::device;
use crate::diagnose::facts::bridge::{has_stp, waits};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::HostState;
use crate::event::host::{Link, LinkKind, PortState};
use crate::event::is_link_local;
use crate::forward::effect::Effect;

/// Lets a port forward. Where spanning tree runs, it alone sets states (`br_set_port_state`: busy), and what it has begun
/// goes on without it (`br_forward_delay_timer_expired`): all ports that wait are opened with it, for the packet has to
/// pass two of them. A port that spanning tree blocks is the redundant side of a loop, and stays closed.
pub fn let_forward(host: &HostState, port: &Link, bridge: &Link) -> Fix {
    let state = port.port.as_ref().map_or(PortState::Disabled, |port| port.state);
    let command = |port: &Link, number: u8| format!("bridge link set dev {} state {number}", quote(&port.name));
    if has_stp(bridge) {
        if state == PortState::Blocking {
            return Fix::advice(format!(
                "Spanning tree on {0} keeps {1} closed because another way leads to the same network: open it only after that way is gone (bridge -d link show; on the switch: show spanning-tree). `ip link set dev {0} type bridge stp_state 0` would let frames go round in a loop.",
                quote(&bridge.name),
                port.name
            ));
        }
        let off = device::bridge_option(bridge, "stp_state", "0", "1", "Without spanning tree ports forward at once.");
        let waits = |port: &&Link| waits(port, bridge).is_some();
        let closed = std::iter::once(port)
            .chain(host.ports(bridge.index).filter(|other| other.index != port.index).filter(waits));
        let opened: Vec<&Link> = closed.collect();
        let states: Vec<String> = opened.iter().map(|port| format!(" && {}", command(port, 3))).collect();
        let whole = off.command.as_ref().map(|off| format!("{off}{}", states.concat()));
        let effects: Vec<Effect> =
            opened.iter().map(|port| Effect::PortState(port.index, PortState::Forwarding)).collect();
        let risk = "Only where the bridge has a single uplink: nothing breaks loops then.";
        return Fix { command: whole, ..off.risk(risk) }.effects(effects);
    }
    let number = match state {
        PortState::Disabled | PortState::Inoperative => 0,
        PortState::Listening => 1,
        PortState::Learning => 2,
        PortState::Forwarding => 3,
        PortState::Blocking => 4,
    };
    Fix::run(command(port, 3), command(port, number), format!("Lets {} forward at once.", port.name))
        .risk("If the port was blocked to break a loop, the loop comes back.")
        .persist("The state is set at run time only: find what sets it (a script, a spanning tree of user space).")
        .effect(Effect::PortState(port.index, PortState::Forwarding))
}

/// To the bridge that it was a port of, or that the other guests hang on.
pub fn attach(scene: &Scene<'_>, link: &Link) -> Vec<Fix> {
    let host = scene.host;
    let before =
        scene.track.first_host().link(link.index).and_then(|link| link.master).and_then(|master| host.link(master));
    let mut bridges: Vec<&Link> = host.links.values().filter(|link| matches!(link.kind, LinkKind::Bridge(_))).collect();
    let ports = |bridge: &Link| host.ports(bridge.index).count();
    bridges.sort_by_key(|bridge| std::cmp::Reverse(ports(bridge)));
    // Of several bridges nobody knows which it belongs to.
    let bridge = before.or_else(|| bridges.first().copied().filter(|_| bridges.len() == 1));
    match bridge {
        Some(bridge) => vec![
            device::enslave(link, bridge, format!("Makes {} a port of {} again.", link.name, bridge.name))
                .risk("Check that this is the right bridge for it; the address of the device itself, if any, belongs on the bridge."),
        ],
        None if bridges.is_empty() => vec![Fix::advice(format!("Make {} a port of the guest's bridge; there is no bridge on this host now.", link.name))],
        None => vec![Fix::advice(format!(
            "Make {} a port of the bridge that the guest's definition names: of several on this host, none is known to be it.",
            link.name
        ))],
    }
}

/// Makes the far end of a pair a port of the bridge that it should join `bridge` with.
pub fn rejoin(scene: &Scene<'_>, bridge: &Link, far: &Link) -> Fix {
    let host = scene.host;
    let before = scene.track.first_host().link(far.index).and_then(|link| link.master);
    let is_other = |link: &&Link| matches!(link.kind, LinkKind::Bridge(_)) && link.index != bridge.index;
    // A bridge that only stands between a guest and the next bridge has no way out of its own.
    let leads_on = |other: &&Link| {
        let foreign =
            |port: &Link| scene.interface(port.index).is_none() && port.peer.and_then(|peer| host.link(peer)).is_none();
        other.addresses.iter().any(|network| !is_link_local(network.address)) || host.ports(other.index).any(foreign)
    };
    let mut outward = host.links.values().filter(is_other).filter(leads_on);
    let only = outward.next().filter(|_| outward.next().is_none());
    match before.and_then(|before| host.link(before)).filter(is_other).or(only) {
        Some(other) => device::enslave(
            far,
            other,
            format!("Makes {} a port of {}: {} and it are joined again.", far.name, other.name, bridge.name),
        )
        .risk("Check that this is the bridge that it should join: two pairs between the same bridges make a loop."),
        None => Fix::advice(format!(
            "Make {} a port of the bridge that {} is meant to be joined with.",
            far.name, bridge.name
        )),
    }
}
