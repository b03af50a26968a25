//! One test of a filter: qualifiers and an identifier, as in `src port 80`.

use super::names::{UNSUPPORTED, bad, masked, named_protocol, number, port, protocol_number, short_network, unknown};
use super::parse::{Parser, expected};
use super::token::Token;
use super::{Expression, FilterError, Side, Test};
use crate::event::host::Network;
use crate::event::units::MacAddress;
use kvmtrace_common::flow::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands before an identifier.
#[derive(Clone, Debug)]
pub(super) struct Qualifiers {
    protocol: Option<String>,
    sides: Sides,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Source,
    Destination,
    Either,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing said: a host or a net, as the identifier looks.
    Any,
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

impl Parser {
    /// A test, from its first word on.
    pub(super) fn primitive(&mut self, word: String) -> Result<Expression, FilterError> {
        match word.as_str() {
            "vlan" => {
                self.last = None;
                self.vlan()
            }
            "broadcast" | "multicast" => {
                self.last = None;
                cast(None, &word)
            }
            "src" | "dst" | "host" | "net" | "port" | "portrange" | "proto" => self.qualified(None, word),
            "ether" | "link" | "ip" | "ip6" | "arp" => self.after_protocol(word),
            _ if named_protocol(&word).is_some() => self.after_protocol(word),
            _ if UNSUPPORTED.contains(&word.as_str()) => Err(FilterError::Unsupported {
                what: format!("{word:?}"),
                instead: "use host, net, port, tcp, udp, icmp, arp, vlan, and, or, not",
            }),
            _ => {
                let bare = Qualifiers { protocol: None, sides: Sides::Either, kind: Kind::Any };
                let qualifiers = self.last.clone().unwrap_or(bare);
                self.identifier(&qualifiers, &word)
            }
        }
    }

