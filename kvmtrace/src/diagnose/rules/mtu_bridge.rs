//! `bridge-mtu-exceeded`: a bridge drops what is longer than the egress port's MTU, and tells nobody.
//!
//! `is_skb_forwardable` (net/core/dev.c) fails in `br_dev_queue_push_xmit`; with br_netfilter and conntrack the length
//! is checked in `br_nf_dev_queue_xmit`. Neither has a drop reason. GSO frames are let through.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::{device, stack};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::Direction;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.is(&["PKT_TOO_BIG"], Site::BridgeEgressLength) {
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
    // A tunnel gets no more than its underlay carries now, if that is enough.
    let room = stack::room(case.scene.host, link, wanted);
    let wanted = if room >= largest { room } else { wanted };
    let explanation = format!(
        "{} were too big ({largest} bytes) for {} (MTU {}); a bridge drops these without telling the sender.",
        case.dropped_share(),
        link.name,
        link.mtu
    );
    let raise = device::mtu(
        link,
        wanted,
        format!("Lets {} carry the {largest}-byte packets that the guest may send.", link.name),
    );
    let fits = room >= largest;
    let below = link.lower.filter(|_| !fits).and_then(|lower| case.scene.link(lower));
    let doubt = below.map_or_else(String::new, |below| {
        format!(
            " {} below carries {} bytes with the tunnel's headers; that its network carries more is not known here.",
            below.name, below.mtu
        )
    });
    let lower = Fix::advice(format!(
        "{} the MTU of the guest's interface to {}, in the guest or by its network's DHCP option 26.{doubt}",
        if fits { "Or set" } else { "Set" },
        room.min(link.mtu)
    ));
    Some(
        Judgement::dropped(
            Cause::BridgeMtuExceeded,
            at(case.scene, link.index, Point::BridgeEgress).of(drop),
            explanation,
        )
        .evidence([format!("{}: MTU {}; largest packet dropped: {largest} bytes", link.name, link.mtu)])
        .fixes(if fits { [raise, lower] } else { [lower, raise] }),
    )
}

/// A veth pair whose ends differ: the far one takes no more than its own MTU (`__dev_forward_skb2`, `is_skb_forwardable`).
pub fn judge_far_end(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let near = case.scene.link(drop.device()?)?;
    let far = near.peer.and_then(|peer| case.scene.link(peer))?;
    let largest = drop.totals.largest;
    if !drop.within(Site::FarEnd) || !far.up || largest <= far.mtu {
        return None;
    }
    let explanation = format!(
        "{} were too big ({largest} bytes) for {} (MTU {}), the other end of {}, which takes none that is longer and tells nobody.",
        case.dropped_share(),
        far.name,
        far.mtu,
        near.name
    );
    let why = format!("Lets {} take the {largest}-byte packets that {} sends.", far.name, near.name);
    Some(
        Judgement::dropped(
            Cause::BridgeMtuExceeded,
            at(case.scene, far.index, Point::BridgeIngress).of(drop),
            explanation,
        )
        .evidence([format!("{}: MTU {}; {}: MTU {}", near.name, near.mtu, far.name, far.mtu)])
        .fix(device::mtu(far, largest.max(near.mtu), why)),
    )
}

/// A macvtap hands its device what is larger than the device's MTU (`macvlan_queue_xmit` does not look); a NIC takes in no
/// answer of that size.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let (place, counters) = case.hops.iter().rev().find(|(place, _)| place.direction == Direction::Egress)?;
    let link = case.scene.link(place.device)?;
    let below_macvtap = case.device().and_then(|device| case.scene.link(device))?.lower == Some(link.index);
    if !below_macvtap || counters.largest <= link.mtu || counters.gso > 0 {
        return None;
    }
    let explanation = format!(
        "{} of up to {} bytes left by {}, whose MTU is {}: larger ones than the device is set for get lost there or on the way back, and nobody is told.",
        words::packets(case.packets()),
        counters.largest,
        link.name,
        link.mtu
    );
    let why =
        format!("Lets {} carry packets of {} bytes, and the guest's device on top of it.", link.name, counters.largest);
    Some(
        Judgement::dropped(Cause::BridgeMtuExceeded, at(case.scene, link.index, Point::NicEgress), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!("{}: MTU {}", link.name, link.mtu)])
            .fix(device::mtu(link, counters.largest, why)),
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
