use super::*;
use crate::event::host::{BridgeState, Guest, GuestInterface, Link, LinkKind, Neighbour, Network, Route};
use crate::event::names::{NeighbourState, RouteKind};
use crate::event::{IfIndex, MacAddress};
use crate::forward::Entry;
use crate::forward::packet::{self, Transport};
use rstest::rstest;
use std::collections::BTreeMap;

const ETH0: IfIndex = IfIndex(2);
const BR0: IfIndex = IfIndex(3);
const VNET0: IfIndex = IfIndex(4);
const VNET1: IfIndex = IfIndex(5);

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn link(index: IfIndex, name: &str, kind: LinkKind, master: Option<IfIndex>, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().copied().map(network).collect();
    Link { mac: Some(mac(index.0 as u8)), master, addresses, ..crate::forward::tests::link(index, name, kind) }
}

fn route(destination: &str, gateway: &str, device: IfIndex) -> Route {
    Route {
        destination: network(destination),
        gateway: gateway.parse().ok(),
        device: Some(device),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    }
}

fn guest(name: &str, device: IfIndex, addresses: &[&str]) -> Guest {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let interface = GuestInterface::new(device, "tap", Some(mac(0x10 + device.0 as u8)), addresses);
    Guest { name: name.to_owned(), uuid: Some(format!("uuid-{name}")), interfaces: vec![interface], ..Guest::default() }
}

/// Two guests on a bridge without uplink; the host has an address there, a NIC and a default route.
fn natted() -> HostState {
    let bridge = LinkKind::Bridge(BridgeState::default());
    let links = [
        link(ETH0, "eth0", LinkKind::Physical, None, &["203.0.113.5/24"]),
        link(BR0, "br0", bridge, None, &["10.0.0.1/24", "fd00::1/64"]),
        link(VNET0, "vnet0", LinkKind::Tun, Some(BR0), &[]),
        link(VNET1, "vnet1", LinkKind::Tun, Some(BR0), &[]),
    ];
    HostState {
        links: links.map(|link| (link.index, link)).into(),
        routes: vec![route("0.0.0.0/0", "203.0.113.1", ETH0)],
        guests: vec![guest("web1", VNET0, &["10.0.0.11", "fd00::11"]), guest("db1", VNET1, &["10.0.0.12"])],
        ..HostState::default()
    }
}

/// The same guests on a bridge with the NIC; the host's default route leads by the bridge.
fn bridged() -> HostState {
    let mut host = natted();
    host.links.get_mut(&ETH0).unwrap().addresses.clear();
    host.links.get_mut(&ETH0).unwrap().master = Some(BR0);
    host.routes = vec![route("0.0.0.0/0", "10.0.0.254", BR0)];
    let known = |address: &str, last| Neighbour {
        address: address.parse().unwrap(),
        device: BR0,
        mac: Some(mac(last)),
        state: NeighbourState::Reachable,
    };
    host.neighbours = vec![known("10.0.0.254", 0xfe)];
    host
}

fn question(guest: &str, target: Option<Target>, kind: Kind) -> Question {
    Question {
        guest: guest.to_owned(),
        target,
        kind,
        size: None,
        dont_fragment: false,
        from: None,
        source: None,
        mac: None,
        via: None,
    }
}

fn ask(host: &HostState, to: &str, kind: Kind) -> Result<Asked, QuestionError> {
    resolve(host, &question("web1", Some(Target::parse(host, to).unwrap()), kind))
}

