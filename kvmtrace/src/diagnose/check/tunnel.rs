//! A tunnel whose packets, with what is wrapped around them, do not fit the device that carries them.

use super::about::About;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::tunnel::{overhead, underlay};
use crate::diagnose::fix::device;
use crate::diagnose::report::{Cause, Finding, Fix, Point, Severity};
use crate::event::host::{Link, LinkKind};

pub(super) fn too_big(scene: &Scene<'_>, tunnel: &Link) -> Option<Finding> {
    let LinkKind::Vxlan { dont_fragment, .. } = &tunnel.kind else { return None };
    let under = underlay(scene, tunnel)?;
    let whole = tunnel.mtu + overhead(tunnel, under);
    if under.mtu >= whole {
        return None;
    }
    let (cause, severity, point) = (Cause::TunnelMtuExceeded, Severity::Warning, Point::Tunnel);
    let then = if *dont_fragment == 1 { "dropped" } else { "sent in pieces, which many networks lose" };
    Some(About { scene, cause, severity, guest: None, device: tunnel.index, point }.say(
        format!(
            "{} takes packets of {} bytes, which make {whole} with the tunnel's headers; {} carries {}: the longest are {then}.",
            tunnel.name, tunnel.mtu, under.name, under.mtu
        ),
        format!("{}: MTU {}; {}: MTU {}", tunnel.name, tunnel.mtu, under.name, under.mtu),
        vec![
            device::mtu(under, whole, format!("Lets {} carry all that {} takes.", under.name, tunnel.name)),
            Fix::advice(format!(
                "Or set the MTU of {} and of the guests' interfaces to {}.",
                tunnel.name,
                under.mtu.saturating_sub(overhead(tunnel, under))
            )),
        ],
    ))
}
