//! Frames that a bridge forwards, floods and keeps.

use super::*;
use rstest::rstest;

const BEYOND: u8 = 77;

#[test]
fn a_known_address_gets_the_frame_and_nobody_else() {
    let host = bridged();
    let walk = from_guest(&host, &ping("10.0.0.12", mac(2)));
    assert_eq!(arrivals(&walk), [Arrival::Guest(GUEST2)]);
    assert!(stops(&walk).is_empty());
}

#[test]
fn an_unknown_address_is_flooded_and_other_guests_pass_it_over() {
    let host = bridged();
    let walk = from_guest(&host, &ping("10.0.0.99", mac(BEYOND)));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
    assert!(walk.ends().any(|(_, step)| step.device == Some(GUEST2)), "a copy goes to the other guest");
}

#[test]
fn the_hosts_own_echo_is_answered() {
    let host = bridged();
    let own = host.links[&BRIDGE].mac.unwrap();
    assert_eq!(arrivals(&from_guest(&host, &ping("10.0.0.1", own))), [Arrival::Answered]);
}

#[test]
fn an_arp_request_reaches_all_and_the_owner_answers() {
    let host = bridged();
    let walk = from_guest(&host, &who_has("10.0.0.1"));
    assert_eq!(
        arrivals(&walk),
        [Arrival::Uplink(UPLINK), Arrival::Guest(GUEST2), Arrival::Answered],
        "the copies by the ports, and the bridge's own"
    );
}

#[rstest]
#[case::isolated(|host: &mut HostState| { port_of(host, GUEST1).isolated = true; port_of(host, GUEST2).isolated = true; }, GUEST2, Stop::Isolated)]
#[case::blocked(|host: &mut HostState| port_of(host, GUEST1).state = PortState::Blocking, GUEST1, Stop::PortBlocked)]
#[case::blocked_far(|host: &mut HostState| port_of(host, GUEST2).state = PortState::Disabled, GUEST2, Stop::PortBlocked)]
#[case::locked(|host: &mut HostState| { port_of(host, GUEST1).locked = true; host.forwarding.retain(|entry| entry.mac != mac(1)); }, GUEST1, Stop::Locked)]
#[case::bridge_down(|host: &mut HostState| host.links.get_mut(&BRIDGE).unwrap().up = false, GUEST1, Stop::BridgeDown)]
#[case::tap_down(|host: &mut HostState| host.links.get_mut(&GUEST1).unwrap().up = false, GUEST1, Stop::LinkDown)]
#[case::far_tap_without_a_process(|host: &mut HostState| host.links.get_mut(&GUEST2).unwrap().carrier = false, GUEST2, Stop::GuestGone)]
#[case::behind_the_sender(|host: &mut HostState| host.forwarding.iter_mut().filter(|entry| entry.mac == mac(2)).for_each(|entry| entry.device = GUEST1), GUEST1, Stop::Hairpin)]
fn a_port_that_may_not_have_it_ends_a_unicast_frame(
    #[case] fault: fn(&mut HostState),
    #[case] device: IfIndex,
    #[case] stop: Stop,
) {
    let mut host = bridged();
    fault(&mut host);
    let walk = from_guest(&host, &ping("10.0.0.12", mac(2)));
    assert!(arrivals(&walk).is_empty());
    assert_eq!(stops(&walk), [(Some(device), stop)]);
}

#[test]
fn a_locked_port_lets_the_address_in_that_is_in_the_database() {
    let mut host = bridged();
    port_of(&mut host, GUEST1).locked = true;
    assert_eq!(arrivals(&from_guest(&host, &ping("10.0.0.12", mac(2)))), [Arrival::Guest(GUEST2)]);
}

/// `__is_skb_forwardable` leaves room for a VLAN tag: four bytes more than the MTU pass.
#[rstest]
#[case(1500, true)]
#[case(1504, true)]
#[case(1505, false)]
fn a_frame_longer_than_the_ports_mtu_and_a_tag_ends_silently(#[case] length: u32, #[case] passes: bool) {
    let host = bridged();
    let walk = from_guest(&host, &Packet { length, ..ping("10.0.0.12", mac(2)) });
    assert_eq!(arrivals(&walk).is_empty(), !passes);
    if !passes {
        assert_eq!(stops(&walk), [(Some(GUEST2), Stop::BridgeMtu(1500))]);
    }
}

#[test]
fn a_gso_frame_is_not_measured() {
    let host = bridged();
    let packet = Packet { length: 9000, gso: true, ..ping("10.0.0.12", mac(2)) };
    assert_eq!(arrivals(&from_guest(&host, &packet)), [Arrival::Guest(GUEST2)]);
}

/// `br_nf_dev_queue_xmit` fragments what may be fragmented and measures without room for a tag.
#[rstest]
#[case::may_be_fragmented(false, true)]
#[case::must_not(true, false)]
fn under_br_netfilter_a_long_packet_is_fragmented_or_ends(#[case] dont_fragment: bool, #[case] passes: bool) {
    let mut host = bridged();
    host.sysctls.insert("net.bridge.bridge-nf-call-iptables".to_owned(), "1".to_owned());
    let mut packet = Packet { length: 1501, ..ping("10.0.0.12", mac(2)) };
    packet.ip_mut().unwrap().dont_fragment = dont_fragment;
    assert_eq!(!arrivals(&from_guest(&host, &packet)).is_empty(), passes);
}

