//! `nat-missing` between two guests: one reaches its neighbour by an address of this host that is forwarded, and only the
//! destination is translated. The neighbour answers straight to it, past this host, from an address that it never asked.

use crate::diagnose::facts::place::at;
use crate::diagnose::fix::masquerade::masquerade;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::guest_network;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::words;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let inner = case.group.past?;
    let scene = case.scene;
    let bridge = case.bridge()?;
    let network = guest_network(case, case.key().source.ip()?)?;
    let (to, asked, from) = (inner.destination, case.key().destination, case.key().source);
    let guest =
        scene.guest_by_address(to).and_then(|device| scene.guest_name(device)).unwrap_or_else(|| to.to_string());
    let explanation = format!(
        "{} to {asked} were forwarded to {guest} ({to}) with the source {from} as it is: {guest} is on the same network and answers straight to it, which waits for an answer from {asked}.",
        words::packets(case.packets())
    );
    let fix = masquerade(scene, bridge, network, None)
        .risk(format!("{guest} then sees this host's address in place of its neighbours' on what is forwarded so."));
    Some(
        Judgement::dropped(Cause::NatMissing, at(scene, bridge.index, Point::NetfilterPostrouting), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!(
                "{from} seen as the source at the egress of {} too, and {to} answering it past this host",
                bridge.name
            )])
            .fix(fix)
            .fix(Fix::advice(format!(
                "Or let the guests of {} use {to} itself, by a name that leads them there.",
                bridge.name
            ))),
    )
}
