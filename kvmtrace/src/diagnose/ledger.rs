//! The ledger: per guest and direction, what came in is what went out, was dropped or refused, or is under way.

use super::report::{Account, FlowDirection};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::case::Case;
use crate::event::IfIndex;
use std::collections::BTreeMap;

/// All accounts, by guest interface; of each case, whether it was answered with a no.
pub fn ledger<'a>(scene: &Scene<'_>, cases: impl Iterator<Item = (&'a Case<'a>, bool)>) -> Vec<Account> {
    let mut accounts: BTreeMap<(IfIndex, FlowDirection), Account> = BTreeMap::new();
    for (case, is_refused) in cases {
        let Some(device) = case.device() else { continue };
        let direction = if case.is_from_guest() { FlowDirection::FromGuest } else { FlowDirection::ToGuest };
        let account = accounts.entry((device, direction)).or_insert_with(|| Account {
            guest: scene.guest_name(device),
            device: scene.name(device),
            direction,
            entered: 0,
            out: 0,
            dropped: 0,
            refused: 0,
            in_flight: 0,
            residue: 0,
            hints: Vec::new(),
        });
        let entered = case.packets();
        let refused = if is_refused { entered } else { 0 };
        // A group's packet leaves by many ports: once is enough.
        let out = case.left().min(entered - refused);
        let rest = entered - refused - out;
        let dropped = case.dropped().min(rest);
        let rest = rest - dropped;
        let under_way = if case.is_settled() { 0 } else { rest };
        account.entered += entered;
        account.out += out;
        account.dropped += dropped;
        account.refused += refused;
        account.in_flight += under_way;
        account.residue += i64::try_from(rest - under_way).unwrap_or(i64::MAX);
    }
    let mut accounts: Vec<Account> = accounts
        .into_iter()
        .map(|((device, _), mut account)| {
            if account.residue != 0 {
                account.hints = hints(scene, device);
            }
            account
        })
        .collect();
    accounts.sort_by(|a, b| (&a.guest, &a.device, a.direction).cmp(&(&b.guest, &b.device, b.direction)));
    accounts
}

/// Counters of the guest's device and its bridge's uplinks that grew during the trace.
fn hints(scene: &Scene<'_>, device: IfIndex) -> Vec<String> {
    let uplinks =
        scene.bridge_of(device).into_iter().flat_map(|bridge| scene.host.uplinks(bridge.index)).map(|link| link.index);
    let mut hints = Vec::new();
    for index in std::iter::once(device).chain(uplinks) {
        let (Some(now), Some(before)) = (scene.link(index), scene.track.first_host().link(index)) else { continue };
        let (now_counts, before) = (&now.statistics, &before.statistics);
        let grown = [
            ("rx_dropped", now_counts.rx_dropped, before.rx_dropped),
            ("tx_dropped", now_counts.tx_dropped, before.tx_dropped),
            ("rx_missed", now_counts.rx_missed, before.rx_missed),
            ("rx_errors", now_counts.rx_errors, before.rx_errors),
            ("tx_errors", now_counts.tx_errors, before.tx_errors),
        ];
        for (name, now_count, before) in grown {
            if now_count > before {
                hints.push(format!("{} {name} +{}", now.name, now_count - before));
            }
        }
    }
    let softnet = |host: &crate::event::HostState| host.counters.get("softnet.dropped").copied().unwrap_or(0);
    let grown = softnet(scene.host).saturating_sub(softnet(scene.track.first_host()));
    if grown > 0 {
        hints.push(format!("softnet dropped +{grown}"));
    }
    hints
}
