//! Bridges and their ports, as part of the host's network ([`super::host`]).

use serde::{Deserialize, Serialize};

/// Settings of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeState {
    /// STP is on.
    pub stp: bool,
    /// Forward delay in hundredths of a second.
    pub forward_delay: u32,
    /// VLAN filtering is on.
    pub vlan_filtering: bool,
    /// PVID that new ports get.
    pub default_pvid: u16,
    /// IGMP and MLD snooping is on.
    pub multicast_snooping: bool,
    /// It asks for group members itself.
    pub multicast_querier: bool,
    /// Link-local groups that are forwarded: bit n for 01:80:c2:00:00:0n.
    pub group_forward_mask: u16,
    /// br_netfilter is on for this bridge alone (`nf_call_iptables`).
    pub netfilter_ip: bool,
    /// The same for IPv6.
    pub netfilter_ip6: bool,
    /// The same for ARP.
    pub netfilter_arp: bool,
    /// The bridge's own VLAN memberships.
    pub vlans: Vec<PortVlan>,
}

/// Settings and state of a bridge port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// STP state.
    pub state: PortState,
    /// Isolated from other isolated ports.
    pub isolated: bool,
    /// Takes only frames of sources that are in the FDB.
    pub locked: bool,
    /// Gets unknown unicast.
    pub flood: bool,
    /// Gets unknown multicast.
    pub multicast_flood: bool,
    /// Gets broadcast.
    pub broadcast_flood: bool,
    /// Learns source addresses.
    pub learning: bool,
    /// May send a frame back to where it came from.
    pub hairpin: bool,
    /// Drops received BPDUs.
    pub bpdu_guard: bool,
    /// Reserved groups (01:80:c2:00:00:0X, one bit each) that it forwards besides those of its bridge.
    #[serde(default)]
    pub group_forward_mask: u16,
    /// VLAN memberships (empty when VLAN filtering is off or unknown).
    pub vlans: Vec<PortVlan>,
}

/// STP state of a port (`BR_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// 0
    Disabled,
    /// 1
    Listening,
    /// 2
    Learning,
    /// 3
    Forwarding,
    /// 4
    Blocking,
    /// 0 as well, because the port's device is not operational though it is up and has a carrier: dormant, under test.
    Inoperative,
}

/// A VLAN membership, or a run of them: a trunk is often a member of four thousand VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlan {
    /// VLAN id, the lowest of a run.
    pub id: u16,
    /// The highest VLAN id of a run; null for a single one.
    #[serde(default)]
    pub last: Option<u16>,
    /// Untagged frames that come in belong to it.
    pub pvid: bool,
    /// Frames leave untagged.
    pub untagged: bool,
}

impl PortVlan {
    /// Frames of this VLAN belong to it.
    pub fn covers(&self, vlan: u16) -> bool {
        (self.id..=self.last.unwrap_or(self.id)).contains(&vlan)
    }
}

/// `10`, or `10-20`, as bridge(8) writes it.
impl std::fmt::Display for PortVlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id)?;
        self.last.map_or(Ok(()), |last| write!(f, "-{last}"))
    }
}
