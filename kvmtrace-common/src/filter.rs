//! The filter: a small program of tests that the loader compiles from a pcap-filter expression, and the one evaluator
//! that the BPF programs and the user side share.
//!
//! Each instruction is a test and two jumps. Jumps go forward only and the last two instructions accept and reject, so
//! every run ends; the evaluator is bounded by [`INSTRUCTIONS`] whatever the program says, takes no slice with a
//! panicking bounds check, divides nothing and calls nothing: the verifier of a 5.10 kernel can follow it.
//!
//! A program of zeroes accepts everything.
#![allow(clippy::inline_always, reason = "a BPF program pays for each call with stack, which is 512 bytes in all")]

use crate::flow::{Family, FlowKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Instructions that a program has room for, the accepting and the rejecting one included.
pub const INSTRUCTIONS: usize = 64;

/// What an instruction asks: `Instruction::operation`.
pub struct Operation;

impl Operation {
    /// The packet is wanted.
    pub const ACCEPT: u8 = 0;
    /// The packet is not wanted.
    pub const REJECT: u8 = 1;
    /// The flow's family is `family`.
    pub const FAMILY: u8 = 2;
    /// IP (of `family`, 0 for both) with this `protocol`.
    pub const PROTOCOL: u8 = 3;
    /// The source address under `mask` is `value`. `family` 4 means IPv4 and ARP.
    pub const SOURCE: u8 = 4;
    /// The destination address under `mask` is `value`. `family` 4 means IPv4 and ARP.
    pub const DESTINATION: u8 = 5;
    /// TCP, UDP or SCTP (`protocol`, 0 for any of them) with a source port from `low` to `high`.
    pub const SOURCE_PORT: u8 = 6;
    /// The same for the destination port.
    pub const DESTINATION_PORT: u8 = 7;
    /// The VLAN id lies from `low` to `high`.
    pub const VLAN: u8 = 8;
    /// Neither IP nor ARP, with an `EtherType` from `low` to `high`.
    pub const ETHER_TYPE: u8 = 9;
    /// The source MAC address under `mask` is `value`.
    pub const SOURCE_MAC: u8 = 10;
    /// The destination MAC address under `mask` is `value`.
    pub const DESTINATION_MAC: u8 = 11;
}

/// One test.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Instruction {
    /// See [`Operation`].
    pub operation: u8,
    /// Index of the instruction to go on with when the test holds.
    pub when_true: u8,
    /// Index of the instruction to go on with when it does not.
    pub when_false: u8,
    /// See [`Operation`].
    pub family: u8,
    /// See [`Operation`].
    pub protocol: u8,
    /// Zero.
    pub _pad: [u8; 3],
    /// Least value of a range.
    pub low: u16,
    /// Greatest value of a range.
    pub high: u16,
    /// What the masked address must be: its bytes as on the wire.
    pub value: [u32; 4],
    /// Which bits of the address count.
    pub mask: [u32; 4],
}

/// A whole filter: the one value of the filter's map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Program {
    /// Its instructions; those after the end are zero.
    pub instructions: [Instruction; INSTRUCTIONS],
}

impl Program {
    /// The program that accepts everything.
    pub const EVERYTHING: Self = Self {
        instructions: [Instruction {
            operation: Operation::ACCEPT,
            when_true: 0,
            when_false: 0,
            family: 0,
            protocol: 0,
            _pad: [0; 3],
            low: 0,
            high: 0,
            value: [0; 4],
            mask: [0; 4],
        }; INSTRUCTIONS],
    };
}

/// What a filter may ask of a packet beside its flow: the MAC addresses, zero where they are not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MacAddresses {
    /// Where it comes from.
    pub source: [u8; 6],
    /// Where it goes.
    pub destination: [u8; 6],
}

/// `program` wants a packet of this flow with these MAC addresses.
#[inline(always)]
pub fn matches(program: &Program, key: &FlowKey, mac: &MacAddresses) -> bool {
    let mut next = 0_usize;
    for _ in 0..INSTRUCTIONS {
        let Some(instruction) = program.instructions.get(next) else { return false };
        if instruction.operation == Operation::ACCEPT {
            return true;
        }
        if instruction.operation == Operation::REJECT {
            return false;
        }
        next = if holds(instruction, key, mac) {
            usize::from(instruction.when_true)
        } else {
            usize::from(instruction.when_false)
        };
    }
    false
}

#[inline(always)]
fn holds(instruction: &Instruction, key: &FlowKey, mac: &MacAddresses) -> bool {
    match instruction.operation {
        Operation::FAMILY => key.family == instruction.family,
        Operation::PROTOCOL => {
            is_ip(key) && fits(instruction.family, key.family) && key.protocol == instruction.protocol
        }
        Operation::SOURCE => has_addresses(key, instruction) && under_mask(words(&key.source), instruction),
        Operation::DESTINATION => has_addresses(key, instruction) && under_mask(words(&key.destination), instruction),
        Operation::SOURCE_PORT => has_ports(key, instruction) && in_range(key.source_port, instruction),
        Operation::DESTINATION_PORT => has_ports(key, instruction) && in_range(key.destination_port, instruction),
        Operation::VLAN => in_range(key.vlan, instruction),
        Operation::ETHER_TYPE => key.family == Family::ETHERNET && in_range(key.source_port, instruction),
        Operation::SOURCE_MAC => under_mask(mac_words(&mac.source), instruction),
        Operation::DESTINATION_MAC => under_mask(mac_words(&mac.destination), instruction),
        _ => false,
    }
}

/// `wanted` 0 fits everything.
#[inline(always)]
fn fits(wanted: u8, found: u8) -> bool {
    wanted == 0 || wanted == found
}

#[inline(always)]
fn is_ip(key: &FlowKey) -> bool {
    key.family == Family::IPV4 || key.family == Family::IPV6
}

#[inline(always)]
fn has_ports(key: &FlowKey, instruction: &Instruction) -> bool {
    is_ip(key) && matches!(key.protocol, 6 | 17 | 132) && fits(instruction.protocol, key.protocol)
}

#[inline(always)]
fn has_addresses(key: &FlowKey, instruction: &Instruction) -> bool {
    key.family == instruction.family || (key.family == Family::ARP && instruction.family == Family::IPV4)
}

#[inline(always)]
fn in_range(value: u16, instruction: &Instruction) -> bool {
    instruction.low <= value && value <= instruction.high
}

/// The bytes of an address as four words, in the order in which they stand in memory.
#[inline(always)]
pub fn words(address: &[u8; 16]) -> [u32; 4] {
    zerocopy::transmute!(*address)
}

/// The bytes of a MAC address as words, filled up with zeroes.
#[inline(always)]
pub fn mac_words(address: &[u8; 6]) -> [u32; 4] {
    let mut bytes = [0; 16];
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]] = *address;
    words(&bytes)
}

#[inline(always)]
fn under_mask(found: [u32; 4], instruction: &Instruction) -> bool {
    let [f0, f1, f2, f3] = found;
    let [v0, v1, v2, v3] = instruction.value;
    let [m0, m1, m2, m3] = instruction.mask;
    ((f0 & m0) ^ v0) | ((f1 & m1) ^ v1) | ((f2 & m2) ^ v2) | ((f3 & m3) ^ v3) == 0
}
