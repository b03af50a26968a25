//! The rule that nft's trace named: no guess is needed then.
//!
//! The trace names a rule by its handle and the hook's chain from which it was reached. Both are looked up in the rules as
//! they are now, then as they were when the trace began. A flow may die at several hooks: what fits the drop's own stage
//! comes first; where nothing does, the trace is right about the hook and the stack was misread.

use super::stage::Stage;
use super::suspects::Suspect;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Cause;
use crate::event::host::{Backend, Chain};
use crate::event::{FlowKey, RuleSite};

/// Where the packets of a flow died, and by which rules, the one that was seen most often first; none where it was not
/// traced.
pub fn known<'a>(scene: &Scene<'a>, told: Stage, key: &FlowKey) -> Option<(Stage, Vec<Suspect<'a>>)> {
    let all: Vec<(Stage, Suspect<'a>)> = scene
        .track
        .as_taken()
        .rules_of(key)
        .into_iter()
        .filter_map(|(site, packets)| {
            let stage = chain(scene, site, &site.base).and_then(|base| at(base, told)).unwrap_or(told);
            let base = chain(scene, site, &site.base);
            let chain = chain(scene, site, &site.chain);
            let rule = chain.and_then(|chain| chain.rules.iter().find(|rule| rule.handle == site.handle));
            let rule = rule.filter(|_| site.handle.is_some());
            // Without nft only iptables' own tools tell the rules, and those know no handles.
            let nameless =
                |chain: &Chain| !chain.rules.is_empty() && chain.rules.iter().all(|rule| rule.handle.is_none());
            if site.handle.is_some() && chain.is_some_and(nameless) {
                return None;
            }
            Some((stage, Suspect { chain, base, rule, grown: None, traced: Some((site, packets)), gone: false }))
        })
        .collect();
    let stage =
        all.iter().map(|(stage, _)| *stage).find(|stage| *stage == told).or(all.first().map(|(stage, _)| *stage))?;
    Some((stage, all.into_iter().filter(|(other, _)| *other == stage).map(|(_, suspect)| suspect).collect()))
}

fn chain<'a>(scene: &Scene<'a>, site: &RuleSite, name: &str) -> Option<&'a Chain> {
    let now = scene.host.netfilter.chains.iter();
    now.chain(&scene.track.as_taken().first_host().netfilter.chains).find(|chain| {
        chain.backend != Backend::IptablesLegacy
            && (chain.family.as_str(), chain.table.as_str(), chain.name.as_str())
                == (site.family.as_str(), site.table.as_str(), name)
    })
}

/// The stage of a hook's chain, for a drop that was taken for one at `told`.
fn at(base: &Chain, told: Stage) -> Option<Stage> {
    let hook = match base.hook.as_deref()? {
        "prerouting" => "prerouting",
        "input" => "input",
        "forward" => "forward",
        "output" => "output",
        "postrouting" => "postrouting",
        "ingress" => "ingress",
        "egress" => "egress",
        _ => return None,
    };
    let family = match base.family.as_str() {
        "bridge" => "bridge",
        "arp" => "arp",
        "netdev" => "netdev",
        // It has the hook of the devices too.
        _ if matches!(hook, "ingress" | "egress") => "netdev",
        "ip" => "ip",
        "ip6" => "ip6",
        _ => told.family,
    };
    let cause = match (family, hook) {
        ("bridge", _) => Cause::NetfilterBridge,
        ("arp", _) => Cause::NetfilterArp,
        ("netdev", _) => Cause::NetfilterIngress,
        (_, "forward") if told.cause == Cause::NetfilterBridgedIp => Cause::NetfilterBridgedIp,
        (_, "prerouting") => Cause::NetfilterPrerouting,
        (_, "input") => Cause::NetfilterInput,
        (_, "output") => Cause::NetfilterOutput,
        (_, "postrouting") => Cause::NetfilterPostrouting,
        _ => Cause::NetfilterForward,
    };
    Some(Stage { cause, hook, family, by_nft: Some(true) })
}
