//! Which rule dropped a packet.
//!
//! Where nft's trace named the rule ([`known`](super::traced::known)), it is that one. Else a rule is a suspect
//! when it drops or rejects on the packet's hook, can be reached, nothing in its text contradicts the packet, and its
//! counter (where it has one) has grown since the trace began. The policy is one when it drops. When several remain, all
//! are told. An old counter proves nothing: rules count for months. While a trace runs the rules are not read again, so
//! until its end only what the text says is known.

use super::fit::Asked;
use super::limit;
use super::stage::Stage;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Root;
use crate::diagnose::words;
use crate::event::host::{Backend, Chain, Rule};
use crate::event::ruleset::{RuleReference, Verdict};
use crate::event::{FlowKey, RuleSite};
use crate::forward::firewall::Fit;

/// A rule or policy that may have dropped the packet.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// The chain.
    pub chain: Option<&'a Chain>,
    /// The chain of the hook from which it was reached, where that was followed.
    pub base: Option<&'a Chain>,
    /// The rule; none for the chain's policy, and where the rule that was traced is in no list of rules.
    pub rule: Option<&'a Rule>,
    /// Packets that it has counted since the trace began, where it counts and that is known.
    pub grown: Option<u64>,
    /// What nft's trace said of it, and of how many packets.
    pub traced: Option<(&'a RuleSite, u64)>,
    /// It was there when the trace began, and is not any more.
    pub gone: bool,
}

impl Suspect<'_> {
    fn chain_text(&self) -> String {
        self.chain.map_or_else(String::new, |chain| match chain.backend {
            Backend::Nft => format!("nft {} {} {}", chain.family, chain.table, chain.name),
            Backend::IptablesNft | Backend::IptablesLegacy => {
                format!("{} -t {} {}", tool(chain), chain.table, chain.name)
            }
        })
    }

    /// It tells the sender.
    pub fn rejects(&self) -> bool {
        self.rule.is_some_and(|rule| {
            rule.verdict.as_deref() == Some("reject") || rule.text.contains("reject") || rule.text.contains("REJECT")
        })
    }

    /// It is this rule of this chain, or this chain's policy.
    fn is(&self, chain: &Chain, rule: Option<&Rule>) -> bool {
        self.chain.is_some_and(|own| std::ptr::eq(own, chain))
            && match (self.rule, rule) {
                (Some(own), Some(rule)) => std::ptr::eq(own, rule),
                (own, rule) => own.is_none() && rule.is_none(),
            }
    }

    /// As a part of a sentence.
    pub fn text(&self) -> String {
        if self.gone {
            return format!("{}, which was there when the trace began and is not any more", self.named());
        }
        self.named()
    }

    fn named(&self) -> String {
        match (self.rule, self.traced) {
            (Some(rule), _) => format!("rule \"{}\" in {}", rule.text, self.chain_text()),
            (None, Some((RuleSite { family, table, chain, handle: Some(handle), .. }, _))) => {
                format!("the rule with handle {handle} in nft {family} {table} {chain}")
            }
            (None, _) => format!("the drop policy of {}", self.chain_text()),
        }
    }

    /// The trace named a rule that is in no list: it went while the trace ran, or rules can't be listed here.
    pub fn is_unlisted(&self) -> bool {
        self.rule.is_none() && self.traced.is_some_and(|(site, _)| site.handle.is_some())
    }

    /// The rule or policy by itself, whichever packet met it.
    pub fn root(&self) -> Option<Root> {
        match (self.chain, self.traced) {
            (Some(chain), _) if !self.is_unlisted() => Some(root(chain, self.rule)),
            (_, Some((RuleSite { family, table, chain, handle, .. }, _))) => {
                let handle = handle.map_or_else(|| "policy".to_owned(), |handle| handle.to_string());
                Some(Root::Rule(format!("{family} {table} {chain} {handle}")))
            }
            (_, None) => None,
        }
    }

    /// As a line of evidence.
    pub fn evidence(&self) -> String {
        let handle =
            self.rule.and_then(|rule| rule.handle).map(|handle| format!(" handle {handle}")).unwrap_or_default();
        let hits = self.grown.map(|hits| format!(", {hits} packets during the trace")).unwrap_or_default();
        let Some((site, packets)) = self.traced else { return format!("{}{handle}{hits}", self.text()) };
        let from = if site.base == site.chain { String::new() } else { format!(", reached from chain {}", site.base) };
        format!("nft's trace: {} ended by {}{handle}{from}", words::packets(packets), self.text())
    }
}

