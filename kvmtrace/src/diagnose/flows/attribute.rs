//! Whose flow is it, and which flows of different keys are one: after NAT, inside a VLAN, in fragments.
//!
//! 1. A flow that enters at a guest's tap is that guest's.
//! 2. One that is addressed to a guest's MAC address, or dies on its way to a guest's IP address, is to that guest.
//! 3. A flow of the host's own address that begins at an egress, or was never seen at any hook, is the translated form
//!    of a guest's flow when protocol, far end and the near port agree and it is not older (masquerading keeps the port
//!    unless it is taken).
//! 4. Where both ends are translated none of that agrees: the packet itself must be the same (`both_ends`).
//! 5. Same addresses and ports with another VLAN tag, or without ports (a later fragment whose first was not seen), are
//!    the same flow.

use super::both_ends;
use super::group::{Group, untagged};
use super::redirected;
use crate::diagnose::facts::dropped::macs;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::facts::standing::Standing;
use crate::diagnose::facts::{bridge, dropped};
use crate::diagnose::report::FlowDirection;
use crate::event::host::{BridgeState, Link, LinkKind};
use crate::event::is_link_local;
use crate::event::{Address, Direction, FlowKey, IfIndex, MacAddress, Place, Protocol};
use crate::track::Flow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All flows that a verdict is due for, ordered by key; behind them what others send under their keys.
pub fn groups<'a>(scene: &Scene<'a>, impostors: &'a [Flow]) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let mut rest: Vec<&Flow> = Vec::new();
    for flow in scene.track.flows() {
        match whose(scene, flow) {
            Some((direction, device, peer)) => groups.push(Group {
                main: flow,
                others: Vec::new(),
                translated: None,
                past: None,
                direction,
                device: Some(device),
                peer,
                impostor: false,
            }),
            None => rest.push(flow),
        }
    }
    let mut taken = BTreeSet::new();
    join_variants(&mut groups, &rest, &mut taken);
    both_ends::join(scene, &mut groups, &rest, &mut taken);
    join_translated(scene, &mut groups, &rest, &mut taken);
    join_redirected(&mut groups);
    adopt_answers(scene, &mut groups, &rest, &mut taken);
    find_past(scene, &mut groups);
    redirected::join(&mut groups);
    if scene.wants_all() {
        for flow in rest.into_iter().filter(|flow| !taken.contains(&flow.key)) {
            groups.push(Group {
                main: flow,
                others: Vec::new(),
                translated: None,
                past: None,
                direction: FlowDirection::Host,
                device: None,
                peer: None,
                impostor: false,
            });
        }
    }
    // Apart from their owners' flows, which nothing of theirs is joined to.
    groups.extend(impostors.iter().filter_map(|flow| {
        let (direction, device, peer) = whose(scene, flow)?;
        let (others, translated, past) = (Vec::new(), None, None);
        Some(Group { main: flow, others, translated, past, direction, device: Some(device), peer, impostor: true })
    }));
    groups
}

/// Whose flow it is by itself.
pub fn whose(scene: &Scene<'_>, flow: &Flow) -> Option<(FlowDirection, IfIndex, Option<IfIndex>)> {
    // Seen only as it died, with the host's own address: a translated flow bears its guest's MAC addresses still.
    let host_source = flow.key.source.ip().is_some_and(|source| scene.is_host_address(source));
    let translated = flow.places.is_empty() && host_source;
    let target_mac = flow.places.values().map(|counters| counters.destination_mac).find(|mac| !mac.is_zero());
    let dropped_macs = flow.drops.values().find_map(|drop| macs(drop.example.as_deref()?));
    let target_mac = target_mac.or(dropped_macs.map(|(_, destination)| destination));
    let group = target_mac.is_some_and(MacAddress::is_multicast);
    let receiver = || {
        let by_mac = target_mac.and_then(|mac| scene.guest_towards(mac));
        // A solicitation goes to a group; the address that it asks for is in its body.
        let asked = || flow.target.filter(|_| matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 135, .. }));
        let by_address = || {
            let device = scene.guest_by_address(flow.key.destination)?;
            let to_host = |mac: MacAddress| scene.is_host_mac(mac);
            let routed = target_mac.is_some_and(to_host)
                || flow.places.values().any(|counters| to_host(counters.destination_mac));
            (!routed || is_behind(scene, device, flow.key.destination.ip()?)).then_some(device)
        };
        by_mac.or_else(by_address).or_else(|| scene.guest_by_address(Address::Ip(asked()?)))
    };
    let sender = sender(scene, flow, dropped_macs.map(|(source, _)| source));
    if let Some(device) = sender.filter(|_| !translated) {
        let peer = receiver().filter(|peer| *peer != device);
        let direction = if peer.is_some() { FlowDirection::GuestToGuest } else { FlowDirection::FromGuest };
        return Some((direction, device, peer));
    }
    if let Some(device) = receiver().or_else(|| waiting_guest(scene, flow)) {
        return Some((FlowDirection::ToGuest, device, None));
    }
    // Multicast and broadcast from outside: told once, for the guest that gets it first.
    let exit = flow.places.keys().find(|place| scene.is_exit(**place));
    if group {
        let device =
            exit.map(|place| place.device).or_else(|| pruned(scene, flow)).or_else(|| turned_away(scene, flow));
        return device.map(|device| (FlowDirection::ToGuest, device, None));
    }
    None
}

