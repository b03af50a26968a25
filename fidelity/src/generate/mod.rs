//! Hosts and packets, drawn from a seed.

mod host;
mod packets;
mod rules;

pub use packets::{Sent, Way, packet};

use crate::plan::Plan;
use kvmtrace_tests::lab::draw::Draw;

/// What the running kernel offers beyond the least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// Bridges filter VLANs.
    pub vlan_filtering: bool,
    /// There are VLAN devices.
    pub vlan_devices: bool,
    /// Bridges have ports that can be locked.
    pub locked_ports: bool,
    /// Bridged frames can meet the rules of IP (br_netfilter).
    pub bridge_netfilter: bool,
    /// `ct` in the family bridge.
    pub bridge_conntrack: bool,
    /// `iptables-legacy` has its tables.
    pub legacy: bool,
    /// ebtables-legacy has its tables.
    pub ebtables: bool,
    /// There are VXLAN devices.
    pub vxlan: bool,
    /// There are macvlan devices.
    pub macvlan: bool,
    /// There are policies of IPsec.
    pub ipsec: bool,
}

/// A host.
pub fn host(draw: &mut Draw, abilities: Abilities) -> Plan {
    let mut plan = host::draw(draw, abilities);
    rules::draw(&mut plan, draw, abilities);
    plan
}

/// So many times in a hundred.
fn chance(draw: &mut Draw, percent: u32) -> bool {
    draw.number(1, 100) <= percent
}
