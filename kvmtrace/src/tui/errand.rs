//! What the live view has done by others: a probe, or a fix. It only says what; who runs it checks every word of it.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Errand {
    /// `kvmtrace probe DEVICE to TARGET PROTOCOL`
    Probe {
        /// The guest's device.
        device: String,
        /// The guest's own address of the target's family, where the trace has seen one.
        source: Option<IpAddr>,
        /// Where to.
        target: Target,
        /// What is sent.
        packet: Packet,
    },
    /// `kvmtrace fix INCIDENT`
    Fix {
        /// Its id.
        incident: String,
    },
}

/// Where a probe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Target {
    /// The guest's gateway.
    Gateway,
    /// This host.
    Host,
    /// An address.
    Address(IpAddr),
}

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Packet {
    /// Echo requests.
    Icmp,
    /// SYNs to a port.
    Tcp(u16),
    /// Datagrams to a port.
    Udp(u16),
    /// ARP requests.
    Arp,
}

/// Whose probe is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// The guest's device.
    pub(super) device: String,
    /// Its name.
    pub(super) guest: String,
    /// Its addresses, the one that a flow uses first.
    pub(super) addresses: Vec<IpAddr>,
}

impl Probed {
    /// The probe to this target. Of link-local addresses none is proposed: several guests may have seen it.
    pub(super) fn errand(self, target: Target, packet: Packet) -> Errand {
        let is_fit = |address: &IpAddr| match (target, address) {
            (Target::Address(IpAddr::V6(_)), IpAddr::V6(address)) => !address.is_unicast_link_local(),
            (Target::Address(target), address) => target.is_ipv4() && address.is_ipv4(),
            (Target::Gateway | Target::Host, address) => address.is_ipv4(),
        };
        let source = self.addresses.into_iter().find(is_fit);
        Errand::Probe { device: self.device, source, target, packet }
    }
}

/// Runs errands on the terminal, which the live view has left meanwhile; the application knows how.
pub trait Runner: Send {
    /// Returns when it has ended and the operator has read it; its exit status.
    fn run(&mut self, errand: &Errand) -> anyhow::Result<i32>;
}

/// The words of a probe, as they are typed: `10.0.0.1 tcp 22`.
pub(super) fn parse(text: &str) -> Option<(Target, Packet)> {
    let mut words = text.split_whitespace();
    let target = match words.next()? {
        "to" => words.next()?,
        word => word,
    };
    let target = match target {
        "gateway" => Target::Gateway,
        "host" => Target::Host,
        address => Target::Address(address.parse().ok()?),
    };
    let port = |word: Option<&str>| word?.parse::<u16>().ok().filter(|port| *port > 0);
    let packet = match words.next() {
        None | Some("icmp") => Packet::Icmp,
        Some("arp") => Packet::Arp,
        Some("tcp") => Packet::Tcp(port(words.next())?),
        Some("udp") => Packet::Udp(port(words.next())?),
        Some(_) => return None,
    };
    words.next().is_none().then_some((target, packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_typed_in_the_words_of_the_command() {
        let address = |text: &str| Target::Address(text.parse().unwrap());
        for (text, expected) in [
            ("gateway", Some((Target::Gateway, Packet::Icmp))),
            ("to host icmp", Some((Target::Host, Packet::Icmp))),
            ("10.0.0.1 tcp 22", Some((address("10.0.0.1"), Packet::Tcp(22)))),
            ("fd00::1 udp 53", Some((address("fd00::1"), Packet::Udp(53)))),
            ("10.0.0.1 arp", Some((address("10.0.0.1"), Packet::Arp))),
            ("", None),
            ("10.0.0.1 tcp", None),
            ("10.0.0.1 tcp 0", None),
            ("10.0.0.1 tcp 65536", None),
            ("10.0.0.1 tcp 22 --size 9000", None),
            ("--help", None),
            ("$(reboot)", None),
            ("example.org", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
