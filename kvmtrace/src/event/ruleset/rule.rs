//! The types of a rule: hooks, statements, tests, verdicts, translation.

use super::elements::{Elements, Range};
use super::key::{Key, Side};
use crate::event::MacAddress;
use crate::event::host::Network;
use std::net::IpAddr;
use std::sync::Arc;

/// The kernel's families of hooks (`NFPROTO_*`). Chains of the family `inet` stand in the hooks of both IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// IPv4 (`NFPROTO_IPV4`).
    Ipv4,
    /// IPv6 (`NFPROTO_IPV6`).
    Ipv6,
    /// ARP to and from this host (`NFPROTO_ARP`).
    Arp,
    /// Bridges (`NFPROTO_BRIDGE`).
    Bridge,
    /// One device (`NFPROTO_NETDEV`).
    Device,
}

/// A hook, as nft names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `ingress`, of a device.
    Ingress,
    /// `prerouting`
    Prerouting,
    /// `input`
    Input,
    /// `forward`
    Forward,
    /// `output`
    Output,
    /// `postrouting`
    Postrouting,
    /// `egress`, of a device.
    Egress,
}

impl Hook {
    /// The hook that nft calls by this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ingress" => Self::Ingress,
            "prerouting" => Self::Prerouting,
            "input" => Self::Input,
            "forward" => Self::Forward,
            "output" => Self::Output,
            "postrouting" => Self::Postrouting,
            "egress" => Self::Egress,
            _ => return None,
        })
    }
}

/// A rule of a [`HostState`](crate::event::HostState), by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleReference {
    /// Index of the chain.
    pub chain: usize,
    /// Index of the rule in the chain; none for the policy of a base chain.
    pub rule: Option<usize>,
}

/// A rule: its statements, as the kernel runs them. A test that fails ends the rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Tests and actions in their order. Counters, logs and comments decide nothing and are left out.
    pub statements: Vec<Statement>,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// The rule goes on only where this holds.
    Test(Condition),
    /// What becomes of the packet.
    Verdict(Verdict),
    /// A map of verdicts, asked with these keys; where it holds no answer the rule ends.
    Map(Vec<Expression>, Arc<Elements<Verdict>>),
    /// One of these verdicts, or none: a map whose elements are not known.
    Perhaps(Vec<Verdict>),
    /// `meta mark set`, `MARK`.
    Mark(Assignment),
    /// `ct mark set`, `CONNMARK`.
    ConnectionMark(Assignment),
    /// `notrack`: conntrack passes the packet over.
    NoTrack,
    /// Adds to, or takes from, the set of this name, so that nobody knows what a later look finds.
    Fill(String),
    /// Sets the frame's source or destination MAC address.
    SetMac(Side, MacAddress),
    /// Address translation.
    Nat(Nat),
    /// Not understood, up to the rule's verdict.
    Unknown(String),
}

/// A test.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The values of these keys together are one of the set, or none of it.
    Is {
        /// What is looked up.
        keys: Vec<Expression>,
        /// It holds when the value is not in the set.
        negated: bool,
        /// The set.
        set: Operand,
    },
    /// One of these holds.
    Any(Vec<Condition>),
    /// A limit of packets, bytes or connections: true below it, or `over` it. One packet of a new flow is below.
    Limit {
        /// It holds above the limit.
        over: bool,
    },
    /// It holds never (a quota that is used up), or always.
    Constant(bool),
    /// Not understood.
    Unknown(String),
}

/// A packet's value, with the bits that count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expression {
    /// Which value.
    pub key: Key,
    /// Only these bits of it.
    pub mask: Option<u128>,
}

/// What values are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A value lies in one of these.
    Ranges(Vec<Range>),
    /// The values together are an element.
    Set(Arc<Elements<()>>),
    /// A named set with its name; none where it is not among the sets that were read.
    Named(String, Option<Arc<Elements<()>>>),
}

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The packet passes this hook's chain.
    Accept,
    /// It is dropped.
    Drop,
    /// It is dropped and its sender is sent an error.
    Reject,
    /// Back to the chain that jumped here; in a base chain: its policy.
    Return,
    /// The next rule.
    Continue,
    /// Another chain, and back here after it: by index; none where there is no such chain.
    Jump(Option<usize>),
    /// Another chain, and back to where this one was called from.
    Goto(Option<usize>),
    /// A queue that a process of user space reads.
    Queue {
        /// Its number, the lowest of several.
        number: u16,
        /// The packet passes where nobody listens.
        bypass: bool,
    },
    /// Something else takes the packet or may take it: another device, a proxy, as its tool writes it.
    Taken(String),
}

/// How a mark changes: `(mark & !clear) ^ toggle`, or another mark's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Bits that are cleared first.
    pub clear: u32,
    /// Bits that are flipped then.
    pub toggle: u32,
    /// Where the value comes from.
    pub from: MarkSource,
}

/// Where a new mark's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkSource {
    /// The mark itself.
    Own,
    /// The other of `meta mark` and `ct mark`.
    Other,
    /// Not understood.
    Unknown,
}

/// Address translation.
#[derive(Clone, Debug, PartialEq)]
pub struct Nat {
    /// What is translated.
    pub kind: NatKind,
    /// The new end.
    pub to: NatTarget,
}

/// Kinds of translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// The source becomes the outgoing device's address.
    Masquerade,
    /// The source becomes another address.
    Source,
    /// The destination becomes another address.
    Destination,
    /// The destination becomes this host's address at the incoming device.
    Redirect,
}

/// What an address is translated to.
#[derive(Clone, Debug, PartialEq)]
pub enum NatTarget {
    /// These: each where the rule gives it, and none of several where it gives a range.
    Fixed {
        /// The new address; `None` where the rule gives none.
        address: Option<Choice<IpAddr>>,
        /// The new port.
        port: Option<Choice<u16>>,
    },
    /// The answer of a map: address, port or both.
    Map(Vec<Expression>, Arc<Elements<MapAnswer>>),
    /// Prefix translation (`NETMAP`, `snat prefix to`): the network's bits are replaced.
    Network(Network),
    /// Not understood.
    Unknown(String),
}

/// One value, or one of several that the kernel chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// This one.
    One(T),
    /// One of these, from the first to the last.
    Among(T, T),
}

/// What a map answers to translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAnswer {
    /// The new address.
    pub address: Option<IpAddr>,
    /// The new port.
    pub port: Option<u16>,
}
