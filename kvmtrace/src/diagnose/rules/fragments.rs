//! `fragments-lost`, `fragmented-by-guest`, `fragmented-by-host`, `fragmented-by-bridge`: who cuts packets up, and what
//! becomes of the pieces.

use crate::diagnose::case::{Case, Way};
use crate::diagnose::fix::device;
use crate::diagnose::judgement::{Judgement, at, beyond};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::Direction;

/// Pieces that waited in vain for the others.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let timeout = drop.because(&["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"])
        || drop.is_unspecified()
            && drop.within(&["ip_expire", "ip6_frag_expire", "ip6frag_expire_frag_queue", "inet_frag_destroy"]);
    if !timeout {
        return None;
    }
    let device = drop.device().or(case.device())?;
    let explanation =
        format!("{} were pieces of datagrams of which other pieces never came to this host.", words::dropped(case));
    Some(
        Judgement::dropped(Cause::FragmentsLost, at(case.scene, device, Point::HostInput).of(drop), explanation)
            .fix(avoid()),
    )
}

fn avoid() -> Fix {
    Fix::advice(
        "Find out who drops fragments on the way (firewalls often do), or send datagrams that fit the path's MTU.",
    )
}

/// The receiver says that pieces are missing.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let error = case.errors.iter().find(|error| error.about.is_reassembly_timeout())?;
    let explanation = format!(
        "{} were sent in fragments, and {} never got all pieces of them (ICMP \"reassembly time exceeded\").",
        words::packets(case.packets()),
        error.about.from
    );
    let place = beyond(case.last_device().map(|device| case.scene.name(device)));
    Some(Judgement::dropped(Cause::FragmentsLost, place, explanation).verdict(Verdict::Lost).fix(avoid()))
}

/// A flow that arrives, in pieces.
pub fn judge_delivered(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let (entry, at_entry) = case.entry()?;
    let exit = case.hops.iter().find(|(place, counters)| counters.fragments > 0 && *place != entry);
    if at_entry.fragments > 0 {
        let name = scene.name(entry.device);
        let who = if case.is_from_guest() { "The guest" } else { "The sender" };
        let per = at_entry.fragments / at_entry.fragmented.max(1);
        let explanation = format!(
            "{who} sends {} in fragments, {per} each, of up to {} bytes (seen at {name}).",
            datagrams(at_entry.fragmented),
            at_entry.largest
        );
        let place = if case.is_from_guest() {
            at(scene, entry.device, Point::TapIngress)
        } else {
            at(scene, entry.device, Point::NicIngress)
        };
        return Some(
            Judgement::dropped(Cause::FragmentedByGuest, place, explanation)
                .verdict(Verdict::Fragmented)
                .severity(Severity::Info)
                .fix(Fix::advice(
                    "Nothing is lost; datagrams that fit the MTU of the sender's interface would not be cut up.",
                )),
        );
    }
    let (place, counters) = exit?;
    let link = scene.link(place.device)?;
    let routed = matches!(case.way(), Way::Routed)
        || case.hops.iter().any(|(place, _)| {
            place.direction == Direction::Ingress
                && matches!(scene.role(place.device), crate::diagnose::scene::Role::Bridge)
        });
    let (cause, who, point) = if routed || !case.is_from_guest() && scene.bridge_of(entry.device).is_none() {
        (Cause::FragmentedByHost, "This host", Point::Routing)
    } else {
        (Cause::FragmentedByBridge, "The bridge (br_netfilter)", Point::BridgeEgress)
    };
    let whole = at_entry.largest;
    let explanation = format!(
        "{who} cuts packets of up to {whole} bytes into fragments for {} (MTU {}): {} became {} fragments.",
        link.name,
        link.mtu,
        datagrams(counters.fragmented),
        counters.fragments
    );
    let raise =
        device::mtu(link, whole.max(link.mtu), format!("Packets of {whole} bytes then pass {} whole.", link.name));
    Some(
        Judgement::dropped(cause, at(scene, link.index, point), explanation)
            .verdict(Verdict::Fragmented)
            .severity(Severity::Warning)
            .fix(raise)
            .fix(Fix::advice(format!(
                "Or let the guest send packets of at most {} bytes: set the MTU of its interface.",
                link.mtu
            ))),
    )
}

fn datagrams(count: u32) -> String {
    format!("{count} {}", if count == 1 { "datagram" } else { "datagrams" })
}
