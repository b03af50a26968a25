//! Rulesets as their tools print them, and what they do with packets.

mod ways;

use super::{At, Fate, Ruling, hook};
use crate::event::host::{Backend, Chain, HostState, Link, LinkKind, LinkStatistics, Network, Rule, Set};
use crate::event::ruleset::{Hook, Layer};
use crate::event::{IfIndex, MacAddress};
use crate::forward::packet::{
    Arp, Connection, Fragment, Ip, Network as Above, Packet, TcpFlags, Translation, Transport,
};
use crate::topology::Topology;
use rstest::rstest;
use std::net::IpAddr;

const GUEST: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>, address: Option<&str>) -> Link {
    let network = |address: &str| Network { address: ip(address), prefix: if address.contains(':') { 64 } else { 24 } };
    Link {
        index: IfIndex(index),
        name: name.to_owned(),
        kind,
        mac: Some(MacAddress([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        up: true,
        carrier: true,
        arp_off: false,
        ethernet: true,
        master: master.map(IfIndex),
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: String::new(),
        port: None,
        xdp: None,
        large_receive: false,
        addresses: address.into_iter().map(network).collect(),
        statistics: LinkStatistics::default(),
    }
}

/// `vnet0` and `vnet1` in `br0` (10.0.0.254); `eth0` (192.0.2.2) leads out.
fn host() -> HostState {
    let bridge = LinkKind::Bridge(crate::event::bridge::BridgeState::default());
    let links = [
        link(1, "lo", LinkKind::Loopback, None, Some("127.0.0.1")),
        link(2, "eth0", LinkKind::Physical, None, Some("192.0.2.2")),
        link(3, "vnet0", LinkKind::Tun, Some(5), None),
        link(4, "vnet1", LinkKind::Tun, Some(5), None),
        link(5, "br0", bridge, None, Some("10.0.0.254")),
    ];
    HostState { links: links.into_iter().map(|link| (link.index, link)).collect(), ..HostState::default() }
}

fn rule(number: usize, text: &str) -> Rule {
    Rule { handle: None, number: number as u32 + 1, text: text.to_owned(), packets: None, verdict: None }
}

/// A chain: `ip filter forward: forward 0 accept`, or without what stands behind the colon.
fn chain(head: &str, rules: &[&str]) -> Chain {
    let (place, base) = head.split_once(':').unwrap_or((head, ""));
    let place: Vec<_> = place.split_whitespace().collect();
    let base: Vec<_> = base.split_whitespace().map(str::to_owned).collect();
    let upper = place[2].chars().all(|c| c.is_ascii_uppercase());
    Chain {
        backend: if upper { Backend::IptablesLegacy } else { Backend::Nft },
        family: place[0].to_owned(),
        table: place[1].to_owned(),
        name: place[2].to_owned(),
        hook: base.first().cloned(),
        kind: base.first().map(|_| if place[1] == "nat" { "nat" } else { "filter" }.to_owned()),
        priority: base.get(1).map(|priority| priority.parse().unwrap()),
        policy: base.get(2).cloned(),
        policy_packets: None,
        device: base.get(3).cloned(),
        rules: rules.iter().enumerate().map(|(number, text)| rule(number, text)).collect(),
    }
}

fn packet(transport: Transport) -> Packet {
    Packet {
        source_mac: Some(GUEST),
        destination_mac: Some(MacAddress([2, 0, 0, 0, 0, 5])),
        tags: Vec::new(),
        network: Above::Ip(Ip {
            source: ip("10.0.0.1"),
            destination: ip("198.51.100.7"),
            transport,
            time_to_live: Some(64),
            dont_fragment: true,
            fragment: Fragment::Whole,
            traffic_class: Some(0),
        }),
        length: 60,
        gso: false,
        mark: Some(0),
        connection: Some(Connection::New),
        translation: Translation::default(),
        carried: None,
        secured: false,
    }
}

fn syn() -> Packet {
    let flags = Some(TcpFlags { syn: true, ack: false, fin: false, rst: false });
    packet(Transport::Tcp { source: Some(40_000), destination: Some(443), flags })
}

fn udp() -> Packet {
    packet(Transport::Udp { source: Some(40_000), destination: Some(53) })
}

fn at(layer: Layer, hook: Hook) -> At {
    let bridged = layer == Layer::Bridge;
    let (input, output) = (Some(IfIndex(5)), Some(IfIndex(2)));
    let (input, output) = match hook {
        Hook::Prerouting | Hook::Input | Hook::Ingress => (input, None),
        Hook::Output | Hook::Postrouting | Hook::Egress => (None, output),
        Hook::Forward => (input, output),
    };
    At {
        layer,
        hook,
        input,
        output,
        input_port: bridged.then_some(IfIndex(3)),
        output_port: (bridged && hook == Hook::Forward).then_some(IfIndex(4)),
        next_hop: None,
    }
}

fn judge(host: &HostState, at: &At, packet: &Packet) -> Ruling {
    hook(&Topology::new(host), at, packet)
}

/// What the rules of one chain do at the forward hook: `pass`, `drop`, `reject`, `queue` or what is not known.
fn fate(chains: Vec<Chain>, layer: Layer, packet: &Packet) -> String {
    let mut host = host();
    host.netfilter.chains = chains;
    word(&judge(&host, &at(layer, Hook::Forward), packet))
}

fn word(ruling: &Ruling) -> String {
    match &ruling.fate {
        Fate::Accepted => "pass".to_owned(),
        Fate::Dropped(_) => "drop".to_owned(),
        Fate::Rejected(_) => "reject".to_owned(),
        Fate::Queued(_, number, bypass) => format!("queue {number} {bypass}"),
        Fate::Unknown(_, _) => "unknown".to_owned(),
    }
}

#[rstest]
// Addresses, ports, protocols.
#[case("ip saddr 10.0.0.1 drop", "drop")]
#[case("ip saddr 10.0.0.0/24 drop", "drop")]
#[case("ip saddr 10.0.1.0/24 drop", "pass")]
#[case("ip saddr != 10.0.0.0/8 drop", "pass")]
#[case("ip daddr { 10.0.0.0/8, 198.51.100.5-198.51.100.9 } drop", "drop")]
#[case("ip6 saddr != fe80::/10 drop", "pass")]
#[case("ip saddr @closed drop", "drop")]
#[case("ip saddr != @closed drop", "pass")]
#[case("ip daddr @closed drop", "pass")]
#[case("ip daddr @partly drop", "unknown")]
#[case("ip daddr @gone drop", "unknown")]
#[case("ip saddr . tcp dport @pairs drop", "drop")]
#[case("ip saddr . tcp dport { 10.0.0.1 . 80-90, 10.0.0.2 . 443 } drop", "pass")]
#[case("ip saddr . tcp dport { 10.0.0.0/24 . 400-500 } drop", "drop")]
#[case("tcp dport 443 drop", "drop")]
#[case("tcp dport { 22, 440-450 } drop", "drop")]
#[case("tcp dport != { 22, 80 } reject with tcp reset", "reject")]
#[case("tcp sport < 1024 drop", "pass")]
#[case("tcp sport >= 1024 drop", "drop")]
#[case("udp dport 443 drop", "pass")]
#[case("udp dport != 53 drop", "pass")]
#[case("th dport 443 drop", "drop")]
#[case("meta l4proto { tcp, udp } th dport 443 drop", "drop")]
#[case("meta l4proto != tcp drop", "pass")]
#[case("ip protocol icmp drop", "pass")]
#[case("meta nfproto ipv4 drop", "drop")]
#[case("meta protocol ip6 drop", "pass")]
#[case("ip ttl < 5 drop", "pass")]
#[case("ip dscp cs1 drop", "pass")]
#[case("ip frag-off & 8191 != 0 drop", "pass")]
#[case("meta length > 50 drop", "drop")]
// Devices.
#[case("iifname \"br0\" drop", "drop")]
#[case("iifname \"br*\" oifname != { \"a\", \"b*\" } drop", "drop")]
#[case("iif \"lo\" drop", "pass")]
#[case("oif \"eth0\" drop", "drop")]
#[case("meta iifkind \"bridge\" drop", "drop")]
#[case("ether saddr 52:54:00:00:00:01 drop", "drop")]
#[case("ether saddr != 52:54:00:00:00:01 drop", "pass")]
// Connections, flags, marks.
#[case("ct state new drop", "drop")]
#[case("ct state established,related accept", "pass")]
#[case("ct state != established | related drop", "drop")]
#[case("ct state { established, new } drop", "drop")]
#[case("ct state ! established drop", "drop")]
#[case("ct state vmap { invalid : drop, established : accept, new : reject }", "reject")]
#[case("ct state vmap { invalid : drop, new : drop }", "drop")]
#[case("ct direction reply drop", "pass")]
#[case("ct status dnat accept", "pass")]
#[case("ct status dnat drop", "pass")]
#[case("ct mark 0x00000002 drop", "pass")]
#[case("ct zone 5 drop", "unknown")]
#[case("ct original ip daddr 198.51.100.7 drop", "drop")]
#[case("tcp flags syn drop", "drop")]
#[case("tcp flags == syn drop", "drop")]
#[case("tcp flags syn / fin,syn,rst,ack drop", "drop")]
#[case("tcp flags != syn / fin,syn,rst,ack drop", "pass")]
#[case("tcp flags ! syn drop", "pass")]
#[case("tcp flags { ack, syn | ack } drop", "pass")]
#[case("meta mark 0x00000000 drop", "drop")]
#[case("meta mark & 0x000000ff == 0x00000010 drop", "pass")]
#[case("meta mark set 0x00000010 meta mark & 0x000000ff == 0x00000010 drop", "drop")]
#[case("meta mark set meta mark & 0x000001ff | 0x00000100 meta mark 0x00000100 drop", "drop")]
// Limits, quotas, dynamic sets.
#[case("limit rate 10/second burst 5 packets drop", "drop")]
#[case("limit rate over 1 mbytes/second drop", "pass")]
#[case("ct count over 10 reject", "pass")]
#[case("quota over 10 mbytes used 3 kbytes drop", "pass")]
#[case("quota over 10 mbytes used 11 mbytes drop", "drop")]
#[case("update @seen { ip saddr limit rate over 10/second } drop", "pass")]
#[case("add @closed { ip daddr timeout 1m } ip daddr @closed drop", "unknown")]
// What decides nothing, and what is not understood.
#[case("counter packets 3 bytes 4 log prefix \"x { drop\" level info comment \"drop\"", "pass")]
#[case("meta priority set 1:10 tcp option maxseg size set rt mtu", "pass")]
#[case("meta hour \"08:00\"-\"17:00\" drop", "unknown")]
#[case("meta hour \"08:00\"-\"17:00\" tcp dport 22 drop", "pass")]
#[case("meta pkttype { broadcast, multicast } drop", "pass")]
#[case("meta skuid 0 drop", "pass")]
#[case("queue flags bypass to 3", "queue 3 true")]
#[case("queue num 5", "queue 5 false")]
#[case("fib daddr type local drop", "pass")]
#[case("jump gone", "unknown")]
#[case("synproxy mss 1460 wscale 7", "unknown")]
#[case("reject with icmpx admin-prohibited", "reject")]
#[case("flow add @f", "pass")]
fn a_rule_of_nft(#[case] text: &str, #[case] expected: &str) {
    let mut host = host();
    host.netfilter.chains = vec![chain("inet t forward: forward 0 accept", &[text])];
    let set = |name: &str, elements: &[&str], complete| Set {
        family: "inet".to_owned(),
        table: Some("t".to_owned()),
        name: name.to_owned(),
        elements: elements.iter().map(|element| (*element).to_owned()).collect(),
        complete,
        kind: None,
        answers: Vec::new(),
    };
    host.netfilter.sets = vec![
        set("closed", &["10.0.0.1", "10.1.0.0/16"], true),
        set("partly", &["10.0.0.1"], false),
        set("pairs", &["10.0.0.1 . 443"], true),
        set("seen", &[], true),
    ];
    assert_eq!(word(&judge(&host, &at(Layer::Ipv4, Hook::Forward), &syn())), expected, "{text}");
}

#[rstest]
#[case("-A FORWARD -s 10.0.0.0/24 -j DROP", "drop")]
#[case("-A FORWARD ! -s 10.0.0.0/24 -j DROP", "pass")]
#[case("-A FORWARD -i br+ -o eth0 -p tcp -m tcp --dport 443 -j DROP", "drop")]
#[case("-A FORWARD ! -i br0 -j DROP", "pass")]
#[case("-A FORWARD -p udp -m udp --dport 443 -j DROP", "pass")]
#[case("-A FORWARD ! -p udp -j DROP", "drop")]
#[case("-A FORWARD -p tcp -m tcp --sport 1024:65535 -j DROP", "drop")]
#[case("-A FORWARD -p tcp -m multiport --dports 22,440:450 -j DROP", "drop")]
#[case("-A FORWARD -p tcp -m multiport ! --dports 22,440:450 -j DROP", "pass")]
#[case("-A FORWARD -p tcp -m multiport --ports 40000 -j DROP", "drop")]
#[case("-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", "drop")]
#[case("-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP", "pass")]
#[case("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "pass")]
#[case("-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP", "drop")]
#[case("-A FORWARD -m conntrack --ctstate ESTABLISHED,DNAT -j DROP", "pass")]
#[case("-A FORWARD -m state --state NEW -j REJECT --reject-with icmp-port-unreachable", "reject")]
#[case("-A FORWARD -m mac --mac-source 52:54:00:00:00:01 -j DROP", "drop")]
#[case("-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP", "drop")]
#[case("-A FORWARD -m mark --mark 0x1/0xff -j DROP", "pass")]
#[case("-A FORWARD -m comment --comment \"drop it -j ACCEPT\" -j DROP", "drop")]
#[case("-A FORWARD -m set --match-set closed src -j DROP", "drop")]
#[case("-A FORWARD -m set ! --match-set closed src -j DROP", "pass")]
#[case("-A FORWARD -m set --match-set ports src,dst -j DROP", "drop")]
#[case("-A FORWARD -m set --match-set ports src,src -j DROP", "pass")]
#[case("-A FORWARD -m addrtype --dst-type LOCAL -j DROP", "pass")]
#[case("-A FORWARD -m addrtype ! --dst-type LOCAL -j DROP", "drop")]
#[case("-A FORWARD -m limit --limit 5/min --limit-burst 3 -j DROP", "drop")]
#[case("-A FORWARD -m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-name x -j DROP", "pass")]
#[case("-A FORWARD -m connlimit --connlimit-above 5 --connlimit-mask 32 --connlimit-saddr -j DROP", "pass")]
#[case("-A FORWARD -m pkttype --pkt-type multicast -j DROP", "pass")]
#[case("-A FORWARD -m physdev --physdev-in vnet0 --physdev-is-bridged -j DROP", "pass")]
#[case("-A FORWARD -m ttl --ttl-lt 5 -j DROP", "pass")]
#[case("-A FORWARD -m length --length 0:100 -j DROP", "drop")]
#[case("-A FORWARD -m string --string \"x\" --algo bm -j DROP", "unknown")]
#[case("-A FORWARD -p udp -m string --string \"x\" --algo bm -j DROP", "pass")]
#[case("-A FORWARD -m recent --rcheck --seconds 60 -j DROP", "unknown")]
#[case("-A FORWARD -f -j DROP", "pass")]
#[case("-A FORWARD -j LOG --log-prefix \"x -j DROP \"", "pass")]
#[case("-A FORWARD -j NFQUEUE --queue-num 3 --queue-bypass", "queue 3 true")]
#[case("-A FORWARD -j NOTHING", "unknown")]
#[case("-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP", "pass")]
#[case("-A FORWARD -s 10.0.0.1/255.0.0.255 -j DROP", "drop")]
fn a_rule_of_iptables(#[case] text: &str, #[case] expected: &str) {
    let mut host = host();
    host.netfilter.chains = vec![chain("ip filter FORWARD: forward 0 accept", &[text])];
    let set = |name: &str, kind: Option<&str>, elements: &[&str]| Set {
        family: "ip".to_owned(),
        table: None,
        name: name.to_owned(),
        elements: elements.iter().map(|element| (*element).to_owned()).collect(),
        complete: true,
        kind: kind.map(str::to_owned),
        answers: Vec::new(),
    };
    host.netfilter.sets =
        vec![set("closed", Some("hash:net"), &["10.0.0.0/24"]), set("ports", None, &["10.0.0.1,tcp:443"])];
    assert_eq!(word(&judge(&host, &at(Layer::Ipv4, Hook::Forward), &syn())), expected, "{text}");
}

#[rstest]
#[case("-A FORWARD -i vnet0 -o vnet1 -j DROP", "drop")]
#[case("-A FORWARD --logical-in br0 -j DROP", "drop")]
#[case("-A FORWARD -p IPv4 --ip-src 10.0.0.1 --ip-proto tcp --ip-dport 443 -j DROP", "drop")]
#[case("-A FORWARD -p IPv4 ! --ip-src 10.0.0.1 -j DROP", "pass")]
#[case("-A FORWARD -p ARP -j DROP", "pass")]
#[case("-A FORWARD -p 0x800 -j DROP", "drop")]
#[case("-A FORWARD -s ! 52:54:0:0:0:1 -j DROP", "pass")]
#[case("-A FORWARD ! -s 52:54:00:00:00:01 -j DROP", "pass")]
#[case("-A FORWARD -d Multicast -j DROP", "pass")]
#[case("-A FORWARD -s 52:54:00:00:00:00/ff:ff:ff:00:00:00 -j DROP", "drop")]
#[case("-A FORWARD --among-src 52:54:0:0:0:1,52:54:0:0:0:2, -j DROP", "drop")]
#[case("-A FORWARD -p 802_1Q --vlan-id 5 -j DROP", "pass")]
#[case("-A FORWARD -j mark --mark-set 0x5 --mark-target CONTINUE", "pass")]
fn a_rule_of_ebtables(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(
        fate(vec![chain("bridge filter FORWARD: forward -200 accept", &[text])], Layer::Bridge, &syn()),
        expected
    );
}

#[rstest]
#[case("ibrname \"br0\" iifname \"vnet0\" drop", "drop")]
#[case("ether type arp drop", "pass")]
#[case("ether saddr . ip saddr { 52:54:00:00:00:01 . 10.0.0.1 } drop", "drop")]
#[case("vlan id 5 drop", "pass")]
#[case("arp operation request drop", "pass")]
fn a_rule_for_a_bridge(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(fate(vec![chain("bridge t forward: forward 0 accept", &[text])], Layer::Bridge, &syn()), expected);
}

#[rstest]
#[case("-A INPUT -j DROP -s 10.0.0.1", "drop")]
#[case("-A INPUT -s 10.0.0.2 -j DROP", "pass")]
#[case("-A INPUT -i br0 --opcode 1 --h-length 6 -j DROP", "drop")]
fn a_rule_of_arptables(#[case] text: &str, #[case] expected: &str) {
    let mut host = host();
    host.netfilter.chains = vec![chain("arp filter INPUT: input 0 accept", &[text])];
    let arp = Arp { operation: 1, sender: ip("10.0.0.1"), target: ip("10.0.0.254"), sender_mac: None };
    let packet = Packet { network: Above::Arp(arp), ..syn() };
    assert_eq!(word(&judge(&host, &at(Layer::Arp, Hook::Input), &packet)), expected);
}