/// A rule, or the policy of a chain, in words that name no other.
pub fn root(chain: &Chain, rule: Option<&Rule>) -> Root {
    let rule = match rule {
        Some(Rule { handle: Some(handle), .. }) => handle.to_string(),
        Some(rule) => rule.text.clone(),
        None => "policy".to_owned(),
    };
    Root::Rule(format!("{} {} {} {rule}", chain.family, chain.table, chain.name))
}

/// All suspects, the likeliest first.
pub fn suspects<'a>(scene: &Scene<'a>, stage: &Stage, key: &FlowKey, drop: &Dropped<'_>) -> Vec<Suspect<'a>> {
    let mut found = Vec::new();
    for (index, base) in bases(scene, stage, drop, stage.by_nft) {
        let packet = Asked::new(scene, stage, key, drop, base);
        let mut walk = Walk { scene, packet, base, index, beyond: None, seen: Vec::new(), found: &mut found };
        walk.whole();
    }
    // What counted enough comes before what may have, and a rule before a policy.
    let enough = |suspect: &Suspect<'_>| suspect.grown.is_some_and(|grown| grown >= drop.totals.packets);
    found.sort_by_key(|suspect| (!enough(suspect), suspect.rule.is_none()));
    // Whoever counted all of it did it, but for those that don't count.
    if found.first().is_some_and(enough) {
        found.retain(enough);
    }
    found
}

/// Suspects among the rules and policies that were there when the trace began, and went while it ran.
pub fn gone<'a>(scene: &Scene<'a>, stage: &Stage, key: &FlowKey, drop: &Dropped<'_>) -> Vec<Suspect<'a>> {
    let first = scene.track.as_taken().first_host();
    if first.netfilter.chains == scene.host.netfilter.chains {
        return Vec::new();
    }
    let mut found = suspects(&scene.as_it_began(), stage, key, drop);
    found.retain(|suspect| {
        let now = suspect.chain.and_then(|chain| {
            let is_same = |other: &&Chain| same_chain(other, chain);
            scene.host.netfilter.chains.iter().find(is_same)
        });
        match (now, suspect.rule) {
            (None, _) => true,
            (Some(chain), None) => chain.policy.as_deref() != Some("drop"),
            // A counter in a rule's text grows.
            (Some(chain), Some(rule)) => !chain.rules.iter().any(|other| match (other.handle, rule.handle) {
                (Some(other), Some(handle)) => other == handle,
                _ => other.text == rule.text,
            }),
        }
    });
    for suspect in &mut found {
        suspect.gone = true;
    }
    found
}

fn same_chain(one: &Chain, other: &Chain) -> bool {
    (one.backend, &one.family, &one.table, &one.name) == (other.backend, &other.family, &other.table, &other.name)
}

/// The rule whose limit the packets exceeded, whether it drops them itself or leaves them to `suspect`.
pub fn exceeded<'a>(
    scene: &Scene<'a>,
    stage: &Stage,
    key: &FlowKey,
    drop: &Dropped<'_>,
    suspect: &Suspect<'a>,
    some_passed: bool,
) -> Option<(&'a Chain, &'a Rule)> {
    let base = suspect.base.or(suspect.chain)?;
    let packet = Asked::new(scene, stage, key, drop, base);
    limit::exceeded(scene, suspect.chain?, suspect.rule, some_passed, &|rule| packet.fit(rule) != Fit::Not)
}

