//! `nat-unwanted`: a rule gives this host's address to what it should leave as it is. The answers then come to this host instead
//! of to the one who asked (a frame that a bridge forwards, shown to the IP rules by `br_netfilter`), the receiver sees a
//! stranger (between two guests), or the packet no longer fits the tunnel that was made for it (`xfrm_lookup` comes after
//! source NAT: `nf_xfrm_me_harder`, `net/netfilter/nf_nat_proto.c`).

use crate::diagnose::facts::firewall::suspects::root;
use crate::diagnose::facts::nat::{Translator, translator};
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::accept::accept_ways;
use crate::diagnose::fix::conversation::{Conversation, Service};
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, FlowDirection, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::overlay::{IpsecDirection, IpsecPolicy};
use crate::event::{Direction, FlowKey};
use crate::forward::Entry;
use crate::track::Flow;
use std::net::IpAddr;

/// An answer that this host's routing refuses: what it answers was bridged, and translated on the way.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.within(Site::Routing) {
        return None;
    }
    let keys = [Some(case.key()), case.group.translated];
    let asked = keys.into_iter().flatten().find_map(|key| {
        let flow = case.scene.track.get(&key.reverse())?;
        let entry = bridged_entry(case.scene, flow)?;
        Some((flow.key, translator(case.scene, flow, entry)?))
    });
    let (asked, by) = asked?;
    let explanation = format!(
        "{} came to this host, for what they answer was bridged and yet translated: {} has {} in place of its source {}. This host is no router for them.",
        case.dropped_share(),
        by.text(),
        by.source,
        asked.source
    );
    Some(judgement(case, Verdict::Dropped, explanation, &by, &asked))
}

/// A request that nobody answers, and whose source a rule has changed.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let outer = case.group.translated.filter(|_| case.answered() == 0)?;
    let key = case.key();
    let from_guest = matches!(case.group.direction, FlowDirection::FromGuest | FlowDirection::GuestToGuest);
    if !from_guest || outer.source == key.source || outer.destination != key.destination {
        return None;
    }
    let main = case.group.main;
    let scene = case.scene;
    let bridged = bridged_entry(scene, main);
    let entry = bridged.or_else(|| Some(Entry::Guest(scene.entry(main)?.0.device)))?;
    let by = translator(scene, main, entry)?;
    let (packets, rule) = (words::packets(case.packets()), by.text());
    let (source, destination) = (key.source.ip()?, key.destination.ip()?);
    let explanation = if bridged.is_some() {
        format!(
            "{packets} were bridged and yet translated: {rule} has {} in place of {source}, so the answers go to this host.",
            by.source
        )
    } else if let Some(policy) = missed_policy(scene, (source, destination), (by.source, destination)) {
        format!(
            "{packets} left outside the tunnel that is meant for them: {rule} has {} in place of {source}, and the policy of IPsec, which is asked again then, is for {}/{}.",
            by.source, policy.selector.source.address, policy.selector.source.prefix
        )
    } else if matches!(case.way(), Way::Guest(_)) {
        format!(
            "{packets} reached {destination} with the source {} in place of {source}, by {rule}: between two networks of this host nothing has to be translated, and who lets in only {source} refuses them.",
            by.source
        )
    } else {
        return None;
    };
    let judgement = judgement(case, Verdict::Unanswered, explanation, &by, &key);
    let sure = bridged.is_some() || !matches!(case.way(), Way::Guest(_));
    Some(if sure { judgement } else { judgement.severity(Severity::Warning) })
}

fn judgement(
    case: &Case<'_>,
    verdict: Verdict,
    explanation: String,
    by: &Translator<'_>,
    asked: &FlowKey,
) -> Judgement {
    let scene = case.scene;
    let way = Conversation {
        source: asked.source.ip(),
        destination: asked.destination.ip(),
        service: Service::AnyIp,
        port: None,
        answered: false,
    };
    let exempt = accept_ways(scene, by.chain, &[way], Some(by.rule));
    let why = format!(
        "Leaves what {} sends to {} as it is, before the rule that translates it; connections that exist keep what they have.",
        asked.source, asked.destination
    );
    let exempt = Fix { why, ..exempt }
        .risk(format!("{} sees {} then, and needs a way back to it.", asked.destination, asked.source));
    Judgement::dropped(Cause::NatUnwanted, at(scene, by.output, Point::NetfilterPostrouting), explanation)
        .verdict(verdict)
        .root(Some(root(by.chain, Some(by.rule))))
        .evidence([format!(
            "{} → {} becomes {} → {1}, by \"{}\"",
            asked.source, asked.destination, by.source, by.rule.text
        )])
        .fix(exempt)
}

/// Where a frame came in that a bridge of this host forwards: it is for the MAC address of another machine.
fn bridged_entry(scene: &Scene<'_>, flow: &Flow) -> Option<Entry> {
    let (place, _) = flow.places.iter().find(|(place, counters)| {
        let mac = counters.destination_mac;
        place.direction == Direction::Ingress
            && scene.bridge_of(place.device).is_some()
            && !mac.is_zero()
            && !mac.is_multicast()
            && !scene.is_host_mac(mac)
    })?;
    Some(if scene.interface(place.device).is_some() { Entry::Guest(place.device) } else { Entry::Wire(place.device) })
}

/// The outgoing policy of IPsec that takes the packet as it was, where none takes it as it is.
fn missed_policy<'a>(scene: &Scene<'a>, before: (IpAddr, IpAddr), after: (IpAddr, IpAddr)) -> Option<&'a IpsecPolicy> {
    let takes = |policy: &IpsecPolicy, (source, destination): (IpAddr, IpAddr)| {
        policy.selector.source.contains(source) && policy.selector.destination.contains(destination)
    };
    let policies = scene.host.overlay.policies.iter();
    let mut out = policies.filter(|policy| policy.direction == IpsecDirection::Out && !policy.templates.is_empty());
    let meant = out.clone().find(|policy| takes(policy, before))?;
    (!out.any(|policy| takes(policy, after))).then_some(meant)
}
