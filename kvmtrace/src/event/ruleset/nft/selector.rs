//! What nft calls the values of a packet.

use super::super::key::{
    ArpField, ConnectionField, Fib, FibResult, IcmpField, IpField, Key, Meta, Ports, Side, Version,
};
use super::super::value::Kind;
use super::Parser;

/// A side, as nft names it.
fn side(word: &str) -> Option<Side> {
    match word {
        "saddr" | "sport" | "proto-src" => Some(Side::Source),
        "daddr" | "dport" | "proto-dst" => Some(Side::Destination),
        _ => None,
    }
}

impl Parser<'_> {
    /// The name of a value, which it takes; none where it is no name that is known, and nothing is taken.
    pub(super) fn selector(&mut self) -> Option<Key> {
        let before = self.at;
        let key = self.key();
        if key.is_none() {
            self.at = before;
        }
        key
    }

    fn key(&mut self) -> Option<Key> {
        let first = self.take()?.word();
        if let Some(meta) = meta(first, false) {
            return Some(meta);
        }
        Some(match first {
            "meta" => {
                let name = self.take()?.word();
                meta(name, true)?
            }
            "ether" => match self.take()?.word() {
                "type" => Key::EtherType,
                word => Key::Ether(side(word)?),
            },
            "vlan" => match self.take()?.word() {
                "id" => Key::VlanId,
                "type" => Key::VlanType,
                word @ ("pcp" | "cfi" | "dei") => Key::Opaque(format!("vlan {word}"), Kind::Number(3)),
                _ => return None,
            },
            "arp" => Key::Arp(self.arp()?),
            "ip" => self.ip(Version::V4)?,
            "ip6" => self.ip(Version::V6)?,
            "tcp" => match self.take()?.word() {
                "flags" => Key::TcpFlags,
                word => Key::Port(Ports::Tcp, side(word)?),
            },
            "udp" | "udplite" => Key::Port(Ports::Udp, side(self.take()?.word())?),
            "sctp" => Key::Port(Ports::Sctp, side(self.take()?.word())?),
            "th" => Key::Port(Ports::Any, side(self.take()?.word())?),
            "icmp" => Key::Icmp(Version::V4, self.icmp()?),
            "icmpv6" => Key::Icmp(Version::V6, self.icmp()?),
            "ct" => self.connection()?,
            "fib" => self.fib()?,
            _ => return None,
        })
    }

    fn arp(&mut self) -> Option<ArpField> {
        Some(match self.take()?.word() {
            "operation" => ArpField::Operation,
            "htype" => ArpField::HardwareType,
            "ptype" => ArpField::ProtocolType,
            "hlen" => ArpField::HardwareLength,
            "plen" => ArpField::ProtocolLength,
            word => {
                let side = side(word)?;
                match self.take()?.word() {
                    "ip" => ArpField::Address(side),
                    "ether" => ArpField::Mac(side),
                    _ => return None,
                }
            }
        })
    }

    fn ip(&mut self, version: Version) -> Option<Key> {
        let field = match self.take()?.word() {
            "protocol" | "nexthdr" => IpField::Protocol,
            "length" => IpField::Length,
            "ttl" | "hoplimit" => IpField::TimeToLive,
            "dscp" => IpField::Dscp,
            "frag-off" => IpField::FragmentOffset,
            "version" => IpField::Version,
            word => IpField::Address(side(word)?),
        };
        Some(Key::Ip(version, field))
    }

    fn icmp(&mut self) -> Option<IcmpField> {
        Some(match self.take()?.word() {
            "type" => IcmpField::Kind,
            "code" => IcmpField::Code,
            "id" => IcmpField::Id,
            _ => return None,
        })
    }

    fn connection(&mut self) -> Option<Key> {
        let field = match self.take()?.word() {
            "state" => ConnectionField::State,
            "status" => ConnectionField::Status,
            "mark" => ConnectionField::Mark,
            "direction" => ConnectionField::Direction,
            "protocol" => ConnectionField::Protocol,
            "original" => match self.take()?.word() {
                "ip" => ConnectionField::OriginalAddress(Version::V4, side(self.take()?.word())?),
                "ip6" => ConnectionField::OriginalAddress(Version::V6, side(self.take()?.word())?),
                word @ ("proto-src" | "proto-dst") => ConnectionField::OriginalPort(side(word)?),
                _ => ConnectionField::Other,
            },
            "reply" => {
                if matches!(self.take()?.word(), "ip" | "ip6") {
                    self.take()?;
                }
                ConnectionField::Other
            }
            "helper" | "zone" | "id" | "bytes" | "packets" | "avgpkt" | "expiration" | "label" | "l3proto"
            | "event" => ConnectionField::Other,
            _ => return None,
        };
        Some(Key::Connection(field))
    }

    /// `fib saddr . mark . iif oif`
    fn fib(&mut self) -> Option<Key> {
        let (mut address, mut input, mut output, mut marked) = (None, false, false, false);
        loop {
            match self.take()?.word() {
                "mark" => marked = true,
                "iif" => input = true,
                "oif" => output = true,
                word => address = Some(side(word)?),
            }
            if !self.skip(".") {
                break;
            }
        }
        let result = match self.take()?.word() {
            "type" => FibResult::Type,
            "oif" | "oifname" => FibResult::Device,
            _ => return None,
        };
        let fib = Fib { address: address?, input, output, marked, result };
        Some(Key::Fib(fib))
    }
}

/// A value that `meta` knows; some stand without that word.
fn meta(name: &str, named: bool) -> Option<Key> {
    let known = match name {
        "iif" => Meta::Input,
        "oif" => Meta::Output,
        "iifname" => Meta::InputName,
        "oifname" => Meta::OutputName,
        "ibrname" | "ibriport" => Meta::InputBridge,
        "obrname" | "obriport" => Meta::OutputBridge,
        "mark" => Meta::Mark,
        "iifkind" if named => Meta::InputKind,
        "oifkind" if named => Meta::OutputKind,
        "protocol" if named => Meta::Protocol,
        "nfproto" if named => Meta::NetfilterProtocol,
        "l4proto" if named => Meta::TransportProtocol,
        "length" if named => Meta::Length,
        "pkttype" => Meta::PacketType,
        "skuid" => Meta::User,
        "iifgroup" | "oifgroup" | "iiftype" | "oiftype" | "skgid" | "rtclassid" | "cgroup" | "cpu" | "nftrace"
        | "priority" | "time" | "day" | "hour" | "random" | "ipsec" | "secpath" | "ibrpvid" | "ibrvproto" | "sdif"
        | "sdifname" | "broute"
            if named || matches!(name, "iifgroup" | "oifgroup" | "iiftype" | "oiftype" | "skgid" | "cgroup") =>
        {
            return Some(Key::Opaque(format!("meta {name}"), Kind::Text));
        }
        _ => return None,
    };
    Some(Key::Meta(known))
}
