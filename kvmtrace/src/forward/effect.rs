//! The effect of a command on the host's tables: applied to a copy of the host, so that a walk can say beforehand what the
//! command would do to a packet.

use crate::event::bond::{Bond, BondMode};
use crate::event::bridge::{PortState, PortVlan};
use crate::event::host::{FdbEntry, HostState, Link, LinkKind, Network, Route, Rule};
use crate::event::names::{MacvtapMode, RouteKind};
use crate::event::overlay::IpsecPolicy;
use crate::event::ruleset::RuleReference;
use crate::event::switch::{SwitchFlow, SwitchPlace, SwitchVlans};
use crate::event::{IfIndex, MacAddress, PolicyRule};
use crate::topology::routing::masked;
use std::net::IpAddr;

/// `RT_TABLE_MAIN`
const MAIN: u32 = 254;
/// `IP6_RT_PRIO_ADDRCONF`
const IPV6_METRIC: u32 = 256;

/// One change of the host's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A device goes up, or down. One that goes up is taken to have a carrier, as far as the device below has one: a cable that is
    /// not there shows only then.
    Up(IfIndex, bool),
    /// A device's MTU in bytes.
    Mtu(IfIndex, u32),
    /// A device becomes a port of a bridge, or of none.
    Master(IfIndex, Option<IfIndex>),
    /// A flag of a bridge port.
    PortFlag(IfIndex, PortFlag, bool),
    /// The reserved groups that a bridge port forwards (`group_fwd_mask` of the port).
    PortGroupForwardMask(IfIndex, u16),
    /// STP state of a bridge port.
    PortState(IfIndex, PortState),
    /// An option of a bridge.
    Bridge(IfIndex, BridgeOption),
    /// A VLAN membership of a port, or of the bridge itself, is added.
    VlanAdd(IfIndex, PortVlan),
    /// A sysctl is set.
    Sysctl(String, String),
    /// A route is added.
    RouteAdd(Route),
    /// A route is deleted.
    RouteDelete(Route),
    /// A rule of policy routing is deleted.
    PolicyRuleDelete(PolicyRule),
    /// `ip xfrm policy delete`.
    IpsecDelete(Box<IpsecPolicy>),
    /// An entry of the neighbour table is deleted, or resolved anew.
    NeighbourDelete(IfIndex, IpAddr),
    /// This host answers ARP or ND for an address on a device.
    ProxyAdd(IpAddr, IfIndex),
    /// An entry of a forwarding database is deleted.
    FdbDelete(IfIndex, MacAddress, Option<u16>),
    /// An entry of a forwarding database is added.
    FdbAdd(FdbEntry),
    /// A firewall rule is deleted.
    RuleDelete(RuleReference),
    /// A firewall rule is put before all others of its chain.
    RuleInsert(usize, Box<Rule>),
    /// A firewall rule is put behind all others of its chain.
    RuleAppend(usize, Box<Rule>),
    /// The policy of a chain becomes `accept`.
    PolicyAccept(usize),
    /// An element is put into a named set, or taken out.
    SetElement(usize, String, bool),
    /// An XDP program is detached.
    XdpOff(IfIndex),
    /// A device takes part in ARP.
    ArpOn(IfIndex),
    /// A macvtap gets another mode.
    MacvtapMode(IfIndex, MacvtapMode),
    /// An option of a bond.
    Bond(IfIndex, BondOption),
    /// An address is given to a device.
    AddressAdd(IfIndex, Network),
    /// An address is taken off a device.
    AddressDelete(IfIndex, Network),
    /// A queueing discipline is removed: the model knows no queues, so no walk changes.
    QdiscDelete(IfIndex),
    /// `ovs-vsctl set port`: which VLANs a port of Open vSwitch carries. What was learnt behind it is forgotten.
    SwitchVlans(SwitchPlace, SwitchVlans),
    /// `ovs-ofctl add-flow`, on a bridge by its index.
    SwitchFlowAdd(usize, Box<SwitchFlow>),
    /// `ovs-ofctl --strict del-flows`, on a bridge by its index.
    SwitchFlowDelete(usize, Box<SwitchFlow>),
}

