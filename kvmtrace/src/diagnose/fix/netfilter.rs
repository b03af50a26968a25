//! Which rule dropped a packet, and the command that opens exactly that.
//!
//! Where nft's trace named the rule ([`known`]), it is that one. Else a rule is a suspect when it drops or rejects on the packet's hook, nothing in its text contradicts the packet, and its
//! counter (where it has one) has grown since the trace began. The policy is one when it drops. When several remain, all
//! are told. An old counter proves nothing: rules count for months. While a trace runs the rules are not read again, so
//! until its end only what the text says is known.

use super::manager::{self, manager};
use super::quote;
use crate::diagnose::dropped::Dropped;
use crate::diagnose::report::Fix;
use crate::diagnose::rules::netfilter_stage::Stage;
use crate::diagnose::scene::Scene;
use crate::diagnose::words;
use crate::event::host::{Backend, Chain, Rule};
use crate::event::{FlowKey, HostState, RuleSite};
use std::net::IpAddr;

pub use super::netfilter_match::contradicts;
pub use super::netfilter_traced::known;

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
    fn is_unlisted(&self) -> bool {
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
        let mut reachable = vec![base];
        let mut next = 0;
        while let Some(chain) = reachable.get(next).copied() {
            next += 1;
            for rule in &chain.rules {
                let ends = rule.verdict.as_deref().is_some_and(|verdict| {
                    matches!(verdict, "drop" | "reject") || verdict.starts_with("drop") || verdict.starts_with("reject")
                });
                let grown = grown(scene, chain, Some(rule));
                if ends && grown != Some(0) && !contradicts(scene, rule, key, drop, base) {
                    found.push(Suspect { chain: Some(chain), rule: Some(rule), grown, traced: None });
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
        let grown = grown(scene, base, None);
        if base.policy.as_deref() == Some("drop") && grown != Some(0) {
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
        .filter_map(|suspect| {
            if suspect.is_unlisted() {
                return Some(Fix::advice(format!(
                    "Let this flow through in {}, which is not among the rules as they were read: it may be gone already (nft -a list ruleset shows handles).",
                    suspect.text()
                )));
            }
            let chain = suspect.chain?;
            let manager = manager(&scene.host.netfilter.chains, chain, suspect.rule);
            let theirs = manager.and_then(|manager| manager::fix(manager, scene, chain, stage, (source, destination)));
            theirs.or_else(|| {
                let fix = match suspect.rule {
                    Some(rule) if decides_alone(rule) => delete(scene.host, chain, rule)?,
                    // A map of verdicts, or a rule that jumps: it does more than drop.
                    Some(_) | None => accept(scene, chain, stage, source, destination),
                };
                Some(match manager {
                    Some(manager) => fix.persist(manager::persist(manager)),
                    None => fix,
                })
            })
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

/// All that the rule does is to drop or reject what it matches.
fn decides_alone(rule: &Rule) -> bool {
    !rule
        .verdict
        .as_deref()
        .is_some_and(|verdict| verdict == "vmap" || verdict.starts_with("jump ") || verdict.starts_with("goto "))
}

fn delete(host: &HostState, chain: &Chain, rule: &Rule) -> Option<Fix> {
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
            .persist(format!("Remove it from {}.", boot_file(host, chain)))
        }
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let spec = rule.text.strip_prefix("-A ")?;
            let (name, rest) = spec.split_once(' ').unwrap_or((spec, ""));
            let base = format!("{} -t {}", tool(chain), quote(&chain.table));
            let rest: Vec<String> = saved_words(rest).iter().map(|word| quote(word)).collect();
            let rest = rest.join(" ");
            Fix::run(
                format!("{base} -D {} {rest}", quote(name)),
                format!("{base} -I {} {} {rest}", quote(name), rule.number),
                why,
            )
            .persist(format!("Remove it from {}.", boot_file(host, chain)))
        }
    };
    Some(fix.risk("Whatever else the rule was meant to keep out comes in too."))
}

/// From where this host loads a chain at boot.
fn boot_file(host: &HostState, chain: &Chain) -> String {
    let known = |file: &&str| host.configuration.firewall.iter().any(|known| known == file);
    if chain.backend == Backend::Nft {
        let file = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"].into_iter().find(known);
        return match file {
            Some(file) => {
                format!("{file}, if the table is loaded from there, else where the tool that made it keeps it")
            }
            None => "the file that the table is loaded from (/etc/nftables.conf), or the tool that made it".to_owned(),
        };
    }
    let file = match chain.family.as_str() {
        "ip" => "/etc/iptables/rules.v4",
        "ip6" => "/etc/iptables/rules.v6",
        _ => return "the script or tool that made the chain".to_owned(),
    };
    if known(&file) {
        format!("{file} (netfilter-persistent save writes the rules as they are now)")
    } else {
        format!("the script or tool that made it ({file}, if iptables-persistent is installed)")
    }
}

/// The words of a rule as iptables-save writes it: a string with blanks stands in double quotes, a backslash takes the
/// meaning from what follows (`xtables_save_string`).
fn saved_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Lets this conversation through a chain that drops, both ways.
pub(super) fn accept(
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
) -> Fix {
    let is_guest = |address: &IpAddr| scene.guest_by_address(crate::event::Address::Ip(*address)).is_some();
    let guest = [source, destination].into_iter().flatten().find(is_guest);
    let ends = matches!(stage.family, "ip" | "ip6").then_some((source, destination));
    let both_ways = matches!(stage.hook, "forward" | "prerouting" | "postrouting");
    // From and to whom, for each rule that is needed.
    let wanted: Vec<Ends> = match (ends, guest) {
        (None | Some((None, None)), _) => vec![(None, None)],
        (Some(_), Some(guest)) if both_ways => vec![(Some(guest), None), (None, Some(guest))],
        (Some(_), Some(guest)) if stage.hook == "output" => vec![(None, Some(guest))],
        (Some(_), Some(guest)) => vec![(Some(guest), None)],
        (Some(ends), None) if both_ways => vec![ends, (ends.1, ends.0)],
        (Some(ends), None) => vec![ends],
    };
    let (what, risk) = match (guest, ends) {
        (Some(guest), Some(_)) => (
            format!("the packets of {guest}"),
            "All traffic of this address passes the chain; narrow it to the ports that are needed.",
        ),
        (_, Some((Some(source), Some(destination)))) => (
            format!("what {source} and {destination} send each other"),
            "All traffic between the two passes the chain; narrow it to the ports that are needed.",
        ),
        _ => ("all packets".to_owned(), "Everything passes the chain; narrow it to what is needed."),
    };
    let why = format!("Lets {what} pass the chain that drops them.");
    let fix = match chain.backend {
        Backend::Nft => nft_accept(chain, &wanted, why),
        Backend::IptablesNft | Backend::IptablesLegacy => iptables_accept(chain, &wanted, why),
    };
    fix.risk(risk).persist(format!("Add the rule to {}.", boot_file(scene.host, chain)))
}

/// Source and destination that a rule asks for.
type Ends = (Option<IpAddr>, Option<IpAddr>);

fn nft_accept(chain: &Chain, wanted: &[Ends], why: String) -> Fix {
    let place = format!("{} {} {}", chain.family, chain.table, chain.name);
    let test = |side: &str, address: Option<IpAddr>| {
        let word = |address: IpAddr| if address.is_ipv6() { "ip6" } else { "ip" };
        address.map(|address| format!("{} {side} {address} ", word(address))).unwrap_or_default()
    };
    let commands: Vec<String> = wanted
        .iter()
        .map(|(source, destination)| {
            let tests = test("saddr", *source) + &test("daddr", *destination);
            format!("nft {}", quote(&format!("insert rule {place} {tests}counter accept comment \"kvmtrace\"")))
        })
        .collect();
    let list = quote(&format!("list chain {place}"));
    let undo = format!(
        "for h in $(nft -a {list} | sed -n 's/.*comment \"kvmtrace\" # handle //p'); do nft delete rule {place} handle $h; done"
    );
    Fix::run(commands.join(" && "), undo, why)
}

fn iptables_accept(chain: &Chain, wanted: &[Ends], why: String) -> Fix {
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let all = |verb: &str, joint: &str| {
        let test = |flag: &str, address: Option<IpAddr>| {
            address.map(|address| format!(" {flag} {address}")).unwrap_or_default()
        };
        let commands: Vec<String> = wanted
            .iter()
            .map(|(source, destination)| {
                let tests = test("-s", *source) + &test("-d", *destination);
                format!("{tool} {verb} {}{tests} -j ACCEPT", quote(&chain.name))
            })
            .collect();
        commands.join(joint)
    };
    Fix::run(all("-I", " && "), all("-D", "; "), why)
}

#[cfg(test)]
mod tests {
    use super::saved_words;

    #[test]
    fn a_saved_rule_is_split_as_its_restore_command_would() {
        let text = r#"-i br0 -m comment --comment "it's \"a\" $(b); c" -m x --y "" -j DROP"#;
        let words =
            ["-i", "br0", "-m", "comment", "--comment", "it's \"a\" $(b); c", "-m", "x", "--y", "", "-j", "DROP"];
        assert_eq!(saved_words(text), words);
    }
}
