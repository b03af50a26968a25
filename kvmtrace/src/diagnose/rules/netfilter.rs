//! The firewall's drops: `netfilter-*` and `conntrack-full`, with the rule or policy that did it.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::firewall::protection::protection;
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::{Suspect, exceeded};
use crate::diagnose::facts::place::at;
use crate::diagnose::faults::firewall::{culprits, cures};
use crate::diagnose::faults::fragments::CONNTRACK_IPV6;
use crate::diagnose::faults::{fragments, nat_ports};
use crate::diagnose::fix::manager::filters_bridged;
use crate::diagnose::fix::{device, sysctl};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Severity, Verdict};
use crate::event::{HostState, Protocol};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let key = drop.key();
    let (stage, mut suspects) = culprits(case.scene, drop, &key)?;
    let device = drop.device().or(case.device())?;
    let mut place = at(case.scene, device, stage.point()).of(drop);
    if place.device.is_none() {
        place.device = case.device().map(|device| case.scene.name(device));
    }
    // A sender that was told has met a rule that tells.
    if told_no(case) && suspects.iter().any(Suspect::rejects) {
        suspects.retain(Suspect::rejects);
    }
    if suspects.iter().all(|suspect| suspect.rule.is_none() && suspect.chain.is_none())
        && let Some(judgement) = unruled(case, drop, &stage)
    {
        return Some(judgement);
    }
    let refused = suspects.first().is_some_and(Suspect::rejects) && (told_no(case) || suspects.len() == 1);
    // The message that a path-MTU black hole swallows is told as that.
    let too_big = matches!(key.protocol, Protocol::Icmp { kind: 3, code: 4, .. } | Protocol::Icmpv6 { kind: 2, .. });
    let some_passed = case.dropped() < case.packets();
    let limit = match suspects.as_slice() {
        [only] if !too_big && !refused => exceeded(case.scene, &stage, &key, drop, only, some_passed),
        _ => None,
    };
    let cause = match (too_big, refused) {
        (true, _) => Cause::PmtuBlackHole,
        (false, true) => Cause::NetfilterReject,
        (false, false) if limit.is_some() => Cause::RateLimited,
        (false, false) => stage.cause,
    };
    let who = match suspects.as_slice() {
        [] => format!("the {} hook of the {} family; no rule there could be singled out", stage.hook, stage.family),
        [only] => only.text(),
        [first, others @ ..] if first.traced.is_some() => format!("{} (and {} more)", first.text(), others.len()),
        [first, _] => format!("{} (or the other on that hook that matches)", first.text()),
        [first, ..] => format!("{} (or one of {} others on that hook that match)", first.text(), suspects.len() - 1),
    };
    let what = case.dropped_share();
    let explanation = if cause == Cause::NetfilterBridgedIp {
        format!(
            "{what} were bridged frames that br_netfilter sent through the IP {} chain of this host, where they were dropped by {who}.",
            stage.hook.to_uppercase()
        )
    } else if let Some((_, rule)) = limit {
        format!(
            "{what} exceeded a limit of this host's firewall at {}, rule \"{}\", and were dropped by {who}.",
            stage.hook, rule.text
        )
    } else if cause == Cause::NetfilterReject {
        format!("{what} were refused by this host's firewall: {who}.")
    } else {
        format!("{what} were dropped by this host's firewall at {}: {who}.", stage.hook)
    };
    let root = suspects.first().and_then(Suspect::root);
    let mut judgement = Judgement::dropped(cause, place, explanation)
        .root(root)
        .evidence(suspects.iter().take(4).map(Suspect::evidence));
    if cause == Cause::NetfilterReject {
        judgement = judgement.verdict(Verdict::Refused);
    }
    let fixes = cures(case.scene, drop, &key, &stage, &suspects);
    if suspects.iter().any(|suspect| suspect.gone) {
        return Some(judgement.severity(Severity::Warning).fixes(fixes));
    }
    if let Some((_, rule)) = limit {
        let advice = Fix::advice(format!(
            "If the limit is meant, the sender has to send less. Else raise it in the rule \"{}\": a rule of its own for this traffic, as follows, puts it beyond every limit.",
            rule.text
        ));
        // TCP sends as much as is let through.
        let adapts = is_moving(case) && case.dropped() * 2 < case.packets();
        let severity = if adapts { Severity::Info } else { Severity::Warning };
        return Some(judgement.severity(severity).fix(advice).fixes(fixes));
    }
    if cause != Cause::NetfilterBridgedIp {
        return Some(judgement.fixes(fixes));
    }
    let judgement = judgement.evidence(bridge_sysctls(case.scene.host));
    // A rule that protects keeps doing so for bridged frames.
    if suspects.first().and_then(|suspect| suspect.rule).and_then(protection).is_some() {
        return Some(judgement.fixes(fixes));
    }
    let beside = bridged_fix(case, &stage);
    // Who filters bridged frames keeps the firewall of all guests.
    let Some(who) = filters_bridged(case.scene.host) else { return Some(judgement.fix(beside).fixes(fixes)) };
    let scope = format!(
        "Not by bridge-nf-call-iptables: {who} filters what bridges forward by these rules, and without it no guest is protected any more."
    );
    Some(judgement.fixes(fixes).fix(Fix::advice(scope)))
}