/// A flag of a bridge port that fixes set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "bridge(8)'s own names")]
pub enum PortFlag {
    Isolated,
    Locked,
    Flood,
    MulticastFlood,
    BroadcastFlood,
    Learning,
    Hairpin,
}

/// An option of a bridge that fixes set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeOption {
    /// `stp_state`
    Stp(bool),
    /// `vlan_filtering`
    VlanFiltering(bool),
    /// `mcast_snooping`
    Snooping(bool),
    /// `nf_call_iptables`, `nf_call_ip6tables`, `nf_call_arptables`
    NetfilterIp(bool),
}

/// An option of a bond that fixes set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondOption {
    /// `active_slave`
    Active(IfIndex),
    /// `all_slaves_active`
    AllActive(bool),
}

impl Effect {
    /// Makes the change in a copy of the host. What it names and is not there changes nothing.
    pub fn apply(&self, host: &mut HostState) {
        match self {
            Self::Up(device, true) => bring_up(host, *device),
            Self::Up(device, false) => with(host, *device, |link| link.up = false),
            Self::Mtu(device, mtu) => with(host, *device, |link| link.mtu = *mtu),
            Self::Master(device, master) => enslave(host, *device, *master),
            Self::PortGroupForwardMask(device, mask) => {
                with_port(host, *device, |port| port.group_forward_mask = *mask);
            }
            Self::PortFlag(device, flag, on) => with_port(host, *device, |port| match flag {
                PortFlag::Isolated => port.isolated = *on,
                PortFlag::Locked => port.locked = *on,
                PortFlag::Flood => port.flood = *on,
                PortFlag::MulticastFlood => port.multicast_flood = *on,
                PortFlag::BroadcastFlood => port.broadcast_flood = *on,
                PortFlag::Learning => port.learning = *on,
                PortFlag::Hairpin => port.hairpin = *on,
            }),
            Self::PortState(device, state) => with_port(host, *device, |port| port.state = *state),
            Self::Bridge(bridge, option) => bridge_option(host, *bridge, *option),
            Self::VlanAdd(device, vlan) => add_vlan(host, *device, *vlan),
            Self::Sysctl(name, value) => set_sysctl(host, name, value),
            Self::RouteAdd(route) => host.routes.push(route.clone()),
            Self::RouteDelete(route) => host.routes.retain(|other| other != route),
            Self::PolicyRuleDelete(rule) => host.policy_rules.retain(|other| other != rule),
            Self::IpsecDelete(policy) => host.overlay.policies.retain(|other| *other != **policy),
            Self::NeighbourDelete(device, address) => {
                host.neighbours.retain(|entry| entry.device != *device || entry.address != *address);
            }
            Self::ProxyAdd(address, device) => host.proxies.push((*address, *device)),
            Self::FdbDelete(device, mac, vlan) => host
                .forwarding
                .retain(|entry| entry.device != *device || entry.mac != *mac || vlan.is_some() && entry.vlan != *vlan),
            Self::FdbAdd(entry) => host.forwarding.push(entry.clone()),
            Self::RuleDelete(reference) => {
                if let (Some(chain), Some(rule)) = (host.netfilter.chains.get_mut(reference.chain), reference.rule)
                    && rule < chain.rules.len()
                {
                    chain.rules.remove(rule);
                }
            }
            Self::RuleInsert(chain, rule) => {
                if let Some(chain) = host.netfilter.chains.get_mut(*chain) {
                    chain.rules.insert(0, (**rule).clone());
                }
            }
            Self::RuleAppend(chain, rule) => {
                if let Some(chain) = host.netfilter.chains.get_mut(*chain) {
                    chain.rules.push((**rule).clone());
                }
            }
            Self::PolicyAccept(chain) => {
                if let Some(chain) = host.netfilter.chains.get_mut(*chain) {
                    chain.policy = Some("accept".to_owned());
                }
            }
            Self::SetElement(set, element, add) => {
                if let Some(set) = host.netfilter.sets.get_mut(*set) {
                    set.elements.retain(|other| other != element);
                    if *add {
                        set.elements.push(element.clone());
                    }
                }
            }
            Self::XdpOff(device) => with(host, *device, |link| link.xdp = None),
            Self::ArpOn(device) => with(host, *device, |link| link.arp_off = false),
            Self::MacvtapMode(device, mode) => {
                with(host, *device, |link| link.kind = LinkKind::Macvtap { mode: *mode });
            }
            Self::Bond(device, option) => {
                if let Some(bond) = host.bonds.get_mut(device) {
                    set_bond(bond, *option);
                }
            }
            Self::AddressAdd(device, network) => with(host, *device, |link| link.addresses.push(*network)),
            Self::AddressDelete(device, network) => {
                with(host, *device, |link| link.addresses.retain(|other| other != network));
            }
            Self::SwitchVlans(place, vlans) => switch_vlans(host, *place, vlans),
            Self::SwitchFlowAdd(bridge, flow) => {
                if let Some(flows) = host.switch.bridges.get_mut(*bridge).and_then(|bridge| bridge.flows.as_mut()) {
                    flows.push((**flow).clone());
                }
            }
            Self::SwitchFlowDelete(bridge, flow) => {
                let same = |other: &SwitchFlow| {
                    (other.table, other.priority, &other.fields) == (flow.table, flow.priority, &flow.fields)
                };
                if let Some(flows) = host.switch.bridges.get_mut(*bridge).and_then(|bridge| bridge.flows.as_mut()) {
                    flows.retain(|other| !same(other));
                }
            }
            Self::QdiscDelete(device) => host.qdiscs.retain(|qdisc| qdisc.device != *device || qdisc.parent != "root"),
        }
    }
}

