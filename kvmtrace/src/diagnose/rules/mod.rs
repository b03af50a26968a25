//! The rules, in the order in which they are asked. Each looks at one case and says what it means, or nothing.
//!
//! [`DROPS`] are asked once for each drop of the flow (`case.focus`), the heaviest first. [`SILENT`] are asked of
//! flows whose packets vanish or stay unanswered without a drop that explains it, from the guest outwards.

pub mod bond;
pub mod bridge_multicast;
pub mod bridge_port;
pub mod checksum;
pub mod device;
pub mod dhcp;
pub mod fragments;
pub mod guest;
pub mod hairpin;
pub mod handshake;
pub mod host_neighbour;
pub mod ipsec;
pub mod large_receive;
pub mod misrouted;
pub mod mtu_bridge;
pub mod mtu_route;
pub mod nat;
pub mod nat_unwanted;
pub mod neighbour;
pub mod netfilter;
pub mod no_reply;
pub mod path;
pub mod port_address;
pub mod qdisc;
pub mod queue;
pub mod reflected;
pub mod repeats;
pub mod router;
pub mod routing;
pub mod silent_l2;
pub mod socket;
pub mod source_check;
pub mod spoofed;
pub mod stalled;
pub mod switch;
pub mod ttl;
pub mod tunnel;
pub mod tunnel_end;
pub mod unclassified;
pub mod untracked;
pub mod vlan_tag;
pub mod xdp;

use super::judgement::Judgement;
use super::report::{Fix, Severity};
use crate::diagnose::faults::dhcp::is_served;
use crate::diagnose::faults::netem;
use crate::diagnose::flows::case::{Case, Way, only_opens};
use crate::event::IfIndex;
use crate::forward::effect::Effect;

