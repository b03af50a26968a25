//! Fixes of bonds: which leg is active, and whether the others take frames.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::bond::{Bond, BondMode};
use crate::event::host::Link;
use crate::event::{Direction, IfIndex};
use crate::forward::effect::{BondOption, Effect};

const PERSIST: &str =
    "Set it where the bond is configured (netplan, NetworkManager, ifupdown's bond-…, systemd-networkd).";

/// The leg becomes the active one, where the bond's mode lets a person choose it.
pub(in crate::diagnose) fn activate(scene: &Scene<'_>, master: &Link, bond: &Bond, leg: &Link) -> Option<Fix> {
    if !bond.mode.has_active_leg() || !leg.up || !leg.carrier {
        return None;
    }
    let set = |leg: &str| format!("ip link set dev {} type bond active_slave {}", quote(&master.name), quote(leg));
    let before = bond.active.map(|active| scene.name(active));
    let primary = bond.primary.filter(|primary| *primary != leg.index).map(|primary| scene.name(primary));
    let risk = match primary {
        Some(primary) => format!(
            "All traffic of {} then passes {}, until its primary leg {primary} loses its carrier and gets it back.",
            master.name, leg.name
        ),
        None => format!("All traffic of {} then passes {}.", master.name, leg.name),
    };
    let fix = Fix {
        command: Some(set(&leg.name)),
        undo: before.map(|before| set(&before)),
        ..Fix::advice(format!("Makes {} the active leg of {}.", leg.name, master.name))
    };
    Some(fix.risk(risk).persist(PERSIST).effect(Effect::Bond(master.index, BondOption::Active(leg.index))))
}

/// A bond that watches no link goes on sending by a leg without a carrier: another one becomes active.
pub(in crate::diagnose) fn leave(scene: &Scene<'_>, dead: &Link) -> Vec<Fix> {
    let Some((master, bond)) = scene.host.bond_of(dead.index) else { return Vec::new() };
    let Some(master) = scene.link(master).filter(|_| bond.active == Some(dead.index)) else { return Vec::new() };
    let other = scene.host.ports(master.index).find(|other| other.up && other.carrier);
    other.and_then(|other| activate(scene, master, bond, other)).into_iter().collect()
}

/// The bond looks at its legs' carriers.
pub(in crate::diagnose) fn monitor(master: &Link, bond: &Bond) -> Fix {
    let set = |interval: u32| format!("ip link set dev {} type bond miimon {interval}", quote(&master.name));
    Fix::run(
        set(100),
        set(bond.mii_monitor),
        format!("{} looks at its legs every 100 ms, and leaves those without a carrier.", master.name),
    )
    .persist(PERSIST)
}

/// Inactive legs take frames, too.
fn hear_all(master: &Link) -> Fix {
    let set = |on: u8| format!("ip link set dev {} type bond all_slaves_active {on}", quote(&master.name));
    Fix::run(set(1), set(0), format!("{} then takes what comes by any of its legs.", master.name))
        .risk("A switch that floods groups to each leg by itself makes duplicates of them, and sends the guests' own broadcasts back to them.")
        .persist(PERSIST)
        .effect(Effect::Bond(master.index, BondOption::AllActive(true)))
}

/// Lets the frames pass that come by an inactive leg.
pub(in crate::diagnose) fn hear(scene: &Scene<'_>, leg: &Link) -> Vec<Fix> {
    let Some((master, bond)) = scene.host.bond_of(leg.index) else { return Vec::new() };
    let Some(master) = scene.link(master) else { return Vec::new() };
    if bond.mode == BondMode::Lacp {
        let partner = if bond.partner.is_some() {
            format!("the port behind {} belongs to another group", leg.name)
        } else {
            "it does not speak LACP".to_owned()
        };
        let advice = Fix::advice(format!(
            "On the switch: put the ports behind all legs of {} into one LACP group; {partner}.",
            master.name
        ));
        return vec![advice, hear_all(master)];
    }
    let active = bond.active.map(|active| scene.name(active)).unwrap_or_default();
    let switch = Fix::advice(format!(
        "On the switch: the ports behind the legs of {} must be no channel (LAG, trunk) in mode {}, each stands alone; and the port behind {active} must be in the same VLAN as the one behind {}.",
        master.name, bond.mode, leg.name
    ));
    if bond.active.is_some_and(|active| hears(scene, active)) {
        return vec![hear_all(master), switch];
    }
    activate(scene, master, bond, leg).into_iter().chain([switch]).collect()
}

/// Frames for one machine came in by this device: the switch behind it sends by it as well.
fn hears(scene: &Scene<'_>, device: IfIndex) -> bool {
    scene.track.flows().any(|flow| {
        flow.places.iter().any(|(place, counters)| {
            let came = place.device == device && place.direction == Direction::Ingress;
            came && !counters.destination_mac.is_multicast() && !counters.destination_mac.is_zero()
        })
    })
}