/// What this host is to route goes to a guest's interface only where the host knows the address to be there; that the guest
/// has sent from it says nothing.
fn is_behind(scene: &Scene<'_>, device: IfIndex, address: IpAddr) -> bool {
    let way = crate::diagnose::facts::routes::route_to(scene, address).and_then(|route| route.device);
    let side = scene.bridge_of(device).map(|bridge| bridge.index);
    scene.standing(device, address) > Standing::Claimed || way.is_some() && (way == side || way == Some(device))
}

/// A group's packets that the bridge found no port for: told for the first guest that hangs on it.
fn pruned(scene: &Scene<'_>, flow: &Flow) -> Option<IfIndex> {
    let wide = bridge::is_wide_group(flow.key.destination.ip()?);
    let site = flow.drops.keys().find(|site| {
        let function = site.function.as_deref().map_or("", dropped::plain);
        wide && Site::BridgeNoMember.has(function)
    })?;
    let device = site.device?;
    let bridge = scene.bridge_of(device).map_or(device, |bridge| bridge.index);
    scene.host.ports(bridge).map(|port| port.index).find(|port| *port != device && scene.interface(*port).is_some())
}

/// Who has an address that nobody has been seen with, asked from outside, by a frame that its port did not let into the
/// bridge: told for the first guest there that the question may be about.
fn turned_away(scene: &Scene<'_>, flow: &Flow) -> Option<IfIndex> {
    if !matches!(flow.key.protocol, Protocol::Arp { operation: 1 } | Protocol::Icmpv6 { kind: 135, .. }) {
        return None;
    }
    let address = flow.target.or(flow.key.destination.ip())?;
    let site = flow.drops.keys().find(|site| {
        let function = site.function.as_deref().map_or("", dropped::plain);
        Site::BridgeIngress.has(function)
    })?;
    let device = site.device.filter(|device| scene.interface(*device).is_none())?;
    let bridge = scene.bridge_of(device)?;
    if scene.is_host_address(address) || flow.places.keys().any(|place| place.device != device) {
        return None;
    }
    let kind = |address: &IpAddr| (address.is_ipv6(), is_link_local(*address));
    let unknown = |port: &IfIndex| {
        let known = scene.addresses_of(*port);
        scene.interface(*port).is_some() && !known.iter().any(|known| kind(known) == kind(&address))
    };
    scene.host.ports(bridge.index).map(|port| port.index).find(unknown)
}

/// A flow of the host's for an address that nobody has been seen with, in a network of which all machines are guests: it
/// waits for one of them. With several guests the first without a known address is told.
fn waiting_guest(scene: &Scene<'_>, flow: &Flow) -> Option<IfIndex> {
    let address = flow.target.or(flow.key.destination.ip())?;
    let own_side = |place: &Place| scene.bridge_of(place.device).is_some() || scene.role(place.device) != Role::Nic;
    // What came in by a NIC and died before it was on the bridge was to be routed there.
    if address.is_multicast()
        || scene.is_host_address(address)
        || flow.places.keys().any(|place| place.direction == Direction::Ingress && own_side(place))
    {
        return None;
    }
    // Each device has the same network of link-local addresses: where the flow went tells which is meant.
    if is_link_local(address) && flow.places.is_empty() {
        return None;
    }
    let serves = |link: &&Link| {
        let on_bridge = |place: &Place| {
            place.device == link.index || scene.link(place.device).is_some_and(|port| port.master == Some(link.index))
        };
        matches!(link.kind, LinkKind::Bridge(_))
            && flow.places.keys().filter(|place| place.direction == Direction::Egress).all(on_bridge)
            && scene.host.uplinks(link.index).next().is_none()
            && link.addresses.iter().any(|network| network.contains(address) && network.prefix > 0)
    };
    let Some(bridge) = scene.host.links.values().find(serves) else { return guest_beside(scene, flow, address) };
    let guests =
        || scene.host.ports(bridge.index).map(|port| port.index).filter(|port| scene.interface(*port).is_some());
    let unknown =
        guests().find(|port| !scene.addresses_of(*port).iter().any(|known| known.is_ipv4() == address.is_ipv4()));
    unknown.or_else(|| guests().next())
}

