//! Filters against tables, against a plain evaluation of the expression, and against tcpdump.

use super::*;
use crate::event::host::Network;
use kvmtrace_common::filter::{MacAddresses, Operation, matches};
use kvmtrace_common::flow::{Direction, Family, FlowKey, NO_VLAN};
use proptest::prelude::*;
use rstest::rstest;
use std::net::IpAddr;

/// A packet as the filter sees it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    key: FlowKey,
    mac: MacAddresses,
}

const MAC_A: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 1];
const MAC_B: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 2];

fn packet(
    family: u8,
    protocol: u8,
    source: &str,
    source_port: u16,
    destination: &str,
    destination_port: u16,
) -> Packet {
    let octets = |text: &str| {
        let mut bytes = [0; 16];
        match text.parse() {
            Ok(IpAddr::V4(address)) => bytes[..4].copy_from_slice(&address.octets()),
            Ok(IpAddr::V6(address)) => bytes = address.octets(),
            Err(_) => {}
        }
        bytes
    };
    let key = FlowKey {
        source: octets(source),
        destination: octets(destination),
        source_port,
        destination_port,
        vlan: NO_VLAN,
        family,
        protocol,
        ifindex: 3,
        direction: Direction::INGRESS,
        cpu: 0,
        _pad: 0,
    };
    Packet { key, mac: MacAddresses { source: MAC_A, destination: MAC_B } }
}