/// A TCP conversation in which the other side goes on acknowledging.
fn is_moving(case: &Case<'_>) -> bool {
    case.key().protocol == Protocol::Tcp && case.answered() >= 3 && case.left() > 3
}

/// The sender was told: an ICMP error about the flow, or a reset in the far end's name.
fn told_no(case: &Case<'_>) -> bool {
    case.errors
        .iter()
        .any(|error| error.about.is_prohibited() || error.about.is_port_unreachable() || error.about.is_unreachable())
        || case.key().protocol == Protocol::Tcp
            && case.answers.iter().flat_map(|flow| flow.places.values()).any(|counters| counters.tcp_reset > 0)
}

fn bridge_sysctls(host: &HostState) -> Vec<String> {
    ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"]
        .into_iter()
        .filter_map(|name| Some(format!("{name} = {}", host.sysctl(name)?)))
        .collect()
}

fn bridged_fix(case: &Case<'_>, stage: &Stage) -> Fix {
    let name = if stage.family == "ip6" {
        "net.bridge.bridge-nf-call-ip6tables"
    } else {
        "net.bridge.bridge-nf-call-iptables"
    };
    let risk = "Rules that were written to filter bridged traffic by IP (Docker, Kubernetes, OpenStack security groups) no longer see it.";
    let per_bridge = case.bridge().filter(|bridge| {
        matches!(&bridge.kind, crate::event::host::LinkKind::Bridge(state)
            if if stage.family == "ip6" { state.netfilter_ip6 } else { state.netfilter_ip })
    });
    let option = if stage.family == "ip6" { "nf_call_ip6tables" } else { "nf_call_iptables" };
    let why = "Bridged frames then pass by the host's IP firewall, as a switch would forward them.";
    match per_bridge {
        Some(bridge) if case.scene.host.sysctl(name) != Some("1") => {
            device::bridge_option(bridge, option, "0", "1", why).risk(risk)
        }
        _ => sysctl::set(case.scene.host, name, "0", why).risk(risk),
    }
}

/// No rule did it: what else drops at these hooks.
fn unruled(case: &Case<'_>, drop: &Dropped<'_>, stage: &Stage) -> Option<Judgement> {
    conntrack_full(case, drop, stage)
        .or_else(|| not_kept(case, drop, stage))
        .or_else(|| nat_ports::no_port_left(case, drop, stage))
}

/// No rule did it: conntrack puts IPv6 datagrams together before it looks at them, and drops the pieces that it can't keep
/// (`nf_ct_frag6_gather`, by `ipv6_defrag`).
fn not_kept(case: &Case<'_>, drop: &Dropped<'_>, stage: &Stage) -> Option<Judgement> {
    let first = matches!(stage.hook, "prerouting" | "output") && stage.family == "ip6" && stage.by_nft != Some(true);
    let pieces = drop.flow.places.values().any(|counters| counters.fragments > 0);
    (first && pieces).then(|| fragments::not_kept(case, drop, CONNTRACK_IPV6, stage.point()))
}

/// No rule did it: conntrack drops what it has no room for (`nf_conntrack_in`, "table full").
fn conntrack_full(case: &Case<'_>, drop: &Dropped<'_>, stage: &Stage) -> Option<Judgement> {
    let host = case.scene.host;
    let number = |name: &str| host.sysctl(name).and_then(|value| value.parse::<u64>().ok());
    let (count, max) = (number("net.netfilter.nf_conntrack_count"), number("net.netfilter.nf_conntrack_max"));
    let counter = |name: &str| {
        let now = host.counters.get(name).copied().unwrap_or(0);
        now.saturating_sub(case.scene.track.first_host().counters.get(name).copied().unwrap_or(0))
    };
    let refused = counter("conntrack.drop") + counter("conntrack.early_drop");
    let full = count.zip(max).is_some_and(|(count, max)| count + max / 50 >= max);
    if stage.by_nft == Some(true) || !matches!(stage.hook, "prerouting" | "output") || !(full || refused > 0) {
        return None;
    }
    let device = drop.device().or(case.device())?;
    let (used, max) = (count.unwrap_or(0), max.unwrap_or(0));
    let explanation = format!(
        "{} were of new connections, and the host's connection tracking table is full ({used} of {max} entries).",
        case.dropped_share()
    );
    let raise = sysctl::set(
        host,
        "net.netfilter.nf_conntrack_max",
        &(max.max(65_536) * 2).to_string(),
        "Makes room for more tracked connections.",
    )
    .risk("Each entry takes some 320 bytes of kernel memory.");
    let flush = Fix {
        command: Some("conntrack -F".to_owned()),
        ..Fix::advice("Empties the table at once; it fills again if the cause remains.")
    }
    .risk("Established connections through NAT or a stateful firewall break.");
    Some(
        Judgement::dropped(Cause::ConntrackFull, at(case.scene, device, stage.point()).of(drop), explanation)
            .evidence([format!("net.netfilter.nf_conntrack_count = {used}, nf_conntrack_max = {max}, conntrack drops during the trace: {refused}")])
            // To empty the table breaks what works: first only where its bound can't be set.
            .fixes(if host.conntrack_bound_fixed { vec![flush, raise] } else { vec![raise, flush] }),
    )
}
