//! `bridge-mtu-exceeded`: a bridge drops what is longer than the egress port's MTU, and tells nobody.
//!
//! `is_skb_forwardable` (net/core/dev.c) fails in `br_dev_queue_push_xmit`; with br_netfilter and conntrack the length
//! is checked in `br_nf_dev_queue_xmit`. Neither has a drop reason. GSO frames are let through.

use crate::diagnose::case::Case;
use crate::diagnose::fix::device;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::Direction;

/// Where it happens, on all kernels known.
pub const FUNCTIONS: &[&str] = &["br_dev_queue_push_xmit", "br_nf_dev_queue_xmit", "br_forward_finish"];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.is(&["PKT_TOO_BIG"], FUNCTIONS) {
        return None;
    }
    let link = case.scene.link(drop.device()?)?;
    let largest = drop.totals.largest;
    if largest <= link.mtu {
        return None;
    }
    // As large as what feeds it, so that the next larger packet does not fail in turn.
    let feeding = case.device().and_then(|device| case.scene.link(device)).map_or(0, |link| link.mtu);
    let wanted = largest.max(feeding);
    let explanation = format!(
        "{} were too big ({largest} bytes) for {} (MTU {}); a bridge drops these without telling the sender.",
        words::dropped(case),
        link.name,
        link.mtu
    );
    let raise = device::mtu(
        link,
        wanted,
        format!("Lets {} carry the {largest}-byte packets that the guest may send.", link.name),
    );
    let lower = Fix::advice(format!(
        "Or set the MTU of the guest's interface to {}, in the guest or by its network's DHCP option 26.",
        link.mtu
    ));
    Some(
        Judgement::dropped(
            Cause::BridgeMtuExceeded,
            at(case.scene, link.index, Point::BridgeEgress).of(drop),
            explanation,
        )
        .evidence([format!("{}: MTU {}; largest packet dropped: {largest} bytes", link.name, link.mtu)])
        .fix(raise)
        .fix(lower),
    )
}

/// GSO frames pass a port whose MTU their segments exceed (`is_skb_forwardable` lets them): the NIC cuts them into
/// segments that are too big, and the first one that is sent alone, a retransmission, is dropped.
pub fn judge_segments(case: &Case<'_>) -> Option<Judgement> {
    let exceeds = |place: &crate::event::Place, counters: &crate::event::FlowCounters| {
        let port = case.scene.bridge_of(place.device).is_some();
        let link = case.scene.link(place.device);
        port && place.direction == Direction::Egress
            && counters.gso > 0
            && link.is_some_and(|link| counters.largest > link.mtu)
    };
    let (place, counters) = case.hops.iter().find(|(place, counters)| exceeds(place, counters))?;
    let link = case.scene.link(place.device)?;
    let explanation = format!(
        "Segments of {} bytes leave by {} (MTU {}) inside GSO frames, which a bridge lets pass; sent alone, as a retransmission is, they will be dropped.",
        counters.largest, link.name, link.mtu
    );
    Some(
        Judgement::dropped(Cause::BridgeMtuExceeded, at(case.scene, link.index, Point::BridgeEgress), explanation)
            .verdict(Verdict::Delivered)
            .severity(Severity::Warning)
            .fix(device::mtu(
                link,
                counters.largest,
                format!("Lets {} carry segments of {} bytes.", link.name, counters.largest),
            )),
    )
}
