//! Sets of ipset, as rules ask them.

use super::super::elements::Range;
use super::super::key::{IpField, Key, Meta, Ports, Side, Version};
use super::super::rule::{Condition, Expression, Operand};
use super::super::value::Kind;
use super::Reader;

impl Reader<'_> {
    /// `--match-set NAME src,dst`: a key for each dimension. A port of ipset stands for protocol and port.
    pub(super) fn set(&mut self) -> Option<()> {
        let name = self.value()?;
        let sides: Option<Vec<Side>> = self
            .take()?
            .split(',')
            .map(|side| match side {
                "src" => Some(Side::Source),
                "dst" => Some(Side::Destination),
                _ => None,
            })
            .collect();
        let sides = sides?;
        let (_, set) = self.scope.find(name)?;
        let shape = shape(set.kind.as_deref(), set.elements.first().map(String::as_str))?;
        let version = if set.family == "ip6" { Version::V6 } else { Version::V4 };
        let mut keys = Vec::new();
        for (part, side) in shape.iter().zip(sides.iter().chain(std::iter::repeat(&Side::Source))) {
            match part {
                Part::Address => keys.push(Key::Ip(version, IpField::Address(*side))),
                Part::Mac => keys.push(Key::Ether(*side)),
                Part::Mark => keys.push(Key::Meta(Meta::Mark)),
                Part::Device => {
                    let meta = if *side == Side::Source { Meta::InputName } else { Meta::OutputName };
                    keys.push(Key::Meta(meta));
                }
                Part::Port => {
                    keys.push(Key::Meta(Meta::TransportProtocol));
                    keys.push(Key::Port(Ports::Any, *side));
                }
                Part::BarePort => keys.push(Key::Port(Ports::Any, *side)),
            }
        }
        (shape.len() <= sides.len()).then_some(())?;
        let kinds: Vec<Kind> = keys.iter().map(Key::kind).collect();
        let parse = |element: &str| ipset_element(element, &shape, version).map(|element| vec![element]);
        let set = Operand::Named(name.to_owned(), self.scope.ipset(name, &kinds, parse));
        let keys = keys.into_iter().map(|key| Expression { key, mask: None }).collect();
        self.conditions.push(Condition::Is { keys, negated: self.negated, set });
        Some(())
    }
}

/// One dimension of a set of ipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Address,
    Mac,
    Mark,
    Device,
    /// `tcp:80`
    Port,
    /// `80`, of whatever protocol (`bitmap:port`).
    BarePort,
}

/// The dimensions of a set, by its type, or in a recording that lacks it by an element of it.
fn shape(kind: Option<&str>, element: Option<&str>) -> Option<Vec<Part>> {
    if let Some(kind) = kind {
        let (method, parts) = kind.split_once(':')?;
        return parts
            .split(',')
            .map(|part| match (method, part) {
                (_, "ip" | "net") => Some(Part::Address),
                (_, "mac") => Some(Part::Mac),
                (_, "mark") => Some(Part::Mark),
                (_, "iface") => Some(Part::Device),
                ("bitmap", "port") => Some(Part::BarePort),
                (_, "port") => Some(Part::Port),
                _ => None,
            })
            .collect();
    }
    // An empty set holds nothing, whatever it would hold.
    let Some(element) = element else { return Some(vec![Part::Address]) };
    let parts = element.split(',').map(|part| {
        if part.parse::<crate::event::MacAddress>().is_ok() {
            Some(Part::Mac)
        } else if Kind::Ipv4.range(part).or_else(|| Kind::Ipv6.range(part)).is_some() {
            Some(Part::Address)
        } else if part.split_once(':').is_some_and(|(protocol, _)| Kind::Protocol.value(protocol).is_some()) {
            Some(Part::Port)
        } else {
            None
        }
    });
    parts.collect()
}

fn ipset_element(element: &str, shape: &[Part], version: Version) -> Option<Vec<Range>> {
    let parts: Vec<&str> = element.split(',').collect();
    (parts.len() == shape.len()).then_some(())?;
    let mut ranges = Vec::new();
    let address = if version == Version::V6 { Kind::Ipv6 } else { Kind::Ipv4 };
    for (text, part) in parts.into_iter().zip(shape) {
        match part {
            Part::Address => ranges.push(address.range(text)?),
            Part::Mac => ranges.push(Kind::Mac.range(text)?),
            Part::Mark => ranges.push(Kind::Number(32).range(text)?),
            Part::Device => ranges.push(Kind::Name.range(text)?),
            Part::BarePort => ranges.push(Kind::Port.range(text)?),
            Part::Port => {
                let (protocol, port) = text.split_once(':')?;
                ranges.push(Range::one(Kind::Protocol.value(protocol)?));
                ranges.push(Kind::Port.range(port)?);
            }
        }
    }
    Some(ranges)
}