fn tcp(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Packet {
    let family = if source.contains(':') { Family::IPV6 } else { Family::IPV4 };
    packet(family, 6, source, source_port, destination, destination_port)
}

fn in_vlan(packet: Packet, vlan: u16) -> Packet {
    Packet { key: FlowKey { vlan, ..packet.key }, ..packet }
}

/// A bit of everything: addresses and ports that the expressions below name, each way round, and others.
fn packets() -> Vec<Packet> {
    let mut all = Vec::new();
    let four = ["10.0.0.5", "10.0.0.6", "10.1.2.3", "192.168.1.7", "224.0.0.5"];
    let six = ["fd00::1", "fd00::2", "2001:db8::5", "ff02::1"];
    let ports = [22, 53, 80, 443, 8050, 40_000];
    for (family, addresses) in [(Family::IPV4, four.as_slice()), (Family::IPV6, six.as_slice())] {
        for (i, source) in addresses.iter().enumerate() {
            for (j, destination) in addresses.iter().enumerate() {
                let protocol = [6, 17, 132][(i + j) % 3];
                let (from, to) = (ports[(i * 2 + j) % 6], ports[(i + j * 3) % 6]);
                all.push(packet(family, protocol, source, from, destination, to));
                let icmp = if family == Family::IPV4 { 1 } else { 58 };
                all.push(packet(family, [icmp, 47][j % 2], source, 0, destination, 0));
            }
        }
    }
    for (source, destination) in [("10.0.0.5", "10.0.0.6"), ("10.0.0.6", "10.1.2.3"), ("192.168.1.7", "10.0.0.5")] {
        let mut arp = packet(Family::ARP, 1, source, 0, destination, 0);
        arp.mac.destination = [0xff; 6];
        all.push(arp);
    }
    let mut lldp = packet(Family::ETHERNET, 0, "", 0x88cc, "", 0);
    lldp.mac.destination = [1, 0x80, 0xc2, 0, 0, 0x0e];
    lldp.key.source[..6].copy_from_slice(&lldp.mac.source);
    lldp.key.destination[..6].copy_from_slice(&lldp.mac.destination);
    all.push(lldp);
    all
}

fn wants(filter: &Filter, packet: &Packet) -> bool {
    matches(filter.program(), &packet.key, &packet.mac)
}

#[test]
fn an_empty_filter_wants_everything_and_needs_no_instruction() {
    for text in ["", "   "] {
        let filter = Filter::parse(text).unwrap();
        assert_eq!((filter.length(), filter.text()), (0, ""));
        assert!(packets().iter().all(|packet| wants(&filter, packet)));
    }
}

#[test]
fn filters_want_what_they_say() {
    let web = tcp("10.0.0.5", 40_000, "10.0.0.6", 443);
    let answer = tcp("10.0.0.6", 443, "10.0.0.5", 40_000);
    let six = tcp("fd00::1", 40_000, "fd00::2", 443);
    let cases: &[(&str, &[Packet], &[Packet])] = &[
        ("10.0.0.5", &[web, answer], &[six]),
        ("10.0.0.0/8", &[web], &[six]),
        ("fd00::1", &[six], &[web]),
        ("host 10.0.0.5 and tcp port 443", &[web, answer, in_vlan(web, 7)], &[six]),
        ("src host 10.0.0.5", &[web], &[answer]),
        ("src 10.0.0.5 and dst port 443", &[web], &[answer]),
        ("vlan", &[in_vlan(web, 0), in_vlan(web, 4095)], &[web]),
        ("vlan 5 and host 10.0.0.5", &[in_vlan(web, 5)], &[web, in_vlan(web, 6)]),
        ("not vlan and tcp", &[web, six], &[in_vlan(web, 6)]),
        ("ether src 52:54:00:aa:00:01", &[web], &[]),
        ("ether dst 52:54:00:aa:00:01", &[], &[web]),
        ("port 80 or 443", &[web, answer, six], &[tcp("10.0.0.5", 1, "10.0.0.6", 22)]),
        ("tcp portrange 400-500", &[web, answer, six], &[tcp("10.0.0.5", 1, "10.0.0.6", 501)]),
        ("ip proto \\tcp", &[web], &[six]),
        ("proto tcp", &[web, six], &[]),
        // Equal precedence, from left to right, as pcap-filter(7) has it.
        ("tcp or udp and port 22", &[tcp("10.0.0.5", 1, "10.0.0.6", 22)], &[web]),
    ];
    for (text, wanted, unwanted) in cases {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(wanted.iter().all(|packet| wants(&filter, packet)), "{text} misses something");
        assert!(!unwanted.iter().any(|packet| wants(&filter, packet)), "{text} wants too much");
    }
}

#[test]
fn what_is_not_understood_is_named_with_the_way_out() {
    let cases = [
        ("tcp[13] & 2 != 0", "filter: a test of packet bytes or lengths (\"tcp[13]\") is not supported; use host"),
        ("greater 100", "filter: \"greater\" is not supported; use host"),
        ("foo", "filter: unknown keyword \"foo\" (known are host, net"),
        ("tpc port 80", "filter: unknown keyword \"tpc\" (did you mean tcp?)"),
        ("hots 10.0.0.5", "filter: unknown keyword \"hots\" (did you mean host?)"),
        ("host foo", "filter: \"foo\" is no host; names are not resolved; write an address"),
        ("port 70000", "filter: \"70000\" is no port; write its number"),
        ("port", "filter: expected a port, found the end"),
        ("tcp 80", "filter: \"tcp\" can't be followed by \"80\"; write \"tcp port 80\""),
        ("80", "filter: \"80\" is no host; write \"port 80\""),
        ("ip port 80", "filter: \"ip\" can't be followed by \"port\"; write \"ip and port 80\""),
        ("tcp host 10.0.0.5", "filter: \"tcp\" can't be followed by \"10.0.0.5\"; write \"tcp and host 10.0.0.5\""),
        ("ip6 host 10.0.0.5", "filter: \"ip6\" can't be followed by \"10.0.0.5\"; write \"ip host 10.0.0.5\""),
        (
            "net 10.0.0.5/8",
            "filter: \"10.0.0.5/8\" is no network; it has bits beyond the prefix; write \"net 10.0.0.0/8\"",
        ),
        ("net 10.0.0.0/33", "filter: \"10.0.0.0/33\" is no network; a prefix goes from /0 to /32"),
        ("host 10.0.0.0/8", "filter: \"10.0.0.0/8\" is no host; write \"net 10.0.0.0/8\""),
        ("(tcp", "filter: expected \")\", found the end"),
        ("tcp)", "filter: expected and, or, or the end, found \")\""),
        ("tcp and", "filter: expected a test like \"host 10.0.0.5\", found the end"),
        ("ether host 10.0.0.5", "filter: \"10.0.0.5\" is no MAC address; one looks like"),
        ("vlan 5000", "filter: \"5000\" is no VLAN id; they go from 0 to 4095"),
        ("portrange 90-80", "filter: \"90-80\" is no range of ports"),
        ("ip broadcast", "filter: \"ip broadcast\" is not supported"),
    ];
    for (text, message) in cases {
        let error = Filter::parse(text).expect_err(text).to_string();
        assert!(error.starts_with(message), "{text}: {error}");
        assert!(!error.contains('\n'));
    }
    let long = vec!["host 10.0.0.5"; 32].join(" or ");
    assert!(Filter::parse(&long).unwrap_err().to_string().starts_with("filter: it has 64 tests, more than the 62"));
    for deep in ["(".repeat(100_000), "not ".repeat(100_000)] {
        assert_eq!(Filter::parse(&deep).unwrap_err(), FilterError::TooDeep(64));
    }
}

/// What an expression means, said as plainly as can be.
fn evaluate(expression: &Expression, packet: &Packet) -> bool {
    let key = &packet.key;
    let ip = key.family == Family::IPV4 || key.family == Family::IPV6;
    match expression {
        Expression::Not(inner) => !evaluate(inner, packet),
        Expression::And(left, right) => evaluate(left, packet) && evaluate(right, packet),
        Expression::Or(left, right) => evaluate(left, packet) || evaluate(right, packet),
        Expression::Test(Test::Family(family)) => key.family == *family,
        Expression::Test(Test::Protocol { family, number }) => {
            ip && family.is_none_or(|family| family == key.family) && key.protocol == *number
        }
        Expression::Test(Test::Address { side, network }) => {
            let bytes = if *side == Side::Source { key.source } else { key.destination };
            let address: Option<IpAddr> = match key.family {
                Family::IPV4 | Family::ARP => Some([bytes[0], bytes[1], bytes[2], bytes[3]].into()),
                Family::IPV6 => Some(bytes.into()),
                _ => None,
            };
            address.is_some_and(|address| network.contains(address))
        }
        Expression::Test(Test::Port { side, protocol, low, high }) => {
            let port = if *side == Side::Source { key.source_port } else { key.destination_port };
            let has_ports = ip && [6, 17, 132].contains(&key.protocol);
            has_ports && protocol.is_none_or(|wanted| wanted == key.protocol) && (*low..=*high).contains(&port)
        }
        Expression::Test(Test::Vlan { low, high }) => key.vlan != NO_VLAN && (*low..=*high).contains(&key.vlan),
        Expression::Test(Test::EtherType(number)) => key.family == Family::ETHERNET && key.source_port == *number,
        Expression::Test(Test::Mac { side, value, mask }) => {
            let mac = if *side == Side::Source { packet.mac.source } else { packet.mac.destination };
            mac.iter().zip(mask).zip(value).all(|((byte, mask), value)| byte & mask == value & mask)
        }
    }
}

fn any_test() -> impl Strategy<Value = Test> {
    let side = || prop_oneof![Just(Side::Source), Just(Side::Destination)];
    let family = || prop_oneof![Just(Family::IPV4), Just(Family::IPV6), Just(Family::ARP), Just(Family::ETHERNET)];
    let number = || prop_oneof![Just(6_u8), Just(17), Just(132), Just(1), Just(58), any::<u8>()];
    let port = || prop_oneof![Just(22_u16), Just(80), Just(443), Just(8050), any::<u16>()];
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        Just("10.0.0.5".parse().unwrap()),
        Just("fd00::1".parse().unwrap()),
    ];
    prop_oneof![
        family().prop_map(Test::Family),
        (proptest::option::of(prop_oneof![Just(Family::IPV4), Just(Family::IPV6)]), number())
            .prop_map(|(family, number)| Test::Protocol { family, number }),
        (side(), address, 0..=128_u8).prop_map(|(side, address, prefix)| {
            let prefix = if address.is_ipv4() { prefix % 33 } else { prefix };
            Test::Address { side, network: Network { address, prefix } }
        }),
        (side(), proptest::option::of(prop_oneof![Just(6_u8), Just(17)]), port(), port())
            .prop_map(|(side, protocol, low, high)| Test::Port { side, protocol, low, high }),
        (0..=4095_u16, 0..=4095_u16).prop_map(|(low, high)| Test::Vlan { low, high }),
        Just(Test::EtherType(0x88cc)),
        (side(), prop_oneof![Just(MAC_A), Just(MAC_B), Just([0xff; 6])], any::<[u8; 6]>())
            .prop_map(|(side, value, mask)| Test::Mac { side, value, mask }),
    ]
}

