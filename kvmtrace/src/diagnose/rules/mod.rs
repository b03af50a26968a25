//! The rules, in the order in which they are asked. Each looks at one case and says what it means, or nothing.
//!
//! [`DROPS`] are asked once for each drop of the flow (`case.focus`), the heaviest first. [`SILENT`] are asked of
//! flows whose packets vanish or stay unanswered without a drop that explains it, from the guest outwards.

pub mod bridge_lone;
pub mod bridge_multicast;
pub mod bridge_pair;
pub mod bridge_port;
pub mod checksum;
pub mod device;
pub mod fragments;
pub mod guest;
pub mod hairpin;
pub mod host_neighbour;
pub mod large_receive;
pub mod macvtap;
pub mod mtu_bridge;
pub mod mtu_route;
pub mod nat;
pub mod nat_ports;
pub mod neighbour;
pub mod netfilter;
pub mod netfilter_stage;
pub mod no_reply;
pub mod path;
pub mod policy_rule;
pub mod qdisc;
pub mod routing;
pub mod silent_l2;
pub mod socket;
pub mod source_check;
pub mod ttl;
pub mod tunnel;
pub mod unclassified;
pub mod xdp;

use super::case::Case;
use super::judgement::Judgement;

/// A rule.
pub type Rule = fn(&Case<'_>) -> Option<Judgement>;

/// Rules about a drop.
pub const DROPS: &[(&str, Rule)] = &[
    ("large receive", large_receive::judge),
    ("bridge MTU", mtu_bridge::judge),
    ("MTU of a pair", mtu_bridge::judge_far_end),
    ("tunnel", tunnel::judge),
    ("route MTU", mtu_route::judge),
    ("fragments", fragments::judge),
    ("netfilter", netfilter::judge),
    ("bridge port", bridge_port::judge),
    ("bridge multicast", bridge_multicast::judge),
    ("guest's ring", guest::judge),
    ("device", device::judge),
    ("queue", qdisc::judge),
    ("TTL", ttl::judge),
    ("source check", source_check::judge),
    ("routing", routing::judge),
    ("neighbour", neighbour::judge),
    ("checksum", checksum::judge),
    ("socket", socket::judge),
    ("unclassified", unclassified::judge),
];

/// Rules about flows that vanish or stay unanswered.
pub const SILENT: &[(&str, Rule)] = &[
    ("path", path::judge),
    ("stopped guest", guest::judge_stopped),
    ("macvtap without a guest", guest::judge_gone),
    ("native XDP", xdp::judge_silent),
    ("layer 2", silent_l2::judge),
    ("TTL", ttl::judge_silent),
    ("NAT", nat::judge),
    ("NAT between guests", hairpin::judge),
    ("source check of ARP", source_check::judge_silent),
    ("this host's silence", host_neighbour::judge),
    ("tunnel", tunnel::judge_silent),
    ("backlog", socket::judge_backlog),
    ("ICMP told", socket::judge_told),
    ("fragments", fragments::judge_silent),
    ("MTU under a macvtap", mtu_bridge::judge_silent),
    ("neighbour", neighbour::judge_silent),
    ("next hop", neighbour::judge_waiting),
    ("no reply", no_reply::judge),
];

/// Rules about flows that arrive.
pub const DELIVERED: &[(&str, Rule)] = &[
    ("tunnel", tunnel::judge_outer),
    ("large segments", mtu_bridge::judge_segments),
    ("fragments", fragments::judge_delivered),
    ("NAT of one-way traffic", nat::judge_one_way),
    ("NAT between guests", hairpin::judge),
    ("checksums by counter", checksum::judge_silent),
];
