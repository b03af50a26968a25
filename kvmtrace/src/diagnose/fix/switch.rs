//! Commands for Open vSwitch: the VLAN of a port, a rule that lets one conversation past another rule.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::switch::{SwitchBridge, SwitchFlow, SwitchPlace, SwitchVlans};
use crate::event::{Address, IfIndex};
use crate::forward::effect::Effect;
use crate::forward::packet::{Network, Packet, Transport};
use crate::forward::step::SwitchRule;
use crate::forward::switch::{instead_of, vlan_of_target};
use crate::forward::words;
use std::net::IpAddr;

/// `ovs-vsctl`, pointed at a database that is not at its usual place.
fn vsctl(scene: &Scene<'_>) -> String {
    match &scene.host.switch.directory {
        Some(directory) => format!("ovs-vsctl --db={}", quote(&format!("unix:{directory}/db.sock"))),
        None => "ovs-vsctl".to_owned(),
    }
}

/// A bridge as `ovs-ofctl` takes it.
fn ofctl_bridge(scene: &Scene<'_>, bridge: &str) -> String {
    match &scene.host.switch.directory {
        Some(directory) => quote(&format!("unix:{directory}/{bridge}.mgmt")),
        None => quote(bridge),
    }
}

/// Puts what has no tag at a port into a VLAN; 0 for none.
pub fn port_vlan(scene: &Scene<'_>, place: SwitchPlace, vlan: u16, why: String) -> Option<Fix> {
    let (_, port, _) = scene.host.switch.at(place)?;
    let (tool, name) = (vsctl(scene), quote(&port.name));
    let set = |tag: u16| {
        if tag == 0 { format!("{tool} clear port {name} tag") } else { format!("{tool} set port {name} tag={tag}") }
    };
    let (own, after) = match &port.vlans {
        SwitchVlans::Access(own) => (*own, if vlan == 0 { SwitchVlans::default() } else { SwitchVlans::Access(vlan) }),
        SwitchVlans::Trunk(trunks) if trunks.is_empty() => (0, SwitchVlans::Access(vlan)),
        SwitchVlans::Trunk(_) | SwitchVlans::Native(..) | SwitchVlans::Wrapped(_) => return None,
    };
    let fix = Fix::run(set(vlan), set(own), why).effect(Effect::SwitchVlans(place, after));
    let risk = "The port leaves the network that it is in now. Where Neutron or a CNI sets tags, change it there: it sets them anew.";
    Some(fix.risk(risk).persist("Open vSwitch keeps it in its database (/etc/openvswitch/conf.db)."))
}

/// Lets a frame of a VLAN past a port: into it, or out of it.
pub fn vlan(scene: &Scene<'_>, place: SwitchPlace, vlan: u16, packet: &Packet) -> Vec<Fix> {
    let Some((bridge, port, _)) = scene.host.switch.at(place) else { return Vec::new() };
    let name = &port.name;
    let alone = port.vlans.carries(vlan) && port.vlans.takes(vlan).is_some() || port.vlans.takes(0) == Some(vlan);
    let fix = match &port.vlans {
        SwitchVlans::Access(own) if alone => {
            let asked = target(packet);
            let guest = asked.and_then(|asked| scene.guest_by_address(Address::Ip(asked)));
            let target = vlan_of_target(scene.topology(), place, asked, packet.destination_mac, guest);
            target.filter(|vlan| vlan != own).and_then(|vlan| {
                port_vlan(
                    scene,
                    place,
                    vlan,
                    format!("Puts {name} into the VLAN of {} in which the others are.", bridge.name),
                )
            })
        }
        // A tag that came with the frame is the guest's to leave out.
        SwitchVlans::Access(own) if packet.tags.first().is_some_and(|tag| tag != own && *tag == vlan) => {
            return vec![Fix::advice(format!(
                "{name} is an access port: let the guest behind it send without a tag, or make it a trunk (ovs-vsctl clear port {name} tag; ovs-vsctl set port {name} trunks={vlan}) if it is meant to tag."
            ))];
        }
        SwitchVlans::Access(_) => port_vlan(
            scene,
            place,
            vlan,
            format!("Puts {name} into the VLAN in which the frame came to {}.", bridge.name),
        ),
        SwitchVlans::Trunk(trunks) | SwitchVlans::Native(_, trunks, _) if !trunks.is_empty() => {
            let (tool, quoted) = (vsctl(scene), quote(name));
            let mut after = port.vlans.clone();
            if let SwitchVlans::Trunk(trunks) | SwitchVlans::Native(_, trunks, _) = &mut after {
                trunks.push(vlan);
            }
            let add = format!("{tool} add port {quoted} trunks {vlan}");
            let why = format!("Lets {name} carry VLAN {vlan}, too.");
            Some(
                Fix::run(add, format!("{tool} remove port {quoted} trunks {vlan}"), why)
                    .risk("All frames of this VLAN pass the port then.")
                    .persist("Open vSwitch keeps it in its database (/etc/openvswitch/conf.db).")
                    .effect(Effect::SwitchVlans(place, after)),
            )
        }
        SwitchVlans::Trunk(_) | SwitchVlans::Native(..) | SwitchVlans::Wrapped(_) => None,
    };
    fix.into_iter().collect()
}

/// The address that a packet is for, or asks for.
pub fn target(packet: &Packet) -> Option<IpAddr> {
    match &packet.network {
        Network::Arp(arp) => Some(arp.target),
        Network::Ip(ip) => match ip.transport {
            Transport::Icmpv6 { target: Some(target), .. } => Some(target),
            Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Sctp { .. }
            | Transport::Icmp { .. }
            | Transport::Icmpv6 { .. }
            | Transport::Other(_) => Some(ip.destination),
        },
        Network::Other(_) => None,
    }
}

