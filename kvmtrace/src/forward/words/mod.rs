//! A walk in words: one short sentence for each stage, outcome and decision. Printed by `explain` and `check`; every value is
//! matched by name, so that a new one can't be forgotten.

mod entries;
mod stops;

pub use entries::{chain, decision, ipsec_policy, openflow, openflow_match, policy_rule, route, rule};
pub use stops::{doubt, stop, switch_vlans};

use crate::event::host::FdbEntry;
use crate::event::ruleset::RuleReference;
use crate::event::{HostState, IfIndex};
use crate::forward::packet::{Fragment, Network as Layer3, Packet, Transport};
use crate::forward::step::{Arrival, Decision, Doubt, Hook, Outcome, Stage, Step, Stop};
use std::fmt::Write as _;
use std::net::IpAddr;

/// A stage in at most eleven columns.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::DeviceReceive => "receive",
        Stage::BridgeIngress => "bridge in",
        Stage::BridgeForward => "bridge",
        Stage::BridgeEgress => "bridge out",
        Stage::BridgeLocal => "to host",
        Stage::Firewall(hook) => self::hook(hook),
        Stage::Nat => "nat",
        Stage::SourceCheck => "source",
        Stage::Route => "route",
        Stage::IpForward => "forwarding",
        Stage::Neighbour => "neighbour",
        Stage::NeighbourAnswer => "answer",
        Stage::Local => "host",
        Stage::DeviceTransmit => "send",
        Stage::Tunnel => "tunnel",
        Stage::Ipsec => "ipsec",
        Stage::Switch => "switch",
        Stage::Guest => "guest",
    }
}

/// A stage's name in JSON.
pub fn stage_id(stage: Stage) -> &'static str {
    match stage {
        Stage::DeviceReceive => "device-receive",
        Stage::BridgeIngress => "bridge-ingress",
        Stage::BridgeForward => "bridge-forward",
        Stage::BridgeEgress => "bridge-egress",
        Stage::BridgeLocal => "bridge-local",
        Stage::Firewall(Hook::Ingress) => "netfilter-ingress",
        Stage::Firewall(Hook::Prerouting) => "netfilter-prerouting",
        Stage::Firewall(Hook::Input) => "netfilter-input",
        Stage::Firewall(Hook::Forward) => "netfilter-forward",
        Stage::Firewall(Hook::Output) => "netfilter-output",
        Stage::Firewall(Hook::Postrouting) => "netfilter-postrouting",
        Stage::Firewall(Hook::Egress) => "netfilter-egress",
        Stage::Nat => "nat",
        Stage::SourceCheck => "source-check",
        Stage::Route => "route",
        Stage::IpForward => "ip-forward",
        Stage::Neighbour => "neighbour",
        Stage::NeighbourAnswer => "neighbour-answer",
        Stage::Local => "local",
        Stage::DeviceTransmit => "device-transmit",
        Stage::Tunnel => "tunnel",
        Stage::Ipsec => "ipsec",
        Stage::Switch => "switch",
        Stage::Guest => "guest",
    }
}

/// A hook, as nft names it.
pub fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "ingress",
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
        Hook::Egress => "egress",
    }
}

/// The name of a device.
pub fn device(host: &HostState, device: IfIndex) -> String {
    host.link_name(device)
}

/// The guest behind an interface, by name.
pub fn guest(host: &HostState, interface: IfIndex) -> String {
    host.guest_of(interface).map_or_else(|| host.link_name(interface), |guest| guest.name.clone())
}

/// What happens at a step, in a few words. `before` is the packet as it comes to the step.
pub fn step(host: &HostState, step: &Step, before: &Packet) -> String {
    match &step.outcome {
        Outcome::Passes => passes(host, step),
        Outcome::Becomes(after) => becomes(host, step, before, after),
        Outcome::Branches => branches(step),
        Outcome::Arrives(arrival) => arrival_words(host, *arrival, before),
        Outcome::Stops(stop) => stops::stop(host, step.device, stop),
        Outcome::Unknown(doubt) => stops::doubt(host, doubt),
    }
}

