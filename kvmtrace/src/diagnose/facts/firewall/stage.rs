//! Which hook of which family a netfilter drop belongs to, told from the stack.
//!
//! The innermost function that belongs to one hook decides: `nf_hook_slow`'s caller for the IP families; nft and ebtables
//! chains of the bridge family run without `nf_hook_slow` on the way in (`br_handle_frame`). br_netfilter pushes bridged
//! frames through the IP hooks (`br_nf_*`).

use crate::diagnose::facts::dropped::{Dropped, plain};
use crate::diagnose::report::{Cause, Point};
use crate::event::{FlowKey, Protocol};
use std::net::IpAddr;

/// The stage of a netfilter drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The contract's cause.
    pub cause: Cause,
    /// The hook by nft's name.
    pub hook: &'static str,
    /// The family of the packet at that hook: `ip`, `ip6`, `bridge`, `arp`, `netdev`.
    pub family: &'static str,
    /// An nft rule or policy dropped it, not a hook of another kind (iptables-legacy, conntrack).
    pub by_nft: bool,
}

impl Stage {
    /// The contract's point.
    pub fn point(&self) -> Point {
        match self.hook {
            "prerouting" => Point::NetfilterPrerouting,
            "input" => Point::NetfilterInput,
            "output" => Point::NetfilterOutput,
            "postrouting" => Point::NetfilterPostrouting,
            "ingress" => Point::NetfilterIngress,
            "egress" => Point::NetfilterEgress,
            _ => Point::NetfilterForward,
        }
    }
}

/// Functions that netfilter drops in.
const FUNCTIONS: &[&str] = &[
    "nf_hook_slow",
    "nf_hook_slow_list",
    "nft_do_chain",
    "nft_do_chain_inet",
    "nft_do_chain_ipv4",
    "nft_do_chain_ipv6",
    "nft_do_chain_bridge",
    "nft_do_chain_arp",
    "nft_do_chain_netdev",
    "ipt_do_table",
    "ip6t_do_table",
    "ebt_do_table",
    "arpt_do_table",
    "nft_verdict_init",
    "br_nf_pre_routing",
    "ebt_in_hook",
    "nf_ingress",
    "nft_immediate_eval",
];

/// The innermost of these decides the hook.
const HOOKS: &[(&str, &[&str])] = &[
    (
        "prerouting",
        &[
            "ip_rcv",
            "ipv6_rcv",
            "br_handle_frame",
            "br_nf_pre_routing",
            "br_nf_pre_routing_ipv6",
            "ip_list_rcv",
            "ipv6_list_rcv",
            "br_nf_hook_thresh",
            "ip_sabotage_in",
        ],
    ),
    ("input", &["ip_local_deliver", "ip6_input", "br_pass_frame_up", "arp_rcv", "ip_sublist_rcv"]),
    (
        "forward",
        &[
            "ip_forward",
            "ip6_forward",
            "__br_forward",
            "br_forward",
            "br_nf_forward_ip",
            "br_nf_forward",
            "br_nf_forward_arp",
            "maybe_deliver",
            "deliver_clone",
            "br_flood",
            "br_multicast_flood",
        ],
    ),
    (
        "postrouting",
        &["ip_output", "ip_mc_output", "ip6_output", "br_nf_post_routing", "br_forward_finish", "ip_mc_finish_output"],
    ),
    (
        "output",
        &[
            "__ip_local_out",
            "ip_local_out",
            "__ip6_local_out",
            "ip6_local_out",
            "ip6_xmit",
            "arp_xmit",
            "ndisc_send_skb",
            "mld_sendpack",
            "igmp6_send",
            "rawv6_sendmsg",
            "raw_sendmsg",
            "__br_deliver",
            "br_dev_xmit",
            "ip_send_skb",
            "ip6_send_skb",
        ],
    ),
    ("ingress", &["nf_hook_ingress", "nf_ingress", "__netif_receive_skb_core"]),
    ("egress", &["nf_hook_egress", "__dev_queue_xmit"]),
];

/// The stage, if netfilter dropped it.
pub fn stage(drop: &Dropped<'_>, key: &FlowKey) -> Option<Stage> {
    if !(drop.because(&["NETFILTER_DROP"]) || drop.is_unspecified() && drop.within(FUNCTIONS)) {
        return None;
    }
    let names: Vec<&str> =
        std::iter::once(drop.function()).chain(drop.stack().iter().map(|name| plain(name))).collect();
    let has = |function: &str| names.contains(&function);
    let by_nft =
        drop.function().starts_with("nft_") || names.iter().take(4).any(|name| name.starts_with("nft_do_chain"));
    let hook = names
        .iter()
        .find_map(|name| HOOKS.iter().find(|(_, functions)| functions.contains(name)).map(|(hook, _)| (*hook, *name)));
    let bridged_ip = names.iter().any(|name| name.starts_with("br_nf_"));
    let ip = match key.destination.ip() {
        Some(IpAddr::V6(_)) => "ip6",
        _ => "ip",
    };
    let arp = matches!(key.protocol, Protocol::Arp { .. });
    let hook = match hook.unwrap_or(("forward", "")) {
        ("forward", "") if has("nft_do_chain_netdev") => "ingress",
        // `__br_forward` runs the bridge's output hook for what this host sends, which came by the bridge's own transmit.
        // What the host says to a packet that it forwards has the routing of that one on its stack, further out.
        ("forward", function) if !matches!(function, "ip_forward" | "ip6_forward") && is_local(&names) => "output",
        (hook, _) => hook,
    };
    let bridge_chain =
        has("nft_do_chain_bridge") || has("ebt_do_table") || names.iter().any(|name| name.starts_with("ebt_"));
    let bridge_hook = || {
        !bridged_ip
            && names.iter().take(4).any(|name| {
                ["__br_forward", "br_handle_frame", "br_pass_frame_up", "br_forward_finish", "__br_deliver"]
                    .contains(name)
            })
    };
    let (cause, family) = if bridge_chain || bridge_hook() {
        (Cause::NetfilterBridge, "bridge")
    } else if has("nft_do_chain_arp") || has("arpt_do_table") || has("br_nf_forward_arp") || arp && hook != "ingress" {
        (Cause::NetfilterArp, "arp")
    } else if has("nft_do_chain_netdev") || hook == "ingress" || hook == "egress" {
        (Cause::NetfilterIngress, "netdev")
    } else if bridged_ip && hook == "forward" {
        (Cause::NetfilterBridgedIp, ip)
    } else {
        let cause = match hook {
            "prerouting" => Cause::NetfilterPrerouting,
            "input" => Cause::NetfilterInput,
            "output" => Cause::NetfilterOutput,
            "postrouting" => Cause::NetfilterPostrouting,
            _ => Cause::NetfilterForward,
        };
        (cause, ip)
    };
    Some(Stage { cause, hook, family, by_nft })
}

/// The bridge was handed the packet by this host's own transmit, not by a port.
fn is_local(names: &[&str]) -> bool {
    let came = |functions: &[&str]| names.iter().position(|name| functions.contains(name)).unwrap_or(usize::MAX);
    came(&["br_dev_xmit", "dev_hard_start_xmit"]) < came(&["br_handle_frame", "__netif_receive_skb_core"])
}
