//! A message of nft's trace (`NFT_MSG_TRACE`, `nft_trace_notify`). Total: any bytes give a message or nothing.

use crate::event::{FlowKey, decode};
use crate::host::netlink::Attributes;
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse::{self, ETHERNET_HEADER, Parsed, ether_type, ip_protocol};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE`
pub(super) const TRACE: u16 = super::encode::NFTABLES + 17;

/// `NFTA_TRACE_*`
mod kind {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const RULE_HANDLE: u16 = 3;
    pub(super) const TYPE: u16 = 4;
    pub(super) const VERDICT: u16 = 5;
    pub(super) const ID: u16 = 6;
    pub(super) const LINK_HEADER: u16 = 7;
    pub(super) const NETWORK_HEADER: u16 = 8;
    pub(super) const TRANSPORT_HEADER: u16 = 9;
    pub(super) const PROTOCOL_FAMILY: u16 = 15;
    pub(super) const POLICY: u16 = 16;
}

/// What became of the packet there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on through the chains of this hook.
    GoesOn,
    /// The hook is done with it, and did not drop it.
    Ends,
    /// It was dropped.
    Dropped,
}

/// A step of a packet through the rules of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The packet's number, the same in all messages about it.
    pub(super) id: u32,
    /// nft's name of the family.
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) chain: String,
    /// None for a policy.
    pub(super) handle: Option<u64>,
    pub(super) outcome: Outcome,
    /// The message is the first of a hook, which alone tells the packet's headers.
    pub(super) first: bool,
    /// The flow, where the headers are told and understood.
    pub(super) flow: Option<FlowKey>,
}

impl Message {
    /// Reads what follows the netlink header.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (head, attributes) = body.split_at_checked(4)?;
        let attributes = Attributes(attributes);
        let family = match *head.first()? {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _ => return None,
        };
        let kind = attributes.be32(kind::TYPE)?;
        // NFT_TRACETYPE_POLICY, RETURN, RULE.
        let (handle, outcome) = match kind {
            1 => (None, verdict(attributes.be32(kind::POLICY)?)),
            2 => (None, Outcome::GoesOn),
            3 => match attributes.be64(kind::RULE_HANDLE) {
                Some(handle) => (Some(handle), verdict(attributes.nested(kind::VERDICT).be32(1)?)),
                // The end of a chain, where no rule has matched (6.18 tells it so, with the verdict "continue").
                None => (None, Outcome::GoesOn),
            },
            _ => return None,
        };
        let first = [kind::LINK_HEADER, kind::NETWORK_HEADER].iter().any(|kind| attributes.get(*kind).is_some());
        Some(Self {
            id: attributes.be32(kind::ID)?,
            family,
            table: attributes.text(kind::TABLE)?,
            chain: attributes.text(kind::CHAIN)?,
            handle,
            outcome,
            first,
            flow: if first { flow(attributes) } else { None },
        })
    }
}

/// nft's own verdicts (jump, goto, return, continue, break) are negative; the rest are netfilter's, which for a drop may
/// hold an error code above the lowest byte (`NF_DROP_ERR`).
fn verdict(code: u32) -> Outcome {
    match (code.cast_signed(), code & 0xff) {
        (-5..=-1, _) => Outcome::GoesOn,
        (_, 0) => Outcome::Dropped,
        _ => Outcome::Ends,
    }
}

/// The flow of the headers, put together as they stood in the packet.
fn flow(attributes: Attributes<'_>) -> Option<FlowKey> {
    let link = attributes.get(kind::LINK_HEADER).unwrap_or_default();
    let network = attributes.get(kind::NETWORK_HEADER).unwrap_or_default();
    let transport = attributes.get(kind::TRANSPORT_HEADER).unwrap_or_default();
    // The network header is cut after 40 bytes: what follows on more than that can't be put in its place.
    let whole = match network.first()? >> 4 {
        4 => usize::from(network.first()? & 0x0f) * 4 == network.len(),
        6 => network.get(6).is_some_and(|next| !EXTENSIONS.contains(next)),
        _ => true,
    };
    let packet = if whole { [network, transport].concat() } else { network.to_vec() };
    let mut parsed = Parsed::EMPTY;
    let ip_hook = match attributes.be32(kind::PROTOCOL_FAMILY)? {
        2 => Some(ether_type::IPV4),
        3 => Some(ether_type::ARP),
        10 => Some(ether_type::IPV6),
        _ => None,
    };
    if let Some(ether_type) = ip_hook {
        let (header, available) = header(&packet)?;
        parse::network(&header, available, 0, ether_type, vlan(link), &mut parsed);
    } else {
        if link.len() < ETHERNET_HEADER {
            return None;
        }
        let (header, available) = header(&[link, &packet].concat())?;
        parse::ethernet(&header, available, NO_VLAN, &mut parsed);
    }
    Some(decode::key(&parsed.key))
}

const EXTENSIONS: [u8; 5] = [
    ip_protocol::HOP_BY_HOP,
    ip_protocol::ROUTING,
    ip_protocol::DESTINATION_OPTIONS,
    ip_protocol::AUTHENTICATION,
    ip_protocol::FRAGMENT,
];

fn header(bytes: &[u8]) -> Option<(Header, usize)> {
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    let available = bytes.len().min(HEADER_BYTES);
    header.bytes.get_mut(..available)?.copy_from_slice(bytes.get(..available)?);
    Some((header, available))
}

/// The tag that the kernel keeps beside the packet is put into the Ethernet header (`nf_trace_fill_ll_header`).
fn vlan(link: &[u8]) -> u16 {
    match link {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0x00, high, low, ..]
        | [_, _, _, _, _, _, _, _, _, _, _, _, 0x88, 0xa8, high, low, ..] => u16::from_be_bytes([*high, *low]) & 0x0fff,
        _ => NO_VLAN,
    }
}
