//! What the kernel did with packets of `cargo xtask fidelity` where the model had said something else.

use super::*;

const LOOPBACK: IfIndex = IfIndex(1);

/// As [`bridged`], with a loopback device.
fn hosted() -> HostState {
    let mut host = bridged();
    let mut loopback = link(LOOPBACK, "lo", LinkKind::Loopback);
    loopback.addresses.push(network("127.0.0.1/8"));
    host.links.insert(LOOPBACK, loopback);
    host
}

fn from_host(host: &HostState, to: &str) -> Walk {
    let mut packet = ping(to, mac(0));
    (packet.source_mac, packet.destination_mac) = (None, None);
    let ip = packet.ip_mut().unwrap();
    ip.source = if ip.destination.is_ipv4() { "10.0.0.1" } else { "fd00::1" }.parse().unwrap();
    walk(&Topology::new(host), &packet, Entry::Host)
}

fn group(last: [u8; 3]) -> MacAddress {
    MacAddress([1, 0x80, 0xc2, last[0], last[1], last[2]])
}

#[test]
fn the_way_to_each_step_ends_also_for_a_packet_that_stays_here() {
    let walk = from_host(&hosted(), "10.0.0.1");
    assert_eq!(arrivals(&walk), [Arrival::Answered]);
    for index in 0..walk.steps.len() {
        assert!(walk.steps[index].parent.is_none_or(|parent| parent < index));
        assert!(walk.way(index).len() <= walk.steps.len());
    }
}

/// `br_handle_frame` gives what it keeps back to the port's own stack (`RX_HANDLER_PASS`); `ip_forward` takes only what was sent
/// to this host alone (`PACKET_HOST`).
#[test]
fn ip_to_a_reserved_group_is_the_ports_own() {
    let walk = from_guest(&bridged(), &ping("10.0.0.1", group([0, 0, 0x0e])));
    assert_eq!(arrivals(&walk), [Arrival::Answered]);
    let walk = from_guest(&bridged(), &ping("10.0.0.12", group([0, 0, 0x0e])));
    assert_eq!(stops(&walk), [(Some(GUEST1), Stop::OtherHost)]);
}

#[test]
fn a_router_does_not_forward_what_came_to_a_group_of_layer_2() {
    let walk = from_guest(&bridged(), &ping("10.0.0.12", MacAddress([0xff; 6])));
    assert!(stops(&walk).contains(&(Some(BRIDGE), Stop::OtherHost)), "{:?}", stops(&walk));
}

/// `br_dev_xmit` does not ask whether an entry is local, as `br_handle_frame_finish` does.
#[test]
fn a_local_entry_on_a_port_takes_guests_frames_and_not_the_hosts() {
    let mut host = hosted();
    host.forwarding.retain(|entry| entry.mac != mac(2));
    host.forwarding.push(fdb(mac(2), GUEST2, true));
    host.neighbours.push(host::Neighbour {
        address: "10.0.0.12".parse().unwrap(),
        device: BRIDGE,
        mac: Some(mac(2)),
        state: "permanent".to_owned(),
    });
    assert_eq!(arrivals(&from_host(&host, "10.0.0.12")), [Arrival::Guest(GUEST2)]);
    assert!(arrivals(&from_guest(&host, &ping("10.0.0.12", mac(2)))).is_empty());
}

/// `br_fdb_update` comes before `br_fdb_find_rcu`.
#[test]
fn a_frame_for_its_own_source_goes_back_nowhere() {
    let mut host = bridged();
    host.forwarding.retain(|entry| entry.mac != mac(1));
    let packet = ping("10.0.0.12", mac(1));
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(GUEST1), Stop::Hairpin)]);
    port_of(&mut host, GUEST1).learning = false;
    assert!(arrivals(&from_guest(&host, &packet)).contains(&Arrival::Uplink(UPLINK)), "it is flooded");
}

/// `dev_deactivate` gives a device without a carrier the queue that drops all.
#[test]
fn a_bridge_without_a_carrier_sends_nothing() {
    let mut host = hosted();
    host.links.get_mut(&BRIDGE).unwrap().carrier = false;
    assert_eq!(stops(&from_host(&host, "10.0.0.12")), [(Some(BRIDGE), Stop::NoCarrier)]);
}

/// `ip_route_output_key_hash_rcu` takes the device of the source; `__mkroute_output` no gateway.
#[test]
fn a_group_is_asked_for_where_the_source_is() {
    let mut host = hosted();
    host.routes.push(route("0.0.0.0/0", Some("10.0.0.12"), UPLINK));
    let walk = from_host(&host, "239.7.7.7");
    let sent = walk
        .steps
        .iter()
        .rev()
        .find_map(|step| if let Outcome::Becomes(packet) = &step.outcome { packet.destination_mac } else { None });
    assert_eq!(sent, Some(MacAddress([1, 0, 0x5e, 7, 7, 7])));
    assert!(arrivals(&walk).contains(&Arrival::Guest(GUEST1)));
}

/// `ip_mc_output`: `RTCF_LOCAL`.
#[test]
fn this_host_hears_its_own_broadcast() {
    let walk = from_host(&hosted(), "10.0.0.255");
    assert!(arrivals(&walk).contains(&Arrival::Guest(GUEST1)));
    let local = |step: &super::super::step::Step| step.stage == super::super::step::Stage::Local;
    assert!(walk.steps.iter().any(local));
}

/// Each device has a route for `ff00::/8` and `fe80::/10`.
#[test]
fn a_group_of_ipv6_needs_the_senders_device() {
    let walk = from_host(&hosted(), "ff02::1");
    assert!(walk.ends().any(|(_, step)| matches!(step.outcome, Outcome::Unknown(_))));
}
