//! Native XDP programs that let nothing in: they run in the driver, before any hook, so only the device counts the loss
//! (`tun_build_skb`, `veth_xdp_rcv_one`).

use super::place::at;
use super::scene::{Role, Scene};
use crate::diagnose::report::{Point, Where};
use crate::event::host::Link;
use crate::event::{Direction, IfIndex};

/// The device, if it has a program, dropped packets during the trace and let none in; and how many it dropped.
pub(in crate::diagnose) fn swallowed<'a>(scene: &Scene<'a>, device: IfIndex) -> Option<(&'a Link, u64)> {
    let link = scene.link(device).filter(|link| link.xdp.is_some())?;
    let before = scene.track.first_host().link(device).map_or(0, |link| link.statistics.rx_dropped);
    let count = link.statistics.rx_dropped.checked_sub(before).filter(|count| *count > 0)?;
    let came_in = scene
        .track
        .flows()
        .flat_map(|flow| flow.places.keys())
        .any(|place| place.device == device && place.direction == Direction::Ingress);
    (!came_in).then_some((link, count))
}

pub(in crate::diagnose) fn place_of_program(scene: &Scene<'_>, link: &Link) -> Where {
    let point = if scene.role(link.index) == Role::Tap { Point::TapIngress } else { Point::NicIngress };
    at(scene, link.index, point)
}

pub(in crate::diagnose) fn swallowed_text(link: &Link, count: u64) -> String {
    format!(
        "Nothing came in by {}, whose XDP program ({}) runs before any hook; the device dropped {count} packets meanwhile.",
        link.name,
        link.xdp.as_deref().unwrap_or("native")
    )
}

pub(in crate::diagnose) fn swallowed_evidence(link: &Link, count: u64) -> String {
    format!("{}: XDP {}, rx_dropped +{count}", link.name, link.xdp.as_deref().unwrap_or("native"))
}
