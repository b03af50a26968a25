//! The fix of a stop, where one command is plainly it: the narrowest that lets this packet through. Where judging needs more than
//! one packet's walk, there is none.

use crate::diagnose::facts::cause_of_stop::cause_of_stop;
use crate::diagnose::facts::firewall::stage;
use crate::diagnose::facts::firewall::suspects::Suspect;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::{Conversation, Port, Service};
use crate::diagnose::fix::{bond, device, netfilter, persist, port, route, switch, sysctl};
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::host::{BridgeState, Link, LinkKind};
use crate::event::names::{RouteKind, RuleAction};
use crate::event::ruleset::RuleReference;
use crate::forward::effect::Effect;
use crate::forward::packet::{Network, Packet, Transport};
use crate::forward::step::{Decision, Stage, Step, Stop};
use crate::forward::words;
use std::net::IpAddr;

/// Commands that let the packet past a stop.
pub(in crate::diagnose) fn fixes_of_stop(
    scene: &Scene<'_>,
    step: &Step,
    stop: &Stop,
    packet: &Packet,
    bridged: bool,
) -> Vec<Fix> {
    let mut fixes = raw(scene, step, stop, packet, bridged);
    for fix in &mut fixes {
        persist::complete(scene.host, fix);
    }
    fixes
}

