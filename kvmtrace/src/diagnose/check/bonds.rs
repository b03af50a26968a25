//! `bond-inactive-leg`, `no-carrier`, `link-down`: the legs of a bond on the guests' way.

use super::about::About;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::{bond as fix, device};
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::IfIndex;
use crate::event::bond::{Bond, BondMode};
use crate::event::host::Link;

/// Of the bonds below these devices.
pub(super) fn findings(scene: &Scene<'_>, devices: &[IfIndex]) -> Vec<Finding> {
    let mut bonds: Vec<IfIndex> = devices.iter().filter_map(|device| bond_below(scene, *device)).collect();
    bonds.sort_unstable();
    bonds.dedup();
    let known = bonds.iter().filter_map(|bond| Some((scene.link(*bond)?, scene.host.bonds.get(bond)?)));
    // A bond that is dead whole is told as that.
    known
        .filter(|(master, _)| master.up && master.carrier)
        .flat_map(|(master, bond)| of_bond(scene, master, bond))
        .collect()
}

fn bond_below(scene: &Scene<'_>, device: IfIndex) -> Option<IfIndex> {
    // Devices stack a few levels deep.
    std::iter::successors(Some(device), |device| scene.link(*device)?.lower)
        .take(8)
        .find(|device| scene.host.bonds.contains_key(device))
}

fn of_bond(scene: &Scene<'_>, master: &Link, bond: &Bond) -> Vec<Finding> {
    let legs = || bond.legs.keys().filter_map(|leg| scene.link(*leg));
    let living = legs().filter(|leg| leg.up && leg.carrier).count();
    legs().filter_map(|leg| of_leg(scene, master, bond, leg, living)).collect()
}

fn of_leg(scene: &Scene<'_>, master: &Link, bond: &Bond, leg: &Link, living: usize) -> Option<Finding> {
    let about =
        |cause, severity| About { scene, cause, severity, guest: None, device: leg.index, point: Point::NicEgress };
    let (name, whole) = (&leg.name, &master.name);
    let mode = bond.mode;
    if leg.up && leg.carrier {
        let apart = mode == BondMode::Lacp && living > 1 && bond.is_deaf(leg.index, false);
        return apart.then(|| {
            let partner = bond.partner.map_or_else(|| "no LACP partner".to_owned(), |mac| format!("LACP partner {mac}"));
            let why = if bond.partner.is_some() {
                "the switch has not put it into the same group as the others"
            } else {
                "the switch does not speak LACP"
            };
            about(Cause::BondInactiveLeg, Severity::Warning).at(Point::NicIngress).say(
                format!("{name} is up, but LACP has not joined it to {whole}: {why}. What the switch sends by it is dropped."),
                format!("{whole}: mode {mode}, {partner}; {name}: another aggregator"),
                fix::hear(scene, leg),
            )
        });
    }
    let watched = bond.mii_monitor > 0 || bond.arp_monitor > 0;
    let in_use = bond.active == Some(leg.index) || !mode.has_active_leg() && mode != BondMode::Lacp && !watched;
    let lost = in_use && living > 0 && !watched;
    let (cause, state) =
        if leg.up { (Cause::NoCarrier, "has no carrier") } else { (Cause::LinkDown, "is administratively down") };
    let cure = if leg.up { device::no_carrier_advice(leg) } else { device::up(scene.host, scene.host, leg) };
    if !lost {
        return Some(about(cause, Severity::Warning).say(
            format!("{name}, a leg of {whole} (mode {mode}), {state}: {whole} goes on without it."),
            format!("{name}: {state}; {whole}: {living} of {} legs can be used", bond.legs.len()),
            vec![cure],
        ));
    }
    let other = scene.host.ports(master.index).find(|other| other.up && other.carrier);
    let monitor = fix::monitor(master, bond);
    let fixes = if leg.up {
        other.and_then(|other| fix::activate(scene, master, bond, other)).into_iter().chain([monitor, cure]).collect()
    } else {
        vec![cure, monitor]
    };
    Some(about(cause, Severity::Error).say(
        format!("{name}, a leg of {whole} (mode {mode}), {state}, and {whole} goes on using it: it watches no link (miimon 0)."),
        format!("{name}: {state}; {whole}: miimon 0, no ARP monitor"),
        fixes,
    ))
}