/// `bundle_set` flushes what was learnt behind the port.
fn switch_vlans(host: &mut HostState, place: SwitchPlace, vlans: &SwitchVlans) {
    let Some(bridge) = host.switch.bridges.get_mut(place.bridge) else { return };
    let Some(port) = bridge.ports.get_mut(place.port) else { return };
    port.vlans = vlans.clone();
    let numbers: Vec<u16> = port.interfaces.iter().filter_map(|interface| interface.number).collect();
    bridge.learnt.retain(|entry| !numbers.contains(&entry.port));
}

/// `bond_change_active_slave`, `bond_option_all_slaves_active_set`
fn set_bond(bond: &mut Bond, option: BondOption) {
    match option {
        BondOption::Active(leg) => {
            bond.active = Some(leg);
            if bond.mode == BondMode::ActiveBackup {
                for (own, state) in &mut bond.legs {
                    state.backup = *own != leg;
                }
            }
        }
        BondOption::AllActive(on) => bond.all_active = on,
    }
}

fn with(host: &mut HostState, device: IfIndex, change: impl FnOnce(&mut Link)) {
    if let Some(link) = host.links.get_mut(&device) {
        change(link);
    }
}

fn with_port(host: &mut HostState, device: IfIndex, change: impl FnOnce(&mut crate::event::bridge::BridgePort)) {
    if let Some(port) = host.links.get_mut(&device).and_then(|link| link.port.as_mut()) {
        change(port);
    }
}

/// A stacked device has the carrier of the one below (`netif_stacked_transfer_operstate`), a bridge that of its ports
/// (`br_stp_enable_bridge`), and ports that were disabled forward again (`br_stp_enable_port`).
fn bring_up(host: &mut HostState, device: IfIndex) {
    let Some(link) = host.links.get(&device) else { return };
    let below = link.lower.and_then(|lower| host.links.get(&lower)).is_none_or(|lower| lower.up && lower.carrier);
    let is_bridge = matches!(link.kind, LinkKind::Bridge(_));
    let master = link.master;
    with(host, device, |link| (link.up, link.carrier) = (true, link.carrier || below && !is_bridge));
    connect(host, device);
    let bridge = if is_bridge { Some(device) } else { master };
    if let Some(bridge) = bridge {
        enable_ports(host, bridge);
    }
}

