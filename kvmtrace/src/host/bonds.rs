//! Bonds and their legs: `IFLA_BOND_*` and `IFLA_BOND_SLAVE_*` of `linux/if_link.h`.

use super::links::index;
use super::netlink::{Attributes, Message, Netlink};
use crate::event::bond::{Bond, BondLeg, BondMode};
use crate::event::host::LinkKind;
use crate::event::{HostState, IfIndex};
use nix::libc;
use std::collections::BTreeMap;
use std::io;

/// `struct ifinfomsg`
const LINK_HEADER: usize = 16;

/// Reads the state of all bonds, where there are any.
pub(super) fn read(state: &mut HostState, netlink: &mut Netlink) -> io::Result<()> {
    if state.links.values().any(|link| link.kind == LinkKind::Bond) {
        state.bonds = bonds(&netlink.dump(libc::RTM_GETLINK, &[0; LINK_HEADER])?);
    }
    Ok(())
}

fn bonds(links: &[Message]) -> BTreeMap<IfIndex, Bond> {
    let parts = || links.iter().filter_map(|message| message.split(LINK_HEADER));
    let masters = parts().filter_map(|(header, attributes)| {
        let data = of_kind(attributes, libc::IFLA_INFO_KIND, libc::IFLA_INFO_DATA)?;
        Some((index(&header[4..])?, bond(data)))
    });
    let mut bonds: BTreeMap<IfIndex, Bond> = masters.collect();
    for (header, attributes) in parts() {
        let data = of_kind(attributes, libc::IFLA_INFO_SLAVE_KIND, libc::IFLA_INFO_SLAVE_DATA);
        let master = attributes.u32(libc::IFLA_MASTER).and_then(IfIndex::from_kernel);
        let bond = master.and_then(|master| bonds.get_mut(&master));
        if let (Some(own), Some(data), Some(bond)) = (index(&header[4..]), data, bond) {
            bond.legs.insert(own, leg(data));
        }
    }
    bonds
}

/// `IFLA_INFO_DATA` of a bond, or `IFLA_INFO_SLAVE_DATA` of a leg.
fn of_kind(attributes: Attributes<'_>, kind: u16, data: u16) -> Option<Attributes<'_>> {
    let info = attributes.nested(libc::IFLA_LINKINFO);
    (info.text(kind).as_deref() == Some("bond")).then(|| info.nested(data))
}

fn bond(data: Attributes<'_>) -> Bond {
    const MODE: u16 = 1;
    const ACTIVE_SLAVE: u16 = 2;
    const MIIMON: u16 = 3;
    const ARP_INTERVAL: u16 = 7;
    const PRIMARY: u16 = 11;
    const ALL_SLAVES_ACTIVE: u16 = 17;
    const AD_INFO: u16 = 23;
    const AD_INFO_AGGREGATOR: u16 = 1;
    const AD_INFO_PARTNER_MAC: u16 = 5;
    let lacp = data.nested(AD_INFO);
    Bond {
        mode: mode(data.u8(MODE)),
        active: data.u32(ACTIVE_SLAVE).and_then(IfIndex::from_kernel),
        primary: data.u32(PRIMARY).and_then(IfIndex::from_kernel),
        all_active: data.flag(ALL_SLAVES_ACTIVE),
        mii_monitor: data.u32(MIIMON).unwrap_or(0),
        arp_monitor: data.u32(ARP_INTERVAL).unwrap_or(0),
        aggregator: lacp.u16(AD_INFO_AGGREGATOR),
        partner: lacp.mac(AD_INFO_PARTNER_MAC).filter(|mac| !mac.is_zero()),
        legs: BTreeMap::new(),
    }
}

fn leg(data: Attributes<'_>) -> BondLeg {
    const STATE: u16 = 1;
    const MII_STATUS: u16 = 2;
    const AD_AGGREGATOR_ID: u16 = 6;
    BondLeg {
        backup: data.u8(STATE) == Some(1),
        // BOND_LINK_FAIL and BOND_LINK_BACK wait for updelay and downdelay.
        failed: matches!(data.u8(MII_STATUS), Some(2 | 3)),
        aggregator: data.u16(AD_AGGREGATOR_ID),
    }
}

fn mode(mode: Option<u8>) -> BondMode {
    match mode {
        Some(0) => BondMode::BalanceRr,
        Some(1) => BondMode::ActiveBackup,
        Some(2) => BondMode::BalanceXor,
        Some(3) => BondMode::Broadcast,
        Some(4) => BondMode::Lacp,
        Some(5) => BondMode::BalanceTlb,
        Some(6) => BondMode::BalanceAlb,
        _ => BondMode::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::attribute;
    use super::*;

    fn link(index: u32, master: u32, info: &[Vec<u8>]) -> Message {
        let mut body = vec![0; LINK_HEADER];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body.extend(attribute(libc::IFLA_MASTER, &master.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_LINKINFO, &info.concat()));
        Message { kind: libc::RTM_NEWLINK, body }
    }

    #[test]
    fn the_legs_of_a_bond_and_the_active_one_are_read() {
        let data = [attribute(1, &[1]), attribute(2, &5_u32.to_ne_bytes()), attribute(3, &100_u32.to_ne_bytes())];
        let bond =
            link(9, 0, &[attribute(libc::IFLA_INFO_KIND, b"bond"), attribute(libc::IFLA_INFO_DATA, &data.concat())]);
        let leg = |index, state: u8| {
            let data = [attribute(1, &[state]), attribute(2, &[0])].concat();
            link(
                index,
                9,
                &[attribute(libc::IFLA_INFO_SLAVE_KIND, b"bond"), attribute(libc::IFLA_INFO_SLAVE_DATA, &data)],
            )
        };
        // A port of a bridge is none.
        let port = link(7, 9, &[attribute(libc::IFLA_INFO_SLAVE_KIND, b"bridge")]);
        let bonds = bonds(&[leg(4, 1), leg(5, 0), port, bond]);
        let bond = &bonds[&IfIndex(9)];
        assert_eq!((bond.mode, bond.active, bond.mii_monitor), (BondMode::ActiveBackup, Some(IfIndex(5)), 100));
        assert_eq!(bond.legs.keys().copied().collect::<Vec<_>>(), [IfIndex(4), IfIndex(5)]);
        assert!(bond.is_deaf(IfIndex(4), false) && !bond.is_deaf(IfIndex(5), false));
        assert!(bond.sends_by(IfIndex(5)) && !bond.sends_by(IfIndex(4)));
    }

    #[test]
    fn each_mode_takes_what_the_kernel_takes() {
        let legs = BTreeMap::from([
            (IfIndex(4), BondLeg { backup: true, ..BondLeg::default() }),
            (IfIndex(5), BondLeg::default()),
        ]);
        let deaf = |mode, group| {
            Bond { mode, active: Some(IfIndex(5)), legs: legs.clone(), ..Bond::default() }.is_deaf(IfIndex(4), group)
        };
        assert!(deaf(BondMode::Lacp, false) && deaf(BondMode::BalanceTlb, false));
        assert!(deaf(BondMode::BalanceAlb, true) && !deaf(BondMode::BalanceAlb, false));
        assert!(
            !deaf(BondMode::BalanceXor, true) && !deaf(BondMode::BalanceRr, true) && !deaf(BondMode::Broadcast, true)
        );
        let all = Bond { mode: BondMode::ActiveBackup, all_active: true, ..Bond::default() };
        assert!(!all.is_deaf(IfIndex(4), true));
    }
}