/// A rule above the one that drops, for this conversation alone; then the one that drops, deleted.
pub fn past_rule(scene: &Scene<'_>, rule: SwitchRule, device: Option<IfIndex>, packet: &Packet) -> Vec<Fix> {
    let topology = scene.topology();
    let Some(bridge) = scene.host.switch.bridges.get(rule.bridge) else { return Vec::new() };
    let target = ofctl_bridge(scene, &bridge.name);
    let by_controller =
        "A controller (Neutron, OVN) takes it back at its next look: there it belongs into the security group.";
    let Some(drops) = rule.rule.and_then(|rule| bridge.flows.as_ref()?.get(rule)) else {
        return vec![Fix::advice(format!(
            "Let the controller of {0} set its rules again, or see why it does not: ovs-vsctl get-controller {0}; ovs-ofctl dump-flows {0}. Without a controller: ovs-ofctl add-flow {0} priority=0,actions=NORMAL makes it a plain switch.",
            bridge.name
        ))];
    };
    let number =
        device.and_then(|device| topology.switch.place(device)).and_then(|place| scene.host.switch.at(place)?.2.number);
    let instead =
        device.and_then(|device| instead_of(topology, rule, packet, device)).map(|flow| flow.actions.as_str());
    let actions = instead
        .filter(|actions| passes(actions))
        .or_else(|| passing_in_table(bridge, drops).filter(|_| drops.fields.is_empty()));
    let narrow = actions.and_then(|actions| {
        let fields = format!("in_port={},{}", number?, conversation(packet)?);
        let priority = drops.priority.checked_add(1)?;
        Some(SwitchFlow { table: drops.table, priority, fields, actions: actions.to_owned(), packets: 0 })
    });
    let mut fixes = Vec::new();
    if let Some(flow) = narrow {
        let (matched, whole) = (words::openflow_match(&flow), words::openflow(&flow));
        fixes.push(
            Fix::run(
                format!("ovs-ofctl add-flow {target} {}", quote(&whole)),
                format!("ovs-ofctl --strict del-flows {target} {}", quote(&matched)),
                "Lets this conversation past the rule that drops it; all else stays dropped.",
            )
            .risk(by_controller)
            .persist(
                "OpenFlow rules go when ovs-vswitchd ends: set it where the others are set (a controller, a script).",
            )
            .effect(Effect::SwitchFlowAdd(rule.bridge, Box::new(flow))),
        );
    }
    let (matched, whole) = (words::openflow_match(drops), words::openflow(drops));
    fixes.push(
        Fix::run(
            format!("ovs-ofctl --strict del-flows {target} {}", quote(&matched)),
            format!("ovs-ofctl add-flow {target} {}", quote(&whole)),
            "Deletes the very rule that drops these packets.",
        )
        .risk("The rule may be meant, and it may drop more than this.")
        .persist("Remove it where it is set (a controller, a script).")
        .effect(Effect::SwitchFlowDelete(rule.bridge, Box::new(drops.clone()))),
    );
    fixes
}

fn passes(actions: &str) -> bool {
    !actions.is_empty() && actions != "drop"
}

/// The actions of the rules beside one that drops all the rest, as in the table of a security group; none where they differ.
fn passing_in_table<'a>(bridge: &'a SwitchBridge, drops: &SwitchFlow) -> Option<&'a str> {
    let beside = bridge.flows.iter().flatten().filter(|flow| flow.table == drops.table && passes(&flow.actions));
    let mut actions = beside.map(|flow| flow.actions.as_str());
    let first = actions.next()?;
    actions.all(|other| other == first).then_some(first)
}

/// The conversation that a packet is of, as ovs-ofctl writes it.
fn conversation(packet: &Packet) -> Option<String> {
    match &packet.network {
        Network::Arp(arp) => Some(format!("arp,arp_spa={},arp_tpa={}", arp.sender, arp.target)),
        Network::Ip(ip) => {
            let v6 = ip.destination.is_ipv6();
            let (source, destination) = if v6 { ("ipv6_src", "ipv6_dst") } else { ("nw_src", "nw_dst") };
            let six = if v6 { "6" } else { "" };
            let (protocol, port) = match ip.transport {
                Transport::Tcp { source, destination, flags } => {
                    let answers = flags.is_some_and(|flags| flags.syn && flags.ack);
                    let port = if answers {
                        source.map(|port| ("tp_src", port))
                    } else {
                        destination.map(|port| ("tp_dst", port))
                    };
                    (format!("tcp{six}"), port)
                }
                Transport::Udp { destination, .. } => (format!("udp{six}"), destination.map(|port| ("tp_dst", port))),
                Transport::Sctp { destination, .. } => (format!("sctp{six}"), destination.map(|port| ("tp_dst", port))),
                Transport::Icmp { .. } => ("icmp".to_owned(), None),
                Transport::Icmpv6 { .. } => ("icmp6".to_owned(), None),
                Transport::Other(number) => (format!("{},nw_proto={number}", if v6 { "ipv6" } else { "ip" }), None),
            };
            let port = port.map(|(name, port)| format!(",{name}={port}")).unwrap_or_default();
            Some(format!("{protocol},{source}={},{destination}={}{port}", ip.source, ip.destination))
        }
        Network::Other(kind) => {
            Some(format!("dl_type={kind:#06x},dl_src={},dl_dst={}", packet.source_mac?, packet.destination_mac?))
        }
    }
}
