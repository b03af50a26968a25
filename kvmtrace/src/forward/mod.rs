//! What this host does with a packet: an executable model of Linux's packet path.
//!
//! [`walk`] follows a packet from its entry through the stages in the kernel's order and answers with a tree of steps. The
//! model is pure: it knows the host's tables and the packet, no clock and no kernel. A stage that needs a fact that nobody
//! has answers [`step::Outcome::Unknown`] and the walk goes on as if the packet had passed.
#![forbid(unsafe_code)]

pub mod asked;
mod bridge;
mod bridge_netfilter;
mod device;
pub mod effect;
pub mod firewall;
mod ipsec;
mod local;
mod neighbour;
pub mod packet;
pub mod reading;
mod route;
mod source_check;
pub mod step;
pub mod switch;
mod tunnel;
mod walker;
pub mod words;

use crate::event::IfIndex;
use crate::event::host::LinkKind;
use crate::topology::Topology;
use packet::Packet;
use step::Walk;
use walker::{Position, Walker};

/// Where a packet enters this host's packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The guest behind this tap or macvtap sends it.
    Guest(IfIndex),
    /// It comes in by this device from outside.
    Wire(IfIndex),
    /// This host sends it.
    Host,
}

/// The way of a packet through this host.
pub fn walk(topology: &Topology<'_>, packet: &Packet, entry: Entry) -> Walk {
    let position = match entry {
        // A macvtap's guest sends through the device (`tap_get_user`, `dev_queue_xmit`), a tap's guest is received.
        Entry::Guest(device)
            if topology.link(device).is_some_and(|link| matches!(link.kind, LinkKind::Macvtap { .. })) =>
        {
            Position::Transmit(device)
        }
        Entry::Guest(device) | Entry::Wire(device) => Position::Receive(device),
        Entry::Host => Position::Originate,
    };
    Walker::run(topology, packet.clone(), position)
}

#[cfg(test)]
pub(crate) mod tests;
