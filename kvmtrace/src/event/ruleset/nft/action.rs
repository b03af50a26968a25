//! Statements of nft that change a packet: marks, addresses.

use super::super::elements::Elements;
use super::super::key::{ConnectionField, Key, Meta};
use super::super::names::map_answer;
use super::super::rule::{Assignment, Choice, Expression, MapAnswer, MarkSource, Nat, NatKind, NatTarget, Statement};
use super::Parser;
use super::token::Token;
use crate::event::host::Network;
use std::net::IpAddr;
use std::sync::Arc;

impl Parser<'_> {
    /// `KEY set …`, from behind `set` on. Some change nothing that matters to a packet's way.
    pub(super) fn change(&mut self, key: &Key) -> Option<Vec<Statement>> {
        Some(match key {
            Key::Meta(Meta::Mark) => vec![Statement::Mark(self.assignment(key)?)],
            Key::Connection(ConnectionField::Mark) => vec![Statement::ConnectionMark(self.assignment(key)?)],
            Key::Ether(side) => vec![Statement::SetMac(*side, self.take()?.text()?.parse().ok()?)],
            Key::Ip(..)
            | Key::Port(..)
            | Key::Arp(_)
            | Key::VlanId
            | Key::VlanType
            | Key::EtherType
            | Key::TcpFlags
            | Key::Icmp(..)
            | Key::Fib(_) => return None,
            Key::Meta(_) | Key::Connection(_) | Key::Opaque(..) => {
                // A priority, class, zone, helper, label: a number or a name.
                self.take()?.text()?;
                while self.skip(",") || self.skip("|") {
                    self.take()?.text()?;
                }
                Vec::new()
            }
        })
    }

    /// `0x5`, `ct mark`, `meta mark & 0xff | 0x100`
    fn assignment(&mut self, target: &Key) -> Option<Assignment> {
        let mut parentheses = 0;
        while self.skip("(") {
            parentheses += 1;
        }
        let mut change = if let Some(source) = self.selector() {
            let from = if source == *target {
                MarkSource::Own
            } else if matches!(source, Key::Meta(Meta::Mark) | Key::Connection(ConnectionField::Mark)) {
                MarkSource::Other
            } else {
                MarkSource::Unknown
            };
            // A map's answer.
            if self.skip("map") {
                let token = self.take()?;
                if token == Token::Sign("{") {
                    while self.take()? != Token::Sign("}") {}
                }
                return Some(Assignment { clear: 0, toggle: 0, from: MarkSource::Unknown });
            }
            Assignment { clear: 0, toggle: 0, from }
        } else {
            let value = u32::try_from(self.number()?).ok()?;
            Assignment { clear: u32::MAX, toggle: value, from: MarkSource::Own }
        };
        loop {
            if parentheses > 0 && self.skip(")") {
                parentheses -= 1;
                continue;
            }
            let apply: fn(&mut Assignment, u32) = if self.skip("&") || self.skip("and") {
                Assignment::and
            } else if self.skip("|") || self.skip("or") {
                Assignment::or
            } else if self.skip("^") || self.skip("xor") {
                Assignment::xor
            } else {
                return (parentheses == 0).then_some(change);
            };
            apply(&mut change, u32::try_from(self.number()?).ok()?);
        }
    }

    /// `masquerade`, `snat`, `dnat`, `redirect` with what follows.
    pub(super) fn nat(&mut self) -> Option<Statement> {
        let kind = match self.take()?.word() {
            "masquerade" => NatKind::Masquerade,
            "snat" => NatKind::Source,
            "dnat" => NatKind::Destination,
            _ => NatKind::Redirect,
        };
        self.skip_any(&["ip", "ip6"]);
        let mut network = false;
        if self.skip("addr") {
            (self.skip(".") && self.skip("port")).then_some(())?;
        } else {
            network = self.skip("prefix");
            self.skip("interval");
        }
        let to =
            if self.skip("to") { self.nat_target(network)? } else { NatTarget::Fixed { address: None, port: None } };
        while self.skip_any(&["random", "fully-random", "persistent"]) {
            self.skip(",");
        }
        Some(Statement::Nat(Nat { kind, to }))
    }

    fn nat_target(&mut self, network: bool) -> Option<NatTarget> {
        if let Some(keys) = self.keys() {
            let kinds: Vec<_> = keys.iter().map(Key::kind).collect();
            let keys: Vec<_> = keys.into_iter().map(|key| Expression { key, mask: None }).collect();
            self.skip("map").then_some(())?;
            let token = self.take()?;
            let map = match token.word().strip_prefix('@') {
                Some(name) => self.scope.address_map(name, &kinds)?,
                None if token == Token::Sign("{") => {
                    let pairs = self.pairs(&kinds)?;
                    let pairs: Option<Vec<_>> =
                        pairs.into_iter().map(|(element, answer)| Some((element, map_answer(&answer)?))).collect();
                    Arc::new(Elements::<MapAnswer>::new(pairs?, true))
                }
                None => return None,
            };
            return Some(NatTarget::Map(keys, map));
        }
        let text = self.take()?.text()?;
        if network {
            let (address, prefix) = text.split_once('/')?;
            return Some(NatTarget::Network(Network { address: address.parse().ok()?, prefix: prefix.parse().ok()? }));
        }
        target(text)
    }
}

/// `10.0.0.5`, `10.0.0.5-10.0.0.9`, `10.0.0.5:80-90`, `[fd00::1]:80`, `:8080`; iptables writes the same.
pub(in super::super) fn target(text: &str) -> Option<NatTarget> {
    let (addresses, ports) = if let Ok(address) = text.parse::<IpAddr>() {
        return Some(NatTarget::Fixed { address: Some(Choice::One(address)), port: None });
    } else if let Some((addresses, ports)) = text.rsplit_once(':')
        && (text.contains('[') == addresses.ends_with(']') && !addresses.contains("::") || addresses.ends_with(']'))
    {
        (addresses, Some(ports))
    } else {
        (text, None)
    };
    let address = match addresses {
        "" => None,
        range => Some(choice(range, |end| end.trim_matches(['[', ']']).parse::<IpAddr>().ok())?),
    };
    let port = match ports {
        // iptables writes the base of a shifted range behind a slash.
        Some(ports) if ports.contains('/') => return Some(NatTarget::Unknown(text.to_owned())),
        Some(ports) => Some(choice(ports, |end| end.parse().ok())?),
        None => None,
    };
    Some(NatTarget::Fixed { address, port })
}

/// `80` or `80-90`
pub(in super::super) fn choice<T: PartialEq>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Choice<T>> {
    match text.split_once('-') {
        None => parse(text).map(Choice::One),
        Some((first, last)) => {
            let (first, last) = (parse(first)?, parse(last)?);
            Some(if first == last { Choice::One(first) } else { Choice::Among(first, last) })
        }
    }
}

impl Assignment {
    /// Another mark's value, or one's own, as it is.
    pub(in super::super) fn copy(from: MarkSource) -> Self {
        Self { clear: 0, toggle: 0, from }
    }

    /// `& bits`
    pub(in super::super) fn and(&mut self, bits: u32) {
        self.clear |= !bits;
        self.toggle &= bits;
    }

    /// `| bits`
    pub(in super::super) fn or(&mut self, bits: u32) {
        self.clear |= bits;
        self.toggle = self.toggle & !bits | bits;
    }

    /// `^ bits`
    pub(in super::super) fn xor(&mut self, bits: u32) {
        self.toggle ^= bits;
    }

    /// The mark that `mark` becomes.
    pub fn apply(self, mark: u32) -> u32 {
        (mark & !self.clear) ^ self.toggle
    }
}