#[rstest]
#[case::spanning_tree_is_off(0x00, false, 0, true)]
#[case::spanning_tree_is_on(0x00, true, 0, false)]
#[case::lldp(0x0e, false, 0, false)]
#[case::lldp_by_the_mask(0x0e, false, 0x4000, true)]
fn reserved_groups_stay_unless_the_mask_lets_them(
    #[case] group: u8,
    #[case] stp: bool,
    #[case] mask: u16,
    #[case] passes: bool,
) {
    let mut host = bridged();
    bridge_of(&mut host).stp = stp;
    bridge_of(&mut host).group_forward_mask = mask;
    let packet =
        Packet { network: Network::Other(0x88cc), ..ping("10.0.0.1", MacAddress([0x01, 0x80, 0xc2, 0, 0, group])) };
    let walk = from_guest(&host, &packet);
    assert_eq!(arrivals(&walk).contains(&Arrival::Uplink(UPLINK)), passes);
    assert_eq!(stops(&walk).contains(&(Some(GUEST1), Stop::LinkLocalGroup)), !passes);
    // The mask of the port where it comes in does the same.
    bridge_of(&mut host).group_forward_mask = 0;
    port_of(&mut host, GUEST1).group_forward_mask = mask;
    assert_eq!(arrivals(&from_guest(&host, &packet)).contains(&Arrival::Uplink(UPLINK)), passes);
}

#[test]
fn a_group_as_source_is_refused() {
    let host = bridged();
    let packet = Packet { source_mac: Some(MacAddress([1, 0, 0x5e, 0, 0, 1])), ..ping("10.0.0.12", mac(2)) };
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(GUEST1), Stop::InvalidSourceMac)]);
}

/// A VLAN-aware bridge: guest 1 and the uplink in VLAN 10, tagged on the wire; the bridge itself in VLAN 1 alone.
fn vlan_aware() -> HostState {
    let mut host = bridged();
    bridge_of(&mut host).vlan_filtering = true;
    bridge_of(&mut host).vlans = vec![PortVlan { id: 1, last: None, pvid: true, untagged: true }];
    port_of(&mut host, GUEST1).vlans = vec![PortVlan { id: 10, last: None, pvid: true, untagged: true }];
    port_of(&mut host, UPLINK).vlans = vec![PortVlan { id: 2, last: Some(4094), pvid: false, untagged: false }];
    host.forwarding.iter_mut().for_each(|entry| entry.vlan = Some(1));
    host
}

#[test]
fn a_broadcast_in_another_vlan_than_the_bridges_own_is_no_loss() {
    let host = vlan_aware();
    let walk = from_guest(&host, &who_has("10.0.0.99"));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)], "the other guest is in VLAN 1");
    assert!(stops(&walk).is_empty(), "the copy that the bridge itself may not have is passed over");
}

#[test]
fn a_frame_leaves_with_the_tag_of_its_vlan() {
    let host = vlan_aware();
    let walk = from_guest(&host, &ping("10.0.0.99", mac(BEYOND)));
    let (end, _) = walk.ends().find(|(_, step)| step.outcome == Outcome::Arrives(Arrival::Uplink(UPLINK))).unwrap();
    let way = walk.way(end);
    let tagged = way
        .iter()
        .rev()
        .find_map(|step| if let Outcome::Becomes(packet) = &step.outcome { Some(packet.tags.clone()) } else { None });
    assert_eq!(tagged, Some(vec![10]));
}

#[test]
fn a_tag_that_the_port_is_no_member_of_is_refused() {
    let host = vlan_aware();
    let packet = Packet { tags: vec![20], ..ping("10.0.0.99", mac(BEYOND)) };
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(GUEST1), Stop::VlanFiltered(Some(20)))]);
}

#[test]
fn an_untagged_frame_without_a_pvid_is_refused() {
    let mut host = vlan_aware();
    port_of(&mut host, GUEST1).vlans[0].pvid = false;
    assert_eq!(stops(&from_guest(&host, &ping("10.0.0.99", mac(BEYOND)))), [(Some(GUEST1), Stop::VlanFiltered(None))]);
}

/// Two bridges joined by two veth pairs: a broadcast goes round.
#[test]
fn a_circle_of_bridges_is_found() {
    let mut host = bridged();
    let other = IfIndex(4);
    host.links.insert(other, link(other, "br1", LinkKind::Bridge(BridgeState::default())));
    for (near, far) in [(21, 22), (23, 24)] {
        for (index, peer, master) in [(near, far, BRIDGE), (far, near, other)] {
            let mut end = link(IfIndex(index), &format!("veth{index}"), LinkKind::Veth);
            end.peer = Some(IfIndex(peer));
            end.master = Some(master);
            end.port = Some(port());
            host.links.insert(end.index, end);
        }
    }
    let walk = from_guest(&host, &who_has("10.0.0.99"));
    assert!(stops(&walk).iter().any(|(_, stop)| *stop == Stop::Loop));
    assert!(!walk.cut);
}