    fn vlan(&mut self) -> Result<Expression, FilterError> {
        let Some(id) = self.peek_word().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())) else {
            return Ok(Expression::Test(Test::Vlan { low: 0, high: 4095 }));
        };
        let id = id.parse().ok().filter(|id| *id < 4096).ok_or_else(|| bad("VLAN id", id, "they go from 0 to 4095"))?;
        self.next();
        Ok(Expression::Test(Test::Vlan { low: id, high: id }))
    }

    /// After `tcp`, `ip`, `ether`, …: more qualifiers, or nothing.
    fn after_protocol(&mut self, protocol: String) -> Result<Expression, FilterError> {
        match self.peek_word().map(str::to_owned) {
            Some(word) if matches!(word.as_str(), "broadcast" | "multicast") => {
                self.next();
                self.last = None;
                cast(Some(&protocol), &word)
            }
            Some(word) if matches!(word.as_str(), "src" | "dst" | "host" | "net" | "port" | "portrange" | "proto") => {
                self.next();
                self.qualified(Some(protocol), word)
            }
            Some(word) => {
                let kind =
                    if word.parse::<u16>().is_ok() && named_protocol(&protocol).is_some() { "port" } else { "and" };
                Err(FilterError::Mismatch {
                    instead: format!("{protocol} {kind} {word}"),
                    first: protocol,
                    second: word,
                })
            }
            None => {
                self.last = None;
                protocol_alone(&protocol)
            }
        }
    }

    /// From `src`, `dst`, `host`, `net`, `port`, … on.
    fn qualified(&mut self, protocol: Option<String>, mut word: String) -> Result<Expression, FilterError> {
        let mut sides = Sides::Either;
        let mut kind = Kind::Any;
        if matches!(word.as_str(), "src" | "dst") {
            sides = self.sides(&word);
            word = match self.peek_word() {
                Some(next) if matches!(next, "host" | "net" | "port" | "portrange") => next.to_owned(),
                _ => String::new(),
            };
            if !word.is_empty() {
                self.next();
            }
        }
        if !word.is_empty() {
            kind = match word.as_str() {
                "host" => Kind::Host,
                "net" => Kind::Net,
                "port" => Kind::Port,
                "portrange" => Kind::PortRange,
                _ => Kind::Proto,
            };
        }
        let qualifiers = Qualifiers { protocol, sides, kind };
        self.last = Some(qualifiers.clone());
        match self.next() {
            Some(Token::Word(word)) => self.identifier(&qualifiers, &word),
            Some(Token::Open) => self.group(),
            other => Err(expected(qualifiers.wants(), other.as_ref())),
        }
    }

    /// `src`, `dst`, `src or dst`, `src and dst`, after the first word.
    fn sides(&mut self, first: &str) -> Sides {
        let other = if first == "src" { "dst" } else { "src" };
        let joined = matches!(self.peek_second(), Some(Token::Word(word)) if word == other);
        let sides = match self.peek() {
            Some(Token::Or) if joined => Sides::Either,
            Some(Token::And) if joined => Sides::Both,
            _ if first == "src" => return Sides::Source,
            _ => return Sides::Destination,
        };
        self.next();
        self.next();
        sides
    }

    fn identifier(&mut self, qualifiers: &Qualifiers, word: &str) -> Result<Expression, FilterError> {
        self.last = Some(qualifiers.clone());
        let protocol = qualifiers.protocol.as_deref();
        match qualifiers.kind {
            Kind::Host | Kind::Any if matches!(protocol, Some("ether" | "link")) => {
                let mac = word.parse::<MacAddress>().ok();
                let mac = mac.ok_or_else(|| bad("MAC address", word, "one looks like 52:54:00:12:34:56"))?;
                Ok(qualifiers.sides.expand(|side| Test::Mac { side, value: mac.0, mask: [0xff; 6] }))
            }
            Kind::Host | Kind::Net | Kind::Any => {
                let network = self.network(qualifiers.kind, word)?;
                let test = qualifiers.sides.expand(|side| Test::Address { side, network });
                within(protocol, network.address, word, test)
            }
            Kind::Port => port(word).and_then(|port| qualifiers.port(word, port, port)),
            Kind::PortRange => {
                let range = word.split_once('-').and_then(|(low, high)| Some((port(low).ok()?, port(high).ok()?)));
                let (low, high) = range
                    .filter(|(low, high)| low <= high)
                    .ok_or_else(|| bad("range of ports", word, "one looks like 8000-8080"))?;
                qualifiers.port(word, low, high)
            }
            Kind::Proto => proto(protocol, word),
        }
    }

    /// `10.0.0.5`, `10.0.0.0/8`, `10.1`, `10.0.0.0 mask 255.0.0.0`, `fd00::/8`.
    fn network(&mut self, kind: Kind, word: &str) -> Result<Network, FilterError> {
        let hint = "names are not resolved; write an address like 10.0.0.5, or a net like 10.0.0.0/8";
        let (text, prefix) = match word.split_once('/') {
            Some((text, prefix)) => (text, Some(prefix)),
            None => (word, None),
        };
        if kind == Kind::Host && prefix.is_some() {
            return Err(bad("host", word, &format!("write \"net {word}\"")));
        }
        let (address, whole) = match text.parse::<IpAddr>() {
            Ok(address) => (address, if address.is_ipv4() { 32 } else { 128 }),
            Err(_) if kind == Kind::Net => {
                short_network(text).ok_or_else(|| bad("network", word, "one looks like 10.0.0.0/8"))?
            }
            Err(_) if kind == Kind::Any && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(bad("host", word, &format!("write \"port {word}\"")));
            }
            Err(_) if kind == Kind::Any && !text.contains(['.', ':', '/']) => {
                return Err(unknown(word));
            }
            Err(_) => return Err(bad("host", word, hint)),
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let mut prefix = match prefix {
            None => whole,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|bits| *bits <= longest)
                .ok_or_else(|| bad("network", word, &format!("a prefix goes from /0 to /{longest}")))?,
        };
        if kind == Kind::Net && self.peek_word() == Some("mask") {
            self.next();
            prefix = self.mask()?;
        }
        let network = masked(address, prefix);
        if network.address != address {
            return Err(bad("network", word, &format!("it has bits beyond the prefix; write \"net {network}\"")));
        }
        Ok(network)
    }

    fn mask(&mut self) -> Result<u8, FilterError> {
        let Some(Token::Word(word)) = self.next() else { return Err(expected("a mask", None)) };
        let mask = word.parse::<Ipv4Addr>().map(u32::from).ok();
        mask.filter(|mask| mask.leading_ones() + mask.trailing_zeros() >= 32)
            .map(|mask| mask.leading_ones() as u8)
            .ok_or_else(|| bad("mask", &word, "one looks like 255.255.0.0"))
    }
}

