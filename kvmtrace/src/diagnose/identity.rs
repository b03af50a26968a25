//! A flow's name: the same in a report, in JSON and in every export of the same recording, and of no two flows of a report.

use crate::event::{FlowKey, Protocol};

/// The id of a flow: sixteen hexadecimal digits, from its key and the guest's interface.
pub(in crate::diagnose) fn flow_id(device: Option<&str>, key: &FlowKey) -> String {
    let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
    let text = format!(
        "{}|{:?}|{}|{}|{}|{}|{}",
        device.unwrap_or_default(),
        key.protocol,
        key.source,
        port(key.source_port),
        key.destination,
        port(key.destination_port),
        port(key.vlan)
    );
    hash(&text)
}

/// FNV-1a, 64 bits, as sixteen hexadecimal digits: short, and the same on every machine and in every version.
pub fn hash(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// The identifier of an ICMP echo; none for anything else.
pub fn icmp_id(key: &FlowKey) -> Option<u16> {
    match key.protocol {
        Protocol::Icmp { kind: 0 | 8, id, .. } | Protocol::Icmpv6 { kind: 128 | 129, id, .. } => Some(id),
        Protocol::Icmp { .. }
        | Protocol::Icmpv6 { .. }
        | Protocol::Tcp
        | Protocol::Udp
        | Protocol::Sctp
        | Protocol::Arp { .. }
        | Protocol::Ip(_)
        | Protocol::Ethernet(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Address;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    fn key(protocol: Protocol, source_port: Option<u16>, vlan: Option<u16>) -> FlowKey {
        FlowKey {
            protocol,
            source: Address::Ip(IpAddr::from([10, 0, 0, 1])),
            source_port,
            destination: Address::Ip(IpAddr::from([10, 0, 0, 2])),
            destination_port: source_port,
            vlan,
        }
    }

    #[test]
    fn flows_that_differ_in_one_fact_have_different_ids() {
        let echo = |id| Protocol::Icmp { kind: 8, code: 0, id };
        let keys = [
            key(echo(1), None, None),
            key(echo(2), None, None),
            key(echo(1), None, Some(10)),
            key(Protocol::Tcp, Some(80), None),
            key(Protocol::Udp, Some(80), None),
            key(Protocol::Udp, Some(81), None),
            key(Protocol::Udp, Some(80), None).reverse(),
        ];
        let ids: BTreeSet<String> = keys.iter().map(|key| flow_id(Some("vnet0"), key)).collect();
        let more = flow_id(Some("vnet1"), &keys[0]);
        assert_eq!(ids.len(), keys.len(), "{ids:?}");
        assert!(!ids.contains(&more));
    }

    #[test]
    fn only_echoes_have_an_icmp_id() {
        assert_eq!(icmp_id(&key(Protocol::Icmp { kind: 8, code: 0, id: 7 }, None, None)), Some(7));
        assert_eq!(icmp_id(&key(Protocol::Icmp { kind: 3, code: 3, id: 7 }, None, None)), None);
    }
}