fn passes(host: &HostState, step: &Step) -> String {
    let device = step.device.map(|device| self::device(host, device));
    let sender = step.parent.is_none().then_some(step.device).flatten().and_then(|device| host.guest_of(device));
    let has = |wanted: fn(&Decision) -> bool| step.decisions.iter().any(wanted);
    match step.stage {
        Stage::DeviceReceive => match (sender, device) {
            (Some(guest), _) => format!("{} sends the frame", guest.name),
            (None, Some(device)) => format!("{device} receives it"),
            (None, None) => "this host sends it".to_owned(),
        },
        Stage::BridgeIngress => "the port takes it".to_owned(),
        Stage::BridgeForward if has(|decision| matches!(decision, Decision::OwnMac)) => {
            "it is for the bridge itself".to_owned()
        }
        Stage::BridgeForward if has(|decision| matches!(decision, Decision::Flood)) => {
            "its port is not known: flooded".to_owned()
        }
        Stage::BridgeForward => match fdb_entry(step) {
            Some(entry) if Some(entry.device) == step.device => "it is for the bridge's own MAC address".to_owned(),
            Some(entry) => format!("its MAC address is behind {}", self::device(host, entry.device)),
            None => "its port is known".to_owned(),
        },
        Stage::BridgeEgress => "the port may send it".to_owned(),
        Stage::BridgeLocal => "this host's own stack gets it".to_owned(),
        Stage::Firewall(_) if has(|decision| matches!(decision, Decision::Rule(_))) => "accepted".to_owned(),
        Stage::Firewall(_) => "no rule stops it".to_owned(),
        Stage::Nat => "not translated".to_owned(),
        Stage::SourceCheck => "the source address is plausible".to_owned(),
        Stage::Route => route_passes(host, step),
        Stage::IpForward => "this host forwards it".to_owned(),
        Stage::Neighbour => "the next hop's MAC address is known".to_owned(),
        Stage::NeighbourAnswer => "this host owns the address".to_owned(),
        Stage::Local => "it is for this host".to_owned(),
        Stage::DeviceTransmit => match device {
            Some(device) => format!("{device} sends it"),
            None => "sent".to_owned(),
        },
        Stage::Tunnel => "not wrapped".to_owned(),
        Stage::Ipsec => "no policy takes it".to_owned(),
        Stage::Switch => match step.decisions.first() {
            Some(Decision::OpenFlow(_)) => "a rule of Open vSwitch takes it".to_owned(),
            Some(Decision::Setting(text)) if text.starts_with("port ") => format!("Open vSwitch takes it: {text}"),
            _ => "its port is known".to_owned(),
        },
        Stage::Guest => "the guest reads its ring".to_owned(),
    }
}

/// The entry of the forwarding database that decided.
fn fdb_entry(step: &Step) -> Option<&FdbEntry> {
    step.decisions.iter().find_map(|decision| match decision {
        Decision::Fdb(entry) => Some(entry.as_ref()),
        Decision::Rule(_)
        | Decision::Route(_)
        | Decision::PolicyRule(_)
        | Decision::OwnAddress(_)
        | Decision::Flood
        | Decision::Neighbour(_)
        | Decision::Sysctl(..)
        | Decision::Setting(_)
        | Decision::OwnMac
        | Decision::Ipsec(_)
        | Decision::OpenFlow(_) => None,
    })
}

fn route_passes(host: &HostState, step: &Step) -> String {
    for decision in &step.decisions {
        match decision {
            Decision::OwnAddress(network) => return format!("{} is this host's own", network.address),
            Decision::Route(route) => {
                let by = route.device.map(|device| format!(" by {}", host.link_name(device))).unwrap_or_default();
                let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                return format!("leaves{by}{via}");
            }
            Decision::Rule(_)
            | Decision::PolicyRule(_)
            | Decision::Fdb(_)
            | Decision::Flood
            | Decision::Neighbour(_)
            | Decision::Sysctl(..)
            | Decision::Setting(_)
            | Decision::OwnMac
            | Decision::Ipsec(_)
            | Decision::OpenFlow(_) => {}
        }
    }
    "routed".to_owned()
}

