//! The firewall's rules as data: families, hooks, verdicts, tests, sets and maps.
//!
//! A host's state holds rules as their own tools print them, so that a recording can show them. [`Names::rule`] reads such a text
//! into a [`Rule`]: nft's own syntax (`nft`), and that of iptables, ip6tables, ebtables and arptables (`iptables`). A rule's text is
//! the one source for live hosts and for recordings of every age, so both are judged alike. What the text says and these types
//! can't hold is [`Statement::Unknown`]: such a rule may match or not.

mod elements;
mod iptables;
mod key;
mod names;
mod nft;
mod read;
mod rule;
mod value;
pub use value::{Kind, mac as mac_bits, name as name_bits};

#[cfg(test)]
mod tests;

pub use elements::{Elements, Range};
pub use key::{ArpField, ConnectionField, Fib, FibResult, IcmpField, IpField, Key, Meta, Ports, Side, Version};
pub use names::Names;
pub use rule::{
    Assignment, Choice, Condition, Expression, Hook, Layer, MapAnswer, MarkSource, Nat, NatKind, NatTarget, Operand,
    Rule, RuleReference, Statement, Verdict,
};