/// What the host asks of a machine on the device under a macvtap, and nobody answers: that may be the guest, of which no
/// address of this kind is known.
fn guest_beside(scene: &Scene<'_>, flow: &Flow, address: std::net::IpAddr) -> Option<IfIndex> {
    let device =
        flow.places.keys().map(|place| place.device).chain(flow.drops.keys().filter_map(|site| site.device)).next()?;
    let lower = scene.link(device).filter(|link| link.addresses.iter().any(|network| network.contains(address)))?;
    let own = flow.key.source.ip().is_some_and(|source| scene.is_host_address(source));
    if !own || scene.track.get(&flow.key.reverse()).is_some() || !scene.advertisements(address).is_empty() {
        return None;
    }
    let unknown =
        |device: IfIndex| !scene.addresses_of(device).iter().any(|known| known.is_ipv4() == address.is_ipv4());
    let interfaces = scene.host.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device);
    interfaces
        .filter(|device| scene.link(*device).is_some_and(|link| link.lower == Some(lower.index)))
        .find(|device| unknown(*device))
}

fn sender(scene: &Scene<'_>, flow: &Flow, source_mac: Option<MacAddress>) -> Option<IfIndex> {
    if let Some((place, _)) = scene.entry(flow) {
        return Some(place.device);
    }
    if let Some(device) = source_mac.and_then(|mac| scene.guest_by_mac(mac)) {
        return Some(device);
    }
    // Seen at no hook: dropped at the tap before the hook, or after it under a key of its own.
    if flow.places.is_empty() {
        let at_tap = flow.drops.keys().find_map(|site| {
            let function = site.function.as_deref().unwrap_or_default();
            let device = site.device.filter(|device| scene.interface(*device).is_some())?;
            Site::TapReceive.has(dropped::plain(function)).then_some(device)
        });
        return at_tap.or_else(|| scene.guest_by_address(flow.key.source));
    }
    let inside = flow
        .places
        .keys()
        .all(|place| place.direction == Direction::Egress || matches!(scene.role(place.device), Role::Bridge));
    scene.guest_by_address(flow.key.source).filter(|_| inside)
}

/// The key of a later fragment that knows no ports.
fn portless(key: FlowKey) -> FlowKey {
    let zero = |port: Option<u16>| port.map(|_| 0);
    FlowKey { source_port: zero(key.source_port), destination_port: zero(key.destination_port), ..untagged(key) }
}

fn join_variants<'a>(groups: &mut Vec<Group<'a>>, rest: &[&'a Flow], taken: &mut BTreeSet<FlowKey>) {
    let mut by_key: BTreeMap<FlowKey, usize> = BTreeMap::new();
    // The flow of a guest that was seen first gives its name to the others of the same key.
    let mut absorbed = BTreeSet::new();
    let order: Vec<usize> = {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|index| groups.get(*index).map(|group| (group.main.places.is_empty(), group.main.first)));
        order
    };
    for index in order {
        let Some(group) = groups.get(index) else { continue };
        let (main, device) = (group.main, group.device);
        match by_key.get(&untagged(main.key)).copied() {
            Some(first) if groups.get(first).is_some_and(|first| first.device == device) => {
                if let Some(first) = groups.get_mut(first) {
                    first.others.push(main);
                }
                absorbed.insert(main.key);
            }
            Some(_) => {}
            None => {
                by_key.insert(untagged(main.key), index);
            }
        }
    }
    let mut fragments: BTreeMap<FlowKey, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        if group.main.places.values().any(|counters| counters.fragments > 0) && group.main.key.source_port.is_some() {
            fragments.entry(portless(group.main.key)).or_insert(index);
        }
    }
    for flow in rest {
        if let Some(group) = by_key.get(&untagged(flow.key)).and_then(|index| groups.get_mut(*index)) {
            group.others.push(flow);
            taken.insert(flow.key);
        }
    }
    let strays: Vec<(usize, &Flow)> = groups
        .iter()
        .map(|group| group.main)
        .chain(rest.iter().copied())
        .filter(|flow| flow.key.source_port == Some(0) && flow.key.destination_port == Some(0))
        .filter_map(|flow| Some((*fragments.get(&untagged(flow.key))?, flow)))
        .collect();
    for (index, flow) in strays {
        if let Some(group) = groups.get_mut(index)
            && group.main.key != flow.key
        {
            group.others.push(flow);
            taken.insert(flow.key);
            absorbed.insert(flow.key);
        }
    }
    groups.retain(|group| !absorbed.contains(&group.main.key));
}