fn raw(scene: &Scene<'_>, step: &Step, stop: &Stop, packet: &Packet, bridged: bool) -> Vec<Fix> {
    let host = scene.host;
    let link = step.device.and_then(|device| host.link(device));
    let on = |fix: &dyn Fn(&Link) -> Option<Fix>| link.and_then(fix).into_iter().collect::<Vec<_>>();
    let with_bridge = |fix: &dyn Fn(&Link, &Link, &BridgeState) -> Option<Fix>| {
        let bridge = link.and_then(|link| if link.master.is_some() { host.link(link.master?) } else { Some(link) });
        match (link, bridge.map(|bridge| (bridge, &bridge.kind))) {
            (Some(link), Some((bridge, LinkKind::Bridge(state)))) => fix(link, bridge, state).into_iter().collect(),
            (_, _) => Vec::new(),
        }
    };
    match stop {
        Stop::LinkDown => on(&|link| Some(device::up(host, scene.track.first_host(), link))),
        Stop::BridgeDown => with_bridge(&|_, bridge, _| Some(device::up(host, scene.track.first_host(), bridge))),
        Stop::NoCarrier => {
            let dead = link.map(|link| scene.dead_below(link));
            let leave = dead.map(|dead| bond::leave(scene, dead)).unwrap_or_default();
            leave.into_iter().chain(dead.map(device::no_carrier_advice)).collect()
        }
        Stop::GuestGone => on(&|link| {
            Some(Fix::advice(format!("Start the guest that belongs to {}, or delete the device.", link.name)))
        }),
        Stop::PortBlocked => with_bridge(&|link, bridge, _| Some(port::let_forward(host, link, bridge))),
        Stop::PortInoperative => on(&|link| {
            let command = |state: &str| format!("ip link set dev {} state {state}", quote(&link.name));
            Some(Fix::run(command("up"), command("dormant"), format!("Declares {} operational.", link.name)))
        }),
        Stop::Detached => link.map(|link| port::attach(scene, link)).unwrap_or_default(),
        Stop::VlanFiltered(vlan) => with_bridge(&|link, bridge, state| vlan_fix(link, bridge, state, *vlan)),
        Stop::Isolated => on(&|link| {
            Some(device::port_flag(
                link,
                "isolated",
                false,
                format!("Lets {} talk to the other isolated ports.", link.name),
            ))
        }),
        Stop::Locked => on(&|link| locked_fix(link, packet)),
        Stop::FloodDisabled => on(&|link| {
            Some(device::port_flag(link, "flood", true, format!("Gives {} frames whose port is not known.", link.name)))
        }),
        Stop::BridgeMtu(_) => on(&|link| {
            Some(device::mtu(
                link,
                packet.length,
                format!("Lets packets of {} bytes pass {}.", packet.length, link.name),
            ))
        }),
        Stop::Rule(rule) | Stop::Rejected(rule) => rule_fixes(scene, step, stop, *rule, packet, bridged),
        Stop::ForwardingDisabled => {
            sysctl_fix(scene, step, "1", "Lets this host forward packets between its networks.")
        }
        Stop::ReversePath(_) => {
            sysctl_fix(scene, step, "2", "Accepts sources that any route leads back to (loose mode).")
        }
        Stop::IcmpIgnored => sysctl_fix(scene, step, "0", "Lets this host answer echo requests."),
        Stop::Ipv6Disabled => ipv6_fixes(scene, step, link),
        Stop::Blackhole | Stop::Unreachable | Stop::Prohibited => routing_fix(step),
        Stop::IpsecPolicy => ipsec_fix(step),
        Stop::SwitchDrop(rule) => switch::past_rule(scene, *rule, step.device, packet),
        Stop::SwitchVlan(place, vlan) => switch::vlan(scene, *place, *vlan, packet),
        Stop::SwitchPortDown => on(&|link| Some(device::up(host, scene.track.first_host(), link))),
        Stop::InactiveLeg => link.map(|link| bond::hear(scene, link)).unwrap_or_default(),
        Stop::NoServer => vec![no_server()],
        Stop::NoPeer => on(&|link| Some(no_peer(link))),
        Stop::NoRoute => {
            let to = packet.ip().map(|ip| ip.destination.to_string()).unwrap_or_default();
            vec![Fix::advice(format!(
                "Set a route to {to}, or a default route, on this host: ip route add … via GATEWAY."
            ))]
        }
        Stop::NeighbourFailed(address) => {
            vec![Fix::advice(format!("Check that {address} is up, on this network, and has this address."))]
        }
        Stop::RouteMtu(mtu) => vec![Fix::advice(format!(
            "The sender is told to send at most {mtu} bytes; a sender that does not obey does not get these messages, or ignores them."
        ))],
        Stop::XdpDrop
        | Stop::NoPort
        | Stop::Misdirected(_)
        | Stop::MulticastPruned
        | Stop::LinkLocalGroup
        | Stop::InvalidSourceMac
        | Stop::Hairpin
        | Stop::OtherHost
        | Stop::UnhandledProtocol
        | Stop::Limited(_)
        | Stop::MartianSource
        | Stop::MartianDestination
        | Stop::TimeToLive
        | Stop::NotAnswered
        | Stop::PortClosed
        | Stop::NoRemote
        | Stop::UnknownVni(_)
        | Stop::MacvtapMode
        | Stop::NotReflected
        | Stop::MulticastFiltered
        | Stop::Loop => Vec::new(),
    }
}

fn no_server() -> Fix {
    Fix::advice("Add a server to the service, or give one a weight above 0: ipvsadm -e …; ipvsadm -Ln lists them.")
}

fn no_peer(link: &Link) -> Fix {
    Fix::advice(format!(
        "Add the destination to the allowed addresses of the peer that has it: wg set {} peer KEY allowed-ips …; wg show {0} lists them. A peer without an endpoint waits to be called.",
        link.name
    ))
}

/// A member of the VLAN, or with the VLAN for untagged frames that the bridge gives to new ports.
fn vlan_fix(link: &Link, bridge: &Link, state: &BridgeState, vlan: Option<u16>) -> Option<Fix> {
    let name = quote(&link.name);
    let own = if link.index == bridge.index { " self" } else { "" };
    let (vlan, rest) = match vlan {
        Some(vlan) => (vlan, ""),
        None => (Some(state.default_pvid).filter(|vlan| *vlan != 0)?, " pvid untagged"),
    };
    let fix = Fix::run(
        format!("bridge vlan add dev {name} vid {vlan}{rest}{own}"),
        format!("bridge vlan del dev {name} vid {vlan}{own}"),
        format!("Makes {} a member of VLAN {vlan}.", link.name),
    );
    Some(fix.risk("All frames of this VLAN pass the port then."))
}

