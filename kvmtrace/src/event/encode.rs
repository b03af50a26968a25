//! From a flow back to the kernel side's key of it: what the filter's evaluator reads.

use super::{Address, FlowKey, Protocol};
use kvmtrace_common::flow::{self as wire, Family, NO_VLAN};
use kvmtrace_common::parse::ip_protocol;
use std::net::IpAddr;

/// The key of the kernel side that means this flow, at no place.
pub fn key(flow: &FlowKey) -> wire::FlowKey {
    let v6 = matches!(flow.source, Address::Ip(IpAddr::V6(_)));
    let ip = if v6 { Family::IPV6 } else { Family::IPV4 };
    let ports = (flow.source_port.unwrap_or(0), flow.destination_port.unwrap_or(0));
    let (family, protocol, (source_port, destination_port)) = match flow.protocol {
        Protocol::Tcp => (ip, ip_protocol::TCP, ports),
        Protocol::Udp => (ip, ip_protocol::UDP, ports),
        Protocol::Sctp => (ip, ip_protocol::SCTP, ports),
        Protocol::Icmp { kind, code, id } => (Family::IPV4, ip_protocol::ICMP, (id, u16::from_be_bytes([kind, code]))),
        Protocol::Icmpv6 { kind, code, id } => {
            (Family::IPV6, ip_protocol::ICMPV6, (id, u16::from_be_bytes([kind, code])))
        }
        Protocol::Arp { operation } => (Family::ARP, operation, (0, 0)),
        Protocol::Ip(number) => (ip, number, (0, 0)),
        Protocol::Ethernet(ether_type) => (Family::ETHERNET, 0, (ether_type, 0)),
    };
    wire::FlowKey {
        source: bytes(flow.source),
        destination: bytes(flow.destination),
        source_port,
        destination_port,
        vlan: flow.vlan.unwrap_or(NO_VLAN),
        family,
        protocol,
        ifindex: 0,
        direction: 0,
        cpu: 0,
        _pad: 0,
    }
}

fn bytes(address: Address) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        Address::Ip(IpAddr::V4(address)) => bytes[..4].copy_from_slice(&address.octets()),
        Address::Ip(IpAddr::V6(address)) => bytes = address.octets(),
        Address::Mac(address) => bytes[..6].copy_from_slice(&address.0),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{MacAddress, decode};
    use proptest::prelude::*;

    fn flows() -> impl Strategy<Value = FlowKey> {
        let v4 = any::<[u8; 4]>().prop_map(|bytes| Address::Ip(IpAddr::from(bytes)));
        let v6 = any::<[u8; 16]>().prop_map(|bytes| Address::Ip(IpAddr::from(bytes)));
        let mac = any::<[u8; 6]>().prop_map(|bytes| Address::Mac(MacAddress(bytes)));
        let icmp = any::<(u8, u8, u16)>();
        let four = prop_oneof![
            Just(Protocol::Tcp),
            Just(Protocol::Udp),
            icmp.prop_map(|(kind, code, id)| Protocol::Icmp { kind, code, id }),
            any::<u8>().prop_map(|operation| Protocol::Arp { operation }),
            Just(Protocol::Ip(47)),
        ];
        let six = prop_oneof![
            Just(Protocol::Sctp),
            icmp.prop_map(|(kind, code, id)| Protocol::Icmpv6 { kind, code, id }),
            Just(Protocol::Ip(50)),
        ];
        let flow = |protocol: Protocol, source, destination, ports: (u16, u16), vlan: Option<u16>| {
            let has_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
            FlowKey {
                protocol,
                source,
                source_port: has_ports.then_some(ports.0),
                destination,
                destination_port: has_ports.then_some(ports.1),
                vlan: vlan.map(|vlan| vlan & 0xfff),
            }
        };
        let rest = || any::<((u16, u16), Option<u16>)>();
        prop_oneof![
            (four, v4.clone(), v4, rest()).prop_map(move |(p, s, d, (ports, vlan))| flow(p, s, d, ports, vlan)),
            (six, v6.clone(), v6, rest()).prop_map(move |(p, s, d, (ports, vlan))| flow(p, s, d, ports, vlan)),
            (any::<u16>().prop_map(Protocol::Ethernet), mac.clone(), mac, rest())
                .prop_map(move |(p, s, d, (ports, vlan))| flow(p, s, d, ports, vlan)),
        ]
    }

    proptest! {
        #[test]
        fn decoding_gives_the_flow_back(flow in flows()) {
            prop_assert_eq!(decode::key(&key(&flow)), flow);
        }
    }
}