fn any_expression() -> impl Strategy<Value = Expression> {
    any_test().prop_map(Expression::Test).prop_recursive(6, 40, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| left.and(right)),
            (inner.clone(), inner).prop_map(|(left, right)| left.or(right)),
        ]
    })
}

proptest! {
    #[test]
    fn the_program_decides_as_the_expression_does(expression in any_expression()) {
        let (program, length) = match compile::compile(&expression) {
            Ok(compiled) => compiled,
            Err(error) => {
                prop_assert_eq!(error, FilterError::TooLong { tests: expression.tests() });
                return Ok(());
            }
        };
        for (index, instruction) in program.instructions.iter().take(length as usize).enumerate() {
            let ends = matches!(instruction.operation, Operation::ACCEPT | Operation::REJECT);
            let forward = |target: u8| usize::from(target) > index && u32::from(target) < length;
            prop_assert!(ends || (forward(instruction.when_true) && forward(instruction.when_false)));
        }
        for packet in packets().iter().flat_map(|packet| [*packet, in_vlan(*packet, 5)]) {
            prop_assert_eq!(matches(&program, &packet.key, &packet.mac), evaluate(&expression, &packet));
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in "[a-z0-9 ().:/&|!\\\\\\[-]{0,60}") {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn no_program_breaks_the_evaluator(bytes in proptest::collection::vec(any::<u8>(), size_of::<Program>())) {
        let program = <Program as zerocopy::FromBytes>::read_from_bytes(&bytes).unwrap();
        for packet in packets() {
            matches(&program, &packet.key, &packet.mac);
        }
    }
}

/// The packet's bytes, as far as tcpdump looks.
fn frame(packet: &Packet) -> Vec<u8> {
    let key = &packet.key;
    let mut frame = [packet.mac.destination, packet.mac.source].concat();
    let ports = [key.source_port.to_be_bytes(), key.destination_port.to_be_bytes()].concat();
    match key.family {
        Family::IPV4 => {
            frame.extend([8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, key.protocol, 0, 0]);
            frame.extend(&key.source[..4]);
            frame.extend(&key.destination[..4]);
            frame.extend(ports);
        }
        Family::IPV6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, key.protocol, 64]);
            frame.extend(key.source);
            frame.extend(key.destination);
            frame.extend(ports);
        }
        Family::ARP => {
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, key.protocol]);
            frame.extend(packet.mac.source);
            frame.extend(&key.source[..4]);
            frame.extend([0; 6]);
            frame.extend(&key.destination[..4]);
        }
        _ => frame.extend(key.source_port.to_be_bytes()),
    }
    frame.resize(74, 0);
    frame
}