/// A rule.
pub type Rule = fn(&Case<'_>) -> Option<Judgement>;

/// Rules about a drop.
pub const DROPS: &[(&str, Rule)] = &[
    ("guest that ended", guest::judge_ended),
    ("guest's hypervisor", guest::judge_machine),
    ("large receive", large_receive::judge),
    ("bridge MTU", mtu_bridge::judge),
    ("MTU of a pair", mtu_bridge::judge_far_end),
    ("tunnel", tunnel::judge),
    ("route MTU", mtu_route::judge),
    ("fragments", fragments::judge),
    ("spoofed source", spoofed::judge),
    ("netfilter", netfilter::judge),
    ("queue of user space", queue::judge),
    ("Open vSwitch", switch::judge),
    ("frames that come back", reflected::judge),
    ("leg of a bond", bond::judge),
    ("bridge port", bridge_port::judge),
    ("bridge multicast", bridge_multicast::judge),
    ("guest's ring", guest::judge),
    ("device", device::judge),
    ("queue", qdisc::judge),
    ("TTL", ttl::judge),
    ("source check", source_check::judge),
    ("NAT of bridged traffic", nat_unwanted::judge),
    ("routing", routing::judge),
    ("neighbour", neighbour::judge),
    ("checksum", checksum::judge),
    ("untracked connection", untracked::judge),
    ("socket", socket::judge),
    ("unclassified", unclassified::judge),
];

/// Rules about flows that vanish or stay unanswered.
pub const SILENT: &[(&str, Rule)] = &[
    ("spoofed source", spoofed::judge_unstopped),
    ("guest that ended", guest::judge_ended),
    ("guest's hypervisor", guest::judge_held),
    ("route past the receiver", misrouted::judge),
    ("path", path::judge),
    ("address on a port", port_address::judge),
    ("DHCP", dhcp::judge),
    ("stopped guest", guest::judge_stopped),
    ("macvtap without a guest", guest::judge_gone),
    ("native XDP", xdp::judge_silent),
    ("layer 2", silent_l2::judge),
    ("VLAN tag", vlan_tag::judge_silent),
    ("TTL", ttl::judge_silent),
    ("unwanted NAT", nat_unwanted::judge_silent),
    ("VLAN of Open vSwitch", switch::judge_silent),
    ("NAT", nat::judge),
    ("NAT between guests", hairpin::judge),
    ("source check of ARP", source_check::judge_silent),
    ("this host's silence", host_neighbour::judge),
    ("proxy for a guest", host_neighbour::judge_unsought),
    ("tunnel", tunnel::judge_silent),
    ("tunnel's other end", tunnel_end::judge),
    ("backlog", socket::judge_backlog),
    ("ICMP told", socket::judge_told),
    ("fragments", fragments::judge_silent),
    ("MTU under a macvtap", mtu_bridge::judge_silent),
    ("neighbour", neighbour::judge_silent),
    ("neighbour entry", neighbour::judge_stale),
    ("next hop", neighbour::judge_waiting),
    ("IPsec", ipsec::judge),
    ("untracked connection", untracked::judge),
    ("flood in vain", path::judge_flooded),
    ("no reply", no_reply::judge),
];

/// Rules about flows that arrive.
pub const DELIVERED: &[(&str, Rule)] = &[
    ("spoofed source", spoofed::judge_unstopped),
    ("guest that ended", guest::judge_ended),
    ("VLAN tag of answers", vlan_tag::judge),
    ("tunnel", tunnel::judge_outer),
    ("large segments", mtu_bridge::judge_segments),
    ("fragments", fragments::judge_delivered),
    ("NAT of one-way traffic", nat::judge_one_way),
    ("NAT between guests", hairpin::judge),
    ("checksums by counter", checksum::judge_silent),
    ("neighbour entry", neighbour::judge_stale),
    ("some replies", no_reply::judge_partial),
    ("connection that never comes to be", handshake::judge),
    ("conversation that stands still", stalled::judge),
    ("segments sent again", repeats::judge),
    ("router that is missing", router::judge_missing),
    ("router that is none", router::judge_rogue),
];

/// Asks the rules.
pub fn judge(case: &mut Case<'_>) -> Option<Judgement> {
    let last = DROPS.len().saturating_sub(1);
    for rules in [DROPS.get(..last)?, DROPS.get(last..)?] {
        for drop in case.drops.clone() {
            case.focus = Some(drop);
            if let Some(judgement) = rules.iter().find_map(|(_, rule)| rule(case)) {
                return Some(sized(case, scaled(case, judgement)));
            }
        }
    }
    case.focus = None;
    if suffers(case)
        && let Some(judgement) = SILENT.iter().find_map(|(_, rule)| rule(case))
    {
        return Some(sized(case, netem::instead(case, judgement)));
    }
    let found = DELIVERED.iter().find_map(|(_, rule)| rule(case));
    found.map(|judgement| sized(case, netem::instead(case, judgement)))
}

/// No device of the host is set for a size that a guest chooses beyond the MTU of its own network: what its tap is not made
/// for is the guest's to change.
pub(super) fn sized(case: &Case<'_>, mut judgement: Judgement) -> Judgement {
    let own = case.device().filter(|_| case.is_from_guest()).and_then(|device| case.scene.link(device));
    let Some(own) = own else { return judgement };
    // What died on the guest's own bridge is as long as it came in, also where another has sent it in the guest's name.
    let bridge = |device: IfIndex| case.scene.bridge_of(device).map(|bridge| bridge.index);
    let is_near = |device: IfIndex| bridge(own.index).is_some() && bridge(device) == bridge(own.index);
    let near = case.drops.iter().filter(|drop| drop.device().is_some_and(is_near));
    let entered = case.entry().map(|(_, counters)| counters.largest);
    let died = near.map(|drop| drop.totals.largest).max();
    let sent = entered.max(died).or(case.drops.first().map(|drop| drop.totals.largest));
    if sent.is_none_or(|sent| sent <= own.mtu) {
        return judgement;
    }
    let beyond = |fix: &Fix| fix.effects.iter().any(|effect| matches!(effect, Effect::Mtu(_, mtu) if *mtu > own.mtu));
    if judgement.fixes.iter().any(beyond) {
        judgement.fixes.retain(|fix| !beyond(fix));
        judgement.fixes.insert(
            0,
            Fix::advice(format!(
                "The guest sends more than the MTU of its own port, {} ({}): set the MTU of its interface to that at most. Raise the host's only if the whole network is to carry such packets, {} first.",
                own.name, own.mtu, own.name
            )),
        );
    }
    judgement
}

/// A loss that most packets escape hurts less.
fn scaled(case: &Case<'_>, judgement: Judgement) -> Judgement {
    let minor = case.dropped().saturating_mul(10) < case.packets();
    if judgement.severity == Severity::Error && minor { judgement.severity(Severity::Warning) } else { judgement }
}

/// Its packets vanish, or whoever sends it waits in vain or is told no.
pub(super) fn suffers(case: &Case<'_>) -> bool {
    if case.packets() == 0 {
        return false;
    }
    // A no is final, however young the flow is; what has not come yet may still come.
    let refused = case.errors.iter().any(|error| error.about.is_unreachable() || error.about.is_reassembly_timeout())
        || socket::is_refused(case);
    refused || case.is_settled() && (is_lost(case) || is_unanswered(case))
}

/// It entered, should have left, and did not.
fn is_lost(case: &Case<'_>) -> bool {
    let known = matches!(case.way(), Way::Guest(_) | Way::Uplink | Way::Routed);
    // What was answered all along has arrived, wherever it was not counted.
    let is_tcp = case.key().protocol == crate::event::Protocol::Tcp;
    let conversed = is_tcp && case.answered() > 2 && !case.answers.iter().all(|flow| only_opens(flow));
    known && case.left() == 0 && case.scene.is_unfiltered() && !conversed
}

/// It asks, and nothing came back.
fn is_unanswered(case: &Case<'_>) -> bool {
    case.expects_answer() && case.answered() == 0 && case.scene.sees_answers() && !is_served(case)
}
