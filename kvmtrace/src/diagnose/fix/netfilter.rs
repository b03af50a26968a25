//! The command that lets a packet through a firewall: past the rule that drops it, or beside it.

use super::accept::{accept, boot_file};
use super::conversation::Conversation;
use super::manager::manager_of;
use super::{manager, set};
use crate::diagnose::facts::firewall::protection::{Protection, protection};
use crate::diagnose::facts::firewall::sets;
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::{Suspect, tool};
use crate::diagnose::facts::firewall::words::words;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::{nft_chain, quote};
use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule};
use crate::event::ruleset::RuleReference;
use crate::forward::effect::Effect;

/// Commands that let the packet through. `behind` would drop it when the suspects are gone.
pub fn fixes(
    scene: &Scene<'_>,
    stage: &Stage,
    suspects: &[Suspect<'_>],
    behind: &[Suspect<'_>],
    wanted: &Conversation,
) -> Vec<Fix> {
    let without_endpoints = |suspect: &Suspect<'_>| manager::without_endpoints(suspect.chain?, suspect.rule?);
    if let Some(fix) = suspects.first().and_then(without_endpoints) {
        return vec![fix];
    }
    let mut fixes: Vec<Fix> = Vec::from_iter(accept_past_all(scene, stage, suspects, behind, wanted));
    let past_all = !fixes.is_empty();
    for suspect in suspects.iter().take(3) {
        if suspect.is_unlisted() {
            fixes.push(Fix::advice(format!(
                "Let this flow through in {}, which is not among the rules as they were read: it may be gone already (nft -a list ruleset shows handles).",
                suspect.text()
            )));
            continue;
        }
        let Some(chain) = suspect.chain else { continue };
        let manager = manager_of(&scene.host.netfilter.chains, chain, suspect.rule);
        let theirs = manager
            .map(|manager| manager::fixes(manager, scene, chain, stage, wanted, suspect.rule))
            .unwrap_or_default();
        let found =
            if theirs.is_empty() { own(scene, chain, stage, suspect, wanted, manager, past_all) } else { theirs };
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

/// A rule of our own before the one that drops, which opens no more than this flow needs. To take the rule away comes first
/// only where it concerns nothing but this flow, and is not proposed for one that protects. Where the flow is let past all
/// suspects already (`past_all`), a rule of its own for each would open no more.
fn own(
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    suspect: &Suspect<'_>,
    wanted: &Conversation,
    manager: Option<manager::Manager>,
    past_all: bool,
) -> Vec<Fix> {
    let narrow = accept(scene, chain, stage, wanted, suspect.rule);
    if let Some(manager) = manager {
        return vec![narrow.persist(manager::persist(manager))];
    }
    // A map of verdicts, or a rule that jumps, does more than drop.
    let Some(rule) = suspect.rule.filter(|rule| decides_alone(rule)) else { return vec![narrow] };
    if let Some(protection) = protection(rule) {
        let narrow = narrow.risk(format!("{} {}", protection.what(), wanted.risk()));
        if !matches!(protection, Protection::Isolation | Protection::Server) {
            return vec![narrow];
        }
        let advice = Fix::advice(format!(
            "{} Ask who wrote it whether it is meant for this traffic; only if not, let {}, past it.",
            protection.what(),
            wanted.text()
        ));
        return vec![advice, narrow];
    }
    let delete = delete_rule(scene.host, chain, rule);
    let narrow = Some(narrow).filter(|_| !past_all);
    if is_exact(rule, wanted) {
        return delete.into_iter().chain(narrow).collect();
    }
    let members = set::change_members(scene.host, chain, rule, wanted);
    let sets = sets::names_a_set(scene.host, rule, chain);
    [narrow, members, delete.filter(|_| !sets)].into_iter().flatten().collect()
}

/// The rule names both ends of the conversation, each by its whole address, and drops nothing else.
fn is_exact(rule: &Rule, wanted: &Conversation) -> bool {
    let words = words(&rule.text);
    let names = |address: Option<std::net::IpAddr>| {
        let address = address.map(|address| address.to_string());
        address.is_some_and(|address| {
            words.iter().any(|word| {
                let word = word.plain();
                word.strip_suffix("/32").or(word.strip_suffix("/128")).unwrap_or(word) == address
            })
        })
    };
    let negated = words.iter().any(|word| matches!(word.plain(), "!" | "!="));
    names(wanted.source) && names(wanted.destination) && !negated
}

/// Where one rule less may not do (others that fit can't be told from it, or wait behind it), the packet is let past all of
/// them: that cures whichever it was, and takes nothing away. A firewall that is managed has its own way.
fn accept_past_all(
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
        |suspect: &Suspect<'_>| suspect.chain.is_some_and(|chain| manager_of(chains, chain, suspect.rule).is_some());
    if is_clear || all().any(|suspect| suspect.is_unlisted() || is_managed(suspect)) {
        return None;
    }
    // In each base chain before the first rule that may drop; where that is in a chain further in, at the head.
    let mut bases: Vec<(&Chain, Option<&Rule>)> = Vec::new();
    for suspect in all() {
        let Some(base) = suspect.base.or(suspect.chain).filter(|base| base.hook.is_some()) else { continue };
        let is_within = suspect.chain.is_some_and(|chain| std::ptr::eq(chain, base));
        let number = |rule: Option<&Rule>| rule.map_or(u32::MAX, |rule| rule.number);
        match bases.iter_mut().find(|(known, _)| std::ptr::eq(*known, base)) {
            // The policy comes after every rule.
            Some(_) if is_within && suspect.rule.is_none() => {}
            Some((_, first)) if is_within => {
                if first.is_some() && number(suspect.rule) < number(*first) {
                    *first = suspect.rule;
                }
            }
            Some((_, first)) => *first = None,
            None => bases.push((base, suspect.rule.filter(|_| is_within))),
        }
    }
    let mut fixes = bases.into_iter().map(|(base, rule)| accept(scene, base, stage, wanted, rule));
    let first = fixes.next()?;
    fixes.try_fold(first, |all, one| {
        let joined = |all: Option<String>, one: Option<String>, joint| Some(all? + joint + &one?);
        let command = joined(all.command, one.command, " && ")?;
        let undo = joined(all.undo, one.undo, "; ")?;
        let effects = all.effects.iter().chain(&one.effects).cloned().collect();
        Some(Fix { command: Some(command), undo: Some(undo), effects, accepts: None, ..all })
    })
}

/// All that the rule does is to drop or reject what it matches.
fn decides_alone(rule: &Rule) -> bool {
    !rule.verdict.as_deref().is_some_and(|verdict| {
        verdict.starts_with("vmap") || verdict.starts_with("jump ") || verdict.starts_with("goto ")
    })
}

fn delete_rule(host: &HostState, chain: &Chain, rule: &Rule) -> Option<Fix> {
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
    let chains = &host.netfilter.chains;
    let reference = chains.iter().position(|other| std::ptr::eq(other, chain)).and_then(|index| {
        let rule = chain.rules.iter().position(|other| std::ptr::eq(other, rule))?;
        Some(RuleReference { chain: index, rule: Some(rule) })
    });
    let fix = fix.effects(reference.map(Effect::RuleDelete));
    Some(fix.risk("Whatever else the rule was meant to keep out comes in too."))
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