fn branches(step: &Step) -> String {
    let flooded = step.decisions.iter().any(|decision| matches!(decision, Decision::Flood));
    match step.stage {
        Stage::BridgeForward | Stage::Switch if flooded => "flooded: a copy to each port".to_owned(),
        Stage::BridgeForward => "a copy to each port that wants it".to_owned(),
        Stage::Tunnel => "a copy to each remote".to_owned(),
        Stage::DeviceReceive
        | Stage::BridgeIngress
        | Stage::BridgeEgress
        | Stage::BridgeLocal
        | Stage::Firewall(_)
        | Stage::Nat
        | Stage::SourceCheck
        | Stage::Route
        | Stage::IpForward
        | Stage::Neighbour
        | Stage::NeighbourAnswer
        | Stage::Local
        | Stage::DeviceTransmit
        | Stage::Ipsec
        | Stage::Switch
        | Stage::Guest => "copies go several ways".to_owned(),
    }
}

/// What changes between two forms of a packet.
fn becomes(host: &HostState, step: &Step, before: &Packet, after: &Packet) -> String {
    let mut changes = Vec::new();
    match step.stage {
        Stage::Tunnel | Stage::Ipsec if ends(before) != ends(after) => {
            let wraps = after.length > before.length;
            changes.push(format!("{}: {}", if wraps { "wrapped" } else { "unwrapped" }, packet(after)));
        }
        Stage::Route => changes.push(route_passes(host, step)),
        Stage::DeviceReceive
        | Stage::BridgeIngress
        | Stage::BridgeForward
        | Stage::BridgeEgress
        | Stage::BridgeLocal
        | Stage::Firewall(_)
        | Stage::Nat
        | Stage::SourceCheck
        | Stage::IpForward
        | Stage::Neighbour
        | Stage::NeighbourAnswer
        | Stage::Local
        | Stage::DeviceTransmit
        | Stage::Tunnel
        | Stage::Ipsec
        | Stage::Switch
        | Stage::Guest => {}
    }
    if !matches!(step.stage, Stage::Tunnel | Stage::Ipsec)
        && let (Some(old), Some(new)) = (ends(before), ends(after))
    {
        changes.extend((old.0 != new.0).then(|| format!("source becomes {}", end(new.0))));
        changes.extend((old.1 != new.1).then(|| format!("destination becomes {}", end(new.1))));
    }
    if before.tags != after.tags {
        changes.push(match after.tags.first() {
            None => "the VLAN tag is taken off".to_owned(),
            Some(tag) if after.tags.len() > before.tags.len() => format!("tagged with VLAN {tag}"),
            Some(tag) if after.tags.len() < before.tags.len() => format!("a VLAN tag is taken off, VLAN {tag} stays"),
            Some(tag) => format!("the VLAN tag becomes {tag}"),
        });
    }
    if step.stage == Stage::Neighbour {
        changes.push(match after.destination_mac {
            Some(mac) => format!("the next hop is {mac}"),
            None if after.source_mac.is_some() => "the next hop's MAC address has to be asked for".to_owned(),
            None => "the device needs no MAC address".to_owned(),
        });
    }
    if before.mark != after.mark
        && let Some(mark) = after.mark
    {
        changes.push(format!("mark becomes {mark:#x}"));
    }
    if changes.is_empty() { passes(host, step) } else { changes.join(", ") }
}

type End = (IpAddr, Option<u16>);

/// Source and destination of an IP packet.
pub fn ends(packet: &Packet) -> Option<(End, End)> {
    let ip = packet.ip()?;
    let (from, to) = ip.transport.ports().unwrap_or((None, None));
    Some(((ip.source, from), (ip.destination, to)))
}

