//! What a verdict rests on: counters, sites, one packet, the way the kernel took.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::flows::case::Case;
use crate::diagnose::words;
use crate::event::Direction;

/// Sites that are shown.
const SITES: usize = 4;

/// Functions of a stack that are shown.
const FRAMES: usize = 12;

/// The lines.
pub(super) fn of(case: &Case<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let counts: Vec<String> = case
        .hops
        .iter()
        .map(|(place, counters)| {
            let side = if place.direction == Direction::Ingress { "ingress" } else { "egress" };
            format!(
                "{} {side}: {}, largest {} bytes",
                case.scene.name(place.device),
                words::packets(counters.packets),
                counters.largest
            )
        })
        .collect();
    if !counts.is_empty() {
        lines.push(format!("counted at {}", counts.join("; ")));
    }
    lines.extend(case.drops.iter().take(SITES).map(|drop| site(case, drop)));
    if case.drops.len() > SITES {
        lines.push(format!("and {} more drop sites", case.drops.len() - SITES));
    }
    let shown = case.focus.or_else(|| case.drops.first().copied());
    if let Some(drop) = shown {
        lines.extend(packet(&drop));
        lines.extend(stack(&drop));
    }
    for error in &case.errors {
        let fate = if error.dropped { ", and was dropped here" } else { "" };
        let mtu = error.mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
        lines.push(format!(
            "ICMP type {} code {} from {}{mtu} quotes it{fate}",
            error.about.kind, error.about.code, error.about.from
        ));
    }
    lines
}

fn site(case: &Case<'_>, drop: &Dropped<'_>) -> String {
    let device = drop.device().map_or_else(|| "no device".to_owned(), |device| case.scene.name(device));
    format!("{} × {} ({device}), largest {} bytes", drop.totals.packets, drop.label(), drop.totals.largest)
}

fn packet(drop: &Dropped<'_>) -> Option<String> {
    let record = drop.example().filter(|record| !record.header.is_empty())?;
    let bytes = record.header.iter().take(54).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    Some(format!("packet: {}, {} bytes, header {bytes}", drop.flow.key, record.length))
}

fn stack(drop: &Dropped<'_>) -> Option<String> {
    let frames: Vec<&str> = drop.stack().iter().take(FRAMES).map(String::as_str).collect();
    (!frames.is_empty()).then(|| format!("stack: {}", frames.join(" < ")))
}
