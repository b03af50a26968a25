//! Which rule dropped a packet, and the command that opens exactly that.
//!
//! A rule is a suspect when it drops or rejects on the packet's hook, nothing in its text contradicts the packet, and its
//! counter (where it has one) is not zero. The policy is one when it drops. When several remain, all are told.

use super::quote;
use crate::diagnose::dropped::Dropped;
use crate::diagnose::report::Fix;
use crate::diagnose::rules::netfilter_stage::Stage;
use crate::diagnose::scene::Scene;
use crate::event::FlowKey;
use crate::event::host::{Backend, Chain, Rule};
use std::net::IpAddr;

pub use super::netfilter_match::contradicts;

/// A rule or policy that may have dropped the packet.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// The chain.
    pub chain: Option<&'a Chain>,
    /// The rule; none for the chain's policy.
    pub rule: Option<&'a Rule>,
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

    /// As a part of a sentence.
    pub fn text(&self) -> String {
        match self.rule {
            Some(rule) => format!("rule \"{}\" in {}", rule.text, self.chain_text()),
            None => format!("the drop policy of {}", self.chain_text()),
        }
    }

    /// As a line of evidence.
    pub fn evidence(&self) -> String {
        let handle =
            self.rule.and_then(|rule| rule.handle).map(|handle| format!(" handle {handle}")).unwrap_or_default();
        let hits = self
            .rule
            .and_then(|rule| rule.packets)
            .or(self.chain.filter(|_| self.rule.is_none()).and_then(|chain| chain.policy_packets));
        let hits = hits.map(|hits| format!(" ({hits} packets)")).unwrap_or_default();
        format!("{}{handle}{hits}", self.text())
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
        let mut reachable = vec![base];
        let mut next = 0;
        while let Some(chain) = reachable.get(next).copied() {
            next += 1;
            for rule in &chain.rules {
                let ends = rule.verdict.as_deref().is_some_and(|verdict| {
                    matches!(verdict, "drop" | "reject") || verdict.starts_with("drop") || verdict.starts_with("reject")
                });
                if ends && rule.packets != Some(0) && !contradicts(scene, rule, key, drop, base) {
                    found.push(Suspect { chain: Some(chain), rule: Some(rule) });
                }
                let target = rule
                    .verdict
                    .as_deref()
                    .and_then(|verdict| verdict.strip_prefix("jump ").or_else(|| verdict.strip_prefix("goto ")));
                if let Some(target) = target {
                    let called = chains.iter().filter(|other| {
                        other.name == target
                            && other.table == base.table
                            && other.family == base.family
                            && other.backend == base.backend
                    });
                    for chain in called {
                        if !reachable.iter().any(|known| std::ptr::eq(*known, chain)) {
                            reachable.push(chain);
                        }
                    }
                }
            }
        }
        if base.policy.as_deref() == Some("drop") {
            found.push(Suspect { chain: Some(base), rule: None });
        }
    }
    // A rule that counted comes before one that may have, and that before a policy.
    found.sort_by_key(|suspect| match suspect.rule {
        Some(rule) if rule.packets.is_some() => 0,
        Some(_) => 1,
        None => 2,
    });
    if found.first().and_then(|first| first.rule).is_some_and(|rule| rule.packets.is_some()) {
        found.truncate(1);
    }
    found
}

/// The command that owns a chain.
fn tool(chain: &Chain) -> String {
    let program = match chain.family.as_str() {
        "ip6" => "ip6tables",
        "bridge" => "ebtables",
        "arp" => "arptables",
        _ => "iptables",
    };
    format!("{program}{}", if chain.backend == Backend::IptablesLegacy { "-legacy" } else { "-nft" })
}