/// `10.0.0.1:80`, `[fd00::1]:80`, `10.0.0.1`
pub fn end((address, port): End) -> String {
    match (address, port) {
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        (address, Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_string(),
    }
}

/// A packet in one line: `tcp 10.0.0.11:40000 → 198.51.100.7:443, 60 bytes`.
pub fn packet(packet: &Packet) -> String {
    let mut text = match &packet.network {
        Layer3::Arp(arp) if arp.operation == 1 => format!("arp who-has {} from {}", arp.target, arp.sender),
        Layer3::Arp(arp) => format!("arp reply {} to {}", arp.sender, arp.target),
        Layer3::Other(ether_type) => format!("EtherType {ether_type:#06x}"),
        Layer3::Ip(ip) => {
            let (from, to) = ip.transport.ports().unwrap_or((None, None));
            let ends =
                || format!("{} {} → {}", protocol(ip.transport), end((ip.source, from)), end((ip.destination, to)));
            let solicits = |target| format!("nd who-has {target} from {}", ip.source);
            solicited(ip.transport).map_or_else(ends, solicits)
        }
    };
    if let Layer3::Ip(ip) = &packet.network
        && solicited(ip.transport).is_none()
    {
        let _infallible = write!(text, ", {} bytes", packet.length);
        if ip.dont_fragment && ip.destination.is_ipv4() && packet.length > 576 {
            text.push_str(", DF");
        }
        text.push_str(match ip.fragment {
            Fragment::Whole => "",
            Fragment::First => ", first fragment",
            Fragment::Later => ", later fragment",
        });
    }
    for tag in &packet.tags {
        let _infallible = write!(text, ", VLAN {tag}");
    }
    text
}

/// The target of a neighbour solicitation.
fn solicited(transport: Transport) -> Option<IpAddr> {
    match transport {
        Transport::Icmpv6 { kind: 135, target, .. } => target,
        Transport::Icmpv6 { .. }
        | Transport::Icmp { .. }
        | Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Other(_) => None,
    }
}

/// The protocol above IP, by name.
pub fn protocol(transport: Transport) -> String {
    match transport {
        Transport::Tcp { .. } => "tcp".to_owned(),
        Transport::Udp { source: Some(68), .. } => "dhcp".to_owned(),
        Transport::Udp { .. } => "udp".to_owned(),
        Transport::Sctp { .. } => "sctp".to_owned(),
        Transport::Icmp { kind: 8, .. } => "icmp echo request".to_owned(),
        Transport::Icmp { kind: 0, .. } => "icmp echo reply".to_owned(),
        Transport::Icmp { kind, code, .. } => format!("icmp type {kind} code {code}"),
        Transport::Icmpv6 { kind: 128, .. } => "icmpv6 echo request".to_owned(),
        Transport::Icmpv6 { kind: 129, .. } => "icmpv6 echo reply".to_owned(),
        Transport::Icmpv6 { kind: 135, .. } => "neighbour solicitation".to_owned(),
        Transport::Icmpv6 { kind: 136, .. } => "neighbour advertisement".to_owned(),
        Transport::Icmpv6 { kind, code, .. } => format!("icmpv6 type {kind} code {code}"),
        Transport::Other(number) => format!("IP protocol {number}"),
    }
}

fn arrival_words(host: &HostState, arrival: Arrival, packet: &Packet) -> String {
    match arrival {
        Arrival::Guest(interface) => format!("{} gets it", guest(host, interface)),
        Arrival::Uplink(device) => format!("leaves this host by {}", self::device(host, device)),
        Arrival::Namespace(device) => {
            format!("leaves by {} (a veth to another namespace)", self::device(host, device))
        }
        Arrival::Host => "this host takes it".to_owned(),
        Arrival::Answered => match &packet.network {
            Layer3::Arp(arp) => format!("this host answers: it has {}", arp.target),
            Layer3::Ip(_) | Layer3::Other(_) => "this host answers".to_owned(),
        },
        Arrival::Ignored => "its receiver passes over it".to_owned(),
    }
}

/// The rule behind a stop or a doubt, where it is one.
pub fn rule_of(outcome: &Outcome) -> Option<RuleReference> {
    match outcome {
        Outcome::Stops(Stop::Rule(rule) | Stop::Rejected(rule) | Stop::Limited(rule))
        | Outcome::Unknown(Doubt::Rule(rule, _) | Doubt::Queue(rule, _)) => Some(*rule),
        Outcome::Stops(_)
        | Outcome::Unknown(_)
        | Outcome::Passes
        | Outcome::Becomes(_)
        | Outcome::Branches
        | Outcome::Arrives(_) => None,
    }
}

/// The functions of a step that handle a packet of this family: names with a 6 in them are IPv6's.
pub fn functions(step: &Step, v6: bool) -> Vec<&'static str> {
    let of_v6 = |name: &&&str| name.contains('6');
    let any = step.functions.iter().any(|name| name.contains('6'));
    let wanted = |name: &&&str| !any || of_v6(name) == v6;
    step.functions.iter().filter(wanted).copied().collect()
}