#[rstest]
#[case::another_guest(natted(), "db1", "10.0.0.12", Some(mac(0x15)), Goal::Guest(VNET1))]
#[case::another_guest_by_device(natted(), "vnet1", "10.0.0.12", Some(mac(0x15)), Goal::Guest(VNET1))]
#[case::the_host_as_gateway(natted(), "gateway", "10.0.0.1", Some(mac(3)), Goal::Host)]
#[case::the_host(natted(), "host", "10.0.0.1", Some(mac(3)), Goal::Host)]
#[case::beyond_the_host(natted(), "198.51.100.7", "10.0.0.1", Some(mac(3)), Goal::Beyond)]
#[case::the_hosts_outer_address(natted(), "203.0.113.5", "10.0.0.1", Some(mac(3)), Goal::Host)]
#[case::a_gateway_on_the_lan(bridged(), "gateway", "10.0.0.254", Some(mac(0xfe)), Goal::Beyond)]
#[case::beyond_a_gateway_on_the_lan(bridged(), "198.51.100.7", "10.0.0.254", Some(mac(0xfe)), Goal::Beyond)]
#[case::a_machine_on_the_lan(bridged(), "10.0.0.99", "10.0.0.99", None, Goal::Beyond)]
#[case::ipv6_beyond(natted(), "2001:db8::7", "fd00::1", Some(mac(3)), Goal::Beyond)]
fn the_next_hop_and_the_goal_follow_from_the_hosts_tables(
    #[case] host: HostState,
    #[case] target: &str,
    #[case] hop: &str,
    #[case] known: Option<MacAddress>,
    #[case] goal: Goal,
) {
    let asked = ask(&host, target, Kind::Icmp).unwrap();
    let next = asked.next_hop.unwrap();
    assert_eq!((next.address, next.mac, asked.goal), (hop.parse().unwrap(), known, goal));
    assert_eq!(asked.packet.source_mac, Some(mac(0x14)));
    assert_eq!(asked.packet.destination_mac, Some(known.unwrap_or(STAND_IN)));
    assert!(asked.first.is_some() && asked.entry == Entry::Guest(VNET0));
}

#[rstest]
#[case(Kind::Icmp, Transport::Icmp { kind: 8, code: 0, id: 40_000 }, 84, false)]
#[case(Kind::Tcp(443), Transport::Tcp { source: Some(40_000), destination: Some(443), flags: Some(packet::TcpFlags { syn: true, ack: false, fin: false, rst: false }) }, 60, true)]
#[case(Kind::Udp(53), Transport::Udp { source: Some(40_000), destination: Some(53) }, 60, false)]
fn a_packet_is_what_a_guest_of_linux_sends(
    #[case] kind: Kind,
    #[case] transport: Transport,
    #[case] length: u32,
    #[case] df: bool,
) {
    let asked = ask(&natted(), "db1", kind).unwrap();
    let ip = asked.packet.ip().unwrap();
    assert_eq!((ip.transport, asked.packet.length, ip.dont_fragment), (transport, length, df));
}

#[test]
fn arp_asks_for_the_next_hop_and_a_solicitation_goes_to_its_group() {
    let asked = ask(&natted(), "198.51.100.7", Kind::Arp).unwrap();
    let packet::Network::Arp(arp) = asked.packet.network else { panic!("no ARP") };
    assert_eq!((arp.operation, arp.target.to_string(), asked.goal), (1, "10.0.0.1".to_owned(), Goal::Host));
    assert_eq!(asked.packet.destination_mac, Some(MacAddress([0xff; 6])));
    let asked = ask(&natted(), "fd00::1:2:3456", Kind::Nd).unwrap();
    assert_eq!(asked.packet.ip().unwrap().destination.to_string(), "ff02::1:ff02:3456");
    assert_eq!(asked.packet.destination_mac.unwrap().to_string(), "33:33:ff:02:34:56");
}

#[test]
fn dhcp_needs_no_address_of_the_guest() {
    let mut host = natted();
    host.guests[0].interfaces[0].addresses.clear();
    let asked = ask(&host, "gateway", Kind::Dhcp).unwrap();
    assert_eq!(asked.packet.ip().unwrap().transport.ports(), Some((Some(68), Some(67))));
    assert_eq!((asked.goal, asked.next_hop), (Goal::Host, None));
}

#[test]
fn every_missing_fact_names_the_option_to_give() {
    let refused = |host: &HostState, change: &dyn Fn(&mut Question)| {
        let mut question = question("web1", Some(Target::Addresses(vec!["198.51.100.7".parse().unwrap()])), Kind::Icmp);
        change(&mut question);
        resolve(host, &question).map(|_| ()).unwrap_err().to_string()
    };
    let nothing = |_: &mut Question| {};
    assert!(refused(&natted(), &|question| question.guest = "web9".to_owned()).contains("web9: no such guest"));
    assert!(refused(&natted(), &|question| question.size = Some(20)).contains("28 to 65535"));
    assert!(refused(&natted(), &|question| question.kind = Kind::Nd).contains("no address for neighbour discovery"));
    let mut host = natted();
    host.guests[0].interfaces[0].addresses.clear();
    assert!(refused(&host, &nothing).contains("--source"));
    assert!(
        resolve(
            &host,
            &Question { source: "10.0.0.77".parse().ok(), ..question("web1", Some(Target::Gateway), Kind::Icmp) }
        )
        .is_ok()
    );
    let mut host = natted();
    host.guests[0].interfaces[0].mac = None;
    assert!(refused(&host, &nothing).contains("--mac"));
    let mut host = bridged();
    host.links.get_mut(&BR0).unwrap().addresses.clear();
    host.routes.clear();
    assert!(refused(&host, &nothing).contains("--via"));
    assert!(resolve(&host, &question("web1", Some(Target::Guest("db1".to_owned())), Kind::Icmp)).is_ok());
}