/// What would drop the packet for certain once `culprit` is gone: it never met them so far, so their counters tell nothing.
pub fn behind<'a>(
    scene: &Scene<'a>,
    stage: &Stage,
    key: &FlowKey,
    drop: &Dropped<'_>,
    culprit: &Suspect<'a>,
) -> Vec<Suspect<'a>> {
    let mut found = Vec::new();
    for (index, base) in bases(scene, stage, drop, None) {
        let packet = Asked::new(scene, stage, key, drop, base);
        let mut walk = Walk { scene, packet, base, index, beyond: Some(*culprit), seen: Vec::new(), found: &mut found };
        walk.whole();
    }
    found
}

/// The chains of the drop's hook, in the order in which packets meet them.
fn bases<'a>(scene: &Scene<'a>, stage: &Stage, drop: &Dropped<'_>, by_nft: Option<bool>) -> Vec<(usize, &'a Chain)> {
    let is_device = matches!(stage.hook, "ingress" | "egress");
    let family = |chain: &Chain| {
        chain.family == stage.family
            || chain.family == "inet" && (matches!(stage.family, "ip" | "ip6") || stage.family == "netdev" && is_device)
    };
    let backend = |chain: &Chain| by_nft.is_none_or(|by_nft| (chain.backend != Backend::IptablesLegacy) == by_nft);
    let hook = |chain: &Chain| chain.hook.as_deref() == Some(stage.hook);
    let device = drop.device().map(|device| scene.name(device));
    let own = |chain: &Chain| {
        stage.family != "netdev"
            || chain.device.as_deref().is_none_or(|devices| {
                device.as_deref().is_some_and(|device| devices.split(',').any(|one| one == device))
            })
    };
    let chains = scene.host.netfilter.chains.iter().enumerate();
    let mut bases: Vec<(usize, &Chain)> =
        chains.filter(|(_, chain)| family(chain) && backend(chain) && hook(chain) && own(chain)).collect();
    bases.sort_by_key(|(_, chain)| chain.priority);
    bases
}

/// What comes after a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The packet may come to what follows the jump there.
    GoesOn,
    /// Each packet is dropped or accepted in it.
    Ends,
}

/// Chains jump to chains so often at most (nft allows 16).
const DEEPEST: usize = 64;

/// A packet's way through a base chain and what it jumps to.
struct Walk<'w, 'a> {
    scene: &'w Scene<'a>,
    packet: Asked<'w>,
    base: &'a Chain,
    /// Index of `base`.
    index: usize,
    /// Asked is what would drop for certain without this one.
    beyond: Option<Suspect<'a>>,
    /// Chains that were walked through, with what comes after them.
    seen: Vec<(usize, Fate)>,
    found: &'w mut Vec<Suspect<'a>>,
}

