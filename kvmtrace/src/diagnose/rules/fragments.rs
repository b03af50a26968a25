//! `fragments-lost`, `fragmented-by-guest`, `fragmented-by-host`, `fragmented-by-bridge`: who cuts packets up, and what
//! becomes of the pieces.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::fragments::{avoid, memory_of, not_kept};
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::{Direction, FlowCounters, Place};

/// Pieces that waited in vain for the others.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let timeout = drop.because(&["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"])
        || drop.is_unspecified() && drop.within(Site::FragmentsExpired);
    if !timeout {
        let memory = memory_of(drop)?;
        let early = drop.through(Site::ConntrackDefragments);
        let point = if early { Point::NetfilterPrerouting } else { Point::HostInput };
        return Some(not_kept(case, drop, memory, point));
    }
    let device = drop.device().or(case.device())?;
    let explanation =
        format!("{} were pieces of datagrams of which other pieces never came to this host.", case.dropped_share());
    Some(
        Judgement::dropped(Cause::FragmentsLost, at(case.scene, device, Point::HostInput).of(drop), explanation)
            .fix(avoid()),
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
    if at_entry.fragments > 0 && entry.direction == Direction::Egress && !case.is_from_guest() {
        return Some(by_this_host(case, entry, at_entry));
    }
    if at_entry.fragments > 0 {
        let name = scene.name(entry.device);
        let who = if case.is_from_guest() { "The guest" } else { "The sender" };
        let what = if let Some(per) = at_entry.fragments.checked_div(at_entry.fragmented) {
            format!("{} in fragments, {per} each", datagrams(at_entry.fragmented))
        } else {
            let fragments = words::counted(at_entry.fragments.into(), "fragment");
            format!("{fragments} of datagrams whose first one was not seen")
        };
        let explanation = format!("{who} sends {what}, of up to {} bytes (seen at {name}).", at_entry.largest);
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
            place.direction == Direction::Ingress && matches!(scene.role(place.device), Role::Bridge)
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
    let port = case.device().and_then(|device| scene.link(device));
    let why = format!("Packets of {whole} bytes then pass {} whole.", link.name);
    let raise = device::mtu_before(scene.host, link, port, whole.max(link.mtu), why);
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

/// Its datagrams are this host's own. That is as it should be, unless the device is narrower than what the guest hangs on.
fn by_this_host(case: &Case<'_>, entry: Place, counters: &FlowCounters) -> Judgement {
    let scene = case.scene;
    let name = scene.name(entry.device);
    let link = scene.link(entry.device);
    let limit = link.map(|link| format!(" (MTU {})", link.mtu)).unwrap_or_default();
    let explanation = format!(
        "This host sends {} in fragments, {} each, of up to {} bytes by {name}{limit}.",
        datagrams(counters.fragmented),
        counters.fragments / counters.fragmented.max(1),
        counters.largest
    );
    let judgement =
        Judgement::dropped(Cause::FragmentedByHost, at(scene, entry.device, Point::HostOutput), explanation)
            .verdict(Verdict::Fragmented);
    let port = case.device().and_then(|device| scene.link(device));
    match link.zip(port).filter(|(link, port)| link.mtu < port.mtu) {
        Some((link, port)) => judgement.severity(Severity::Warning).fix(device::mtu(
            link,
            port.mtu,
            format!("{} then carries what {} does.", link.name, port.name),
        )),
        None => judgement
            .severity(Severity::Info)
            .fix(Fix::advice("Nothing is lost; datagrams that fit the MTU would not be cut up.")),
    }
}

fn datagrams(count: u32) -> String {
    format!("{count} {}", if count == 1 { "datagram" } else { "datagrams" })
}