impl Qualifiers {
    fn wants(&self) -> &'static str {
        match self.kind {
            Kind::Any | Kind::Host => "an address",
            Kind::Net => "a network like 10.0.0.0/8",
            Kind::Port => "a port",
            Kind::PortRange => "a range of ports like 8000-8080",
            Kind::Proto => "a protocol",
        }
    }

    fn port(&self, word: &str, low: u16, high: u16) -> Result<Expression, FilterError> {
        let protocol = match self.protocol.as_deref() {
            None => None,
            Some(name) => match named_protocol(name) {
                Some((_, number)) if matches!(number, 6 | 17 | 132) => Some(number),
                _ => {
                    return Err(FilterError::Mismatch {
                        first: name.to_owned(),
                        second: "port".to_owned(),
                        instead: format!("{name} and port {word}"),
                    });
                }
            },
        };
        Ok(self.sides.expand(|side| Test::Port { side, protocol, low, high }))
    }
}

impl Sides {
    fn expand(self, test: impl Fn(Side) -> Test) -> Expression {
        let source = Expression::Test(test(Side::Source));
        let destination = Expression::Test(test(Side::Destination));
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Either => source.or(destination),
            Self::Both => source.and(destination),
        }
    }
}

fn protocol_alone(name: &str) -> Result<Expression, FilterError> {
    let test = match name {
        "ip" => Test::Family(Family::IPV4),
        "ip6" => Test::Family(Family::IPV6),
        "arp" => Test::Family(Family::ARP),
        _ => match named_protocol(name) {
            Some((family, number)) => Test::Protocol { family, number },
            None => return Err(expected("host, src, dst or proto", None)),
        },
    };
    Ok(Expression::Test(test))
}

/// `broadcast` and `multicast`, of Ethernet or of IP.
fn cast(protocol: Option<&str>, word: &str) -> Result<Expression, FilterError> {
    let side = Side::Destination;
    let network = |address: IpAddr, prefix| Test::Address { side, network: Network { address, prefix } };
    let test = match (protocol, word) {
        (None | Some("ether" | "link"), "broadcast") => Test::Mac { side, value: [0xff; 6], mask: [0xff; 6] },
        (None | Some("ether" | "link"), _) => Test::Mac { side, value: [1, 0, 0, 0, 0, 0], mask: [1, 0, 0, 0, 0, 0] },
        (Some("ip"), "multicast") => network(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        (Some("ip6"), "multicast") => network(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
        (Some(protocol), _) => {
            return Err(FilterError::Unsupported {
                what: format!("\"{protocol} {word}\""),
                instead: "use \"ether broadcast\", \"ether multicast\", \"ip multicast\" or \"ip6 multicast\"",
            });
        }
    };
    Ok(Expression::Test(test))
}

/// `proto 47`, `ip proto tcp`, `ether proto 0x88cc`.
fn proto(protocol: Option<&str>, word: &str) -> Result<Expression, FilterError> {
    if matches!(protocol, Some("ether" | "link")) {
        let number = match word {
            "ip" | "ip6" | "arp" => return protocol_alone(word),
            _ => number(word).ok_or_else(|| bad("EtherType", word, "one looks like 0x88cc"))?,
        };
        return Ok(match number {
            0x0800 => Expression::Test(Test::Family(Family::IPV4)),
            0x86dd => Expression::Test(Test::Family(Family::IPV6)),
            0x0806 => Expression::Test(Test::Family(Family::ARP)),
            other => Expression::Test(Test::EtherType(other)),
        });
    }
    let family = match protocol {
        None => None,
        Some("ip") => Some(Family::IPV4),
        Some("ip6") => Some(Family::IPV6),
        Some(other) => {
            return Err(FilterError::Mismatch {
                first: other.to_owned(),
                second: "proto".to_owned(),
                instead: format!("ip proto {word}"),
            });
        }
    };
    let number = protocol_number(word)?;
    Ok(Expression::Test(Test::Protocol { family, number }))
}

/// `ip host …`, `arp net …`: the address test within a family.
fn within(protocol: Option<&str>, address: IpAddr, word: &str, test: Expression) -> Result<Expression, FilterError> {
    let family = match protocol {
        None => return Ok(test),
        Some("ip") if address.is_ipv4() => Family::IPV4,
        Some("arp") if address.is_ipv4() => Family::ARP,
        Some("ip6") if address.is_ipv6() => return Ok(test),
        Some(name) => {
            return Err(FilterError::Mismatch {
                first: name.to_owned(),
                second: word.to_owned(),
                instead: if matches!(name, "ip" | "arp") {
                    format!("ip6 host {word}")
                } else if name == "ip6" {
                    format!("ip host {word}")
                } else {
                    format!("{name} and host {word}")
                },
            });
        }
    };
    Ok(Expression::Test(Test::Family(family)).and(test))
}