/// A pcap file in which each packet's time is its number.
fn pcap(packets: &[Packet]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (number, packet) in packets.iter().enumerate() {
        let frame = frame(packet);
        for word in [number as u32, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// The numbers of the packets that tcpdump lets through; `None` where there is no tcpdump.
fn tcpdump(path: &std::path::Path, expression: &str) -> Option<Vec<usize>> {
    let output =
        std::process::Command::new("tcpdump").arg("-r").arg(path).args(["-w", "-", expression]).output().ok()?;
    assert!(output.status.success(), "{expression}: {}", String::from_utf8_lossy(&output.stderr));
    let mut numbers = Vec::new();
    let mut rest = output.stdout.get(24..).unwrap_or_default();
    while let Some(header) = rest.get(..16) {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        numbers.push(word(0) as usize);
        rest = &rest[16 + word(8) as usize..];
    }
    Some(numbers)
}

#[test]
fn tcpdump_agrees() {
    let expressions = [
        "net 10",
        "net 10.0.0.0/8",
        "src 10.0.0.5",
        "host 10.0.0.5 and 10.0.0.6",
        "port 80 or 443",
        "port (80 or 443)",
        "not port 80 and 443",
        "tcp",
        "host fd00::1",
        "ip6 host fd00::1",
        "tcp port http or ssh",
        "tcp or udp port 53",
        "src or dst port 80",
        "src and dst net 10.0.0.0/8",
        "ip proto 47",
        "proto 47",
        "ip proto \\tcp",
        "ether proto \\arp",
        "ether proto 0x88cc",
        "ether host 52:54:00:aa:00:01",
        "host (10.0.0.5 or 10.1.2.3)",
        "arp net 10.0.0.0/8",
        "src host 10.0.0.5 or dst host 10.0.0.6 and port 80",
        "ip6 net fd00::/8",
        "icmp6",
        "icmp",
        "ip multicast",
        "ip6 multicast",
        "multicast",
        "broadcast",
        "net 192.168.1",
        "! tcp",
        "tcp && udp || icmp",
        "tcp src port 80 or 22",
        "tcp portrange 80-8080",
        "host 10.0.0.5 or port 80 or 443",
        "host 10.0.0.5 and not 10.0.0.6",
        "host 10.0.0.5 and (not 10.0.0.6 or 10.1.2.3)",
        "net 10.0.0.0 mask 255.0.0.0",
        "src port 80 and dst port 443",
        "ip src 10.0.0.5",
        "arp host 10.0.0.5",
        "udp portrange 8000-8100",
        "sctp port 80",
        "arp",
        "ip",
        "ip6",
        "ip or arp",
        "not (tcp or udp) and not arp",
        "dst net 224.0.0.0/4",
        "tcp and not port 22",
        "icmp or icmp6 or arp",
        "ether dst ff:ff:ff:ff:ff:ff",
    ];
    let packets = packets();
    let path = std::env::temp_dir().join(format!("kvmtrace-filter-{}.pcap", std::process::id()));
    std::fs::write(&path, pcap(&packets)).unwrap();
    for expression in expressions {
        let Some(theirs) = tcpdump(&path, expression) else {
            println!("SKIP: there is no tcpdump to compare with");
            break;
        };
        let filter = Filter::parse(expression).unwrap();
        let ours: Vec<usize> =
            packets.iter().enumerate().filter(|(_, packet)| wants(&filter, packet)).map(|(number, _)| number).collect();
        assert_eq!(ours, theirs, "{expression}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[rstest]
#[case("ip6 proto 0", "extension header")]
#[case("ip6 and ah", "extension header")]
#[case("vlan 5 and vlan 7", "two VLAN ids")]
#[case("tcp and udp", "two protocols")]
#[case("src host 10.0.0.1 and src net 10.1.0.0/16", "two source addresses")]
#[case("host 10.0.0.1 and host fd00::1", "two network protocols")]
#[case("ip6 and host 10.0.0.1", "two network protocols")]
#[case("tcp and not tcp", "forbids")]
fn what_selects_nothing_is_refused(#[case] text: &str, #[case] why: &str) {
    let error = Filter::parse(text).unwrap_err().to_string();
    assert!(error.contains("selects nothing") && error.contains(why), "{error}");
}

#[rstest]
#[case("ah")]
#[case("ip proto 0")]
#[case("vlan 5 or vlan 7")]
#[case("host 10.0.0.1 and host 10.0.0.2")]
#[case("src net 10.0.0.0/8 and src host 10.1.1.1")]
#[case("not vlan 5")]
#[case("arp and host 10.0.0.1")]
fn what_may_select_something_is_taken(#[case] text: &str) {
    Filter::parse(text).unwrap();
}

/// The kernel side lets pass what the filter wants, under any address, and what reports its fate; of the rest it takes what
/// may turn into such a packet.
#[rstest]
#[case("src host 10.0.0.5 and icmp", crate::event::Protocol::Icmp { kind: 8, code: 0, id: 1 }, true)]
#[case("src host 10.0.0.5 and tcp port 80", crate::event::Protocol::Tcp, true)]
#[case("src host 10.0.0.5 and tcp", crate::event::Protocol::Udp, false)]
#[case("not host 10.0.0.5 and udp", crate::event::Protocol::Tcp, false)]
#[case("tcp", crate::event::Protocol::Arp { operation: 1 }, true)]
#[case("tcp", crate::event::Protocol::Icmpv6 { kind: 2, code: 0, id: 0 }, true)]
#[case("host 10.0.0.5", crate::event::Protocol::Udp, true)]
#[case("not tcp", crate::event::Protocol::Tcp, false)]
fn what_belongs_to_the_flows_is_followed_under_any_address(
    #[case] text: &str,
    #[case] protocol: crate::event::Protocol,
    #[case] passes: bool,
) {
    let ports = matches!(protocol, crate::event::Protocol::Tcp | crate::event::Protocol::Udp);
    let key = crate::event::FlowKey {
        protocol,
        source: crate::event::Address::Ip("192.0.2.1".parse().unwrap()),
        source_port: ports.then_some(1),
        destination: crate::event::Address::Ip("198.51.100.1".parse().unwrap()),
        destination_port: ports.then_some(2),
        vlan: None,
    };
    let filter = Filter::parse(text).unwrap();
    let (program, length) = filter.following();
    let taken = length == 0
        || kvmtrace_common::filter::matches(
            program,
            &crate::event::encode::key(&key),
            &kvmtrace_common::filter::MacAddresses::default(),
        );
    assert_eq!(taken, passes);
}