impl<'a> Walk<'_, 'a> {
    fn whole(&mut self) {
        let base = self.base;
        let fate = self.through(self.index, 0);
        let is_culprit = self.beyond.is_some_and(|culprit| culprit.is(base, None));
        if fate == Fate::GoesOn && base.policy.as_deref() == Some("drop") && !is_culprit {
            let grown = grown(self.scene, base, None);
            if self.beyond.is_some() || grown != Some(0) {
                self.found.push(Suspect {
                    chain: Some(base),
                    base: Some(base),
                    rule: None,
                    grown,
                    traced: None,
                    gone: false,
                });
            }
        }
    }

    fn through(&mut self, chain: usize, depth: usize) -> Fate {
        if let Some((_, fate)) = self.seen.iter().find(|(seen, _)| *seen == chain) {
            return *fate;
        }
        let at = self.seen.len();
        self.seen.push((chain, Fate::GoesOn));
        let fate = if depth < DEEPEST { self.rules(chain, depth) } else { Fate::GoesOn };
        if let Some(seen) = self.seen.get_mut(at) {
            seen.1 = fate;
        }
        fate
    }

    fn rules(&mut self, index: usize, depth: usize) -> Fate {
        let Some(chain) = self.scene.host.netfilter.chains.get(index) else { return Fate::GoesOn };
        // A rule that sends some packets back to the caller: then no later one is every packet's end.
        let mut some_return = false;
        for (number, rule) in chain.rules.iter().enumerate() {
            let reference = RuleReference { chain: index, rule: Some(number) };
            let fit = self.packet.fit(reference);
            if fit == Fit::Not || self.beyond.is_some_and(|culprit| culprit.is(chain, Some(rule))) {
                continue;
            }
            let verdicts = self.packet.verdicts(reference);
            // What has counted nothing was not met, whatever it asks for.
            if verdicts.is_empty() || self.beyond.is_none() && grown(self.scene, chain, Some(rule)) == Some(0) {
                continue;
            }
            let [verdict] = verdicts.as_slice() else {
                // A map whose answer is not known: each may have been given, and what it does not hold goes on.
                for verdict in &verdicts {
                    self.answer(chain, rule, verdict, Fit::Maybe(""), depth);
                }
                continue;
            };
            let Some(fate) = self.answer(chain, rule, verdict, fit, depth) else { continue };
            // Whether it is let through, nobody can say for certain: nothing behind would surely drop it.
            if fit == Fit::Surely || self.beyond.is_some() && *verdict == Verdict::Accept {
                return if some_return { Fate::GoesOn } else { fate };
            }
            some_return |= fate == Fate::GoesOn;
        }
        Fate::GoesOn
    }

    fn answer(&mut self, chain: &'a Chain, rule: &'a Rule, verdict: &Verdict, fit: Fit, depth: usize) -> Option<Fate> {
        match verdict {
            Verdict::Drop | Verdict::Reject => {
                let grown = grown(self.scene, chain, Some(rule));
                let twin =
                    self.beyond.and_then(|culprit| culprit.rule).is_some_and(|culprit| culprit.text == rule.text);
                if self.beyond.is_none() || fit == Fit::Surely || twin {
                    self.found.push(Suspect {
                        chain: Some(chain),
                        base: Some(self.base),
                        rule: Some(rule),
                        grown,
                        traced: None,
                        gone: false,
                    });
                }
                Some(Fate::Ends)
            }
            Verdict::Accept => Some(Fate::Ends),
            Verdict::Return | Verdict::Goto(None) => Some(Fate::GoesOn),
            Verdict::Jump(Some(target)) => Some(self.through(*target, depth + 1)).filter(|fate| *fate == Fate::Ends),
            // From where it was sent by goto a packet does not come back here.
            Verdict::Goto(Some(target)) => Some(self.through(*target, depth + 1)),
            Verdict::Jump(None) | Verdict::Continue | Verdict::Queue { .. } | Verdict::Taken(_) => None,
        }
    }
}

/// What a rule, or a chain's policy, has counted since the trace began; none while that is not known.
fn grown(scene: &Scene<'_>, chain: &Chain, rule: Option<&Rule>) -> Option<u64> {
    let first = &scene.track.first_host().netfilter;
    // Nothing has grown yet when the trace begins.
    let as_it_began = std::ptr::eq(first, &raw const scene.host.netfilter);
    if as_it_began || !scene.track.has_ended() && *first == scene.host.netfilter {
        return None;
    }
    let before = first.chains.iter().find(|other| same_chain(other, chain));
    let (now, then) = match rule {
        None => (chain.policy_packets, before.and_then(|before| before.policy_packets)),
        Some(rule) => {
            let then = before.and_then(|before| {
                // iptables-save tells no handles; of rules that read the same, the one in the same place.
                let twin = |other: &&Rule| match (rule.handle, other.handle) {
                    (Some(handle), Some(other)) => handle == other,
                    _ => other.text == rule.text && other.number == rule.number,
                };
                let reads_same = |other: &&Rule| rule.handle.is_none() && other.text == rule.text;
                before.rules.iter().find(twin).or_else(|| before.rules.iter().find(reads_same))
            });
            (rule.packets, then.and_then(|then| then.packets))
        }
    };
    // A counter that was set back counts from nought.
    now.map(|now| then.filter(|then| *then <= now).map_or(now, |then| now - then))
}

/// The command that owns a chain.
pub(in crate::diagnose) fn tool(chain: &Chain) -> String {
    let program = match chain.family.as_str() {
        "ip6" => "ip6tables",
        "bridge" => "ebtables",
        "arp" => "arptables",
        _ => "iptables",
    };
    format!("{program}{}", if chain.backend == Backend::IptablesLegacy { "-legacy" } else { "-nft" })
}
