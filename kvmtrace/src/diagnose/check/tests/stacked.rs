//! Bonds and Open vSwitch on the guests' way.

use super::wiring::at;
use super::*;
use crate::event::bond::{Bond, BondLeg, BondMode};
use crate::event::switch::{SwitchBridge, SwitchFlow, SwitchInterface, SwitchKind, SwitchPort, SwitchVlans};
use std::net::IpAddr;

/// The uplink is a bond of ens5, which is active, and ens6.
fn bonded(host: &mut HostState, mode: BondMode) {
    change(host, 5, |nic| (nic.master, nic.port) = (Some(IfIndex(6)), None));
    let second = Link { master: Some(IfIndex(6)), ..link(7, "ens6", LinkKind::Physical, None) };
    host.links.extend([link(6, "bond0", LinkKind::Bond, Some(2)), second].map(|link| (link.index, link)));
    let leg = |aggregator, backup| BondLeg { backup, aggregator: Some(aggregator), ..BondLeg::default() };
    let legs = [(IfIndex(5), leg(1, false)), (IfIndex(7), leg(1, mode == BondMode::ActiveBackup))].into();
    host.bonds.insert(IfIndex(6), Bond { mode, active: Some(IfIndex(5)), mii_monitor: 100, legs, ..Bond::default() });
}

#[test]
fn a_leg_that_lacp_has_not_joined_is_told_and_one_in_reserve_is_not() {
    assert_eq!(broken(|host| bonded(host, BondMode::ActiveBackup)), []);
    assert_eq!(broken(|host| bonded(host, BondMode::Lacp)), []);
    let apart = |host: &mut HostState| {
        bonded(host, BondMode::Lacp);
        host.bonds.get_mut(&IfIndex(6)).unwrap().legs.get_mut(&IfIndex(7)).unwrap().backup = true;
    };
    assert_eq!(broken(apart), at(Cause::BondInactiveLeg, "ens6"));
}

#[test]
fn a_dead_leg_is_told_as_lost_reserve_or_as_lost_traffic() {
    let severity = |watched: u32| {
        let mut host = host();
        bonded(&mut host, BondMode::ActiveBackup);
        change(&mut host, 5, |nic| nic.carrier = false);
        host.bonds.get_mut(&IfIndex(6)).unwrap().mii_monitor = watched;
        let mut track = Track::default();
        track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
        let found = findings(&track);
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        (finding.cause, finding.severity, finding.fixes[0].command.clone())
    };
    assert_eq!(severity(100), (Cause::NoCarrier, Severity::Warning, None));
    let activate = Some("ip link set dev bond0 type bond active_slave ens6".to_owned());
    assert_eq!(severity(0), (Cause::NoCarrier, Severity::Error, activate));
}

/// The guests' ports are on a bridge of Open vSwitch with ens5 as its uplink, which carries these VLANs.
fn on_switch(host: &mut HostState, uplink: SwitchVlans) {
    for port in 3..=5 {
        change(host, port, |link| (link.master, link.port) = (Some(IfIndex(9)), None));
    }
    let datapath = link(9, "ovs-system", LinkKind::Other("openvswitch".to_owned()), None);
    host.links.insert(IfIndex(9), Link { up: false, ..datapath });
    let address = Network { address: IpAddr::from([10, 0, 0, 1]), prefix: 24 };
    let kind = LinkKind::Other("openvswitch".to_owned());
    host.links.insert(IfIndex(2), Link { addresses: vec![address], ..link(2, "br-int", kind, None) });
    let ports = [
        ("br-int", SwitchVlans::Trunk(Vec::new()), SwitchKind::Internal),
        ("tap-a", SwitchVlans::Access(7), SwitchKind::System),
        ("tap-b", SwitchVlans::Access(8), SwitchKind::System),
        ("ens5", uplink, SwitchKind::System),
    ];
    let port = |(number, (name, vlans, kind)): (u16, (&str, SwitchVlans, SwitchKind))| SwitchPort {
        name: name.to_owned(),
        vlans,
        interfaces: vec![SwitchInterface { name: name.to_owned(), kind, number: Some(number), error: None }],
    };
    let normal = SwitchFlow { actions: "NORMAL".to_owned(), ..SwitchFlow::default() };
    host.switch.bridges = vec![SwitchBridge {
        name: "br-int".to_owned(),
        ports: (1..).zip(ports).map(port).collect(),
        flows: Some(vec![normal]),
        ..SwitchBridge::default()
    }];
}

#[test]
fn a_guest_in_a_vlan_that_no_other_port_carries_is_told() {
    let told = |vlans: Vec<u16>| broken(|host| on_switch(host, SwitchVlans::Trunk(vlans)));
    assert_eq!(told(vec![7, 8]).len(), 0, "nobody was heard, so nothing is known");
    assert_eq!(told(vec![8]), at(Cause::OvsVlan, "tap-a"));
    let ruled = |host: &mut HostState| {
        on_switch(host, SwitchVlans::Trunk(vec![8]));
        host.switch.bridges[0].flows.as_mut().unwrap()[0].actions = "resubmit(,10)".to_owned();
    };
    assert_eq!(broken(ruled), [], "its rules may give the tags another meaning");
}

#[test]
fn what_is_down_on_open_vswitch_is_told() {
    let down = |index: u32| {
        broken(|host| {
            on_switch(host, SwitchVlans::Trunk(vec![7, 8]));
            change(host, index, |link| link.up = false);
        })
    };
    assert_eq!(down(2), at(Cause::OvsPortDown, "br-int"));
    assert_eq!(down(5), at(Cause::LinkDown, "ens5"));
    let unused = |host: &mut HostState| {
        on_switch(host, SwitchVlans::Trunk(vec![7, 8]));
        change(host, 2, |link| (link.up, link.addresses) = (false, Vec::new()));
    };
    assert_eq!(broken(unused), [], "OpenStack leaves br-int's own port down");
}
