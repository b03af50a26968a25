//! One service of one host for another: what a firewall is to let through.

use crate::event::MacAddress;
use std::fmt;
use std::net::IpAddr;

/// Who sends to whom, and by which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Who sends; none for anybody.
    pub source: Option<IpAddr>,
    /// To whom; none for anybody.
    pub destination: Option<IpAddr>,
    /// What is sent.
    pub service: Service,
    /// The port of the service.
    pub port: Option<Port>,
    /// Answers come back the same way, and have to be let through as well.
    pub answered: bool,
}

/// What a packet carries, as far as firewalls have words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Any IP packet.
    AnyIp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP.
    Icmp,
    /// `ICMPv6`.
    Icmpv6,
    /// Neighbour discovery of the two for each other, which they also send to groups: a solicitation (135), an advertisement
    /// (136), or both.
    Discovery(Option<u8>),
    /// Another protocol over IP, by its number.
    Ip(u8),
    /// ARP; the addresses are those that it is about.
    Arp,
    /// Other frames between two stations, by their type.
    Frames(MacAddress, MacAddress, u16),
}

impl Service {
    /// The protocol over IP, as firewalls call it.
    pub fn over_ip(self) -> Option<Carried> {
        match self {
            Self::Tcp => Some(Carried::Named("tcp")),
            Self::Udp => Some(Carried::Named("udp")),
            Self::Sctp => Some(Carried::Named("sctp")),
            Self::Icmp => Some(Carried::Named("icmp")),
            Self::Icmpv6 | Self::Discovery(_) => Some(Carried::Named("ipv6-icmp")),
            Self::Ip(number) => Some(Carried::Number(number)),
            Self::AnyIp | Self::Arp | Self::Frames(..) => None,
        }
    }
}

/// A protocol over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// By its name in `/etc/protocols`.
    Named(&'static str),
    /// By its number.
    Number(u8),
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
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
    /// What comes back.
    #[must_use]
    pub fn reverse(self) -> Self {
        let port = self.port.map(|port| match port {
            Port::Destination(port) => Port::Source(port),
            Port::Source(port) => Port::Destination(port),
        });
        let service = if let Service::Frames(source, destination, kind) = self.service {
            Service::Frames(destination, source, kind)
        } else {
            self.service
        };
        Self { source: self.destination, destination: self.source, service, port, ..self }
    }

    /// As a part of a sentence: `10.0.0.7 send udp to port 53 of 10.0.0.1`.
    pub fn text(&self) -> String {
        let name =
            |address: Option<IpAddr>| address.map_or_else(|| "anybody".to_owned(), |address| address.to_string());
        let (source, destination) = (name(self.source), name(self.destination));
        let protocol = match (self.service, self.service.over_ip()) {
            (Service::Arp, _) => return format!("{source} ask and answer {destination} by ARP"),
            (Service::Discovery(_), _) => {
                if self.source.is_none() {
                    return "this host and its neighbours find each other by neighbour discovery".to_owned();
                }
                return format!("{source} and {destination} find each other by neighbour discovery");
            }
            (Service::Frames(from, to, kind), _) => return format!("{from} send frames of type {kind:#06x} to {to}"),
            (_, Some(Carried::Number(number))) => format!("IP protocol {number}"),
            (_, Some(Carried::Named(name))) => name.to_owned(),
            (_, None) => "packets".to_owned(),
        };
        match self.port {
            Some(Port::Destination(port)) => format!("{source} send {protocol} to port {port} of {destination}"),
            Some(Port::Source(port)) => format!("{source} answer {destination} from {protocol} port {port}"),
            None => format!("{source} send {protocol} to {destination}"),
        }
    }

    /// What such a rule opens besides.
    pub fn risk(&self) -> String {
        match (self.service, self.port, self.service.over_ip()) {
            (Service::Arp, ..) => "Each may answer the other's ARP, whatever MAC address it gives.".to_owned(),
            (Service::Discovery(_), ..) => {
                "Each may solicit and advertise any address, as without this firewall.".to_owned()
            }
            (Service::Frames(..), ..) => "All frames of this type between the two are let through.".to_owned(),
            (_, Some(_), _) => "Whatever uses this service between the two is let through.".to_owned(),
            (_, None, Some(protocol)) => format!("All {protocol} between the two is let through."),
            (_, None, None) => "All traffic between the two is let through; narrow it to what is needed.".to_owned(),
        }
    }
}