/// The routes to its own networks come back with a device (`fib_add_ifaddr`, `addrconf_prefix_route`); those that a person set
/// do not.
fn connect(host: &mut HostState, device: IfIndex) {
    let addresses = host.links.get(&device).map(|link| link.addresses.clone()).unwrap_or_default();
    for own in addresses {
        let destination = Network { address: masked(own.address, own.prefix), ..own };
        let is_known = |route: &Route| route.device == Some(device) && route.destination == destination;
        if host.routes.iter().any(is_known) {
            continue;
        }
        let v6 = own.address.is_ipv6();
        host.routes.push(Route {
            destination,
            gateway: None,
            device: Some(device),
            source: (!v6).then_some(own.address),
            table: MAIN,
            metric: if v6 { IPV6_METRIC } else { 0 },
            kind: RouteKind::Unicast,
            mtu: None,
        });
    }
}

/// The ports of a bridge that is up forward if they can, and the bridge has a carrier if one of them does.
fn enable_ports(host: &mut HostState, bridge: IfIndex) {
    if host.links.get(&bridge).is_none_or(|link| !link.up || !matches!(link.kind, LinkKind::Bridge(_))) {
        return;
    }
    let mut carrier = false;
    for link in host.links.values_mut().filter(|link| link.master == Some(bridge) && link.up && link.carrier) {
        carrier = true;
        if let Some(port) = link.port.as_mut().filter(|port| port.state == PortState::Disabled) {
            port.state = PortState::Forwarding;
        }
    }
    with(host, bridge, |link| link.carrier |= carrier);
}

/// A new port forwards, floods and learns, and is a member of the bridge's default VLAN (`br_add_if`, `new_nbp`, `nbp_vlan_init`).
fn enslave(host: &mut HostState, device: IfIndex, master: Option<IfIndex>) {
    let pvid = master
        .and_then(|master| host.link(master))
        .and_then(|bridge| if let LinkKind::Bridge(state) = &bridge.kind { Some(state.default_pvid) } else { None });
    with(host, device, |link| {
        link.master = master;
        link.port = pvid.map(|pvid| crate::event::bridge::BridgePort {
            state: PortState::Forwarding,
            isolated: false,
            locked: false,
            flood: true,
            multicast_flood: true,
            broadcast_flood: true,
            learning: true,
            hairpin: false,
            bpdu_guard: false,
            group_forward_mask: 0,
            vlans: (pvid != 0)
                .then_some(PortVlan { id: pvid, last: None, pvid: true, untagged: true })
                .into_iter()
                .collect(),
        });
    });
    // del_nbp: the entries of a port go with it.
    host.forwarding.retain(|entry| entry.device != device || entry.bridge.is_none() || entry.bridge == master);
    if let Some(bridge) = master {
        enable_ports(host, bridge);
    }
}

fn bridge_option(host: &mut HostState, bridge: IfIndex, option: BridgeOption) {
    let Some(LinkKind::Bridge(state)) = host.links.get_mut(&bridge).map(|link| &mut link.kind) else { return };
    match option {
        BridgeOption::VlanFiltering(on) => state.vlan_filtering = on,
        BridgeOption::Snooping(on) => state.multicast_snooping = on,
        BridgeOption::NetfilterIp(on) => {
            (state.netfilter_ip, state.netfilter_ip6, state.netfilter_arp) = (on, on, on);
        }
        BridgeOption::Stp(on) => {
            state.stp = on;
            // br_stp_stop: every port that is up forwards.
            if !on {
                for port in host.links.values_mut().filter(|link| link.master == Some(bridge)) {
                    if let Some(port) = &mut port.port {
                        port.state = PortState::Forwarding;
                    }
                }
            }
        }
    }
}

