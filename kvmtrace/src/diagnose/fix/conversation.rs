//! What a firewall is to let through: one service of one host for another, no more.

use crate::diagnose::facts::scene::Scene;
use crate::event::{FlowKey, Protocol};
use std::net::IpAddr;

/// Who sends to whom, and by which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Who sends.
    pub source: Option<IpAddr>,
    /// To whom.
    pub destination: Option<IpAddr>,
    /// The protocol, as firewalls call it; none where it has no such name.
    pub protocol: Option<&'static str>,
    /// The port of the service.
    pub port: Option<Port>,
}

/// At which end the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The packet asks for it.
    Destination(u16),
    /// The packet is its answer.
    Source(u16),
}

impl Conversation {
    /// The one that a packet belongs to.
    pub fn of(scene: &Scene<'_>, key: &FlowKey) -> Self {
        let protocol = match key.protocol {
            Protocol::Tcp => Some("tcp"),
            Protocol::Udp => Some("udp"),
            Protocol::Sctp => Some("sctp"),
            Protocol::Icmp { .. } => Some("icmp"),
            Protocol::Icmpv6 { .. } => Some("ipv6-icmp"),
            Protocol::Arp { .. } | Protocol::Ip(_) | Protocol::Ethernet(_) => None,
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
        Self { source: key.source.ip(), destination: key.destination.ip(), protocol, port }
    }

    /// What comes back.
    #[must_use]
    pub fn reverse(self) -> Self {
        let port = self.port.map(|port| match port {
            Port::Destination(port) => Port::Source(port),
            Port::Source(port) => Port::Destination(port),
        });
        Self { source: self.destination, destination: self.source, port, ..self }
    }

    /// As a part of a sentence: `10.0.0.7 send udp to port 53 of 10.0.0.1`.
    pub fn text(&self) -> String {
        let name =
            |address: Option<IpAddr>| address.map_or_else(|| "anybody".to_owned(), |address| address.to_string());
        let protocol = self.protocol.unwrap_or("packets");
        let (source, destination) = (name(self.source), name(self.destination));
        match self.port {
            Some(Port::Destination(port)) => format!("{source} send {protocol} to port {port} of {destination}"),
            Some(Port::Source(port)) => format!("{source} answer {destination} from {protocol} port {port}"),
            None => format!("{source} send {protocol} to {destination}"),
        }
    }

    /// What such a rule opens besides.
    pub fn risk(&self) -> String {
        match (self.port, self.protocol) {
            (Some(_), _) => "Whatever uses this service between the two is let through.".to_owned(),
            (None, Some(protocol)) => format!("All {protocol} between the two is let through."),
            (None, None) => "All traffic between the two is let through; narrow it to what is needed.".to_owned(),
        }
    }
}
