//! Policy routing: the rules that choose a table, or decide by themselves.

use super::host::Network;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A rule of `ip rule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `lookup`, `goto`, `nop`, `blackhole`, `unreachable`, `prohibit`; `l3mdev` for the table of the packet's VRF.
    pub action: String,
    /// The table of `lookup`.
    pub table: u32,
    /// It asks for something else as well (a mark, ports, a user, TOS), or for the contrary.
    pub narrower: bool,
    /// Routes of its table that are no longer than this prefix don't count (`suppress_prefixlength`).
    #[serde(default)]
    pub suppress: Option<u32>,
}

impl PolicyRule {
    /// Whether it may be for a packet, as far as its addresses and device tell.
    pub fn may_take(&self, source: Option<IpAddr>, destination: IpAddr, input: &str) -> bool {
        let holds = |network: &Option<Network>, address: Option<IpAddr>| {
            network.is_none_or(|network| address.is_some_and(|address| network.contains(address)))
        };
        self.v6 == destination.is_ipv6()
            && holds(&self.source, source)
            && holds(&self.destination, Some(destination))
            && self.input.as_deref().is_none_or(|name| name == input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_what_none_of_its_tests_speaks_against() {
        let network = |text: &str, prefix| Some(Network { address: text.parse().unwrap(), prefix });
        let rule = PolicyRule {
            v6: false,
            priority: 100,
            source: network("10.0.0.0", 24),
            destination: network("192.0.2.1", 32),
            input: Some("br0".to_owned()),
            action: "prohibit".to_owned(),
            table: 0,
            narrower: false,
            suppress: None,
        };
        let source = Some("10.0.0.7".parse().unwrap());
        let destination = "192.0.2.1".parse().unwrap();
        assert!(rule.may_take(source, destination, "br0"));
        assert!(!rule.may_take(source, destination, "eth0"));
        assert!(!rule.may_take(None, destination, "br0"), "a source that is not known is in no network");
        assert!(!rule.may_take(source, "192.0.2.2".parse().unwrap(), "br0"));
        assert!(!rule.may_take(source, "2001:db8::1".parse().unwrap(), "br0"));
        let any = PolicyRule { source: None, destination: None, input: None, ..rule };
        assert!(any.may_take(None, destination, "eth0"));
    }
}
