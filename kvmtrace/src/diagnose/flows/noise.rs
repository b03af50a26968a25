//! Drops that are no faults: the kernel frees packets for many good reasons.

use super::case::Case;
use super::frame;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::firewall::stage::stage;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::event::host::{BridgePort, Link, LinkKind, PortState};
use crate::event::{Direction, MacAddress, Place, Protocol};
use std::net::IpAddr;

/// Reasons by which a TCP end sorts out what it has had or never asked for (late, repeated, overlapping segments).
/// The names grow with each kernel, so all of `TCP_` are its own business but these.
const TCP_FAULTS: &[&str] =
    &["TCP_CSUM", "TCP_LISTEN_OVERFLOW", "TCP_REQQFULLDROP", "TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE"];

/// The drop is no fault of the flow.
pub fn is_noise(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    if drop.within(Site::Housekeeping) && !drop.because(&["ICMP_CSUM"])
        || drop.because(&["QUEUE_PURGE", "SOCKET_CLOSE", "CONSUMED", "SKB_CONSUMED", "DUP_FRAG"])
    {
        return true;
    }
    if drop.reason().starts_with("TCP_") && !drop.because(TCP_FAULTS) {
        return true;
    }
    if drop.because(&["NO_SOCKET"]) && is_late_tcp(case) {
        return true;
    }
    // A repeated request that meets its half-open connection, or one that is just being closed.
    if drop.because(&["NOT_SPECIFIED"]) && drop.within(Site::TcpReceive) && !case.answers.is_empty() {
        return true;
    }
    if drop.because(&["IPV6DISABLED", "INVALID_PROTO"]) || drop.because(&["OTHERHOST"]) && !is_detached_tap(case, drop)
    {
        return true;
    }
    let leg = drop.device().and_then(|device| Some((device, case.scene.host.bond_of(device)?.1)));
    if drop.because(&["UNHANDLED_PROTO"]) {
        return !died_at_leg(case, drop) && (leg.is_some() || !is_link_local(case) && !is_for_this_host(case));
    }
    if drop.is_unspecified()
        && drop.within(Site::DeviceReceive)
        && leg.is_some_and(|(leg, bond)| bond.is_deaf(leg, case.is_multicast()))
    {
        return !died_at_leg(case, drop);
    }
    if is_bystander(case, drop)
        || is_own_copy(case, drop)
        || is_switch_copy(case, drop)
        || is_beyond(case, drop)
        || is_redirect_for_translated(case, drop)
        || is_looped_back(case, drop)
    {
        return true;
    }
    case.is_multicast()
        && drop.within(Site::NotForUs)
        && !matches!(case.key().protocol, Protocol::Arp { .. })
        && !pruned(case, drop)
        && !is_refused(case, drop)
}

/// The frame came from beyond by a leg of a bond that takes none, and no copy of it came by a leg that does
/// (`bond_should_deliver_exact_match`; before 5.18 the drop has no reason).
pub fn died_at_leg(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let Some(leg) = drop.device() else { return false };
    let Some((bond, state)) = case.scene.host.bond_of(leg) else { return false };
    let Some((entry, _)) = case.entry() else { return false };
    let came = entry.direction == Direction::Ingress && case.scene.host.bond_of(entry.device).is_some();
    let at = Place { device: bond, direction: Direction::Ingress };
    let taken = case.group.flows().filter_map(|flow| flow.places.get(&at)).map(|counters| counters.packets).max();
    (drop.because(&["UNHANDLED_PROTO"]) || drop.is_unspecified() && drop.within(Site::DeviceReceive))
        && came
        && !is_link_local(case)
        && taken.unwrap_or(0) < drop.totals.packets
        && state.is_deaf(leg, case.is_multicast())
}

/// The port takes no frame of its guest in (`br_handle_frame_finish`): that one died there for good.
fn is_refused(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let port = drop.device().and_then(|device| case.scene.link(device)).and_then(|link| link.port.as_ref());
    let takes_in = |port: &BridgePort| port.state == PortState::Forwarding && !port.locked;
    drop.within(Site::BridgeIngress) && port.is_some_and(|port| !takes_in(port))
}

/// A group with no member behind the bridge may be a fault (snooping without a report).
fn pruned(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    drop.within(Site::BridgeNoMember) && frame::is_group_traffic(case)
}

/// Segments of a connection that was once set up, or the resets that end it.
fn is_late_tcp(case: &Case<'_>) -> bool {
    if case.key().protocol != Protocol::Tcp {
        return false;
    }
    let here = || case.group.flows().flat_map(|flow| flow.places.values());
    let answers = || case.answers.iter().flat_map(|flow| flow.places.values());
    let asked = here().any(|counters| counters.tcp_syn > 0);
    let accepted = answers().any(|counters| counters.tcp_syn_ack > 0) || here().any(|c| c.tcp_syn_ack > 0);
    !asked || accepted
}

/// The tap is a port of no bridge and bears no address: nothing that comes in can go anywhere.
fn is_detached_tap(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let Some(link) = drop.device().and_then(|device| case.scene.link(device)) else { return false };
    let own_tap = Some(link.index) == case.group.device && case.is_from_guest();
    let to_local = case.scene.role(link.index) == Role::Bridge
        && case.destination_mac().is_some_and(|mac| {
            let guest = case.scene.guest_by_mac(mac).is_some();
            guest && case.scene.host.forwarding.iter().any(|entry| entry.mac == mac && entry.permanent)
        });
    own_tap && link.master.is_none() || to_local || is_detached_uplink(case, link)
}

