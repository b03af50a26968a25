//! The messages of `nf_tables` as they are sent: batches, tables, chains, sets, rules, and the few expressions that are needed
//! (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! `netlink-packet-netfilter` has most of these as types, but neither the expression that a rule adds to a set with nor
//! the attributes of a trace message, which are what matters here.

use crate::host::netlink::{self, NLM_F_REQUEST, attribute};
use std::io;

const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
const LIST_ELEMENT: u16 = 1;

/// `NFPROTO_*`: the family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Inet = 1,
    Arp = 3,
    Netdev = 5,
}

/// A register of four bytes (`NFT_REG32_00` and so on).
#[derive(Clone, Copy, Debug)]
pub(super) struct Register(pub(super) u32);

impl Register {
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// Messages that take effect together or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { messages: Vec::new() }
    }

    fn push(&mut self, kind: u16, flags: u16, family: Family, attributes: &[Vec<u8>]) {
        // `struct nfgenmsg`: family, version, resource.
        let body = [vec![family as u8, 0, 0, 0], attributes.concat()].concat();
        self.messages.push((NFTABLES | kind, flags, body));
    }

    /// A table that the kernel removes with the socket that made it (`NFT_TABLE_F_OWNER`; `nft_rcv_nl_event`).
    pub(super) fn table(&mut self, family: Family, name: &str) {
        const OWNER: u32 = 2;
        self.push(0, NLM_F_CREATE | NLM_F_EXCL, family, &[text(1, name), be32(2, OWNER)]);
    }

    /// A chain that rules jump to.
    pub(super) fn chain(&mut self, family: Family, table: &str, name: &str) {
        self.push(3, NLM_F_CREATE, family, &[text(1, table), text(3, name)]);
    }

    /// A chain at a hook, before all others there.
    pub(super) fn base_chain(&mut self, family: Family, table: &str, name: &str, hook: u32, device: Option<&str>) {
        const ACCEPT: u32 = 1;
        const FIRST: i32 = i32::MIN;
        let mut place = vec![be32(1, hook), attribute(2, &FIRST.to_be_bytes())];
        place.extend(device.map(|device| text(3, device)));
        let attributes = [text(1, table), text(3, name), nested(4, &place), be32(5, ACCEPT), text(7, "filter")];
        self.push(3, NLM_F_CREATE, family, &attributes);
    }

    /// A set that rules add to, whose elements leave it by themselves.
    pub(super) fn set(&mut self, family: Family, table: &str, set: &Set) {
        const TIMEOUT: u32 = 0x10;
        const DYNAMIC: u32 = 0x20;
        let attributes = [
            text(1, table),
            text(2, set.name),
            be32(3, TIMEOUT | DYNAMIC),
            be32(4, set.key_type),
            be32(5, set.key_length),
            nested(9, &[be32(1, set.size)]),
            be32(10, set.id),
            attribute(11, &set.timeout_ms.to_be_bytes()),
            be32(12, set.collected_ms),
        ];
        self.push(9, NLM_F_CREATE, family, &attributes);
    }

    /// A rule at the end of a chain.
    pub(super) fn rule(&mut self, family: Family, table: &str, chain: &str, expressions: &[Vec<u8>]) {
        let attributes = [text(1, table), text(2, chain), nested(4, expressions)];
        self.push(6, NLM_F_CREATE | NLM_F_APPEND, family, &attributes);
    }

    /// The bytes to send. Only the last message asks for an answer; errors are always told.
    pub(super) fn bytes(&self, sequence: u32) -> io::Result<Vec<u8>> {
        let [high, low] = (NFTABLES >> 8).to_be_bytes();
        let frame = [0, 0, high, low];
        let mut bytes = netlink::message(BATCH_BEGIN, NLM_F_REQUEST, sequence, &frame)?;
        for (number, (kind, flags, body)) in self.messages.iter().enumerate() {
            let acknowledge = if number + 1 == self.messages.len() { NLM_F_ACK } else { 0 };
            bytes.extend(netlink::message(*kind, NLM_F_REQUEST | flags | acknowledge, sequence, body)?);
        }
        bytes.extend(netlink::message(BATCH_END, NLM_F_REQUEST, sequence, &frame)?);
        Ok(bytes)
    }
}

/// What a set is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Unique in its batch.
    pub(super) id: u32,
    /// nft's number of the key's type, six bits for each part.
    pub(super) key_type: u32,
    /// Each part takes a multiple of four bytes.
    pub(super) key_length: u32,
    /// Elements at most.
    pub(super) size: u32,
    /// How long an element counts.
    pub(super) timeout_ms: u64,
    /// How often those that no longer count make room.
    pub(super) collected_ms: u32,
}

/// What a packet is asked for (`NFT_META_*`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Meta {
    Protocol = 1,
    OutputDevice = 5,
    Layer4 = 16,
}

/// From where a header's bytes are counted (`NFT_PAYLOAD_*`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

pub(super) fn meta(key: Meta, to: Register) -> Vec<u8> {
    expression("meta", &[be32(1, to.number()), be32(2, key as u32)])
}

pub(super) fn payload(base: Base, offset: u32, length: u32, to: Register) -> Vec<u8> {
    expression("payload", &[be32(1, to.number()), be32(2, base as u32), be32(3, offset), be32(4, length)])
}

/// Goes on if the register holds this.
pub(super) fn equals(register: Register, value: &[u8]) -> Vec<u8> {
    const EQUAL: u32 = 0;
    expression("cmp", &[be32(1, register.number()), be32(2, EQUAL), nested(3, &[attribute(1, value)])])
}

/// Goes on if the key that begins in the register is not in the set.
pub(super) fn is_new(set: &Set, key: Register) -> Vec<u8> {
    const INVERT: u32 = 1;
    expression("lookup", &[text(1, set.name), be32(2, key.number()), be32(4, set.id), be32(5, INVERT)])
}

/// Goes on if the key could be added to the set: it has room, or has it already.
pub(super) fn add(set: &Set, key: Register) -> Vec<u8> {
    const ADD: u32 = 0;
    expression("dynset", &[text(1, set.name), be32(2, set.id), be32(3, ADD), be32(4, key.number())])
}

/// `meta nftrace set 1`
pub(super) fn trace(register: Register) -> [Vec<u8>; 2] {
    const TRACE: u32 = 12;
    [
        expression("immediate", &[be32(1, register.number()), nested(2, &[attribute(1, &[1])])]),
        expression("meta", &[be32(3, register.number()), be32(2, TRACE)]),
    ]
}

pub(super) fn accept() -> Vec<u8> {
    const ACCEPT: u32 = 1;
    verdict(&[be32(1, ACCEPT)])
}

pub(super) fn jump(chain: &str) -> Vec<u8> {
    const JUMP: u32 = (-3_i32).cast_unsigned();
    verdict(&[be32(1, JUMP), text(2, chain)])
}

fn verdict(attributes: &[Vec<u8>]) -> Vec<u8> {
    const VERDICT_REGISTER: u32 = 0;
    expression("immediate", &[be32(1, VERDICT_REGISTER), nested(2, &[nested(2, attributes)])])
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(LIST_ELEMENT, &[text(1, name), nested(2, data)])
}

fn be32(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &attributes.concat())
}
