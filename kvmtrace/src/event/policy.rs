//! Policy routing: the rules that choose a table, or decide by themselves.

use super::names::RuleAction;
use super::units::Network;
use serde::{Deserialize, Serialize};

/// A rule of `ip rule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Of IPv6.
    pub v6: bool,
    /// Lower is asked first.
    pub priority: u32,
    /// Sources that it is for; none for all.
    pub source: Option<Network>,
    /// Destinations that it is for; none for all.
    pub destination: Option<Network>,
    /// The device that the packet came in by.
    pub input: Option<String>,
    /// What it does.
    pub action: RuleAction,
    /// The table of `lookup`.
    pub table: u32,
    /// It asks for something that is not read (a user, a tunnel, TOS). Old recordings count marks, ports, protocols and
    /// `not` among this.
    pub narrower: bool,
    /// Routes of its table that are no longer than this prefix don't count (`suppress_prefixlength`).
    #[serde(default)]
    pub suppress: Option<u32>,
    /// The device that the packet must leave by (`oif`, a socket bound to a device).
    #[serde(default)]
    pub output: Option<String>,
    /// The mark that it asks for (`fwmark`).
    #[serde(default)]
    pub mark: Option<RuleMark>,
    /// IP protocol number (`ipproto`).
    #[serde(default)]
    pub protocol: Option<u8>,
    /// Source ports, first and last.
    #[serde(default)]
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports, first and last.
    #[serde(default)]
    pub destination_ports: Option<(u16, u16)>,
    /// It is for all packets but those that it describes (`not`, `FIB_RULE_INVERT`).
    #[serde(default)]
    pub inverted: bool,
    /// The priority at which `goto` goes on.
    #[serde(default)]
    pub target: Option<u32>,
}

/// `fwmark VALUE/MASK`: a packet fits if its mark has the value in the bits of the mask (`fib_rule_match`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMark {
    /// Value.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

impl RuleMark {
    /// A packet with this mark fits.
    pub fn fits(self, mark: u32) -> bool {
        (self.value ^ mark) & self.mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_fits_in_the_bits_of_its_mask() {
        let rule = RuleMark { value: 0x10, mask: 0xf0 };
        assert!(rule.fits(0x1f));
        assert!(!rule.fits(0x2f));
        assert!(!RuleMark { value: 5, mask: u32::MAX }.fits(0));
    }
}
