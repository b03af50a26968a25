//! The matches of ebtables and arptables.

use super::super::elements::Range;
use super::super::key::{ArpField, IpField, Key, Meta, Ports, Side, Version};
use super::super::rule::Condition;
use super::super::value::{self, Kind};
use super::Reader;

impl Reader<'_> {
    pub(super) fn bridge(&mut self, option: &str) -> Option<()> {
        let ip = |side| Key::Ip(Version::V4, IpField::Address(side));
        let ip6 = |side| Key::Ip(Version::V6, IpField::Address(side));
        match option {
            "-i" | "--in-interface" | "--in-if" => self.value_of(Key::Meta(Meta::InputName)),
            "-o" | "--out-interface" | "--out-if" => self.value_of(Key::Meta(Meta::OutputName)),
            "--logical-in" => self.value_of(Key::Meta(Meta::InputBridge)),
            "--logical-out" => self.value_of(Key::Meta(Meta::OutputBridge)),
            "-s" | "--source" => self.hardware(Side::Source),
            "-d" | "--destination" => self.hardware(Side::Destination),
            "-p" | "--protocol" => self.ether_type(),
            "--ip-src" | "--ip-source" => self.value_of(ip(Side::Source)),
            "--ip-dst" | "--ip-destination" => self.value_of(ip(Side::Destination)),
            "--ip6-src" | "--ip6-source" => self.value_of(ip6(Side::Source)),
            "--ip6-dst" | "--ip6-destination" => self.value_of(ip6(Side::Destination)),
            "--ip-proto" | "--ip-protocol" | "--ip6-proto" | "--ip6-protocol" => {
                self.value_of(Key::Meta(Meta::TransportProtocol))
            }
            "--ip-sport" | "--ip-source-port" | "--ip6-sport" | "--ip6-source-port" => {
                self.value_of(Key::Port(Ports::Any, Side::Source))
            }
            "--ip-dport" | "--ip-destination-port" | "--ip6-dport" | "--ip6-destination-port" => {
                self.value_of(Key::Port(Ports::Any, Side::Destination))
            }
            "--arp-op" | "--arp-opcode" => self.value_of(Key::Arp(ArpField::Operation)),
            "--arp-htype" => self.value_of(Key::Arp(ArpField::HardwareType)),
            "--arp-ptype" => self.value_of(Key::Arp(ArpField::ProtocolType)),
            "--arp-ip-src" => self.value_of(Key::Arp(ArpField::Address(Side::Source))),
            "--arp-ip-dst" => self.value_of(Key::Arp(ArpField::Address(Side::Destination))),
            "--arp-mac-src" => self.value_of(Key::Arp(ArpField::Mac(Side::Source))),
            "--arp-mac-dst" => self.value_of(Key::Arp(ArpField::Mac(Side::Destination))),
            "--vlan-id" => self.value_of(Key::VlanId),
            "--vlan-encap" => self.value_of(Key::VlanType),
            "--mark" => self.mark(Key::Meta(Meta::Mark)),
            "--pkttype-type" => self.value_of(Key::Meta(Meta::PacketType)),
            "--among-src" => self.among(Side::Source),
            "--among-dst" => self.among(Side::Destination),
            "--limit" | "--limit-burst" => {
                self.take()?;
                if option == "--limit" {
                    self.conditions.push(Condition::Limit { over: false });
                }
                Some(())
            }
            _ => None,
        }
    }

    /// A MAC address, with a mask, or by a name of ebtables.
    fn hardware(&mut self, side: Side) -> Option<()> {
        let text = match self.value()? {
            "Unicast" => "00:00:00:00:00:00/01:00:00:00:00:00",
            "Multicast" => "01:00:00:00:00:00/01:00:00:00:00:00",
            "Broadcast" => "ff:ff:ff:ff:ff:ff",
            "BGA" => "01:80:c2:00:00:00",
            text => text,
        };
        self.value_is(Key::Ether(side), text)
    }

    fn ether_type(&mut self) -> Option<()> {
        let text = self.value()?;
        // The length field of 802.3 frames stands where the type would.
        if text.eq_ignore_ascii_case("length") {
            self.is(Key::EtherType, vec![Range { low: 0, high: 0x5ff }]);
            return Some(());
        }
        let hexadecimal = u128::from_str_radix(text.trim_start_matches("0x"), 16).ok().filter(|_| text.len() > 2);
        let value =
            Kind::EtherType.value(text).filter(|_| !text.starts_with(|c: char| c.is_ascii_digit()) || text == "802_1Q");
        self.is(Key::EtherType, vec![Range::one(value.or(hexadecimal)?)]);
        Some(())
    }

    /// `52:54:00:00:00:01=10.0.0.1,52:54:00:00:00:02,`: for IPv4 and ARP the addresses must be the frame's as well.
    fn among(&mut self, side: Side) -> Option<()> {
        let list = self.value()?;
        (!self.negated).then_some(())?;
        let mut either = Vec::new();
        for entry in list.split(',').filter(|entry| !entry.is_empty()) {
            let (address, ip) = entry.split_once('=').map_or((entry, None), |(mac, ip)| (mac, Some(ip)));
            // Two conditions at once are not one test.
            (ip.is_none()).then_some(())?;
            either.push(Range::one(value::mac(address.parse().ok()?)));
        }
        self.is(Key::Ether(side), either);
        Some(())
    }

    pub(super) fn arp(&mut self, option: &str) -> Option<()> {
        match option {
            "-s" | "--source-ip" | "--src-ip" => self.value_of(Key::Arp(ArpField::Address(Side::Source))),
            "-d" | "--destination-ip" | "--dst-ip" => self.value_of(Key::Arp(ArpField::Address(Side::Destination))),
            "--source-mac" | "--src-mac" => self.value_of(Key::Arp(ArpField::Mac(Side::Source))),
            "--destination-mac" | "--dst-mac" => self.value_of(Key::Arp(ArpField::Mac(Side::Destination))),
            "--opcode" => self.value_of(Key::Arp(ArpField::Operation)),
            "--h-length" => self.value_of(Key::Arp(ArpField::HardwareLength)),
            "--h-type" => self.value_of(Key::Arp(ArpField::HardwareType)),
            "--proto-type" => self.value_of(Key::Arp(ArpField::ProtocolType)),
            "-i" | "--in-interface" => self.value_of(Key::Meta(Meta::InputName)),
            "-o" | "--out-interface" => self.value_of(Key::Meta(Meta::OutputName)),
            _ => None,
        }
    }
}
