//! The names that rules refer to: chains, sets and maps.

use super::elements::{Elements, Range};
use super::rule::{MapAnswer, Verdict};
use super::value::{Kind, listed_element};
use crate::event::host::{Backend, Chain, Netfilter, Set};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Chains of nft's and of the iptables tools' nft back end share their tables; those of the legacy back end have their own.
type ChainName<'a> = (bool, &'a str, &'a str, &'a str);
/// Family and table of an nft set, or none for a set of ipset; and its name.
type SetName<'a> = (Option<(&'a str, &'a str)>, &'a str);
type Parsed<T> = RefCell<HashMap<(usize, Vec<Kind>), Option<Arc<Elements<T>>>>>;

/// All names of a ruleset.
#[derive(Debug)]
pub struct Names<'a> {
    netfilter: &'a Netfilter,
    chains: HashMap<ChainName<'a>, usize>,
    sets: HashMap<SetName<'a>, usize>,
    /// Sets are read once for each way in which rules ask them.
    read_sets: Parsed<()>,
    read_verdicts: Parsed<Verdict>,
}

impl<'a> Names<'a> {
    /// The names of these chains and sets.
    pub fn new(netfilter: &'a Netfilter) -> Self {
        let chains = netfilter.chains.iter().enumerate().map(|(index, chain)| {
            let legacy = chain.backend == Backend::IptablesLegacy;
            ((legacy, chain.family.as_str(), chain.table.as_str(), chain.name.as_str()), index)
        });
        let sets = netfilter.sets.iter().enumerate().map(|(index, set)| {
            let table = set.table.as_deref().map(|table| (set.family.as_str(), table));
            ((table, set.name.as_str()), index)
        });
        Self {
            netfilter,
            chains: chains.collect(),
            sets: sets.collect(),
            read_sets: RefCell::default(),
            read_verdicts: RefCell::default(),
        }
    }

    /// The names as a rule of this chain means them.
    pub(super) fn scope<'s>(&'s self, chain: &'s Chain) -> Scope<'s> {
        Scope { names: self, chain }
    }
}

/// What names mean in the rules of one chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    names: &'a Names<'a>,
    pub(super) chain: &'a Chain,
}

impl Scope<'_> {
    /// The chain of this name in the same table.
    pub(super) fn target(&self, name: &str) -> Option<usize> {
        let legacy = self.chain.backend == Backend::IptablesLegacy;
        self.names.chains.get(&(legacy, self.chain.family.as_str(), self.chain.table.as_str(), name)).copied()
    }

    /// The elements of the named set, as values of these kinds.
    pub(super) fn set(&self, name: &str, kinds: &[Kind]) -> Option<Arc<Elements<()>>> {
        let (index, set) = self.find(name)?;
        let read = || {
            let parse = |element: &String| Some((listed_element(element, kinds)?, ()));
            let elements: Vec<_> = set.elements.iter().map(parse).collect();
            let complete = set.complete && elements.iter().all(Option::is_some);
            Some(Arc::new(Elements::new(elements.into_iter().flatten(), complete)))
        };
        cached(&self.names.read_sets, index, kinds, read)
    }

    /// A set of ipset, whose elements `parse` reads.
    pub(super) fn ipset(
        &self,
        name: &str,
        kinds: &[Kind],
        parse: impl Fn(&str) -> Option<Vec<Vec<Range>>>,
    ) -> Option<Arc<Elements<()>>> {
        let (index, set) = self.find(name)?;
        let read = || {
            let elements: Vec<_> = set.elements.iter().map(|element| parse(element)).collect();
            let complete = set.complete && elements.iter().all(Option::is_some);
            let elements = elements.into_iter().flatten().flatten().map(|element| (element, ()));
            Some(Arc::new(Elements::new(elements, complete)))
        };
        cached(&self.names.read_sets, index, kinds, read)
    }

    /// The named set as it was read.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Set)> {
        let table = (self.chain.family.as_str(), self.chain.table.as_str());
        let table = (self.chain.backend == Backend::Nft).then_some(table);
        let index = *self.names.sets.get(&(table, name))?;
        Some((index, self.names.netfilter.sets.get(index)?))
    }

    /// The named map's verdicts; none where its answers were not read.
    pub(super) fn verdict_map(&self, name: &str, kinds: &[Kind]) -> Option<Arc<Elements<Verdict>>> {
        let (index, set) = self.find(name)?;
        let read = || answers(set, kinds, |answer| self.verdict(answer)).map(Arc::new);
        cached(&self.names.read_verdicts, index, kinds, read)
    }

    /// The named map's addresses and ports.
    pub(super) fn address_map(&self, name: &str, kinds: &[Kind]) -> Option<Arc<Elements<MapAnswer>>> {
        let (_, set) = self.find(name)?;
        answers(set, kinds, map_answer).map(Arc::new)
    }

    /// `accept`, `jump mine`, as nft writes them.
    pub(super) fn verdict(&self, text: &str) -> Option<Verdict> {
        let (word, target) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Some(match word {
            "accept" => Verdict::Accept,
            "drop" => Verdict::Drop,
            "reject" => Verdict::Reject,
            "return" => Verdict::Return,
            "continue" => Verdict::Continue,
            "jump" => Verdict::Jump(self.target(target.trim())),
            "goto" => Verdict::Goto(self.target(target.trim())),
            "queue" => Verdict::Queue { number: 0, bypass: false },
            "masquerade" | "snat" | "dnat" | "redirect" | "netmap" => Verdict::Taken(text.to_owned()),
            _ => return None,
        })
    }

    /// All that a rule's verdict may be, by what its reader says: `drop`, or `vmap accept|jump mine`.
    pub(super) fn verdicts(&self, text: &str) -> Vec<Verdict> {
        match text.strip_prefix("vmap") {
            Some(answers) => answers.split('|').filter_map(|answer| self.verdict(answer)).collect(),
            None => self.verdict(text).into_iter().collect(),
        }
    }
}

/// The elements of a map with their answers; none where these were not read, or one is not understood.
fn answers<T>(set: &Set, kinds: &[Kind], parse: impl Fn(&str) -> Option<T>) -> Option<Elements<T>> {
    if set.answers.len() != set.elements.len() {
        return None;
    }
    let pairs = set.elements.iter().zip(&set.answers);
    let elements: Option<Vec<_>> =
        pairs.map(|(element, answer)| Some((listed_element(element, kinds)?, parse(answer)?))).collect();
    Some(Elements::new(elements?, set.complete))
}

fn cached<T>(
    cache: &Parsed<T>,
    index: usize,
    kinds: &[Kind],
    read: impl FnOnce() -> Option<Arc<Elements<T>>>,
) -> Option<Arc<Elements<T>>> {
    let place = (index, kinds.to_vec());
    if let Some(known) = cache.borrow().get(&place) {
        return known.clone();
    }
    let elements = read();
    cache.borrow_mut().insert(place, elements.clone());
    elements
}

/// What a map answers to address translation: `10.0.0.5`, `8080`, `10.0.0.5 . 8080`.
pub(super) fn map_answer(text: &str) -> Option<MapAnswer> {
    let (first, second) = text.split_once(" . ").map_or((text, None), |(first, second)| (first, Some(second)));
    let address = first.trim().parse().ok();
    let port = match second {
        Some(port) => Some(port.trim().parse().ok()?),
        None if address.is_none() => Some(first.trim().parse().ok()?),
        None => None,
    };
    Some(MapAnswer { address, port })
}
