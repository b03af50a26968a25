//! A TCP flow that moves, but sends a good part of its bytes twice: what was sent first, or its acknowledgement, got lost where
//! nobody counts drops (`no-reply`). The sequence numbers show on which side of a place: what was lost before it leaves a gap
//! there, what was lost behind it comes again though it had been there.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::{Direction, FlowCounters, Protocol};

/// Fewer segments come again on a healthy path, too, where an acknowledgement is late (RFC 8985, tail loss probes).
const LEAST: u32 = 5;
/// One byte of so many.
const SHARE: u64 = 20;
/// Ethernet, IPv4 and TCP without options: what a packet has beside its segment, at the least.
const HEADERS: u64 = 54;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.key().protocol != Protocol::Tcp || case.dropped() > 0 || case.left() == 0 {
        return None;
    }
    // The acknowledgements' own flow says where they died on this host.
    if case.answers.iter().any(|flow| !flow.drops.is_empty()) {
        return None;
    }
    let (entry, seen) = case.entry()?;
    let sent = seen.bytes.saturating_sub(HEADERS * seen.packets);
    // A keepalive repeats one byte.
    let counts = seen.repeated >= LEAST && seen.repeated_bytes > 2 * u64::from(seen.repeated);
    if !counts || seen.repeated_bytes * SHARE < sent {
        return None;
    }
    let scene = case.scene;
    let name = scene.name(entry.device);
    let to = case.key().destination;
    let (place, whose) = if is_before(seen) && !case.is_from_guest() {
        let whose = format!("the first time, they were lost before they came in at {name}");
        (beyond(Some(name.clone())), whose)
    } else {
        match case.way() {
            Way::Guest(device) => {
                let guest = scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
                let whose = format!("the first time, they or their acknowledgements got lost at {guest}");
                (at(scene, device, Point::Guest), whose)
            }
            Way::Host => {
                let place = at(scene, case.hops.last()?.0.device, Point::HostInput);
                (place, "the first time, this host did not acknowledge them".to_owned())
            }
            Way::Uplink | Way::Routed | Way::Group | Way::Unknown => {
                let out = case.last_device().map(|device| scene.name(device));
                let by = out.as_ref().map_or_else(String::new, |out| format!(", behind {out}"));
                let whose = format!("the first time, they or their acknowledgements got lost beyond this host{by}");
                (beyond(out), whose)
            }
        }
    };
    let is_open = is_before(seen) && case.is_from_guest() || seen.missing_bytes > seen.repeated_bytes * 2;
    let whose = if is_open {
        format!(
            "the first time, they or their acknowledgements got lost on the way; there were gaps at {name} too, from what was lost before it or from several CPUs that counted, so on which side of it is not known"
        )
    } else {
        whose
    };
    let explanation = format!(
        "{} of {sent} bytes to {to} were sent again ({}): {whose}.",
        seen.repeated_bytes,
        words::counted(u64::from(seen.repeated), "segment"),
    );
    let evidence = case.hops.iter().filter(|(_, seen)| seen.repeated > 0).map(|(place, seen)| {
        format!(
            "{} {}: {} bytes came again in {}, {} bytes were missing when later ones came",
            scene.name(place.device),
            if place.direction == Direction::Ingress { "ingress" } else { "egress" },
            seen.repeated_bytes,
            words::counted(u64::from(seen.repeated), "segment"),
            seen.missing_bytes
        )
    });
    Some(
        Judgement::dropped(Cause::NoReply, place, explanation)
            .verdict(Verdict::Unanswered)
            .severity(Severity::Warning)
            .evidence(evidence.take(6))
            .fix(Fix::advice(format!(
                "Look for partial loss on that part of the way to {to}: a rate limit, a bad link or cable, an overloaded machine (mtr shows from which hop on; ethtool -S counts a card's errors)."
            ))),
    )
}

/// Most of what came again had not been here: it fills gaps. Gaps much larger than that come from a flow that several CPUs counted,
/// each a part of it, and say nothing. Between a guest and its tap hardly anything gets lost, so gaps there blame nobody either.
fn is_before(seen: &FlowCounters) -> bool {
    let (gaps, again) = (seen.missing_bytes, seen.repeated_bytes);
    gaps * 2 > again && gaps <= again * 2
}
