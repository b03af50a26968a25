//! The tc programs as the kernel runs them, on packets of our own and with no network at all: they must count what the
//! packet says and leave every packet alone, whatever its bytes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that can't go on has failed; a skip is told")]

use aya::maps::HashMap;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse::{self, Parsed};

/// `TC_ACT_UNSPEC`, which is `TCX_NEXT`: the next program decides.
const NEXT: u32 = u32::MAX;

fn load() -> Option<Ebpf> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        println!("SKIP: loading BPF programs needs root");
        return None;
    }
    let object = std::env::var("KVMTRACE_BPF_OBJECT")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/object/kvmtrace.bpf.o").to_owned());
    let mut ebpf = EbpfLoader::new().load_file(&object).expect("the object of `cargo xtask ebpf`");
    for name in ["kvmtrace_in", "kvmtrace_out"] {
        program(&mut ebpf, name).load().expect("the verifier accepts it");
    }
    Some(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(name).expect("the program is there").try_into().expect("a classifier")
}

fn run(ebpf: &mut Ebpf, name: &str, packet: &[u8]) -> u32 {
    let options = TestRunOptions { data_in: Some(packet), repeat: 1, ..TestRunOptions::new() };
    program(ebpf, name).test_run(options).expect("BPF_PROG_TEST_RUN").return_value
}

/// Packets by flow key (without place and CPU: the first 40 bytes), and empties the map.
fn flows(ebpf: &mut Ebpf) -> Vec<([u8; 40], u64)> {
    let mut map: HashMap<_, [u8; 48], [u8; 80]> =
        HashMap::try_from(ebpf.map_mut("FLOWS").expect("FLOWS")).expect("a hash");
    let all: Vec<([u8; 48], [u8; 80])> = map.iter().filter_map(Result::ok).collect();
    for (key, _) in &all {
        map.remove(key).expect("it was there");
    }
    all.into_iter()
        .map(|(key, value)| {
            let key: [u8; 40] = key[..40].try_into().expect("40 bytes");
            (key, u64::from_ne_bytes(value[..8].try_into().expect("8 bytes")))
        })
        .collect()
}

/// What the same parser, compiled for the host, makes of the packet.
fn expected(packet: &[u8]) -> [u8; 40] {
    use zerocopy::IntoBytes as _;
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    let available = packet.len().min(128);
    header.bytes[..available].copy_from_slice(&packet[..available]);
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, available, NO_VLAN, &mut parsed);
    parsed.key.as_bytes()[..40].try_into().expect("40 bytes")
}

fn udp_frame() -> Vec<u8> {
    let mut frame = [&[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0][..]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0, 53, 0, 26, 0, 0]);
    frame.extend([0; 18]);
    frame
}

#[test]
fn each_packet_is_counted_under_its_flow() {
    let Some(mut ebpf) = load() else { return };
    let frame = udp_frame();
    for _ in 0..3 {
        assert_eq!(run(&mut ebpf, "kvmtrace_in", &frame), NEXT);
    }
    let flows = flows(&mut ebpf);
    // One entry per CPU that ran the test.
    assert_eq!(flows.iter().map(|(_, packets)| packets).sum::<u64>(), 3);
    for (key, _) in flows {
        assert_eq!(key[..4], [10, 0, 0, 1], "source");
        assert_eq!(key[16..20], [10, 0, 0, 2], "destination");
        assert_eq!(u16::from_ne_bytes([key[32], key[33]]), 40_000, "source port");
        assert_eq!(u16::from_ne_bytes([key[34], key[35]]), 53, "destination port");
        assert_eq!((key[38], key[39]), (4, 17), "IPv4 and UDP");
    }
}

#[test]
fn any_bytes_of_any_length_are_parsed_as_on_the_host_and_let_pass() {
    let Some(mut ebpf) = load() else { return };
    // A fixed sequence of pseudo-random packets (a linear congruential generator) that mostly look like something.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let types = [0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc, 0];
    let protocols = [0_u8, 1, 6, 17, 43, 44, 51, 58, 60, 132, 255];
    for round in 0..2_000 {
        // The kernel's test run takes no frame without an Ethernet header, and no IP frame without a whole IP header.
        let length = 14 + 40 + next() as usize % 120;
        let mut packet: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        packet[12..14].copy_from_slice(&types[next() as usize % types.len()].to_be_bytes());
        packet[14] = [0x45, 0x46, 0x4f, 0x60, 0x00][next() as usize % 5];
        let protocol = protocols[next() as usize % protocols.len()];
        let at = if packet[14] == 0x60 { 20 } else { 23 };
        packet[at] = protocol;
        // Fragments borrow their ports from one another: another test's business.
        if packet[14] >> 4 == 4 {
            packet[20..22].copy_from_slice(&[0x40, 0]);
        }
        let name = if round % 2 == 0 { "kvmtrace_in" } else { "kvmtrace_out" };
        assert_eq!(run(&mut ebpf, name, &packet), NEXT, "{packet:02x?}");
        let wanted = expected(&packet);
        let counted = flows(&mut ebpf);
        assert_eq!(counted.len(), 1, "{packet:02x?}");
        let is_fragment = protocol == 44 || counted[0].0[39] == 44 || packet[54..].first() == Some(&44);
        if !is_fragment {
            assert_eq!(counted[0].0, wanted, "{packet:02x?}");
        }
    }
}

#[test]
fn later_fragments_join_the_flow_of_their_first() {
    let Some(mut ebpf) = load() else { return };
    let mut first = udp_frame();
    first[20..22].copy_from_slice(&[0x20, 0]);
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 185]);
    // Where the ports would be, a later fragment has data.
    later[34..38].copy_from_slice(&[0xff; 4]);
    run(&mut ebpf, "kvmtrace_in", &first);
    run(&mut ebpf, "kvmtrace_in", &later);
    let flows = flows(&mut ebpf);
    assert_eq!(flows.iter().map(|(_, packets)| packets).sum::<u64>(), 2);
    for (key, _) in flows {
        assert_eq!(u16::from_ne_bytes([key[32], key[33]]), 40_000, "source port");
    }
}
