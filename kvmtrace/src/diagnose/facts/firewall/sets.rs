//! Sets of addresses that rules ask for by name.

use super::words::{Word, words};
use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule, Set};

/// The set that a rule of this chain names.
pub(in crate::diagnose) fn find<'a>(host: &'a HostState, chain: &Chain, name: &str) -> Option<&'a Set> {
    host.netfilter.sets.iter().find(|set| {
        set.name == name
            && match (&set.table, chain.backend) {
                (Some(table), Backend::Nft) => *table == chain.table && set.family == chain.family,
                (None, Backend::IptablesNft | Backend::IptablesLegacy) => true,
                _ => false,
            }
    })
}

/// One of a set fits; none where that can't be known.
pub(in crate::diagnose) fn holds_any(set: &Set, fits: impl Fn(&str) -> Option<bool>) -> Option<bool> {
    let mut known = set.complete;
    for element in &set.elements {
        match fits(element) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => known = false,
        }
    }
    known.then_some(false)
}

/// A rule asks whether an address is in a set.
pub(in crate::diagnose) struct Asked<'r> {
    pub(in crate::diagnose) set: &'r str,
    pub(in crate::diagnose) of_source: bool,
    /// It asks whether the address is not in it.
    pub(in crate::diagnose) negated: bool,
}

pub(in crate::diagnose) fn asked_set<'r>(rule: &'r Rule, chain: &Chain) -> Option<Asked<'r>> {
    let words: Vec<&str> = words(&rule.text).iter().map(Word::plain).collect();
    let mut asked = words.iter().enumerate().filter_map(|(at, word)| {
        let before = |back: usize| at.checked_sub(back).and_then(|at| words.get(at)).copied().unwrap_or_default();
        if chain.backend == Backend::Nft {
            let set = word.strip_prefix('@')?;
            let negated = before(1) == "!=";
            let side = before(1 + usize::from(negated));
            // What is asked of two things at once has another before or behind it.
            let alone = before(3 + usize::from(negated)) != ".";
            (alone && matches!(side, "saddr" | "daddr") && matches!(before(2 + usize::from(negated)), "ip" | "ip6"))
                .then_some(Asked { set, of_source: side == "saddr", negated })
        } else {
            let (set, side) = (words.get(at + 1)?, words.get(at + 2)?);
            (*word == "--match-set" && matches!(*side, "src" | "dst")).then_some(Asked {
                set,
                of_source: *side == "src",
                negated: before(1) == "!",
            })
        }
    });
    // Of several, none is known to be the one to change.
    asked.next().filter(|_| asked.next().is_none())
}

/// The rule asks for a set by its name.
pub(in crate::diagnose) fn names_a_set(rule: &Rule) -> bool {
    words(&rule.text).iter().any(|word| word.plain().starts_with('@') || word.plain() == "--match-set")
}
