//! Which rule dropped a packet.
//!
//! Where nft's trace named the rule ([`known`](super::netfilter_traced::known)), it is that one. Else a rule is a suspect
//! when it drops or rejects on the packet's hook, can be reached, nothing in its text contradicts the packet, and its
//! counter (where it has one) has grown since the trace began. The policy is one when it drops. When several remain, all
//! are told. An old counter proves nothing: rules count for months. While a trace runs the rules are not read again, so
//! until its end only what the text says is known.

use super::netfilter::tool;
use super::netfilter_match::contradicts;
use crate::diagnose::dropped::Dropped;
use crate::diagnose::rules::netfilter_stage::Stage;
use crate::diagnose::scene::Scene;
use crate::diagnose::words;
use crate::event::host::{Backend, Chain, Rule};
use crate::event::{FlowKey, RuleSite};

/// A rule or policy that may have dropped the packet.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// The chain.
    pub chain: Option<&'a Chain>,
    /// The rule; none for the chain's policy, and where the rule that was traced is in no list of rules.
    pub rule: Option<&'a Rule>,
    /// Packets that it has counted since the trace began, where it counts and that is known.
    pub grown: Option<u64>,
    /// What nft's trace said of it, and of how many packets.
    pub traced: Option<(&'a RuleSite, u64)>,
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

    /// As a part of a sentence.
    pub fn text(&self) -> String {
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

/// All suspects, the likeliest first.
pub fn suspects<'a>(scene: &Scene<'a>, stage: &Stage, key: &FlowKey, drop: &Dropped<'_>) -> Vec<Suspect<'a>> {
    let chains = &scene.host.netfilter.chains;
    let family =
        |chain: &Chain| chain.family == stage.family || chain.family == "inet" && matches!(stage.family, "ip" | "ip6");
    let backend = |chain: &Chain| (chain.backend != Backend::IptablesLegacy) == stage.by_nft;
    let hook = |chain: &Chain| chain.hook.as_deref() == Some(stage.hook);
    let device = drop.device().map(|device| scene.name(device));
    let own = |chain: &Chain| chain.device.is_none() || chain.device == device || stage.family != "netdev";
    let mut found = Vec::new();
    for base in chains.iter().filter(|chain| family(chain) && backend(chain) && hook(chain) && own(chain)) {
        let mut walk = Walk { scene, key, drop, base, seen: Vec::new(), found: &mut found };
        let fate = walk.through(base, 0);
        let grown = grown(scene, base, None);
        if fate == Fate::GoesOn && base.policy.as_deref() == Some("drop") && grown != Some(0) {
            found.push(Suspect { chain: Some(base), rule: None, grown, traced: None });
        }
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
    key: &'w FlowKey,
    drop: &'w Dropped<'w>,
    base: &'a Chain,
    /// Chains that were walked through, with what comes after them.
    seen: Vec<(&'a Chain, Fate)>,
    found: &'w mut Vec<Suspect<'a>>,
}

impl<'a> Walk<'_, 'a> {
    fn through(&mut self, chain: &'a Chain, depth: usize) -> Fate {
        if let Some((_, fate)) = self.seen.iter().find(|(seen, _)| std::ptr::eq(*seen, chain)) {
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

    fn rules(&mut self, chain: &'a Chain, depth: usize) -> Fate {
        // A rule that sends some packets back to the caller: then no later one is every packet's end.
        let mut some_return = false;
        for rule in &chain.rules {
            let Some(verdict) = rule.verdict.as_deref() else { continue };
            if contradicts(self.scene, rule, self.key, self.drop, self.base) {
                continue;
            }
            let (word, target) = verdict.split_once(' ').unwrap_or((verdict, ""));
            let fate = match word {
                "drop" | "reject" => {
                    let grown = grown(self.scene, chain, Some(rule));
                    if grown != Some(0) {
                        self.found.push(Suspect { chain: Some(chain), rule: Some(rule), grown, traced: None });
                    }
                    Some(Fate::Ends)
                }
                "accept" => Some(Fate::Ends),
                "return" => Some(Fate::GoesOn),
                "jump" => Some(self.jump(target, depth)).filter(|fate| *fate == Fate::Ends),
                // From where it was sent by goto a packet does not come back here.
                "goto" => Some(self.jump(target, depth)),
                _ => None,
            };
            let Some(fate) = fate else { continue };
            if is_unconditional(chain.backend, rule) {
                return if some_return { Fate::GoesOn } else { fate };
            }
            some_return |= fate == Fate::GoesOn;
        }
        Fate::GoesOn
    }

    fn jump(&mut self, target: &str, depth: usize) -> Fate {
        let base = self.base;
        let beside = |other: &&'a Chain| {
            other.name == target
                && other.table == base.table
                && other.family == base.family
                && other.backend == base.backend
        };
        let called = self.scene.host.netfilter.chains.iter().find(beside);
        called.map_or(Fate::GoesOn, |chain| self.through(chain, depth + 1))
    }
}

/// The rule's text has nothing but what it does: each packet that comes to it meets it.
fn is_unconditional(backend: Backend, rule: &Rule) -> bool {
    let mut words = rule.text.split_whitespace();
    if backend != Backend::Nft {
        // `-P` is the policy of a chain that is only jumped to.
        return match words.next() {
            Some("-A") => words.nth(1).is_some_and(|word| matches!(word, "-j" | "-g")),
            other => other == Some("-P"),
        };
    }
    let mut first = words.next();
    if first == Some("counter") {
        first = words.next();
        if first == Some("packets") {
            first = words.nth(3);
        }
    }
    first.is_some_and(|word| matches!(word, "drop" | "reject" | "accept" | "return" | "jump" | "goto"))
}

/// What a rule, or a chain's policy, has counted since the trace began; none while that is not known.
fn grown(scene: &Scene<'_>, chain: &Chain, rule: Option<&Rule>) -> Option<u64> {
    let first = &scene.track.first_host().netfilter;
    if !scene.track.has_ended() && *first == scene.host.netfilter {
        return None;
    }
    let same = |other: &&Chain| {
        (other.backend, &other.family, &other.table, &other.name)
            == (chain.backend, &chain.family, &chain.table, &chain.name)
    };
    let before = first.chains.iter().find(same);
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
