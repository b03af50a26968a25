//! Open vSwitch: what its rules, VLANs and learnt addresses do with a guest's frame.

use super::*;
use crate::event::switch::{
    LOCAL, Switch, SwitchBridge, SwitchEntry, SwitchFlow, SwitchInterface, SwitchKind, SwitchPort, SwitchVlans,
};
use crate::forward::step::{Doubt, SwitchRule};
use rstest::rstest;

/// As [`bridged`], with Open vSwitch in the place of the bridge: eth0 is port 1, the guests 2 and 3.
fn switched(rules: &[(u8, u16, &str, &str)]) -> HostState {
    let mut host = bridged();
    let system = IfIndex(20);
    host.links.insert(system, link(system, "ovs-system", LinkKind::Other("openvswitch".to_owned())));
    for device in [UPLINK, GUEST1, GUEST2] {
        let link = host.links.get_mut(&device).unwrap();
        (link.master, link.port) = (Some(system), None);
    }
    host.links.get_mut(&BRIDGE).unwrap().kind = LinkKind::Other("openvswitch".to_owned());
    host.forwarding.clear();
    let port = |(name, number, kind): (&str, u16, SwitchKind)| SwitchPort {
        name: name.to_owned(),
        vlans: SwitchVlans::default(),
        interfaces: vec![SwitchInterface { name: name.to_owned(), kind, number: Some(number), error: None }],
    };
    let ports = [
        ("br0", LOCAL, SwitchKind::Internal),
        ("eth0", 1, SwitchKind::System),
        ("vnet0", 2, SwitchKind::System),
        ("vnet1", 3, SwitchKind::System),
    ];
    let flow = |(table, priority, fields, actions): &(u8, u16, &str, &str)| SwitchFlow {
        table: *table,
        priority: *priority,
        fields: (*fields).to_owned(),
        actions: (*actions).to_owned(),
        packets: 0,
    };
    let bridge = SwitchBridge {
        name: "br0".to_owned(),
        forwards_reserved: false,
        ports: ports.map(port).into(),
        flows: Some(rules.iter().map(flow).collect()),
        learnt: Vec::new(),
    };
    host.switch = Switch { directory: None, bridges: vec![bridge] };
    host
}

const NORMAL: (u8, u16, &str, &str) = (0, 0, "", "NORMAL");

fn tagged(host: &mut HostState, port: usize, vlans: SwitchVlans) {
    host.switch.bridges[0].ports[port].vlans = vlans;
}

fn to_guest2() -> Packet {
    ping("10.0.0.12", mac(2))
}

#[test]
fn what_nobody_has_learnt_goes_to_all_ports_and_its_owner_gets_it() {
    let host = switched(&[NORMAL]);
    let walk = from_guest(&host, &to_guest2());
    assert!(arrivals(&walk).contains(&Arrival::Guest(GUEST2)));
    assert!(arrivals(&walk).contains(&Arrival::Uplink(UPLINK)));
}

#[test]
fn a_learnt_address_has_one_port() {
    let mut host = switched(&[NORMAL]);
    host.switch.bridges[0].learnt.push(SwitchEntry { port: 3, vlan: 0, mac: mac(2) });
    assert_eq!(arrivals(&from_guest(&host, &to_guest2())), [Arrival::Guest(GUEST2)]);
}

#[rstest]
#[case::of_one_vlan(20, 20, true)]
#[case::of_two_vlans(20, 21, false)]
fn access_ports_keep_to_their_vlan(#[case] first: u16, #[case] second: u16, #[case] passes: bool) {
    let mut host = switched(&[NORMAL]);
    tagged(&mut host, 2, SwitchVlans::Access(first));
    tagged(&mut host, 3, SwitchVlans::Access(second));
    let walk = from_guest(&host, &to_guest2());
    assert_eq!(arrivals(&walk).contains(&Arrival::Guest(GUEST2)), passes);
    let kept_out = stops(&walk)
        .into_iter()
        .any(|(device, stop)| device == Some(GUEST2) && matches!(stop, Stop::SwitchVlan(_, 20)));
    assert_eq!(kept_out, !passes);
}

