//! `route-mtu-exceeded` where the NIC has made one packet of many: large receive offload.
//!
//! What is merged so can't be cut again as GRO's can. Some drivers note the size of the parts but not how to cut
//! (`mlx5e_build_rx_skb`): `ip_forward` and `ip6_forward` drop that (`skb_warn_if_lro`), without a reason. Others note nothing
//! (`bnxt_tpa_end`): then it is one packet, longer than any MTU. The kernel switches the offload off where it forwards
//! (`inet_forward_change`, `dev_forward_change`), but once: it can be switched on again. Not so on what has a bridge or a VLAN
//! above it: there the kernel keeps it off (`netdev_sync_upper_features`).

use crate::diagnose::case::Case;
use crate::diagnose::fix::persist::{DeviceSetting, Setting};
use crate::diagnose::fix::quote;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::words;
use crate::event::host::{HostState, Link, LinkKind};
use crate::event::{Direction, IfIndex, Protocol};

const FUNCTIONS: &[&str] = &["ip_forward", "ip6_forward"];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if case.key().protocol != Protocol::Tcp || drop.is_in_tunnel() || !drop.is(&["PKT_TOO_BIG"], FUNCTIONS) {
        return None;
    }
    let came_in = case.hops.iter().find(|(place, _)| place.direction == Direction::Ingress)?.0.device;
    let nic = merging(case.scene.host, came_in).next()?;
    let longer = drop.totals.largest > nic.mtu;
    if !longer && !drop.is_unspecified() {
        return None;
    }
    let explanation = format!(
        "{} had been merged from smaller ones by {} (large receive offload): such a packet can neither be cut again nor forwarded.",
        words::dropped(case),
        nic.name
    );
    Some(
        Judgement::dropped(Cause::RouteMtuExceeded, at(case.scene, nic.index, Point::NicIngress).of(drop), explanation)
            .evidence([evidence(nic)])
            .fix(off(nic)),
    )
}

/// The NICs that merge what comes in by a device: itself, or those that it bundles. What a bond or team says of itself
/// merges nothing.
pub fn merging(host: &HostState, device: IfIndex) -> impl Iterator<Item = &Link> {
    let bundled = host.ports(device).filter(move |_| {
        let bundle = host.link(device);
        bundle.is_some_and(|link| !matches!(link.kind, LinkKind::Bridge(_)))
    });
    host.link(device).into_iter().chain(bundled).filter(|link| link.kind == LinkKind::Physical && link.large_receive)
}

/// As it was read.
pub fn evidence(nic: &Link) -> String {
    format!("{}: large-receive-offload on", nic.name)
}

/// Switches it off.
pub fn off(nic: &Link) -> Fix {
    let name = quote(&nic.name);
    Fix::run(
        format!("ethtool -K {name} lro off"),
        format!("ethtool -K {name} lro on"),
        format!("{} then hands on packets as they came; what GRO merges can be cut again.", nic.name),
    )
    .risk("Some NICs set their queues up anew: their traffic may pause for a moment.")
    .persist("Set it where the device is configured: netplan \"large-receive-offload: false\", NetworkManager ethtool.feature-lro off, systemd LargeReceiveOffload=no in [Link] of its .link file, ifupdown a line \"post-up\" with the command.")
    .setting(Setting::Device { device: nic.name.clone(), what: DeviceSetting::LargeReceiveOff })
}
