//! Bonds: several devices (legs) that act as one, as part of the host's network ([`super::host`]).

use super::units::{IfIndex, MacAddress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings and state of a bond (`IFLA_BOND_*`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// How it chooses a leg.
    pub mode: BondMode,
    /// The leg that sends, in the modes that have one; null while none can.
    pub active: Option<IfIndex>,
    /// The leg that becomes active whenever it can.
    pub primary: Option<IfIndex>,
    /// It takes frames from inactive legs, too (`all_slaves_active`).
    pub all_active: bool,
    /// Milliseconds between two looks at the legs' carriers; 0 for none.
    pub mii_monitor: u32,
    /// Milliseconds between two ARP requests to its targets; 0 for none.
    pub arp_monitor: u32,
    /// 802.3ad: the aggregator that carries the traffic.
    pub aggregator: Option<u16>,
    /// 802.3ad: the MAC address of the switch that speaks LACP; null for none.
    pub partner: Option<MacAddress>,
    /// Its legs.
    pub legs: BTreeMap<IfIndex, BondLeg>,
}

/// `BOND_MODE_*`, by the names of ip(8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// 0
    #[default]
    BalanceRr,
    /// 1
    ActiveBackup,
    /// 2
    BalanceXor,
    /// 3
    Broadcast,
    /// 4: LACP
    Lacp,
    /// 5
    BalanceTlb,
    /// 6
    BalanceAlb,
    /// Another one.
    Unknown,
}

impl BondMode {
    /// One leg at a time is active, and a person may choose which (`bond_uses_primary`).
    pub fn has_active_leg(self) -> bool {
        matches!(self, Self::ActiveBackup | Self::BalanceTlb | Self::BalanceAlb)
    }
}

impl std::fmt::Display for BondMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BalanceRr => "balance-rr",
            Self::ActiveBackup => "active-backup",
            Self::BalanceXor => "balance-xor",
            Self::Broadcast => "broadcast",
            Self::Lacp => "802.3ad",
            Self::BalanceTlb => "balance-tlb",
            Self::BalanceAlb => "balance-alb",
            Self::Unknown => "unknown",
        })
    }
}

/// A leg of a bond (`IFLA_BOND_SLAVE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondLeg {
    /// It is in reserve (`BOND_STATE_BACKUP`).
    pub backup: bool,
    /// The bond's monitor holds it for dead.
    pub failed: bool,
    /// 802.3ad: the aggregator that it belongs to.
    pub aggregator: Option<u16>,
}

impl Bond {
    /// The bond drops what comes in by this leg (`bond_should_deliver_exact_match`, `drivers/net/bonding/bond_main.c`). `group`: the
    /// frame goes to a group or to all; balance-alb takes what is for one machine by every leg.
    pub fn is_deaf(&self, leg: IfIndex, group: bool) -> bool {
        let other = self.active != Some(leg);
        !self.all_active
            && match self.mode {
                BondMode::ActiveBackup | BondMode::BalanceTlb => other,
                BondMode::BalanceAlb => other && group,
                BondMode::Lacp => self.legs.get(&leg).is_some_and(|leg| leg.backup),
                BondMode::BalanceRr | BondMode::BalanceXor | BondMode::Broadcast | BondMode::Unknown => false,
            }
    }

    /// The bond may send by this leg.
    pub fn sends_by(&self, leg: IfIndex) -> bool {
        let state = self.legs.get(&leg).copied().unwrap_or_default();
        !state.failed
            && match self.mode {
                BondMode::ActiveBackup => self.active == Some(leg),
                BondMode::Lacp => !state.backup,
                BondMode::BalanceRr
                | BondMode::BalanceXor
                | BondMode::Broadcast
                | BondMode::BalanceTlb
                | BondMode::BalanceAlb
                | BondMode::Unknown => true,
            }
    }
}
