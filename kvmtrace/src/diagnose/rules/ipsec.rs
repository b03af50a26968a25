//! `ipsec-policy`, `ipsec-state`: what goes into an IPsec tunnel vanishes, and the counters of the kernel (`/proc/net/xfrm_stat`,
//! `Documentation/networking/xfrm_proc.rst`) say what IPsec dropped on this host meanwhile. They name no packet.

use crate::diagnose::facts::place::at;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::overlay::{IpsecDirection, IpsecPolicy};

/// Policies that are looked through for each flow that vanishes.
const POLICIES: usize = 4_096;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let out = case.left() == 0 && matches!(case.way(), Way::Routed | Way::Uplink);
    if !out || case.is_neighbour_traffic() || case.packets() < 3 || case.answered() > 0 {
        return None;
    }
    let policy = policy(case)?;
    let scene = case.scene;
    let first = scene.track.first_host();
    let grown = scene.host.counters.iter().filter_map(|(name, now)| {
        let name = name.strip_prefix("Xfrm.")?;
        let grown = now.saturating_sub(first.counters.get(&format!("Xfrm.{name}")).copied().unwrap_or(0));
        (grown > 0).then_some((name, grown))
    });
    let grown: Vec<(&str, u64)> = grown.collect();
    let (last, _) = case.hops.last()?;
    let (cause, rest, advice) = match grown.iter().max_by_key(|(_, grown)| *grown) {
        None => (
            Cause::NoReply,
            "nothing came back out of it".to_owned(),
            "Look at the other end of the tunnel: does it have the same states and policies (ip -s xfrm state; ip xfrm policy), and a way back?",
        ),
        Some((most, _)) => {
            let all: Vec<String> = grown.iter().map(|(name, grown)| format!("Xfrm{name} +{grown}")).collect();
            let (cause, advice) = meaning(most);
            (cause, format!("IPsec dropped packets on this host meanwhile ({})", all.join(", ")), advice)
        }
    };
    let explanation = format!(
        "{} to {} go into an IPsec tunnel, and {rest}.",
        words::packets(case.packets()),
        case.key().destination
    );
    let selector = &policy.selector;
    Some(
        Judgement::dropped(cause, at(scene, last.device, Point::Routing), explanation)
            .verdict(Verdict::Unanswered)
            .severity(if case.is_passing() { Severity::Info } else { Severity::Warning })
            .evidence([format!("xfrm policy src {} dst {} dir out", selector.source, selector.destination)])
            .fix(Fix::advice(advice)),
    )
}

/// The outgoing policy that wraps the flow.
fn policy<'a>(case: &Case<'a>) -> Option<&'a IpsecPolicy> {
    let (from, to) = (case.key().source.ip()?, case.key().destination.ip()?);
    let policies = case.scene.host.overlay.policies.iter().take(POLICIES);
    let mut out = policies.filter(|policy| policy.direction == IpsecDirection::Out);
    let first = out.find(|policy| policy.selector.source.contains(from) && policy.selector.destination.contains(to));
    first.filter(|policy| !policy.blocks && !policy.templates.is_empty())
}

/// What a counter stands for, and what to do: the states of the two ends differ, or the policies do.
fn meaning(counter: &str) -> (Cause, &'static str) {
    match counter {
        "InNoStates" => (
            Cause::IpsecState,
            "What came bears an SPI that no state here has: the other end still uses an old one, or this end has lost it. Let the daemon set the tunnel up anew (swanctl --terminate, --initiate; ipsec restart), or give both ends the same states (ip -s xfrm state).",
        ),
        "InStateSeqError" => (
            Cause::IpsecState,
            "What came was taken for a replay: its number is older than the window, or was seen before (packets out of order, or one end began anew with 0). Let the daemon set the tunnel up anew, or widen the window (replay_window of the connection).",
        ),
        "InStateExpired" | "OutStateExpired" => (
            Cause::IpsecState,
            "The state has expired and no new one was made: see in the daemon's log why it did not rekey, and let it set the tunnel up anew.",
        ),
        "InStateProtoError" | "InStateModeError" | "InStateMismatch" | "InStateInvalid" | "OutStateProtoError"
        | "OutStateModeError" | "OutStateSeqError" | "OutStateInvalid" => (
            Cause::IpsecState,
            "The two ends do not agree about the state (key, algorithm, mode or UDP encapsulation): compare them (ip -s xfrm state), or let the daemon set the tunnel up anew.",
        ),
        "InTmplMismatch" => (
            Cause::IpsecPolicy,
            "What came was wrapped as no template of the policy wants: compare policies and states of both ends (ip xfrm policy; ip -s xfrm state).",
        ),
        "InNoPols" => (
            Cause::IpsecPolicy,
            "What came out of the tunnel has no policy here that takes it (dir in for this host, dir fwd for guests): ip xfrm policy lists them.",
        ),
        _ => (
            Cause::IpsecPolicy,
            "Compare policies and states of both ends (ip xfrm policy; ip -s xfrm state), or let the daemon set the tunnel up anew.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_tells_states_from_policies() {
        for name in ["InNoStates", "InStateSeqError", "InStateExpired", "InStateProtoError", "OutStateExpired"] {
            assert_eq!(meaning(name).0, Cause::IpsecState, "{name}");
        }
        for name in ["InTmplMismatch", "InNoPols", "InPolBlock", "OutPolBlock", "OutNoStates", "FwdHdrError"] {
            assert_eq!(meaning(name).0, Cause::IpsecPolicy, "{name}");
        }
    }
}
