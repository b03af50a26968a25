//! The command that lets a packet through a firewall: past the rule that drops it, or beside it.

use super::conversation::{Conversation, Port};
use super::manager::{self, manager};
use super::suspects::Suspect;
use super::{netfilter_set, nft_chain, nft_delete, quote};
use crate::diagnose::report::Fix;
use crate::diagnose::rules::netfilter_stage::Stage;
use crate::diagnose::scene::Scene;
use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule};
use std::net::IpAddr;

/// The command that owns a chain.
pub(super) fn tool(chain: &Chain) -> String {
    let program = match chain.family.as_str() {
        "ip6" => "ip6tables",
        "bridge" => "ebtables",
        "arp" => "arptables",
        _ => "iptables",
    };
    format!("{program}{}", if chain.backend == Backend::IptablesLegacy { "-legacy" } else { "-nft" })
}

/// Commands that let the packet through. `behind` would drop it when the suspects are gone.
pub fn fixes(
    scene: &Scene<'_>,
    stage: &Stage,
    suspects: &[Suspect<'_>],
    behind: &[Suspect<'_>],
    wanted: &Conversation,
) -> Vec<Fix> {
    let mut fixes: Vec<Fix> = Vec::from_iter(beside(scene, stage, suspects, behind, wanted));
    for suspect in suspects.iter().take(3) {
        if suspect.is_unlisted() {
            fixes.push(Fix::advice(format!(
                "Let this flow through in {}, which is not among the rules as they were read: it may be gone already (nft -a list ruleset shows handles).",
                suspect.text()
            )));
            continue;
        }
        let Some(chain) = suspect.chain else { continue };
        let manager = manager(&scene.host.netfilter.chains, chain, suspect.rule);
        let theirs = manager.map(|manager| manager::fixes(manager, scene, chain, stage, wanted)).unwrap_or_default();
        let own = || {
            let fix = match suspect.rule {
                Some(rule) if decides_alone(rule) => match netfilter_set::fix(scene.host, chain, rule, wanted) {
                    Some(fix) => fix,
                    // It keeps out all that the set holds.
                    None if netfilter_set::is_named(rule) && is_by_ip(stage, wanted) => {
                        accept(scene, chain, stage, wanted)
                    }
                    None => delete(scene.host, chain, rule)?,
                },
                // A map of verdicts, or a rule that jumps: it does more than drop.
                Some(_) | None => accept(scene, chain, stage, wanted),
            };
            Some(match manager {
                Some(manager) => fix.persist(manager::persist(manager)),
                None => fix,
            })
        };
        let found = if theirs.is_empty() { own().into_iter().collect() } else { theirs };
        for fix in found {
            if !fixes.iter().any(|known| known.command == fix.command) {
                fixes.push(fix);
            }
        }
    }
    if fixes.is_empty() {
        fixes.push(Fix::advice(format!(
            "List the {} rules of the {} hook (nft list ruleset; iptables-save; iptables-legacy-save) and let this flow through.",
            stage.family, stage.hook
        )));
    }
    fixes
}

/// Where one rule less may not do (others that fit can't be told from it, or wait behind it), the packet is let past all of
/// them: that cures whichever it was, and takes nothing away. A firewall that is managed has its own way.
fn beside(
    scene: &Scene<'_>,
    stage: &Stage,
    suspects: &[Suspect<'_>],
    behind: &[Suspect<'_>],
    wanted: &Conversation,
) -> Option<Fix> {
    let chains = &scene.host.netfilter.chains;
    let all = || suspects.iter().chain(behind);
    let is_clear = behind.is_empty() && (suspects.len() < 2 || suspects.iter().any(|suspect| suspect.traced.is_some()));
    let is_managed =
        |suspect: &Suspect<'_>| suspect.chain.is_some_and(|chain| manager(chains, chain, suspect.rule).is_some());
    if is_clear || !is_by_ip(stage, wanted) || all().any(|suspect| suspect.is_unlisted() || is_managed(suspect)) {
        return None;
    }
    let mut bases: Vec<&Chain> = Vec::new();
    for base in all().filter_map(|suspect| suspect.base.or(suspect.chain)) {
        if base.hook.is_some() && !bases.iter().any(|known| std::ptr::eq(*known, base)) {
            bases.push(base);
        }
    }
    let mut fixes = bases.into_iter().map(|base| accept(scene, base, stage, wanted));
    let first = fixes.next()?;
    fixes.try_fold(first, |all, one| {
        let joined = |all: Option<String>, one: Option<String>, joint| Some(all? + joint + &one?);
        let command = joined(all.command, one.command, " && ")?;
        let undo = joined(all.undo, one.undo, "; ")?;
        Some(Fix { command: Some(command), undo: Some(undo), ..all })
    })
}

/// All that the rule does is to drop or reject what it matches.
fn decides_alone(rule: &Rule) -> bool {
    !rule.verdict.as_deref().is_some_and(|verdict| {
        verdict.starts_with("vmap") || verdict.starts_with("jump ") || verdict.starts_with("goto ")
    })
}

fn delete(host: &HostState, chain: &Chain, rule: &Rule) -> Option<Fix> {
    let why = "Removes the very rule that drops these packets.".to_owned();
    let fix = match chain.backend {
        Backend::Nft => {
            let place = nft_chain(chain)?;
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
            // A device's name is written as it is: within a word the sign means nothing.
            '"' if quoted || word.is_empty() => (quoted, any) = (!quoted, true),
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

/// Lets this conversation through a chain that drops, both ways where both pass it.
pub(super) fn accept(scene: &Scene<'_>, chain: &Chain, stage: &Stage, wanted: &Conversation) -> Fix {
    let by_ip = is_by_ip(stage, wanted);
    let both_ways = matches!(stage.hook, "forward" | "prerouting" | "postrouting");
    let ways = match (by_ip, both_ways) {
        (false, _) => vec![None],
        (true, true) => vec![Some(*wanted), Some(wanted.reverse())],
        (true, false) => vec![Some(*wanted)],
    };
    accept_ways(scene, chain, &ways)
}

/// The chain tells packets by their IP addresses.
fn is_by_ip(stage: &Stage, wanted: &Conversation) -> bool {
    matches!(stage.family, "ip" | "ip6") && (wanted.source.is_some() || wanted.destination.is_some())
}

/// Lets these through; none stands for everything.
pub(super) fn accept_ways(scene: &Scene<'_>, chain: &Chain, ways: &[Option<Conversation>]) -> Fix {
    let (what, risk) = match ways.first() {
        Some(Some(wanted)) => (wanted.text(), wanted.risk()),
        _ => ("all packets".to_owned(), "Everything passes the chain; narrow it to what is needed.".to_owned()),
    };
    let why = match ways {
        [Some(_), ..] => format!("Lets {what}, past the rules of the chain that drops it."),
        _ => format!("Lets {what} pass the chain that drops them."),
    };
    let fix = match chain.backend {
        Backend::Nft => nft_accept(chain, ways, why).unwrap_or_else(|| {
            Fix::advice(format!(
                "Let {what} pass {} {} {}, whose name nft has no way to write.",
                chain.family, chain.table, chain.name
            ))
        }),
        Backend::IptablesNft | Backend::IptablesLegacy => iptables_accept(chain, ways, why),
    };
    fix.risk(risk).persist(format!("Add the rule to {}.", boot_file(scene.host, chain)))
}

fn nft_accept(chain: &Chain, ways: &[Option<Conversation>], why: String) -> Option<Fix> {
    let place = nft_chain(chain)?;
    let tests = |wanted: &Conversation| {
        let mut tests = Vec::new();
        for (side, address) in [("saddr", wanted.source), ("daddr", wanted.destination)] {
            tests.extend(address.map(|address| format!("{} {side} {address}", nft_family(address))));
        }
        tests.extend(match (wanted.protocol, wanted.port) {
            (Some(protocol), Some(Port::Destination(port))) => Some(format!("{protocol} dport {port}")),
            (Some(protocol), Some(Port::Source(port))) => Some(format!("{protocol} sport {port}")),
            (Some(protocol), None) => Some(format!("meta l4proto {protocol}")),
            (None, _) => None,
        });
        tests.join(" ") + " "
    };
    let tests: Vec<String> = ways.iter().map(|way| way.as_ref().map(tests).unwrap_or_default()).collect();
    // The comment finds the rule again, and no other of ours.
    let comment = match tests.first().map(|tests| tests.trim_end()) {
        Some(tests) if !tests.is_empty() => format!("kvmtrace: {tests}"),
        _ => "kvmtrace".to_owned(),
    };
    let insert = |tests: &String| {
        format!("nft {}", quote(&format!("insert rule {place} {tests}counter accept comment \"{comment}\"")))
    };
    let commands: Vec<String> = tests.iter().map(insert).collect();
    Some(Fix::run(commands.join(" && "), nft_delete(&place, &comment), why))
}

fn nft_family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ip6" } else { "ip" }
}

fn iptables_accept(chain: &Chain, ways: &[Option<Conversation>], why: String) -> Fix {
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let tests = |wanted: &Conversation| {
        let mut tests = String::new();
        for (flag, address) in [("-s", wanted.source), ("-d", wanted.destination)] {
            tests += &address.map(|address| format!(" {flag} {address}")).unwrap_or_default();
        }
        tests += &wanted.protocol.map(|protocol| format!(" -p {protocol}")).unwrap_or_default();
        tests
            + &match wanted.port {
                Some(Port::Destination(port)) => format!(" --dport {port}"),
                Some(Port::Source(port)) => format!(" --sport {port}"),
                None => String::new(),
            }
    };
    let all = |verb: &str, joint: &str| {
        let command = |way: &Option<Conversation>| {
            let tests = way.as_ref().map(tests).unwrap_or_default();
            format!("{tool} {verb} {}{tests} -j ACCEPT", quote(&chain.name))
        };
        ways.iter().map(command).collect::<Vec<_>>().join(joint)
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
