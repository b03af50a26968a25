//! Why a packet stops, and why its way on is not known.

use super::entries::{chain_of, openflow, policy_rule};
use crate::event::switch::{SwitchPlace, SwitchVlans};
use crate::event::{HostState, IfIndex};
use crate::forward::step::{Doubt, Stop, SwitchRule};

/// Why a packet stops, as a clause: `eth0 has no carrier`.
pub fn stop(host: &HostState, at: Option<IfIndex>, stop: &Stop) -> String {
    let here = at.map_or_else(|| "this host".to_owned(), |device| host.link_name(device));
    match stop {
        Stop::LinkDown => format!("{here} is administratively down"),
        Stop::NoCarrier => format!("{here} has no carrier"),
        Stop::GuestGone => format!("no process reads {here}: the guest behind it has ended"),
        Stop::XdpDrop => format!("an XDP program on {here} drops it"),
        Stop::BridgeDown => format!("the bridge {here} is down, so its ports forward nothing"),
        Stop::PortBlocked => format!("spanning tree keeps the port {here} from forwarding"),
        Stop::PortInoperative => format!("{here} is not operational (dormant), so its port is disabled"),
        Stop::Detached => format!("{here} is in no bridge and has no address: nobody takes its frames"),
        Stop::VlanFiltered(Some(vlan)) => format!("{here} is no member of VLAN {vlan}"),
        Stop::VlanFiltered(None) => format!("{here} has no VLAN for untagged frames (no PVID)"),
        Stop::Isolated => format!("both ports are isolated, so {here} gets nothing from the other"),
        Stop::Locked => format!("the port {here} is locked, and the source MAC address has no entry behind it"),
        Stop::FloodDisabled => "its port is not known, and no port takes floods".to_owned(),
        Stop::NoPort => format!("{here} has no port left to send it to"),
        Stop::Misdirected(mac) => format!("the forwarding database has {mac} behind another port than its owner's"),
        Stop::MulticastPruned => "no port has members of the group, and multicast floods are off".to_owned(),
        Stop::LinkLocalGroup => "bridges keep frames to this reserved group (802.1D)".to_owned(),
        Stop::InvalidSourceMac => "its source MAC address is a group's or zero".to_owned(),
        Stop::Hairpin => format!("it would go back by {here}, the port that it came from (hairpin off)"),
        Stop::OtherHost => format!("{here} gets it, but it is for another MAC address"),
        Stop::UnhandledProtocol => "this host has no handler for its protocol".to_owned(),
        Stop::BridgeMtu(mtu) => {
            format!("it is longer than the MTU of {here} ({mtu}); a bridge drops it without a word")
        }
        Stop::RouteMtu(mtu) => {
            format!("it is longer than the MTU of its way ({mtu}); its sender gets an ICMP error")
        }
        Stop::Rule(rule) => match rule.rule {
            Some(_) => format!("a rule of {} drops it", chain_of(host, *rule)),
            None => format!("the policy of {} drops it", chain_of(host, *rule)),
        },
        Stop::Rejected(rule) => format!("a rule of {} rejects it; its sender gets an error", chain_of(host, *rule)),
        Stop::Limited(_) => "a rule's limit may be exceeded".to_owned(),
        Stop::ForwardingDisabled => "this host does not forward here".to_owned(),
        Stop::NoRoute => "this host has no route to its destination".to_owned(),
        Stop::Blackhole => "a blackhole route takes it".to_owned(),
        Stop::Unreachable => "an unreachable route rejects it; its sender gets an ICMP error".to_owned(),
        Stop::Prohibited => "a prohibit route rejects it; its sender gets an ICMP error".to_owned(),
        Stop::ReversePath(Some(device)) => {
            format!("rp_filter: the way back to its source leads by {}", host.link_name(*device))
        }
        Stop::ReversePath(None) => "rp_filter: no way leads back to its source".to_owned(),
        Stop::MartianSource => "its source address can't come from here (martian)".to_owned(),
        Stop::MartianDestination => "its destination is a loopback address (martian)".to_owned(),
        Stop::TimeToLive => "its TTL is used up; its sender gets an ICMP error".to_owned(),
        Stop::NeighbourFailed(address) => format!("{address} does not answer ARP or ND"),
        Stop::NotAnswered => "this host does not answer for that address".to_owned(),
        Stop::Ipv6Disabled => format!("IPv6 is disabled on {here}"),
        Stop::PortClosed => "no socket of this host listens on that port".to_owned(),
        Stop::IcmpIgnored => "this host ignores echo requests".to_owned(),
        Stop::NoServer => "no server of its IPVS service takes anything".to_owned(),
        Stop::NoRemote => format!("the tunnel {here} has no remote for it"),
        Stop::NoPeer => format!("{here} has no peer for its destination"),
        Stop::UnknownVni(vni) => format!("no tunnel here takes VNI {vni}"),
        Stop::IpsecPolicy => "an IPsec policy blocks it, or wants a state that is not there".to_owned(),
        Stop::MacvtapMode => format!("the macvtap mode of {here} lets nothing pass that way"),
        Stop::NotReflected => {
            format!("it leaves by {here}, the device that it is for: no switch sends it back (macvtap to its own host)")
        }
        Stop::MulticastFiltered => format!("the multicast filter of {here} does not have the group"),
        Stop::InactiveLeg => format!("{here} is not the bond's active leg"),
        Stop::SwitchDrop(rule) => switch_drop(host, *rule),
        Stop::SwitchVlan(place, vlan) => switch_vlan(host, at, *place, *vlan),
        Stop::SwitchPortDown => format!("{here}, this host's own port of Open vSwitch, is down"),
        Stop::Loop => format!("it comes to {here} again: it goes in a circle"),
    }
}