/// A static entry for the one address; the port stays locked for all others.
fn locked_fix(link: &Link, packet: &Packet) -> Option<Fix> {
    let (name, mac) = (quote(&link.name), packet.source_mac?);
    let vlan = packet.tags.first().map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let fix = Fix::run(
        format!("bridge fdb replace {mac} dev {name} master static{vlan}"),
        format!("bridge fdb del {mac} dev {name} master{vlan}"),
        format!("Lets frames from {mac} pass the locked port {}.", link.name),
    );
    Some(fix.risk("Only if the address may be behind this port: a locked port waits for authentication."))
}

fn sysctl_fix(scene: &Scene<'_>, step: &Step, value: &str, why: &str) -> Vec<Fix> {
    let name = step.decisions.iter().find_map(|decision| match decision {
        Decision::Sysctl(name, _) => Some(name),
        Decision::Rule(_)
        | Decision::Route(_)
        | Decision::PolicyRule(_)
        | Decision::OwnAddress(_)
        | Decision::Fdb(_)
        | Decision::Flood
        | Decision::Neighbour(_)
        | Decision::Setting(_)
        | Decision::OwnMac
        | Decision::Ipsec(_)
        | Decision::OpenFlow(_) => None,
    });
    name.map(|name| sysctl::set(scene.host, name, value, why)).into_iter().collect()
}

/// With IPv6 the kernel took the device's addresses and routes away (`addrconf_ifdown`); switched on, it makes a link-local
/// address anew and no other.
fn ipv6_fixes(scene: &Scene<'_>, step: &Step, link: Option<&Link>) -> Vec<Fix> {
    let fixes = sysctl_fix(scene, step, "0", "Switches IPv6 on for this device.");
    let has_address = |link: &Link| {
        link.addresses.iter().any(|network| matches!(network.address, IpAddr::V6(own) if !own.is_unicast_link_local()))
    };
    let Some(bare) = link.filter(|link| !has_address(link)) else { return fixes };
    let first = Fix::advice(format!(
        "Switch IPv6 on for {} where its network is configured, and set that up anew (netplan apply, ifup, virsh net-start): its addresses and routes went with IPv6, and the command alone brings none of them back.",
        bare.name
    ));
    let why = " Give the device its address again after it.";
    let fixes = fixes.into_iter().map(|fix| Fix { why: format!("{}{why}", fix.why), effects: Vec::new(), ..fix });
    std::iter::once(first).chain(fixes).collect()
}

/// Without the policy that blocks; where it wants a state, its daemon has to make one.
fn ipsec_fix(step: &Step) -> Vec<Fix> {
    let policy = step
        .decisions
        .iter()
        .find_map(|decision| if let Decision::Ipsec(policy) = decision { Some(policy.as_ref()) } else { None });
    let Some(policy) = policy else { return Vec::new() };
    let selector = &policy.selector;
    let is_plain =
        selector.protocol == 0 && selector.device.is_none() && policy.mark == (0, 0) && policy.interface == 0;
    if !policy.blocks || !is_plain || !policy.templates.is_empty() {
        return vec![Fix::advice(
            "Let the daemon of this tunnel set up its states (swanctl --list-sas, ipsec status), or delete the policy if nobody meant it: ip xfrm policy; ip xfrm state.".to_owned(),
        )];
    }
    let text = words::ipsec_policy(policy);
    let identity = text.split(" priority ").next().unwrap_or_default();
    let fix = Fix::run(
        format!("ip xfrm policy delete {identity}"),
        format!("ip xfrm policy add {text}"),
        "Removes the very policy that blocks these packets.".to_owned(),
    );
    let fix = fix.risk("The policy may be meant.");
    vec![
        fix.persist("Remove it from the configuration of the IPsec daemon that sets it.")
            .effect(Effect::IpsecDelete(Box::new(policy.clone()))),
    ]
}

