//! Our mark: how a packet is recognised as a probe's, on the wire and in a trace.

use crate::event::probe::PORTS;
use crate::forward::packet::{Packet, Transport};

/// The text that a probe's payload begins with.
pub const MAGIC: &str = "kvmtrace probe";
pub use crate::event::probe::TIME_TO_LIVE;

/// The mark of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    run: u32,
}

impl Mark {
    /// The mark of a run that begins in this second.
    pub fn of_second(second: u32) -> Self {
        Self { run: second }
    }

    /// The source port of TCP and UDP, and the identifier of echo requests, of a run's flow (the first is 0). Runs of the same
    /// two minutes have no port in common, if each has 31 flows at most: so no connection of an earlier run is still in
    /// conntrack (30 s for an echo request, 120 s after a SYN or a datagram that was answered).
    pub fn port(self, flow: u16) -> u16 {
        let width = u32::from(PORTS.end() - PORTS.start()) + 1;
        PORTS.start() + (self.run.wrapping_mul(31).wrapping_add(u32::from(flow)) % width) as u16
    }

    /// Identification of an IP packet and its fragments; never 0.
    pub(super) fn identification(self, number: u16) -> u16 {
        ((self.run as u16).wrapping_add(number)).max(1)
    }

    /// The transaction of a DHCP DISCOVER and the first sequence number of a TCP connection.
    pub(super) fn transaction(self) -> u32 {
        self.run
    }

    /// `kvmtrace probe 0123abcd`, cut or filled with zeroes to a length.
    pub(super) fn text(self, length: usize) -> Vec<u8> {
        let mut text = format!("{MAGIC} {:08x}", self.run).into_bytes();
        text.resize(length, 0);
        text
    }
}

/// The packet as a run's flow: with a source port or identifier of the run, and the TTL that marks it. Neighbour discovery
/// and DHCP keep what their protocols demand.
pub fn marked(packet: &Packet, mark: Mark, flow: u16) -> Packet {
    let mut packet = packet.clone();
    let number = mark.port(flow);
    if let Some(ip) = packet.ip_mut() {
        let own = match &mut ip.transport {
            Transport::Udp { source: Some(68), destination: Some(67) } | Transport::Icmpv6 { kind: 133..=137, .. } => {
                false
            }
            Transport::Tcp { source, .. } | Transport::Udp { source, .. } | Transport::Sctp { source, .. } => {
                *source = Some(number);
                true
            }
            Transport::Icmp { id, .. } | Transport::Icmpv6 { id, .. } => {
                *id = number;
                true
            }
            Transport::Other(_) => true,
        };
        if own {
            ip.time_to_live = Some(TIME_TO_LIVE);
        }
    }
    packet
}