fn switch_drop(host: &HostState, rule: SwitchRule) -> String {
    let bridge = host.switch.bridges.get(rule.bridge);
    let name = bridge.map_or("Open vSwitch", |bridge| bridge.name.as_str());
    let flow = rule.rule.and_then(|rule| bridge?.flows.as_ref()?.get(rule));
    match flow {
        Some(flow) => format!("the OpenFlow rule \"{}\" of {name} drops it", openflow(flow)),
        None => format!("no OpenFlow rule of {name} takes it"),
    }
}

fn switch_vlan(host: &HostState, at: Option<IfIndex>, place: SwitchPlace, vlan: u16) -> String {
    let Some((bridge, port, _)) = host.switch.at(place) else { return "its VLAN ends there".to_owned() };
    let (bridge, name) = (&bridge.name, &port.name);
    let vlans = switch_vlans(&port.vlans);
    let came_by = at.is_some_and(|device| host.link_name(device) == *name);
    match (vlan, &port.vlans) {
        (0, _) if port.vlans.takes(0).is_none() => {
            format!("the port {name} of {bridge} ({vlans}) takes no frames without a tag")
        }
        (tag, vlans_of) if came_by && vlans_of.takes(tag).is_none() => {
            format!("the port {name} of {bridge} ({vlans}) takes no frames with the tag {tag}")
        }
        (0, _) => format!("the port {name} of {bridge} ({vlans}) does not carry frames without a VLAN"),
        (vlan, own) if own.carries(vlan) => format!("no other port of {bridge} carries VLAN {vlan}, that of {name}"),
        (vlan, _) => format!("the port {name} of {bridge} ({vlans}) does not carry VLAN {vlan}"),
    }
}

/// What a port does with VLANs, as `ovs-vsctl` lists it.
pub fn switch_vlans(vlans: &SwitchVlans) -> String {
    let list = |vlans: &[u16]| vlans.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match vlans {
        SwitchVlans::Trunk(vlans) if vlans.is_empty() => "a trunk of all VLANs".to_owned(),
        SwitchVlans::Trunk(vlans) => format!("trunks={}", list(vlans)),
        SwitchVlans::Access(tag) => format!("tag={tag}"),
        SwitchVlans::Native(tag, _, untagged) => {
            format!("tag={tag} vlan_mode=native-{}", if *untagged { "untagged" } else { "tagged" })
        }
        SwitchVlans::Wrapped(tag) => format!("tag={tag} vlan_mode=dot1q-tunnel"),
    }
}

/// Why the way on is not known, as a clause.
pub fn doubt(host: &HostState, doubt: &Doubt) -> String {
    match doubt {
        Doubt::Rule(_, why) => format!("a rule may decide here: {why}"),
        Doubt::Queue(_, queue) => format!("a rule hands it to queue {queue}: a process of user space decides"),
        Doubt::Program(device) => format!("a BPF program on {} may decide here", host.link_name(*device)),
        Doubt::Missing(table) => format!("{table} could not be read"),
        Doubt::Daemon(name) => format!("{name} decides here"),
        Doubt::PolicyRule(rule) => {
            format!("\"ip rule {}\" asks for more than is known", policy_rule(rule, str::to_owned))
        }
        Doubt::Packet(fact) => fact.clone(),
        Doubt::Bound => "the way is longer than what is followed".to_owned(),
    }
}
