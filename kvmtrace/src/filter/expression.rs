//! What a filter means: tests joined by and, or, not.

use crate::event::host::Network;

/// A filter, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// A test.
    Test(Test),
    /// What does not hold.
    Not(Box<Self>),
    /// What both hold.
    And(Box<Self>, Box<Self>),
    /// What either holds.
    Or(Box<Self>, Box<Self>),
}

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// One question about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// One of [`kvmtrace_common::flow::Family`].
    Family(u8),
    /// This IP protocol, in a family or in both.
    Protocol {
        /// One of [`kvmtrace_common::flow::Family`].
        family: Option<u8>,
        /// Number of the protocol.
        number: u8,
    },
    /// An address of IP or ARP.
    Address {
        /// Which of the two.
        side: Side,
        /// Lies here.
        network: Network,
    },
    /// A port of TCP, UDP or SCTP.
    Port {
        /// Which of the two.
        side: Side,
        /// Number of the protocol, `None` for all three.
        protocol: Option<u8>,
        /// Least.
        low: u16,
        /// Greatest.
        high: u16,
    },
    /// The VLAN id.
    Vlan {
        /// Least.
        low: u16,
        /// Greatest.
        high: u16,
    },
    /// An `EtherType` that is neither IP nor ARP.
    EtherType(u16),
    /// A MAC address.
    Mac {
        /// Which of the two.
        side: Side,
        /// What it is under `mask`.
        value: [u8; 6],
        /// The bits that count.
        mask: [u8; 6],
    },
}

impl Expression {
    pub(super) fn and(self, other: Self) -> Self {
        Self::And(Box::new(self), Box::new(other))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self::Or(Box::new(self), Box::new(other))
    }

    /// Number of tests in it.
    pub(super) fn tests(&self) -> usize {
        match self {
            Self::Test(_) => 1,
            Self::Not(inner) => inner.tests(),
            Self::And(left, right) | Self::Or(left, right) => left.tests() + right.tests(),
        }
    }
}
