//! The command that lets a packet through a firewall: past the rule that drops it, or beside it.

use super::accept::{accept, boot_file, is_by_ip};
use super::conversation::Conversation;
use super::manager::manager_of;
use super::{manager, set};
use crate::diagnose::facts::firewall::sets;
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::{Suspect, tool};
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
    let mut fixes: Vec<Fix> = Vec::from_iter(accept_past_all(scene, stage, suspects, behind, wanted));
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
        let theirs = manager.map(|manager| manager::fixes(manager, scene, chain, stage, wanted)).unwrap_or_default();
        let own = || {
            let fix = match suspect.rule {
                Some(rule) if decides_alone(rule) => match set::change_members(scene.host, chain, rule, wanted) {
                    Some(fix) => fix,
                    // It keeps out all that the set holds.
                    None if sets::names_a_set(rule) && is_by_ip(stage, wanted) => accept(scene, chain, stage, wanted),
                    None => delete_rule(scene.host, chain, rule)?,
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
        let effects = all.effects.iter().chain(&one.effects).cloned().collect();
        Some(Fix { command: Some(command), undo: Some(undo), effects, ..all })
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