/// A PVID moves to the VLAN that is added with one (`br_vlan_add`).
fn add_vlan(host: &mut HostState, device: IfIndex, vlan: PortVlan) {
    let put = |vlans: &mut Vec<PortVlan>| {
        if vlan.pvid {
            for other in vlans.iter_mut() {
                other.pvid = false;
            }
        }
        vlans.retain(|other| other.id != vlan.id || other.last.is_some());
        vlans.push(vlan);
    };
    with(host, device, |link| match (&mut link.port, &mut link.kind) {
        (Some(port), _) => put(&mut port.vlans),
        (None, LinkKind::Bridge(state)) => put(&mut state.vlans),
        (None, _) => {}
    });
}

/// `ip_forward` and `conf.all.forwarding` set every device's (`inet_forward_change`, `addrconf_fixup_forwarding`).
fn set_sysctl(host: &mut HostState, name: &str, value: &str) {
    let family = match name {
        "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding" => Some("net.ipv4.conf."),
        "net.ipv6.conf.all.forwarding" => Some("net.ipv6.conf."),
        _ => None,
    };
    if let Some(family) = family {
        let each =
            host.sysctls.iter_mut().filter(|(name, _)| name.starts_with(family) && name.ends_with(".forwarding"));
        for (_, old) in each {
            value.clone_into(old);
        }
        if family == "net.ipv4.conf." {
            host.sysctls.insert("net.ipv4.ip_forward".to_owned(), value.to_owned());
        }
    }
    host.sysctls.insert(name.to_owned(), value.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::bridge::BridgeState;

    fn link(host: &mut HostState, index: u32, kind: LinkKind, up: bool) {
        let link = Link { up, carrier: up, ..crate::forward::tests::link(IfIndex(index), "x", kind) };
        host.links.insert(IfIndex(index), link);
    }

    #[test]
    fn a_bridge_that_goes_up_has_its_ports_forward() {
        let mut host = HostState::default();
        link(&mut host, 1, LinkKind::Bridge(BridgeState::default()), false);
        link(&mut host, 2, LinkKind::Tun, true);
        enslave(&mut host, IfIndex(2), Some(IfIndex(1)));
        with_port(&mut host, IfIndex(2), |port| port.state = PortState::Disabled);
        Effect::Up(IfIndex(1), true).apply(&mut host);
        let bridge = &host.links[&IfIndex(1)];
        assert!(bridge.up && bridge.carrier);
        assert_eq!(host.links[&IfIndex(2)].port.as_ref().unwrap().state, PortState::Forwarding);
    }

    #[test]
    fn a_device_gets_no_carrier_that_the_one_below_lacks() {
        let mut host = HostState::default();
        link(&mut host, 1, LinkKind::Physical, false);
        link(&mut host, 2, LinkKind::Macvlan, false);
        with(&mut host, IfIndex(2), |link| link.lower = Some(IfIndex(1)));
        Effect::Up(IfIndex(2), true).apply(&mut host);
        assert!(!host.links[&IfIndex(2)].carrier);
        Effect::Up(IfIndex(1), true).apply(&mut host);
        assert!(host.links[&IfIndex(1)].carrier);
    }

    #[test]
    fn the_route_to_its_own_network_comes_with_the_device() {
        let mut host = HostState::default();
        link(&mut host, 1, LinkKind::Physical, false);
        let own = Network { address: IpAddr::from([10, 0, 5, 9]), prefix: 24 };
        with(&mut host, IfIndex(1), |link| link.addresses.push(own));
        Effect::Up(IfIndex(1), true).apply(&mut host);
        Effect::Up(IfIndex(1), true).apply(&mut host);
        let routes: Vec<String> = host.routes.iter().map(|route| route.destination.address.to_string()).collect();
        assert_eq!(routes, ["10.0.5.0"]);
    }
}
