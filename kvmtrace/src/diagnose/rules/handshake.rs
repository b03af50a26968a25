//! TCP connections that never come to be: requests (SYN) and answers (SYN and ACK) go on and on, and no third segment follows.
//! The answer is not what the asker waits for: from another address or port, or a firewall at the asker's end drops it.
//! `nat-missing` where this host translates the destination of the requests and the answers go past it; else `no-reply`.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::fix::masquerade::masquerade;
use crate::diagnose::flows::case::{Case, Way, only_opens};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::host::Network;
use crate::event::{Direction, Protocol};
use crate::track::Flow;

/// Requests of one connection after which it is no longer young: the second comes after a second (RFC 6298).
const REQUESTS: u32 = 2;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let whole = case.key().protocol == Protocol::Tcp && case.dropped() == 0 && case.scene.sees_answers();
    if !whole || !case.is_settled() || case.answers.iter().any(|flow| !flow.drops.is_empty()) {
        return None;
    }
    let most = |flows: &mut dyn Iterator<Item = &Flow>, value: fn(&crate::event::FlowCounters) -> u32| {
        flows.flat_map(|flow| flow.places.values()).map(value).max().unwrap_or(0)
    };
    let requests = most(&mut case.group.flows(), |counters| counters.tcp_syn);
    let refused = most(&mut case.group.flows(), |counters| counters.tcp_reset) > 0;
    let accepted = most(&mut case.answers.iter().copied(), |counters| counters.tcp_syn_ack);
    let answers_only = case.answers.iter().all(|flow| only_opens(flow));
    if requests < REQUESTS || accepted == 0 || !answers_only || !case.group.flows().all(only_opens) {
        return None;
    }
    past_this_host(case, requests, refused).or_else(|| {
        // Who resets the connection has got the answer to it: a check of a port (a scan, a probe, a load balancer) ends so.
        if refused {
            return None;
        }
        let (place, asker) = asker(case);
        let explanation = format!(
            "{} for a connection to {} and {} came and went in order, but {asker} goes on asking: the answers are not what it waits for, or do not get to it.",
            words::counted(u64::from(requests), "request"),
            case.key().destination,
            words::counted(u64::from(accepted), "answer"),
        );
        Some(
            Judgement::dropped(Cause::NoReply, place, explanation)
                .verdict(Verdict::Unanswered)
                .severity(Severity::Warning)
                .fix(Fix::advice(format!(
                    "Look at {asker}: does a firewall there drop the answers, do they come from the address and port that it asked, and by the device that it asked by (a capture there shows both)?"
                ))),
        )
    })
}

/// Who asks.
fn asker(case: &Case<'_>) -> (crate::diagnose::report::Where, String) {
    let scene = case.scene;
    if let Some(device) = case.device().filter(|_| case.is_from_guest()) {
        let guest = scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
        return (at(scene, device, Point::Guest), guest);
    }
    let entered = case.entry().map(|(place, _)| scene.name(place.device));
    (beyond(entered), case.key().source.to_string())
}

/// This host forwarded a port of its own to the guest, with the source as it is, and the guest answers the asker straight.
fn past_this_host(case: &Case<'_>, requests: u32, refused: bool) -> Option<Judgement> {
    let scene = case.scene;
    let Way::Guest(device) = case.way() else { return None };
    let outer = case.group.translated?;
    let (asked, inner) =
        if scene.is_host_address(outer.destination.ip()?) { (outer, case.key()) } else { (case.key(), outer) };
    let own = scene.is_host_address(asked.destination.ip()?);
    if !own || asked.source != inner.source || asked.destination == inner.destination {
        return None;
    }
    // Not by this host's own MAC address, so it can't translate them back.
    let straight = case.answers.iter().any(|flow| {
        flow.places.iter().any(|(place, counters)| {
            place.device == device
                && place.direction == Direction::Ingress
                && !counters.destination_mac.is_zero()
                && !scene.is_host_mac(counters.destination_mac)
        })
    });
    let bridge = case.bridge().filter(|_| straight)?;
    let guest = scene.guest_name(device).unwrap_or_else(|| inner.destination.to_string());
    let port = |port: Option<u16>| port.map(|port| format!(" port {port}")).unwrap_or_default();
    let explanation = format!(
        "{} to {}{} were forwarded to {guest} ({}{}), which answers {} straight, past this host: {}, which waits for an answer from {}, {}.",
        words::counted(u64::from(requests), "request"),
        asked.destination,
        port(asked.destination_port),
        inner.destination,
        port(inner.destination_port),
        inner.source,
        inner.source,
        asked.destination,
        if refused { "refuses it" } else { "takes it for nothing" },
    );
    let source = inner.source.ip()?;
    let network = Network { address: source, prefix: if source.is_ipv6() { 128 } else { 32 } };
    let fix = masquerade(scene, bridge, network, inner.destination.ip())
        .risk(format!("{guest} then sees this host's address in place of {source}."));
    Some(
        Judgement::dropped(Cause::NatMissing, at(scene, bridge.index, Point::NetfilterPostrouting), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!("the answers of {guest} leave for another MAC address than this host's")])
            .fix(fix)
            .fix(Fix::advice(format!(
                "Or let {guest} use this host as its gateway, or the others use {} itself.",
                inner.destination
            ))),
    )
}
