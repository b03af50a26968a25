//! `route-mtu-exceeded` where the NIC has made one packet of many: large receive offload.
//!
//! What is merged so can't be cut again as GRO's can. Some drivers note the size of the parts but not how to cut
//! (`mlx5e_build_rx_skb`): `ip_forward` and `ip6_forward` drop that (`skb_warn_if_lro`), without a reason. Others note nothing
//! (`bnxt_tpa_end`): then it is one packet, longer than any MTU. The kernel switches the offload off where it forwards
//! (`inet_forward_change`, `dev_forward_change`), but once: it can be switched on again. Not so on what has a bridge or a VLAN
//! above it: there the kernel keeps it off (`netdev_sync_upper_features`).

use crate::diagnose::facts::offload::{large_receive_evidence, merging};
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::device::large_receive_off;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Point};
use crate::event::{Direction, Protocol};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if case.key().protocol != Protocol::Tcp || drop.is_in_tunnel() || !drop.is(&["PKT_TOO_BIG"], Site::Forward) {
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
        case.dropped_share(),
        nic.name
    );
    Some(
        Judgement::dropped(Cause::RouteMtuExceeded, at(case.scene, nic.index, Point::NicIngress).of(drop), explanation)
            .evidence([large_receive_evidence(nic)])
            .fix(large_receive_off(nic)),
    )
}