/// What NAT leaves as it is: protocol, the far end, and (mostly) the near port.
type Anchor = (Protocol, crate::event::Address, Option<u16>, Option<u16>);

fn join_translated<'a>(scene: &Scene<'a>, groups: &mut [Group<'a>], rest: &[&'a Flow], taken: &mut BTreeSet<FlowKey>) {
    let mut outbound: BTreeMap<Anchor, Vec<&Flow>> = BTreeMap::new();
    let mut inbound: BTreeMap<Anchor, Vec<&Flow>> = BTreeMap::new();
    for flow in rest.iter().filter(|flow| !taken.contains(&flow.key)) {
        let key = flow.key;
        let is_host = |address: crate::event::Address| address.ip().is_some_and(|ip| scene.is_host_address(ip));
        if is_host(key.source) || flow.entry().is_none_or(|(place, _)| place.direction == Direction::Egress) {
            let anchor = (key.protocol, key.destination, key.destination_port, key.source_port);
            outbound.entry(anchor).or_default().push(flow);
        }
        if is_host(key.destination) {
            inbound.entry((key.protocol, key.source, key.source_port, key.destination_port)).or_default().push(flow);
            // Port forwarding: the near port may be another.
            inbound.entry((key.protocol, key.source, key.source_port, None)).or_default().push(flow);
        }
    }
    for group in groups.iter_mut().filter(|group| group.translated.is_none()) {
        let key = group.main.key;
        let candidates = match group.direction {
            FlowDirection::FromGuest => {
                // What a bridge forwards is translated only where br_netfilter shows it to the IP rules.
                let routed = scene.entry(group.main).is_none_or(|(_, c)| scene.is_host_mac(c.destination_mac));
                if !routed && !shows_bridged(scene, group) {
                    continue;
                }
                outbound.get(&(key.protocol, key.destination, key.destination_port, key.source_port))
            }
            FlowDirection::ToGuest => {
                inbound.get(&(key.protocol, key.source, key.source_port, key.destination_port)).or_else(|| {
                    key.destination_port.and_then(|_| inbound.get(&(key.protocol, key.source, key.source_port, None)))
                })
            }
            FlowDirection::GuestToGuest | FlowDirection::Host => None,
        };
        let fits = |flow: &&&Flow| {
            !taken.contains(&flow.key)
                && if group.direction == FlowDirection::FromGuest {
                    flow.key.source != key.source && flow.first >= group.main.first
                } else {
                    flow.key.destination != key.destination && flow.first <= group.main.first
                }
        };
        let nearest = candidates
            .and_then(|flows| flows.iter().filter(fits).min_by_key(|flow| flow.first.0.abs_diff(group.main.first.0)));
        if let Some(flow) = nearest {
            group.translated = Some(flow.key);
            group.others.push(flow);
            taken.insert(flow.key);
        }
    }
}

/// A guest's flow that no hook saw and that died behind them came by under another key: the one that the guest sent, whose
/// destination this host translated (DNAT, a redirect). The connection is nowhere to be looked up, for it was never confirmed.
fn join_redirected(groups: &mut Vec<Group<'_>>) {
    let behind_hooks = |flow: &Flow| {
        let at_tap = |function: &str| Site::TapReceive.has(dropped::plain(function));
        let known = flow.drops.keys().all(|site| site.function.as_deref().is_some_and(|function| !at_tap(function)));
        flow.places.is_empty() && !flow.drops.is_empty() && known
    };
    let mut sent: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let key = group.main.key;
        let out = |place: &Place| place.direction == Direction::Egress;
        let open = group.translated.is_none() && group.flows().all(|flow| flow.drops.is_empty());
        if open && !group.main.places.is_empty() && !group.main.places.keys().any(out) {
            sent.entry((group.device, key.protocol, key.source, key.source_port)).or_default().push(index);
        }
    }
    let mut joined = BTreeSet::new();
    for index in 0..groups.len() {
        let Some(group) = groups.get(index) else { continue };
        let (died, key) = (group.main, group.main.key);
        if key.source_port.is_none() || !behind_hooks(died) || !group.others.is_empty() {
            continue;
        }
        let candidates = sent.get(&(group.device, key.protocol, key.source, key.source_port)).into_iter().flatten();
        let fits = |index: &&usize| groups.get(**index).is_some_and(|group| group.translated.is_none());
        let nearest = candidates
            .copied()
            .filter(|index| fits(&index))
            .min_by_key(|index| groups.get(*index).map_or(u64::MAX, |group| group.main.first.0.abs_diff(died.first.0)));
        if let Some(group) = nearest.and_then(|index| groups.get_mut(index)) {
            group.translated = Some(key);
            group.others.push(died);
            joined.insert(key);
        }
    }
    groups.retain(|group| !joined.contains(&group.main.key));
}

