//! `router-missing`, `rogue-router`: router discovery (RFC 4861, 6.2 and 6.3). A guest asks all routers of its network and none
//! answers; or a guest advertises itself beside the network's own router, and its neighbours take it for one.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::faults::router::advertisements;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::host::{Link, Network};
use crate::event::{IfIndex, Protocol};
use crate::track::Flow;
use std::net::IpAddr;

/// A guest without an address asks for a router on a network whose router is this host, and gets no answer. Without IPv6 on the
/// network, or with addresses that somebody has set, nothing is missing: every kernel asks as its link comes up.
pub fn judge_missing(case: &Case<'_>) -> Option<Judgement> {
    let asks = matches!(case.key().protocol, Protocol::Icmpv6 { kind: 133, .. });
    if !asks || !case.is_from_guest() || !case.asked_enough() || !case.is_settled() || !case.scene.sees_answers() {
        return None;
    }
    let scene = case.scene;
    let (device, bridge) = (case.device()?, case.bridge()?);
    let own = routed_network(scene, bridge)?;
    let has_address = scene.track.flows().any(|flow| uses_address(scene, flow, device));
    let is_told = advertisements(scene).any(|flow| flow.places.keys().any(|place| place.device == device));
    if has_address || is_told || scene.host.uplinks(bridge.index).next().is_some() {
        return None;
    }
    let guest = scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
    let explanation = format!(
        "{} of {guest} asked for a router on {}, a network of this host alone: this host has {own} there and forwards IPv6, but sends no router advertisements, so {guest} gets no address.",
        words::packets(case.packets()),
        bridge.name
    );
    Some(
        Judgement::dropped(Cause::RouterMissing, at(scene, bridge.index, Point::HostInput), explanation)
            .verdict(Verdict::Unanswered)
            .severity(Severity::Warning)
            .evidence([format!("{}: no uplink; no router advertisement was seen", bridge.name)])
            .fix(Fix::advice(format!(
                "Start what advertises {own} on {} (libvirt: virsh net-destroy NETWORK && virsh net-start NETWORK starts its dnsmasq; else radvd, or dnsmasq with enable-ra and dhcp-range={},ra-only), or give the guest a fixed address and route.",
                bridge.name, own.address
            ))),
    )
}

/// A guest advertises itself as a router on a network that has one.
pub fn judge_rogue(case: &Case<'_>) -> Option<Judgement> {
    let advertises = matches!(case.key().protocol, Protocol::Icmpv6 { kind: 134, .. });
    if !advertises || !case.is_from_guest() {
        return None;
    }
    let scene = case.scene;
    let (device, bridge) = (case.device()?, case.bridge()?);
    let source = case.key().source;
    let reaches = |flow: &&Flow| {
        let here = |device| scene.bridge_of(device).map_or(device, |link| link.index) == bridge.index;
        flow.key.source != source && flow.places.keys().any(|place| here(place.device))
    };
    let is_guests = |flow: &&Flow| scene.entry(flow).is_some();
    let other = advertisements(scene).filter(reaches).find(|flow| !is_guests(flow));
    let alone = scene.host.uplinks(bridge.index).next().is_none();
    let router = match other {
        Some(other) => format!("{} is the router there, too", other.key.source),
        // A host that routes a network of its own advertises seldom: not to see it proves nothing.
        None if alone => format!("this host is the router there ({})", routed_network(scene, bridge)?),
        None => return None,
    };
    let guest = scene.guest_name(device).unwrap_or_else(|| "a guest".to_owned());
    let name = &bridge.name;
    let explanation = format!(
        "{guest} advertises itself as a router of {name} ({source}), and {router}: its neighbours may send to {guest} what should leave this host."
    );
    Some(
        Judgement::dropped(Cause::RogueRouter, at(scene, device, Point::TapIngress), explanation)
            .verdict(Verdict::Delivered)
            .severity(Severity::Warning)
            .evidence([format!("{} from {source}, by {}", words::counted(case.packets(), "router advertisement"), scene.name(device))])
            .fix(Fix::advice(format!(
                "If {guest} is not meant to be a router, stop what advertises in it, or let its port send no router advertisements (libvirt's nwfilter: no-ipv6-ra-spoofing or a rule of its own; Proxmox: radv off in its firewall options; nft bridge: icmpv6 type nd-router-advert at its port)."
            ))),
    )
}

/// The guest sends from an address that reaches beyond its link, or asks whether anybody has the one that it is about to use
/// (duplicate address detection, RFC 4862, 5.4.2: from no address at all).
fn uses_address(scene: &Scene<'_>, flow: &Flow, device: IfIndex) -> bool {
    let enters = scene.entry(flow).is_some_and(|(place, _)| place.device == device);
    let tests = || flow.target.filter(|_| flow.key.source.ip().is_some_and(|source| source.is_unspecified()));
    enters
        && (flow.key.source.ip().is_some_and(|source| is_global(&source)) || tests().is_some_and(|own| is_global(&own)))
}

/// The IPv6 network of a bridge on which this host is the router: it has an address there, and forwards.
fn routed_network(scene: &Scene<'_>, bridge: &Link) -> Option<Network> {
    let forwards = scene.host.sysctl("net.ipv6.conf.all.forwarding").is_some_and(|value| value != "0");
    let mut own = bridge.addresses.iter().filter(|own| is_global(&own.address) && own.prefix <= 64);
    own.next().filter(|_| forwards).map(|own| own.whole())
}

fn is_global(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if !address.is_unicast_link_local() && !address.is_multicast() && !address.is_unspecified())
}
