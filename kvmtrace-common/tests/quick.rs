//! The short way through the parser says what the long way says, whatever the packet.
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use etherparse::PacketBuilder;
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::{FlowKey, NO_VLAN, hot_index, place_word, transport_word};
use kvmtrace_common::parse::{self, Facts, Parsed};
use kvmtrace_common::quick::{self, Bytes, Quick};
use proptest::prelude::*;

struct Slice<'a>(&'a [u8]);

impl Slice<'_> {
    fn at<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().unwrap()
    }
}

impl Bytes for Slice<'_> {
    fn has(&self, count: usize) -> bool {
        count <= self.0.len()
    }
    fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }
    fn two(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.at(at))
    }
    fn four(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.at(at))
    }
    fn eight(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.at(at))
    }
}

/// What the long way makes of it, in the short way's terms.
fn long(frame: &[u8], vlan: u16) -> Quick {
    let mut header = Header { bytes: [0xa5; HEADER_BYTES] };
    let available = frame.len().min(HEADER_BYTES);
    header.bytes[..available].copy_from_slice(&frame[..available]);
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, available, vlan, &mut parsed);
    parsed.key.direction = 0;
    Quick { words: parsed.key.words(), facts: Facts { fragment_id: 0, ..parsed.facts } }
}

fn frame(ipv6: bool, tcp: bool, payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder =
        if ipv6 { builder.ipv6([0x20; 16], [0x30; 16], 9) } else { builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61) };
    let mut frame = Vec::new();
    let data = vec![0x5a; payload];
    if tcp {
        builder.tcp(40_000, 443, 7, 1_000).syn().write(&mut frame, &data).unwrap();
    } else {
        builder.udp(40_000, 53).write(&mut frame, &data).unwrap();
    }
    frame
}

#[test]
fn usual_packets_take_the_short_way() {
    for (ipv6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = frame(ipv6, tcp, 22);
        let quick = quick::parse(&Slice(&frame), NO_VLAN);
        assert_eq!(quick, Some(long(&frame, NO_VLAN)), "IPv6: {ipv6}, TCP: {tcp}");
    }
}

#[test]
fn a_key_put_together_is_the_key() {
    let key = FlowKey {
        source: [1; 16],
        destination: [2; 16],
        source_port: 0x0304,
        destination_port: 0x0506,
        vlan: 0x0708,
        family: 6,
        protocol: 17,
        ifindex: 0x1122_3344,
        direction: 1,
        _pad: 0,
        cpu: 0x5566,
    };
    let [.., transport, place] = key.words();
    assert_eq!(transport, transport_word(0x0304, 0x0506, 0x0708, 6, 17));
    assert_eq!(place, place_word(0x1122_3344, 1, 0x5566));
}

#[test]
fn flows_spread_over_their_cpus_part_of_the_hot_table() {
    // 256 ports of one client: with chance alone, some 28 of them would share an entry of 1,024 with another.
    let mut taken = std::collections::BTreeSet::new();
    for port in 40_000..40_256 {
        let words = [0x0b00_630a, 0, 0x0100_630a, 0, transport_word(port, 443, NO_VLAN, 4, 6), place_word(7, 0, 3)];
        let index = hot_index(&words, 3);
        assert_eq!(index >> 10, 3, "in another CPU's part");
        taken.insert(index);
    }
    assert!(taken.len() > 200, "{} entries for 256 flows", taken.len());
}

proptest! {
    #[test]
    fn the_short_way_says_what_the_long_way_says(
        ipv6: bool,
        tcp: bool,
        payload in 0_usize..100,
        changes in prop::collection::vec((0_usize..80, any::<u8>()), 0..4),
        cut in prop::option::of(0_usize..90),
        vlan in prop_oneof![Just(NO_VLAN), 0_u16..4_096],
    ) {
        let mut frame = frame(ipv6, tcp, payload);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        if let Some(quick) = quick::parse(&Slice(&frame), vlan) {
            prop_assert_eq!(quick, long(&frame, vlan));
        }
    }

    #[test]
    fn of_any_bytes_too(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(quick) = quick::parse(&Slice(&frame), NO_VLAN) {
            prop_assert_eq!(quick, long(&frame, NO_VLAN));
        }
    }
}