/// br_netfilter shows what this flow's bridge forwards to the IP rules, and it is not seen to leave as it came.
fn shows_bridged(scene: &Scene<'_>, group: &Group<'_>) -> bool {
    let v6 = group.main.key.source.ip().is_some_and(|source| source.is_ipv6());
    let all = if v6 { "net.bridge.bridge-nf-call-ip6tables" } else { "net.bridge.bridge-nf-call-iptables" };
    let calls = |state: &BridgeState| if v6 { state.netfilter_ip6 } else { state.netfilter_ip };
    let own = |bridge: &Link| matches!(&bridge.kind, LinkKind::Bridge(state) if calls(state));
    let left = group
        .main
        .places
        .keys()
        .any(|place| place.direction == Direction::Egress && scene.role(place.device) == Role::Nic);
    let bridge = group.device.and_then(|device| scene.bridge_of(device));
    !left && bridge.is_some_and(|bridge| scene.host.sysctl(all) == Some("1") || own(bridge))
}

/// What this host forwards from a guest to its neighbour leaves by the bridge itself; where its source is still the
/// guest's, the neighbour's answers don't come back this way.
fn find_past<'a>(scene: &Scene<'a>, groups: &mut [Group<'a>]) {
    let own = |address: crate::event::Address| address.ip().is_some_and(|address| scene.is_host_address(address));
    let is_guest = |address: crate::event::Address| !own(address) && scene.guest_by_address(address).is_some();
    let on_bridge =
        |place: &Place| place.direction == Direction::Egress && matches!(scene.role(place.device), Role::Bridge);
    let forwarded: BTreeMap<_, &Flow> = scene
        .track
        .flows()
        .filter(|flow| flow.places.keys().any(on_bridge) && is_guest(flow.key.source) && is_guest(flow.key.destination))
        .filter(|flow| scene.track.get(&flow.key.reverse()).is_some())
        .map(|flow| ((flow.key.protocol, flow.key.source, flow.key.source_port), flow))
        .collect();
    for group in groups.iter_mut().filter(|group| group.direction == FlowDirection::FromGuest) {
        let key = group.main.key;
        let stays = !group.main.places.keys().any(|place| place.direction == Direction::Egress);
        let open = group.translated.is_none() && stays && scene.track.get(&key.reverse()).is_none();
        let inner = forwarded.get(&(key.protocol, key.source, key.source_port)).filter(|_| open);
        group.past = inner.filter(|flow| flow.last >= group.main.first).map(|flow| flow.key);
    }
}

/// The answer to a translated flow that never got its guest's address back: dropped before, or not translated.
fn adopt_answers<'a>(scene: &Scene<'a>, groups: &mut Vec<Group<'a>>, rest: &[&'a Flow], taken: &mut BTreeSet<FlowKey>) {
    let wanted: BTreeMap<FlowKey, (FlowKey, Option<IfIndex>)> = groups
        .iter()
        .filter(|group| group.direction == FlowDirection::FromGuest)
        .filter_map(|group| Some((group.translated?.reverse(), (group.main.key.reverse(), group.device))))
        .collect();
    for flow in rest.iter().filter(|flow| !flow.drops.is_empty()) {
        if let Some((inner, device)) = wanted.get(&flow.key)
            && scene.track.get(inner).is_none()
            && taken.insert(flow.key)
        {
            groups.push(Group {
                main: flow,
                others: Vec::new(),
                translated: Some(*inner),
                past: None,
                direction: FlowDirection::ToGuest,
                device: *device,
                peer: None,
                impostor: false,
            });
        }
    }
}
