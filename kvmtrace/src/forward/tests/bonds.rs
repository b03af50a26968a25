//! Bonds: which leg hears, which sends (`bond_handle_frame`, `bond_xmit_activebackup`).

use super::*;
use crate::event::bond::{Bond, BondLeg, BondMode};
use rstest::rstest;

const BOND: IfIndex = IfIndex(20);
const SECOND: IfIndex = IfIndex(21);

/// The uplink of the bridge is a bond of eth0, the active leg, and eth1.
fn bonded(mode: BondMode) -> HostState {
    let mut host = bridged();
    let eth0 = host.links.get_mut(&UPLINK).unwrap();
    let port = eth0.port.take();
    eth0.master = Some(BOND);
    let second = Link { master: Some(BOND), ..link(SECOND, "eth1", LinkKind::Physical) };
    let bond = Link { master: Some(BRIDGE), port, ..link(BOND, "bond0", LinkKind::Bond) };
    host.links.extend([second, bond].map(|link| (link.index, link)));
    let leg = |backup| BondLeg { backup, ..BondLeg::default() };
    let legs = [(UPLINK, leg(false)), (SECOND, leg(mode == BondMode::ActiveBackup || mode == BondMode::Lacp))].into();
    host.bonds.insert(BOND, Bond { mode, active: Some(UPLINK), legs, ..Bond::default() });
    host
}

fn from_wire(host: &HostState, leg: IfIndex, destination: MacAddress) -> Walk {
    let packet = Packet { source_mac: Some(mac(77)), ..ping("10.0.0.11", destination) };
    walk(&Topology::new(host), &packet, Entry::Wire(leg))
}

fn hears(host: &HostState, leg: IfIndex, destination: MacAddress) -> bool {
    let walk = from_wire(host, leg, destination);
    let deaf = stops(&walk).contains(&(Some(leg), Stop::InactiveLeg));
    assert_eq!(arrivals(&walk).contains(&Arrival::Guest(GUEST1)), !deaf);
    !deaf
}

#[rstest]
#[case(BondMode::ActiveBackup, false, false)]
#[case(BondMode::Lacp, false, false)]
#[case(BondMode::BalanceTlb, false, false)]
#[case(BondMode::BalanceAlb, true, false)]
#[case(BondMode::BalanceXor, true, true)]
#[case(BondMode::BalanceRr, true, true)]
#[case(BondMode::Broadcast, true, true)]
fn a_leg_that_is_not_active_takes_what_its_mode_takes(
    #[case] mode: BondMode,
    #[case] unicast: bool,
    #[case] broadcast: bool,
) {
    let host = bonded(mode);
    assert!(hears(&host, UPLINK, mac(1)));
    assert_eq!(hears(&host, SECOND, mac(1)), unicast);
    assert_eq!(hears(&host, SECOND, MacAddress([0xff; 6])), broadcast);
    let mut all = host;
    all.bonds.get_mut(&BOND).unwrap().all_active = true;
    assert!(hears(&all, SECOND, mac(1)));
}

#[test]
fn an_active_leg_sends_though_it_is_dead() {
    let mut host = bonded(BondMode::ActiveBackup);
    let out = |host: &HostState| from_guest(host, &ping("10.0.0.9", mac(77)));
    assert_eq!(arrivals(&out(&host)).last(), Some(&Arrival::Uplink(UPLINK)));
    host.links.get_mut(&UPLINK).unwrap().carrier = false;
    assert!(stops(&out(&host)).contains(&(Some(UPLINK), Stop::NoCarrier)));
    let active = crate::forward::effect::BondOption::Active(SECOND);
    crate::forward::effect::Effect::Bond(BOND, active).apply(&mut host);
    assert!(arrivals(&out(&host)).contains(&Arrival::Uplink(SECOND)));
}

#[test]
fn without_its_state_a_bond_takes_all_and_sends_by_a_leg_that_lives() {
    let mut host = bonded(BondMode::ActiveBackup);
    host.bonds.clear();
    assert!(hears(&host, SECOND, mac(1)));
    host.links.get_mut(&UPLINK).unwrap().carrier = false;
    assert!(arrivals(&from_guest(&host, &ping("10.0.0.9", mac(77)))).contains(&Arrival::Uplink(SECOND)));
}