/// Without the route or policy rule that forbids it.
fn routing_fix(step: &Step) -> Vec<Fix> {
    let fix = step.decisions.iter().rev().find_map(|decision| match decision {
        Decision::Route(forbids) if forbids.kind != RouteKind::Unicast => {
            Some(route::delete_route(forbids, "Removes the very route that forbids these packets.".to_owned()))
        }
        Decision::PolicyRule(rule) if rule.action != RuleAction::Lookup => Some(route::delete_rule(rule)),
        Decision::Route(_)
        | Decision::PolicyRule(_)
        | Decision::Rule(_)
        | Decision::OwnAddress(_)
        | Decision::Fdb(_)
        | Decision::Flood
        | Decision::Neighbour(_)
        | Decision::Sysctl(..)
        | Decision::Setting(_)
        | Decision::OwnMac
        | Decision::Ipsec(_)
        | Decision::OpenFlow(_) => None,
    });
    fix.into_iter().collect()
}

fn rule_fixes(
    scene: &Scene<'_>,
    step: &Step,
    stop: &Stop,
    reference: RuleReference,
    packet: &Packet,
    bridged: bool,
) -> Vec<Fix> {
    let (Some(chain), Stage::Firewall(hook)) = (scene.host.netfilter.chains.get(reference.chain), step.stage) else {
        return Vec::new();
    };
    let v6 = packet.ip().is_some_and(|ip| ip.destination.is_ipv6());
    let family = match chain.family.as_str() {
        "bridge" => "bridge",
        "arp" => "arp",
        "netdev" => "netdev",
        _ if v6 => "ip6",
        _ => "ip",
    };
    let stage = stage::Stage {
        cause: cause_of_stop(scene.host, step, stop, bridged),
        hook: words::hook(hook),
        family,
        by_nft: Some(true),
    };
    let rule = reference.rule.and_then(|rule| chain.rules.get(rule));
    let suspect = Suspect { chain: Some(chain), base: None, rule, grown: None, traced: None, gone: false };
    netfilter::fixes(scene, &stage, &[suspect], &[], &conversation(packet))
}

fn conversation(packet: &Packet) -> Conversation {
    let (source, destination, service, port) = match &packet.network {
        Network::Arp(arp) => (Some(arp.sender), Some(arp.target), Service::Arp, None),
        Network::Other(kind) => {
            let macs = packet.source_mac.zip(packet.destination_mac);
            let service = macs.map_or(Service::AnyIp, |(from, to)| Service::Frames(from, to, *kind));
            (None, None, service, None)
        }
        Network::Ip(ip) => {
            let (service, port) = match ip.transport {
                Transport::Tcp { source, destination, flags } => {
                    let answers = flags.is_some_and(|flags| flags.syn && flags.ack);
                    let port = if answers { source.map(Port::Source) } else { destination.map(Port::Destination) };
                    (Service::Tcp, port)
                }
                Transport::Udp { destination, .. } => (Service::Udp, destination.map(Port::Destination)),
                Transport::Sctp { destination, .. } => (Service::Sctp, destination.map(Port::Destination)),
                Transport::Icmp { .. } => (Service::Icmp, None),
                Transport::Icmpv6 { kind: 135 | 136, target, .. } => {
                    let about = target.or(Some(ip.destination));
                    let service = Service::Discovery(None);
                    return Conversation {
                        source: Some(ip.source),
                        destination: about,
                        service,
                        port: None,
                        answered: true,
                    };
                }
                Transport::Icmpv6 { .. } => (Service::Icmpv6, None),
                Transport::Other(number) => (Service::Ip(number), None),
            };
            (Some(ip.source), Some(ip.destination), service, port)
        }
    };
    Conversation { source, destination, service, port, answered: true }
}
