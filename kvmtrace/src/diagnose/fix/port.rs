//! Commands that let a port forward, or make a device a port.

use super::device;
use crate::diagnose::facts::bridge::has_stp;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::host::{Link, LinkKind, PortState};
use crate::forward::effect::Effect;

/// Lets a port forward. Where spanning tree runs, it alone sets states (`br_set_port_state`: busy), and what it has begun
/// goes on without it (`br_forward_delay_timer_expired`).
pub fn let_forward(port: &Link, bridge: &Link) -> Fix {
    let name = quote(&port.name);
    if has_stp(bridge) {
        let off = device::bridge_option(bridge, "stp_state", "0", "1", "Without spanning tree ports forward at once.");
        let command = off.command.as_ref().map(|off| format!("{off} && bridge link set dev {name} state 3"));
        let risk = "Only where the bridge has a single uplink: nothing breaks loops then.";
        return Fix { command, ..off.risk(risk) };
    }
    let state = port.port.as_ref().map_or(PortState::Disabled, |port| port.state);
    let number = match state {
        PortState::Disabled | PortState::Inoperative => 0,
        PortState::Listening => 1,
        PortState::Learning => 2,
        PortState::Forwarding => 3,
        PortState::Blocking => 4,
    };
    let command = |number: u8| format!("bridge link set dev {name} state {number}");
    Fix::run(command(3), command(number), format!("Lets {} forward at once.", port.name))
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
