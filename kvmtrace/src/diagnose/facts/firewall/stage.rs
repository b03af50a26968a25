//! Which hook of which family a netfilter drop belongs to, told from the stack.
//!
//! The innermost function that belongs to one hook decides: `nf_hook_slow`'s caller for the IP families; nft and ebtables
//! chains of the bridge family run without `nf_hook_slow` on the way in (`br_handle_frame`). br_netfilter pushes bridged
//! frames through the IP hooks (`br_nf_*`).

use crate::diagnose::facts::dropped::{Dropped, plain};
use crate::diagnose::facts::sites::{Site, is_nft_chain, is_of_br_netfilter, is_of_ebtables, is_of_nft};
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
    /// An nft rule or policy dropped it, not a hook of another kind (iptables-legacy, conntrack). Not known on a kernel
    /// without drop reasons: there `nf_hook_slow` frees the packet for all of them.
    pub by_nft: Option<bool>,
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

/// The innermost of these decides the hook.
const HOOKS: &[(&str, Site)] = &[
    ("prerouting", Site::Prerouting),
    ("input", Site::Input),
    ("forward", Site::ForwardHook),
    ("postrouting", Site::Postrouting),
    ("output", Site::Output),
    ("ingress", Site::IngressHook),
    ("egress", Site::EgressHook),
];

/// The stage, if netfilter dropped it.
pub fn stage(drop: &Dropped<'_>, key: &FlowKey) -> Option<Stage> {
    if !(drop.because(&["NETFILTER_DROP"]) || drop.is_unspecified() && drop.within(Site::Netfilter)) {
        return None;
    }
    let names: Vec<&str> =
        std::iter::once(drop.function()).chain(drop.stack().iter().map(|name| plain(name))).collect();
    // Without names of functions nothing says at which hook it was; the model's walk may.
    if names.iter().all(|name| name.is_empty()) {
        return None;
    }
    let has = |site: Site| names.iter().any(|name| site.has(name));
    let is_nft = is_of_nft(drop.function()) || names.iter().take(4).any(|name| is_nft_chain(name));
    let is_anyones = drop.site.reason.is_none() && drop.within(Site::HookSlow);
    let by_nft = (is_nft || !is_anyones).then_some(is_nft);
    let hook =
        names.iter().find_map(|name| HOOKS.iter().find(|(_, site)| site.has(name)).map(|(hook, _)| (*hook, *name)));
    // What comes in by a bridge has `br_nf_pre_routing` on its stack however it goes on: the innermost hook decides.
    let depth = |is: &dyn Fn(&str) -> bool| names.iter().position(|name| is(name));
    let bridged = depth(&is_of_br_netfilter).unwrap_or(usize::MAX);
    let bridged_ip =
        bridged < usize::MAX && hook.is_none_or(|(_, name)| depth(&|other| other == name) >= Some(bridged));
    let ip = match key.destination.ip() {
        Some(IpAddr::V6(_)) => "ip6",
        _ => "ip",
    };
    let arp = matches!(key.protocol, Protocol::Arp { .. });
    let hook = match hook.unwrap_or(("forward", "")) {
        ("forward", "") if has(Site::NetdevChain) => "ingress",
        // `__br_forward` runs the bridge's output hook for what this host sends, which came by the bridge's own transmit.
        // What the host says to a packet that it forwards has the routing of that one on its stack, further out.
        ("forward", function) if !Site::Forward.has(function) && is_local(&names) => "output",
        (hook, _) => hook,
    };
    let bridge_chain = has(Site::BridgeChain) || names.iter().any(|name| is_of_ebtables(name));
    let bridge_hook = || !bridged_ip && names.iter().take(4).any(|name| Site::BridgeHook.has(name));
    let (cause, family) = if bridge_chain || bridge_hook() {
        (Cause::NetfilterBridge, "bridge")
    } else if has(Site::ArpChain) || arp && hook != "ingress" {
        (Cause::NetfilterArp, "arp")
    } else if has(Site::NetdevChain) || hook == "ingress" || hook == "egress" {
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
    let came = |site: Site| names.iter().position(|name| site.has(name)).unwrap_or(usize::MAX);
    came(Site::OwnTransmit) < came(Site::FromPort)
}
