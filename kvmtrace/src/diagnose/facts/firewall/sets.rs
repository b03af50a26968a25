//! Sets of addresses that rules ask for by name.

use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule, Set};
use crate::event::ruleset::{Condition, IpField, Key, Names, Operand, Side, Statement};

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

/// A rule asks whether an address is in a set.
pub(in crate::diagnose) struct Asked {
    pub(in crate::diagnose) set: String,
    pub(in crate::diagnose) of_source: bool,
    /// It asks whether the address is not in it.
    pub(in crate::diagnose) negated: bool,
}

/// The one set that a rule asks for an address.
pub(in crate::diagnose) fn asked_set(host: &HostState, rule: &Rule, chain: &Chain) -> Option<Asked> {
    let rule = Names::new(&host.netfilter).rule(chain, rule);
    let mut asked = rule.statements.iter().filter_map(|statement| {
        let Statement::Test(Condition::Is { keys, negated, set: Operand::Named(set, _) }) = statement else {
            return None;
        };
        // What is asked of two things at once can't be answered by one address.
        let [key] = keys.as_slice() else { return None };
        let Key::Ip(_, IpField::Address(side)) = key.key else { return None };
        Some(Asked { set: set.clone(), of_source: side == Side::Source, negated: *negated })
    });
    // Of several, none is known to be the one to change.
    asked.next().filter(|_| asked.next().is_none())
}

/// The rule asks for a set by its name.
pub(in crate::diagnose) fn names_a_set(host: &HostState, rule: &Rule, chain: &Chain) -> bool {
    let rule = Names::new(&host.netfilter).rule(chain, rule);
    rule.statements.iter().any(|statement| match statement {
        Statement::Test(Condition::Is { set: Operand::Named(..), .. }) => true,
        // A set that is not among those that were read.
        Statement::Test(Condition::Unknown(text)) | Statement::Unknown(text) => {
            text.contains("--match-set ") || text.contains('@')
        }
        Statement::Test(_)
        | Statement::Verdict(_)
        | Statement::Map(..)
        | Statement::Perhaps(_)
        | Statement::Mark(_)
        | Statement::ConnectionMark(_)
        | Statement::NoTrack
        | Statement::Fill(_)
        | Statement::SetMac(..)
        | Statement::Nat(_) => false,
    })
}