/// A NIC outside any bridge gets what is for a guest whose bridge has no uplink.
fn is_detached_uplink(case: &Case<'_>, link: &Link) -> bool {
    let Some(bridge) = case.bridge() else { return false };
    let addressed = case.destination_mac().is_some_and(|mac| case.scene.guest_by_mac(mac) == case.device());
    !case.is_from_guest()
        && addressed
        && link.master.is_none()
        && case.scene.role(link.index) == Role::Nic
        && case.scene.host.uplinks(bridge.index).next().is_none()
}

fn is_link_local(case: &Case<'_>) -> bool {
    case.destination_mac().is_some_and(|mac| mac.reserved_group().is_some())
}

/// A guest's frame to this host itself: it can go nowhere else.
fn is_for_this_host(case: &Case<'_>) -> bool {
    case.is_from_guest() && case.destination_mac().is_some_and(|mac| case.scene.is_host_mac(mac))
}

/// This host would tell a sender of a shorter way, and NAT keeps that from it: the connection is translated on the way by
/// this host only (`nf_nat_icmp_reply_translation`).
fn is_redirect_for_translated(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let redirect = matches!(case.key().protocol, Protocol::Icmp { kind: 5, .. } | Protocol::Icmpv6 { kind: 137, .. });
    let own = case.key().source.ip().is_some_and(|source| case.scene.is_host_address(source));
    redirect && own && drop.because(&["NETFILTER_DROP", "NOT_SPECIFIED"]) && drop.within(Site::HookSlow)
}

/// The other end of a veth pair, in another namespace, refuses what it is handed though it is up: its MTU is smaller, and
/// this host can't see that.
fn is_beyond(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let link = drop.device().and_then(|device| case.scene.link(device));
    drop.within(Site::FarEnd)
        && drop.is_unspecified()
        && link.is_some_and(|link| link.kind == LinkKind::Veth && link.peer.is_none() && link.up && link.carrier)
}

/// The copy of a flooded frame that was for the host's own stack, on a bridge that is itself in another VLAN than the frame.
/// Its receiver is behind a port, or behind none that carries the VLAN, which drops nothing (`br_allowed_egress`).
fn is_own_copy(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let scene = case.scene;
    let for_host = asked_host(case).is_some() || case.destination_mac().is_some_and(|mac| scene.is_host_mac(mac));
    if for_host || !drop.within(Site::BridgeOwnCopy) || !(drop.is_unspecified() || drop.because(&["VLAN_FILTER"])) {
        return false;
    }
    let bridge_of = |device| scene.bridge_of(device).or_else(|| scene.link(device)).map(|bridge| bridge.index);
    let Some(bridge) = drop.device().and_then(bridge_of) else { return false };
    let mut places = case.group.flows().flat_map(|flow| flow.places.keys());
    let left = places.any(|place| {
        place.direction == Direction::Egress && scene.link(place.device).is_some_and(|port| port.master == Some(bridge))
    });
    left || case.destination_mac().is_some_and(MacAddress::is_multicast)
}

/// A copy that Open vSwitch flooded to a port that is down (`do_output`), as its own port mostly is that nobody uses: the frame is for
/// somebody else.
fn is_switch_copy(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    drop.because(&["DEV_READY"]) && drop.within(Site::Switch) && case.is_multicast() && asked_host(case).is_none()
}

/// The address of this host's that a frame is for, or asks for.
fn asked_host(case: &Case<'_>) -> Option<IpAddr> {
    case.group.main.target.or(case.key().destination.ip()).filter(|asked| case.scene.is_host_address(*asked))
}

/// What this host sends to a group comes back to its own stack (`ip_mc_output`, `ip6_finish_output2`: `dev_loopback_xmit`), for
/// programs of its own that listen. Where the firewall keeps it from them, the receivers on the wire have it all the same.
fn is_looped_back(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let own = case.key().source.ip().is_some_and(|source| case.scene.is_host_address(source));
    let places = || case.group.flows().flat_map(|flow| flow.places.keys());
    let from_outside = |place: &Place| {
        place.direction == Direction::Ingress
            && matches!(case.scene.role(place.device), Role::Tap | Role::Macvtap | Role::Nic | Role::Tunnel)
    };
    let sent = places().any(|place| place.direction == Direction::Egress) && !places().any(from_outside);
    let into_host = || stage(drop, &drop.key()).is_some_and(|stage| matches!(stage.hook, "input" | "prerouting"));
    case.is_multicast() && own && sent && into_host()
}

/// A copy that a bridge flooded to a guest that the packet is not for.
fn is_bystander(case: &Case<'_>, drop: &Dropped<'_>) -> bool {
    let Some(device) = drop.device() else { return false };
    let other_tap = matches!(case.scene.role(device), Role::Tap | Role::Macvtap)
        && Some(device) != case.group.device
        && Some(device) != case.group.peer;
    other_tap && drop.within(Site::FloodedCopy)
}
