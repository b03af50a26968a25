//! The matches of iptables and ip6tables.

use super::super::elements::Range;
use super::super::key::{ConnectionField, Fib, FibResult, IcmpField, IpField, Key, Meta, Ports, Side, Version};
use super::super::rule::{Condition, Expression, Operand};
use super::super::value::{Kind, number};
use super::Reader;

impl Reader<'_> {
    /// Reads one option with its values; none where it is not understood.
    pub(super) fn test(&mut self, option: &str) -> Option<()> {
        match self.scope.chain.family.as_str() {
            "bridge" => self.bridge(option),
            "arp" => self.arp(option),
            _ => self.ip(option),
        }
    }

    fn ip(&mut self, option: &str) -> Option<()> {
        let version = self.version;
        match (self.module, option) {
            (_, "-s" | "--source") | ("iprange", "--src-range") => {
                self.value_of(Key::Ip(version, IpField::Address(Side::Source)))
            }
            (_, "-d" | "--destination") | ("iprange", "--dst-range") => {
                self.value_of(Key::Ip(version, IpField::Address(Side::Destination)))
            }
            (_, "-i" | "--in-interface") => self.value_of(Key::Meta(Meta::InputName)),
            (_, "-o" | "--out-interface") => self.value_of(Key::Meta(Meta::OutputName)),
            (_, "-p" | "--protocol") => self.protocol(),
            (_, "-f" | "--fragment") => {
                self.is(Key::Meta(Meta::LaterFragment), vec![Range::one(1)]);
                Some(())
            }
            (_, "--sport" | "--source-port") => self.port(Side::Source),
            (_, "--dport" | "--destination-port") => self.port(Side::Destination),
            ("multiport", "--sports" | "--source-ports") => self.ports(&[Side::Source]),
            ("multiport", "--dports" | "--destination-ports") => self.ports(&[Side::Destination]),
            ("multiport", "--ports") => self.ports(&[Side::Source, Side::Destination]),
            ("mac", "--mac-source") => self.value_of(Key::Ether(Side::Source)),
            ("tcp", "--tcp-flags") => {
                let flags = |text: &str| {
                    text.split(',').map(|flag| Kind::TcpFlags.value(flag)).try_fold(0, |bits, flag| Some(bits | flag?))
                };
                let mask = flags(self.value()?)?;
                let set = flags(self.take()?)?;
                self.masked(Key::TcpFlags, Some(mask), vec![Range::one(set)]);
                Some(())
            }
            ("tcp", "--syn") => {
                self.masked(Key::TcpFlags, Some(0x17), vec![Range::one(2)]);
                Some(())
            }
            ("icmp", "--icmp-type") => self.icmp(Version::V4),
            ("icmp6" | "icmpv6", "--icmpv6-type") => self.icmp(Version::V6),
            ("conntrack" | "state", _) => self.connection(option),
            ("mark", "--mark") => self.mark(Key::Meta(Meta::Mark)),
            ("connmark", "--mark") => self.mark(Key::Connection(ConnectionField::Mark)),
            ("set", "--match-set") => self.set(),
            ("addrtype", _) => self.address_type(option),
            ("physdev", _) => self.bridge_port(option),
            ("pkttype", "--pkt-type") => self.value_of(Key::Meta(Meta::PacketType)),
            ("rpfilter", _) => self.reverse_path(option),
            ("limit", "--limit" | "--limit-burst") => {
                self.take()?;
                if option == "--limit" {
                    self.conditions.push(Condition::Limit { over: false });
                }
                Some(())
            }
            ("hashlimit", "--hashlimit" | "--hashlimit-upto" | "--hashlimit-above") => {
                self.take()?;
                self.conditions.push(Condition::Limit { over: (option == "--hashlimit-above") != self.negated });
                Some(())
            }
            ("connlimit", "--connlimit-above" | "--connlimit-upto") => {
                self.take()?;
                self.conditions.push(Condition::Limit { over: (option == "--connlimit-above") != self.negated });
                Some(())
            }
            ("comment", "--comment") | ("hashlimit", _) | ("connlimit", "--connlimit-mask") => self.take().map(drop),
            ("connlimit", "--connlimit-saddr" | "--connlimit-daddr") => Some(()),
            ("length", "--length") => {
                let text = self.value()?.replace(':', "-");
                self.value_is(Key::Meta(Meta::Length), &text)
            }
            ("ttl" | "hl", "--ttl-eq" | "--hl-eq") => self.value_of(Key::Ip(version, IpField::TimeToLive)),
            ("ttl" | "hl", "--ttl-lt" | "--hl-lt") => self.below(Key::Ip(version, IpField::TimeToLive)),
            ("ttl" | "hl", "--ttl-gt" | "--hl-gt") => {
                let low = number(self.value()?)? + 1;
                self.is(Key::Ip(version, IpField::TimeToLive), vec![Range { low, high: 255 }]);
                Some(())
            }
            ("dscp", "--dscp") => self.value_of(Key::Ip(version, IpField::Dscp)),
            ("tos", "--tos") => {
                let text = self.value()?;
                let (value, mask) = text.split_once('/').unwrap_or((text, "0xff"));
                let mask = number(mask)?;
                self.masked(Key::Ip(version, IpField::TrafficClass), Some(mask), vec![Range::one(number(value)?)]);
                Some(())
            }
            ("owner", "--uid-owner") => self.value_of(Key::Meta(Meta::User)),
            _ => None,
        }
    }

    fn below(&mut self, key: Key) -> Option<()> {
        let high = number(self.value()?)?.checked_sub(1)?;
        self.is(key, vec![Range { low: 0, high }]);
        Some(())
    }

    /// `-p all` asks for nothing.
    fn protocol(&mut self) -> Option<()> {
        let protocol = Kind::Protocol.value(self.value()?)?;
        if protocol == 0 {
            return Some(());
        }
        if !self.negated {
            self.protocol = Some(protocol);
        }
        self.is(Key::Meta(Meta::TransportProtocol), vec![Range::one(protocol)]);
        Some(())
    }

    fn kind_of_ports(&self) -> Ports {
        match self.protocol {
            Some(6) => Ports::Tcp,
            Some(17) => Ports::Udp,
            Some(132) => Ports::Sctp,
            _ => Ports::Any,
        }
    }

    fn port(&mut self, side: Side) -> Option<()> {
        self.value_of(Key::Port(self.kind_of_ports(), side))
    }

    fn ports(&mut self, sides: &[Side]) -> Option<()> {
        let ranges: Option<Vec<_>> = self.value()?.split(',').map(|port| Kind::Port.range(port)).collect();
        let (ranges, ports) = (ranges?, self.kind_of_ports());
        if let [side] = sides {
            self.is(Key::Port(ports, *side), ranges);
            return Some(());
        }
        let negated = self.negated;
        let one = |side: &Side| Condition::Is {
            keys: vec![Expression { key: Key::Port(ports, *side), mask: None }],
            negated,
            set: Operand::Ranges(ranges.clone()),
        };
        // Neither port, or one of them.
        let both: Vec<_> = sides.iter().map(one).collect();
        if negated {
            self.conditions.extend(both);
        } else {
            self.conditions.push(Condition::Any(both));
        }
        Some(())
    }

    /// `8`, `3/1`, `any`
    fn icmp(&mut self, version: Version) -> Option<()> {
        let text = self.value()?;
        if text == "any" || text == "255" {
            return Some(());
        }
        let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
        let kinds = Key::Icmp(version, IcmpField::Kind);
        let Some(code) = code else { return self.value_is(kinds, kind) };
        (!self.negated).then_some(())?;
        self.value_is(kinds, kind)?;
        self.value_is(Key::Icmp(version, IcmpField::Code), code)
    }

    /// `0x10/0xff`
    pub(super) fn mark(&mut self, key: Key) -> Option<()> {
        let text = self.value()?;
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        let mask = match mask {
            Some(mask) => Some(number(mask)?),
            None => None,
        };
        self.masked(key, mask, vec![Range::one(number(value)?)]);
        Some(())
    }

    fn connection(&mut self, option: &str) -> Option<()> {
        let version = self.version;
        match option {
            "--ctstate" | "--state" => {
                let mut state = 0;
                let mut status = 0;
                for name in self.value()?.split(',') {
                    match name {
                        // `xt_conntrack.c`, `XT_CONNTRACK_STATE_SNAT`: the connection's source was changed.
                        "SNAT" => status |= 16,
                        "DNAT" => status |= 32,
                        name => state |= Kind::ConnectionState.value(name)?,
                    }
                }
                let one = |field, mask| Condition::Is {
                    keys: vec![Expression { key: Key::Connection(field), mask: Some(mask) }],
                    negated: !self.negated,
                    set: Operand::Ranges(vec![Range::one(0)]),
                };
                let both = [(ConnectionField::State, state), (ConnectionField::Status, status)];
                let mut both: Vec<_> =
                    both.into_iter().filter(|(_, mask)| *mask != 0).map(|(field, mask)| one(field, mask)).collect();
                if self.negated || both.len() == 1 {
                    self.conditions.append(&mut both);
                } else {
                    self.conditions.push(Condition::Any(both));
                }
                Some(())
            }
            "--ctstatus" => {
                let names = self.value()?.split(',');
                let mask = names
                    .map(|name| Kind::ConnectionStatus.value(name))
                    .try_fold(0, |bits, flag| Some(bits | flag?))?;
                (mask != 0).then_some(())?;
                self.negated = !self.negated;
                self.masked(Key::Connection(ConnectionField::Status), Some(mask), vec![Range::one(0)]);
                Some(())
            }
            "--ctdir" => self.value_of(Key::Connection(ConnectionField::Direction)),
            "--ctproto" => self.value_of(Key::Connection(ConnectionField::Protocol)),
            "--ctorigsrc" => self.value_of(Key::Connection(ConnectionField::OriginalAddress(version, Side::Source))),
            "--ctorigdst" => {
                self.value_of(Key::Connection(ConnectionField::OriginalAddress(version, Side::Destination)))
            }
            "--ctorigsrcport" => self.value_of(Key::Connection(ConnectionField::OriginalPort(Side::Source))),
            "--ctorigdstport" => self.value_of(Key::Connection(ConnectionField::OriginalPort(Side::Destination))),
            _ => None,
        }
    }

    fn address_type(&mut self, option: &str) -> Option<()> {
        let rest = self.words.get(self.at..).unwrap_or_default();
        let limited = |flag: &str| rest.iter().any(|word| word == flag);
        let (input, output) = (limited("--limit-iface-in"), limited("--limit-iface-out"));
        let address = match option {
            "--src-type" => Side::Source,
            "--dst-type" => Side::Destination,
            "--limit-iface-in" | "--limit-iface-out" => return Some(()),
            _ => return None,
        };
        self.list_of(Key::Fib(Fib { address, input, output, marked: false, result: FibResult::Type }))
    }

    fn bridge_port(&mut self, option: &str) -> Option<()> {
        match option {
            "--physdev-in" => self.value_of(Key::Meta(Meta::InputPort)),
            "--physdev-out" => self.value_of(Key::Meta(Meta::OutputPort)),
            "--physdev-is-bridged" => {
                self.is(Key::Meta(Meta::Bridged), vec![Range::one(1)]);
                Some(())
            }
            "--physdev-is-in" | "--physdev-is-out" => {
                let key = if option == "--physdev-is-in" { Meta::InputPort } else { Meta::OutputPort };
                self.negated = !self.negated;
                self.is(Key::Meta(key), vec![Range::one(0)]);
                Some(())
            }
            _ => None,
        }
    }

    /// `rpfilter` holds where the way back leads by the incoming device, and with `--invert` where it doesn't.
    fn reverse_path(&mut self, option: &str) -> Option<()> {
        let all = self.words.get(self.at.saturating_sub(1)..).unwrap_or_default();
        let has = |flag: &str| all.iter().any(|word| word == flag);
        match option {
            // Read with the first of its options.
            "--loose" | "--validmark" | "--accept-local" | "--invert" => {
                let key = Key::Fib(Fib {
                    address: Side::Source,
                    input: !has("--loose"),
                    output: false,
                    marked: has("--validmark"),
                    result: FibResult::Device,
                });
                let read = self.conditions.iter().any(|condition| {
                    matches!(condition, Condition::Is { keys, .. } if keys.iter().any(|one| matches!(one.key, Key::Fib(_))))
                });
                if !read {
                    self.negated = !has("--invert");
                    self.is(key, vec![Range::one(0)]);
                }
                Some(())
            }
            _ => None,
        }
    }
}