#[test]
fn a_trunk_sends_with_the_tag() {
    let mut host = switched(&[NORMAL]);
    tagged(&mut host, 2, SwitchVlans::Access(20));
    let packet = ping("198.51.100.1", mac(99));
    let walk = from_guest(&host, &packet);
    let tags = walk.steps.iter().filter(|step| step.device == Some(UPLINK));
    assert!(tags.count() > 0);
    let reading = crate::forward::reading::Reading::new(&walk, &packet, crate::forward::asked::Goal::Beyond);
    assert_eq!(reading.packet().tags, [20]);
}

#[rstest]
#[case::by_address((0, 100, "icmp,nw_src=10.0.0.11", "drop"), Some(1))]
#[case::of_another_guest((0, 100, "icmp,nw_src=10.0.0.99", "drop"), None)]
#[case::of_its_port((0, 100, "in_port=2,ip", "drop"), Some(1))]
#[case::by_mask((0, 100, "ip,nw_dst=10.0.0.8/255.255.255.248", "drop"), Some(1))]
#[case::of_another_protocol((0, 100, "tcp", "drop"), None)]
fn a_rule_drops(#[case] rule: (u8, u16, &str, &str), #[case] dropped: Option<usize>) {
    let host = switched(&[NORMAL, rule]);
    let walk = from_guest(&host, &ping("10.0.0.12", mac(2)));
    let drops = stops(&walk).into_iter().filter(|(_, stop)| matches!(stop, Stop::SwitchDrop(_)));
    let expected = dropped.map(|rule| (Some(GUEST1), Stop::SwitchDrop(SwitchRule { bridge: 0, rule: Some(rule) })));
    assert_eq!(drops.collect::<Vec<_>>(), Vec::from_iter(expected));
}

#[test]
fn tables_and_registers_are_followed() {
    let host = switched(&[
        (0, 10, "in_port=2", "load:0x5->NXM_NX_REG1[],resubmit(,20)"),
        (20, 10, "reg1=0x5,icmp", "output:3"),
        (20, 0, "", "drop"),
    ]);
    assert_eq!(arrivals(&from_guest(&host, &to_guest2())), [Arrival::Guest(GUEST2)]);
}

#[test]
fn what_meets_no_rule_is_dropped() {
    let host = switched(&[(0, 10, "arp", "NORMAL")]);
    let stop = Stop::SwitchDrop(SwitchRule { bridge: 0, rule: None });
    assert_eq!(stops(&from_guest(&host, &to_guest2())), [(Some(GUEST1), stop)]);
}

#[rstest]
#[case::an_action("ct(table=1)", "ip")]
#[case::a_field("NORMAL", "ip,tcp_flags=+syn")]
fn what_is_not_followed_is_a_doubt(#[case] actions: &str, #[case] fields: &str) {
    let host = switched(&[(0, 10, fields, actions), NORMAL]);
    let walk = from_guest(&host, &to_guest2());
    let doubts = walk.steps.iter().filter(|step| matches!(step.outcome, Outcome::Unknown(Doubt::Daemon(_))));
    assert_eq!(doubts.count(), 1);
    assert_eq!(arrivals(&walk), []);
}

#[test]
fn rules_that_call_each_other_end() {
    let host = switched(&[(0, 10, "", "resubmit(,0),resubmit(,0)")]);
    let walk = from_guest(&host, &to_guest2());
    assert!(walk.steps.iter().any(|step| matches!(step.outcome, Outcome::Unknown(Doubt::Daemon(_)))));
}

#[test]
fn this_hosts_own_port_is_down() {
    let mut host = switched(&[NORMAL]);
    let own = host.links.get_mut(&BRIDGE).unwrap();
    own.up = false;
    let packet = ping("10.0.0.1", own.mac.unwrap());
    assert!(stops(&from_guest(&host, &packet)).contains(&(Some(BRIDGE), Stop::SwitchPortDown)));
}
