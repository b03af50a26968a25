//! A question about one packet, and the packet that it is about.

use crate::event::host::{Guest, GuestInterface};
use crate::event::{HostState, IfIndex, MacAddress};
use crate::forward::Entry;
use crate::forward::packet::{Network, Packet};
use std::net::IpAddr;

/// A question about one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The guest: its name, its UUID or one of its devices.
    pub guest: String,
    /// Where the packet is to go. With `from`: the destination address; none for the guest's own.
    pub target: Option<Target>,
    /// What it is.
    pub kind: Kind,
    /// Its length from the IP header on, in bytes; none for the usual length of its kind.
    pub size: Option<u32>,
    /// It must not be fragmented. IPv6 and TCP packets never may.
    pub dont_fragment: bool,
    /// The packet comes from this address, to the guest.
    pub from: Option<IpAddr>,
    /// The guest's own address, where this host does not know it.
    pub source: Option<IpAddr>,
    /// The guest's MAC address, where this host does not know it.
    pub mac: Option<MacAddress>,
    /// The guest's next hop, where this host does not know it.
    pub via: Option<IpAddr>,
}

/// Where a packet is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of these addresses: all that a name stands for.
    Addresses(Vec<IpAddr>),
    /// The guest with this name, UUID or device.
    Guest(String),
    /// The guest's gateway.
    Gateway,
    /// This host.
    Host,
}

impl Asked {
    /// Where packets enter: the requests that come before, in order, and the packet itself.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let requests = self.sender.iter().chain(&self.first).map(|request| request.entry);
        requests.chain(std::iter::once(self.entry))
    }

    /// The packet, and the request before it, of a sender with this MAC address.
    pub fn set_sender(&mut self, mac: MacAddress) {
        self.packet.source_mac = Some(mac);
        if let Some(request) = &mut self.first {
            request.packet.source_mac = Some(mac);
            if let Network::Arp(arp) = &mut request.packet.network {
                arp.sender_mac = Some(mac);
            }
        }
    }
}

impl Target {
    /// Reads a target. `None`: the word is no address, no guest and no keyword, so a resolver has to be asked.
    pub fn parse(host: &HostState, word: &str) -> Option<Self> {
        match word {
            "gateway" => Some(Self::Gateway),
            "host" => Some(Self::Host),
            _ => match word.parse() {
                Ok(address) => Some(Self::Addresses(vec![address])),
                Err(_) => guest_named(host, word).map(|_| Self::Guest(word.to_owned())),
            },
        }
    }
}

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An echo request, ICMP or `ICMPv6`.
    Icmp,
    /// The first segment (SYN) of a TCP connection to this port.
    Tcp(u16),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An ARP request for the target.
    Arp,
    /// A DHCP DISCOVER, broadcast as a guest without an address sends it.
    Dhcp,
    /// A neighbour solicitation for the target.
    Nd,
}

/// Where a packet should arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// The guest behind this interface.
    Guest(IfIndex),
    /// This host's own stack.
    Host,
    /// A machine beyond this host, or a container on it.
    Beyond,
}

/// The packet that a question is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Name of the guest.
    pub guest: String,
    /// Its interface.
    pub interface: IfIndex,
    /// The packet as it enters.
    pub packet: Packet,
    /// Where it enters.
    pub entry: Entry,
    /// Where it should arrive.
    pub goal: Goal,
    /// The machine that the guest hands the frame to; none for a packet that this host sends and for DHCP.
    pub next_hop: Option<NextHop>,
    /// What comes before it, as on every network: who sends it asks for the MAC address of the receiver or the next hop.
    pub first: Option<Resolution>,
    /// The guest's request for the MAC address of a sender on its own network, where this host does not know that. It comes
    /// before `first`, which bears [`STAND_IN`](super::STAND_IN) until then.
    pub sender: Option<Resolution>,
}

/// An ARP request or a neighbour solicitation.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// The request.
    pub packet: Packet,
    /// Where it enters.
    pub entry: Entry,
}

/// The machine to which a guest hands its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address; none where this host does not know it. The packet bears [`STAND_IN`](super::STAND_IN) then.
    pub mac: Option<MacAddress>,
    /// Whose it is.
    pub owner: Goal,
}

/// The question can't be turned into a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message is its documentation")]
pub enum QuestionError {
    #[error("{0}: no such guest; `kvmtrace guests` lists them")]
    NoGuest(String),
    #[error("{0}: this guest has no interface here")]
    NoInterface(String),
    #[error("the MAC address of {0} is not known here: give it with --mac MAC")]
    NoMac(String),
    #[error("no {family} address of {guest} is known here: give it with --source ADDRESS")]
    NoSource { guest: String, family: &'static str },
    #[error("no {family} address of {target} is known here: name the address instead")]
    NoTargetAddress { target: String, family: &'static str },
    #[error(
        "the next hop of {guest} to {target} is not known here: give it with --via ADDRESS ({target} itself if it is on the guest's own network)"
    )]
    NoNextHop { guest: String, target: IpAddr },
    #[error("the gateway of {0} is not known here: name its address instead")]
    NoGateway(String),
    #[error("where to? name a target: an address, a name, a guest, `gateway` or `host`")]
    NoTarget,
    #[error("the way of packets from {0} into this host is not known: no uplink and no route leads there")]
    NoUplink(IpAddr),
    #[error("{address} is no address for {kind}")]
    WrongFamily { address: IpAddr, kind: &'static str },
    #[error("--size {size}: such a packet has {least} to 65535 bytes from its IP header on")]
    Size { size: u32, least: u32 },
    #[error("{what} comes from the guest itself: leave --from out")]
    NotFrom { what: &'static str },
}

/// The guest with this name, UUID or device, and the interfaces that are meant: all, or the one device.
pub fn guest_named<'a>(host: &'a HostState, word: &str) -> Option<(&'a Guest, Vec<&'a GuestInterface>)> {
    let same_uuid = |guest: &&Guest| guest.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(word));
    let named = host.guests.iter().find(|guest| guest.name == word);
    if let Some(guest) = named.or_else(|| host.guests.iter().find(same_uuid)) {
        return Some((guest, guest.interfaces.iter().collect()));
    }
    let device = host.link_named(word)?.index;
    let guest = host.guest_of(device)?;
    Some((guest, guest.interfaces.iter().filter(|interface| interface.device == device).collect()))
}
