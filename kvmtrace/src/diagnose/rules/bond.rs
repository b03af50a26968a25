//! `bond-inactive-leg`: frames come in by a leg of a bond that takes none. A copy that the active leg has as well is no loss.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::bond::hear;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::noise::died_at_leg;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Point};
use crate::event::bond::BondMode;

/// A drop at the leg.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop: &Dropped<'_> = case.focus.as_ref()?;
    let leg = case.scene.link(drop.device()?)?;
    if !died_at_leg(case, drop) {
        return None;
    }
    let (master, bond) = case.scene.host.bond_of(leg.index)?;
    let name = case.scene.name(master);
    let active = bond.active.map(|active| case.scene.name(active));
    let why = match (bond.mode, active) {
        (BondMode::Lacp, _) => "LACP has not joined this leg to the bond".to_owned(),
        (_, Some(active)) => format!("{active} is the active leg"),
        (_, None) => "no leg is active".to_owned(),
    };
    let explanation = format!(
        "{} came in by {}, a leg of {name} (mode {}) that takes no frames: {why}.",
        case.dropped_share(),
        leg.name,
        bond.mode
    );
    let state = if bond.mode == BondMode::Lacp {
        format!("{}: aggregator {}", leg.name, bond.legs.get(&leg.index).and_then(|leg| leg.aggregator).unwrap_or(0))
    } else {
        format!("{}: backup", leg.name)
    };
    let place = at(case.scene, leg.index, Point::NicIngress).of(drop);
    Some(
        Judgement::dropped(Cause::BondInactiveLeg, place, explanation)
            .evidence([
                format!(
                    "{name}: mode {}, active {}",
                    bond.mode,
                    bond.active.map_or_else(|| "none".to_owned(), |active| case.scene.name(active))
                ),
                state,
            ])
            .fixes(hear(case.scene, leg)),
    )
}
