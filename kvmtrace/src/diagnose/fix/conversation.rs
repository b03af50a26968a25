//! The conversation that a packet belongs to: what a firewall is to let through, and no more.

pub use crate::diagnose::report::{Carried, Conversation, Port, Service};

use crate::diagnose::facts::scene::Scene;
use crate::event::{Address, FlowKey, Protocol};
use std::net::IpAddr;

impl Conversation {
    /// The one that a packet belongs to.
    pub fn of(scene: &Scene<'_>, key: &FlowKey) -> Self {
        let service = match (key.protocol, key.source, key.destination) {
            (Protocol::Tcp, ..) => Service::Tcp,
            (Protocol::Udp, ..) => Service::Udp,
            (Protocol::Sctp, ..) => Service::Sctp,
            (Protocol::Icmp { .. }, ..) => Service::Icmp,
            (Protocol::Icmpv6 { kind: 135 | 136, .. }, ..) => Service::Discovery(None),
            (Protocol::Icmpv6 { .. }, ..) => Service::Icmpv6,
            (Protocol::Ip(number), ..) => Service::Ip(number),
            (Protocol::Arp { .. }, ..) => Service::Arp,
            (Protocol::Ethernet(kind), Address::Mac(source), Address::Mac(destination)) => {
                Service::Frames(source, destination, kind)
            }
            (Protocol::Ethernet(_), ..) => Service::AnyIp,
        };
        let flow = scene.track.get(key);
        // Pieces after the first have no ports, so a rule with one would not let them through.
        let in_pieces = flow.is_some_and(|flow| flow.places.values().any(|counters| counters.fragments > 0));
        let asked = scene.track.get(&key.reverse());
        let is_answer = asked.zip(flow).is_some_and(|(asked, flow)| asked.first < flow.first);
        let port = match (key.source_port, key.destination_port) {
            _ if in_pieces => None,
            (Some(port), _) if is_answer => Some(Port::Source(port)),
            (_, port) => port.map(Port::Destination),
        };
        // A solicitation goes to a group; the address that it is about is in its body.
        let sought =
            flow.and_then(|flow| flow.target).filter(|_| matches!(key.protocol, Protocol::Icmpv6 { kind: 135, .. }));
        let (source, destination) = (key.source.ip(), sought.or(key.destination.ip()));
        let to_many = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_multicast(),
        };
        let answered = !destination.is_some_and(to_many) && !source.is_some_and(|source| source.is_unspecified());
        Self { source, destination, service, port, answered }
    }
}