#[rstest]
#[case::on_the_lan(bridged(), "10.0.0.254", Entry::Wire(ETH0), Some(mac(0xfe)), Some(mac(0x14)))]
#[case::behind_the_lans_gateway(bridged(), "198.51.100.7", Entry::Wire(ETH0), Some(mac(0xfe)), Some(mac(0x14)))]
#[case::to_a_host_that_routes(natted(), "198.51.100.7", Entry::Wire(ETH0), Some(STAND_IN), Some(mac(2)))]
#[case::this_host(natted(), "10.0.0.1", Entry::Host, None, None)]
#[case::another_guest(natted(), "10.0.0.12", Entry::Guest(VNET1), Some(mac(0x15)), Some(mac(0x14)))]
fn a_packet_to_the_guest_enters_where_its_sender_is(
    #[case] host: HostState,
    #[case] from: &str,
    #[case] entry: Entry,
    #[case] source: Option<MacAddress>,
    #[case] destination: Option<MacAddress>,
) {
    let asked = resolve(&host, &Question { from: from.parse().ok(), ..question("web1", None, Kind::Tcp(22)) }).unwrap();
    assert_eq!((asked.entry, asked.goal), (entry, Goal::Guest(VNET0)));
    assert_eq!((asked.packet.source_mac, asked.packet.destination_mac), (source, destination));
    let ip = asked.packet.ip().unwrap();
    assert_eq!((ip.source.to_string(), ip.destination.to_string()), (from.to_owned(), "10.0.0.11".to_owned()));
}

#[test]
fn a_forwarded_port_is_asked_for_by_the_outer_address() {
    let target = Some(Target::Addresses(vec!["203.0.113.5".parse().unwrap()]));
    let asked =
        resolve(&natted(), &Question { from: "198.51.100.7".parse().ok(), ..question("web1", target, Kind::Tcp(443)) });
    let asked = asked.unwrap();
    assert_eq!((asked.entry, asked.goal), (Entry::Wire(ETH0), Goal::Guest(VNET0)));
    assert_eq!(asked.packet.ip().unwrap().destination.to_string(), "203.0.113.5");
    assert_eq!(asked.packet.destination_mac, Some(mac(2)));
}

#[test]
fn keywords_addresses_guests_and_names_are_told_apart() {
    let host = natted();
    let parsed: BTreeMap<&str, Option<Target>> =
        ["host", "gateway", "web1", "10.0.0.9", "example.org"].map(|word| (word, Target::parse(&host, word))).into();
    assert_eq!(parsed["host"], Some(Target::Host));
    assert_eq!(parsed["gateway"], Some(Target::Gateway));
    assert_eq!(parsed["web1"], Some(Target::Guest("web1".to_owned())));
    assert_eq!(parsed["10.0.0.9"], Some(Target::Addresses(vec!["10.0.0.9".parse().unwrap()])));
    assert_eq!(parsed["example.org"], None);
}

#[test]
fn without_a_target_a_guest_asks_who_is_known_near_it() {
    let servers = ["127.0.0.53".parse().unwrap(), "192.0.2.53".parse().unwrap(), "203.0.113.53".parse().unwrap()];
    let mut host = natted();
    let connected = Route { gateway: None, ..route("203.0.113.0/24", "", ETH0) };
    host.routes.push(connected);
    for guest in &mut host.guests {
        guest.pid = Some(1);
    }
    // The loopback's server is the host's own, and the way to 192.0.2.53 leads beyond every network that is known.
    let usual = usual::usual(&host, "web1", &servers);
    assert_eq!(usual.targets, ["gateway", "host", "db1", "203.0.113.53", "203.0.113.1"]);
    assert!(usual.unknown.is_empty());
    // The host's gateway is the guest's own: `gateway` has it already.
    let host = bridged();
    let usual = usual::usual(&host, "web1", &servers);
    assert_eq!(usual.targets, ["gateway", "host"]);
    assert_eq!(usual.unknown, ["another guest of its network", "a name server", "a machine beyond"]);
}