/// Commands that let the packet through.
pub fn fixes(
    scene: &Scene<'_>,
    stage: &Stage,
    suspects: &[Suspect<'_>],
    (source, destination): (Option<IpAddr>, Option<IpAddr>),
) -> Vec<Fix> {
    let mut fixes: Vec<Fix> = suspects
        .iter()
        .take(3)
        .filter_map(|suspect| match (suspect.chain?, suspect.rule) {
            (chain, Some(rule)) => delete(chain, rule),
            (chain, None) => Some(accept(scene, chain, stage, source, destination)),
        })
        .collect();
    if fixes.is_empty() {
        fixes.push(Fix::advice(format!(
            "List the {} rules of the {} hook (nft list ruleset; iptables-save; iptables-legacy-save) and let this flow through.",
            stage.family, stage.hook
        )));
    }
    fixes
}

fn delete(chain: &Chain, rule: &Rule) -> Option<Fix> {
    let why = "Removes the very rule that drops these packets.".to_owned();
    let fix = match chain.backend {
        Backend::Nft => {
            let place = format!("{} {} {}", chain.family, chain.table, chain.name);
            let last = chain.rules.iter().map(|rule| rule.number).max() == Some(rule.number);
            let again = if last {
                format!("add rule {place} {}", rule.text)
            } else {
                format!("insert rule {place} index {} {}", rule.number.saturating_sub(1), rule.text)
            };
            Fix::run(
                format!("nft {}", quote(&format!("delete rule {place} handle {}", rule.handle?))),
                format!("nft {}", quote(&again)),
                why,
            )
            .persist(
                "Remove it from the file that is loaded at boot (/etc/nftables.conf), or from the tool that writes it.",
            )
        }
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let spec = rule.text.strip_prefix("-A ")?;
            let (name, rest) = spec.split_once(' ').unwrap_or((spec, ""));
            let base = format!("{} -t {}", tool(chain), quote(&chain.table));
            // What the tool prints is quoted for its own restore command and safe for a shell only word by word.
            let rest: Vec<String> = rest.split(' ').filter(|word| !word.is_empty()).map(shell_word).collect();
            let rest = rest.join(" ");
            Fix::run(
                format!("{base} -D {} {rest}", quote(name)),
                format!("{base} -I {} {} {rest}", quote(name), rule.number),
                why,
            )
            .persist("Remove it from /etc/iptables/rules.v4 or rules.v6 (netfilter-persistent save), or from the tool that writes it.")
        }
    };
    Some(fix.risk("Whatever else the rule was meant to keep out comes in too."))
}

/// The tools print strings in double quotes, which a shell understands as long as nothing in them expands.
fn shell_word(word: &str) -> String {
    if word.starts_with('"') || word.ends_with('"') {
        return word.replace(['$', '`', '\\', '\n', ';', '&', '|'], "");
    }
    quote(word)
}

/// Lets this conversation through a chain whose policy drops, both ways.
fn accept(scene: &Scene<'_>, chain: &Chain, stage: &Stage, source: Option<IpAddr>, destination: Option<IpAddr>) -> Fix {
    let guest = [source, destination]
        .into_iter()
        .flatten()
        .find(|address| scene.guest_by_address(crate::event::Address::Ip(*address)).is_some());
    let why = match guest {
        Some(guest) => format!("Lets the packets of {guest} pass the chain whose policy drops them."),
        None => "Lets these packets pass the chain whose policy drops them.".to_owned(),
    };
    let both_ways = matches!(stage.hook, "forward" | "prerouting" | "postrouting");
    let fix = match chain.backend {
        Backend::Nft => nft_accept(chain, stage, guest, both_ways, why),
        Backend::IptablesNft | Backend::IptablesLegacy => iptables_accept(chain, stage, guest, both_ways, why),
    };
    fix.risk("All traffic of this address passes the chain; narrow it to the ports that are needed.")
        .persist("Add the rule to the firewall's configuration (/etc/nftables.conf, /etc/iptables/rules.v4, or the tool that writes it).")
}

fn nft_accept(chain: &Chain, stage: &Stage, guest: Option<IpAddr>, both_ways: bool, why: String) -> Fix {
    let place = format!("{} {} {}", chain.family, chain.table, chain.name);
    let word = |address: IpAddr| if address.is_ipv6() { "ip6" } else { "ip" };
    let matches: Vec<String> = match guest.filter(|_| matches!(stage.family, "ip" | "ip6")) {
        Some(address) => {
            let side = |side: &str| format!("{} {side} {address} ", word(address));
            match (both_ways, stage.hook) {
                (true, _) => vec![side("saddr"), side("daddr")],
                (false, "output") => vec![side("daddr")],
                (false, _) => vec![side("saddr")],
            }
        }
        None => vec![String::new()],
    };
    let commands: Vec<String> = matches
        .iter()
        .map(|matching| {
            format!("nft {}", quote(&format!("insert rule {place} {matching}counter accept comment \"kvmtrace\"")))
        })
        .collect();
    let list = quote(&format!("list chain {place}"));
    let undo = format!(
        "for h in $(nft -a {list} | sed -n 's/.*comment \"kvmtrace\" # handle //p'); do nft delete rule {place} handle $h; done"
    );
    Fix::run(commands.join(" && "), undo, why)
}

fn iptables_accept(chain: &Chain, stage: &Stage, guest: Option<IpAddr>, both_ways: bool, why: String) -> Fix {
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let matches: Vec<String> = match guest.filter(|_| matches!(stage.family, "ip" | "ip6")) {
        Some(address) if both_ways => vec![format!(" -s {address}"), format!(" -d {address}")],
        Some(address) if stage.hook == "output" => vec![format!(" -d {address}")],
        Some(address) => vec![format!(" -s {address}")],
        None => vec![String::new()],
    };
    let all = |verb: &str, joint: &str| {
        let commands: Vec<String> = matches
            .iter()
            .map(|matching| format!("{tool} {verb} {}{matching} -j ACCEPT", quote(&chain.name)))
            .collect();
        commands.join(joint)
    };
    Fix::run(all("-I", " && "), all("-D", "; "), why)
}
