//! IPsec: which policy is for a packet, and whether its states are there (`xfrm_lookup_with_ifid`, `__xfrm_policy_check` in
//! `net/xfrm/xfrm_policy.c` of 6.12).

use super::packet::{Carrier, Ip, Packet, Transport};
use super::step::{Decision, Doubt, Stage, Stop};
use super::tunnel::Outer;
use super::walker::{Task, Walker};
use crate::event::IfIndex;
use crate::event::host::{Link, LinkKind};
use crate::event::overlay::{IpsecDirection, IpsecPolicy, IpsecSelector, IpsecState, IpsecTemplate};
use std::net::IpAddr;

const CHECK: &[&str] = &["__xfrm_policy_check", "ip_forward", "ip6_forward"];
const LOOKUP: &[&str] = &["__xfrm_route_forward", "xfrm_lookup_with_ifid"];
/// ESP adds fewer bytes than this to a packet, whatever its ciphers.
const MOST_ADDED: u32 = 100;

/// What a policy for leaving packets does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leaving {
    /// No policy is for the packet, or one that lets it pass as it is.
    Plain,
    /// It is wrapped so. It may be too long then, where that is not known.
    Wrapped(Box<IpsecState>),
    /// It ends here.
    Stopped,
}

impl Walker<'_, '_> {
    /// `xfrm4_policy_check`: whether a packet for this host (`In`) or one to be routed (`Forward`) may be what it is. False where it ends.
    pub(super) fn ipsec_check(&mut self, task: &mut Task, device: IfIndex, direction: IpsecDirection) -> bool {
        let Some(policy) = self.policy(&task.packet, direction, Some(device)) else { return true };
        // A policy with templates asks for a packet that came out of its states.
        let wants = policy.templates.iter().any(|template| !template.optional);
        if policy.blocks || wants && !task.packet.secured {
            let decisions = vec![Decision::Ipsec(Box::new(policy.clone()))];
            self.stop(task, Stage::Ipsec, device, CHECK, decisions, Stop::IpsecPolicy);
            return false;
        }
        true
    }

    /// `xfrm_lookup`: what becomes of a packet that leaves by a device.
    pub(super) fn ipsec_leaving(&mut self, task: &mut Task, device: IfIndex) -> Leaving {
        let Some(policy) = self.policy(&task.packet, IpsecDirection::Out, Some(device)) else { return Leaving::Plain };
        let decisions = vec![Decision::Ipsec(Box::new(policy.clone()))];
        if policy.blocks {
            self.stop(task, Stage::Ipsec, device, LOOKUP, decisions, Stop::IpsecPolicy);
            return Leaving::Stopped;
        }
        let mut wrapped = None;
        for template in &policy.templates {
            match (self.state(template, &task.packet), template.optional) {
                (Some(state), _) => wrapped = Some(Box::new(state.clone())),
                (None, true) => {}
                (None, false) => {
                    let missing = Decision::Setting(format!("no state to {}", destination(template, &task.packet)));
                    let decisions = decisions.into_iter().chain([missing]).collect();
                    self.stop(task, Stage::Ipsec, device, LOOKUP, decisions, Stop::IpsecPolicy);
                    return Leaving::Stopped;
                }
            }
        }
        let Some(state) = wrapped else { return Leaving::Plain };
        self.pass(task, Stage::Ipsec, Some(device), LOOKUP, decisions, None);
        let mtu = self.topology.link(device).map_or(u32::MAX, |link| link.mtu);
        if task.packet.length.saturating_add(MOST_ADDED) > mtu && !task.packet.gso {
            let doubt = Doubt::Packet("how many bytes IPsec adds to the packet".to_owned());
            self.doubt(task, Stage::Ipsec, Some(device), LOOKUP, doubt);
        }
        Leaving::Wrapped(state)
    }

    /// The packet goes on in ESP (`xfrm_output`).
    pub(super) fn ipsec_wrap(&mut self, task: Task, device: IfIndex, state: &IpsecState) {
        let (local, remote) = match (state.tunnel, task.packet.ip()) {
            (false, Some(ip)) => (ip.source, ip.destination),
            (_, _) => (state.source, state.destination),
        };
        let transport = if state.in_udp {
            Transport::Udp { source: Some(4500), destination: Some(4500) }
        } else {
            Transport::Other(state.protocol)
        };
        let outer = Outer {
            by: Carrier::Ipsec,
            local: Some(local),
            remote,
            transport,
            // SPI, sequence number, and about as much again.
            overhead: 8 + 16 + 2 + 12,
            dont_fragment: task.packet.ip().is_some_and(|ip| ip.dont_fragment),
        };
        let decisions =
            vec![Decision::Setting(format!("state {} → {} spi {:#x}", state.source, state.destination, state.spi))];
        self.wrap(task, Stage::Ipsec, Some(device), &["xfrm_output"], decisions, outer);
    }

    /// The first policy that is for a packet.
    fn policy(&self, packet: &Packet, direction: IpsecDirection, device: Option<IfIndex>) -> Option<&'_ IpsecPolicy> {
        let policies = &self.topology.host.overlay.policies;
        let ip = packet.ip().filter(|_| !policies.is_empty())?;
        let is_wrapped = packet.carried.as_ref().is_some_and(|carried| carried.by == Carrier::Ipsec);
        if is_wrapped {
            return None;
        }
        let interface = device.and_then(|device| self.topology.link(device)).map_or(0, |link| self.interface(link));
        policies.iter().filter(|policy| policy.direction == direction && policy.interface == interface).find(|policy| {
            let (value, mask) = policy.mark;
            let marked = mask == 0 || packet.mark.is_some_and(|mark| mark & mask == value);
            let here = policy.selector.device.is_none_or(|wanted| device == Some(wanted));
            marked && here && selects(&policy.selector, ip)
        })
    }

    /// The id of an xfrm interface; 0 for another device.
    fn interface(&self, link: &Link) -> u32 {
        let is_xfrm = matches!(&link.kind, LinkKind::Other(kind) if kind == "xfrm");
        let ends = self.topology.host.overlay.tunnels.get(&link.index).filter(|_| is_xfrm);
        ends.and_then(|ends| ends.key).unwrap_or(0)
    }

    /// A state for a template (`xfrm_state_find`).
    fn state(&self, template: &IpsecTemplate, packet: &Packet) -> Option<&'_ IpsecState> {
        let to = destination(template, packet);
        self.topology.host.overlay.states.iter().find(|state| {
            state.destination == to
                && state.protocol == template.protocol
                && state.tunnel == template.tunnel
                && (template.source.is_unspecified() || state.source == template.source)
                && (template.request == 0 || state.request == template.request)
                && (template.spi == 0 || state.spi == template.spi)
        })
    }
}

/// The outer destination that a template asks for: in transport mode the packet's own.
fn destination(template: &IpsecTemplate, packet: &Packet) -> IpAddr {
    match packet.ip() {
        Some(ip) if !template.tunnel || template.destination.is_unspecified() => ip.destination,
        _ => template.destination,
    }
}

/// `xfrm_selector_match`
fn selects(selector: &IpsecSelector, ip: &Ip) -> bool {
    let (from, to) = ip.transport.ports().unwrap_or((Some(0), Some(0)));
    let port =
        |(value, mask): (u16, u16), port: Option<u16>| mask == 0 || port.is_some_and(|port| (port ^ value) & mask == 0);
    // A selector without addresses is of either family (`xfrm_selector_match` looks at the flow's).
    let within = |network: crate::event::host::Network, address: IpAddr| {
        network.prefix == 0 && network.address.is_ipv4() == address.is_ipv4() || network.contains(address)
    };
    within(selector.source, ip.source)
        && within(selector.destination, ip.destination)
        && (selector.protocol == 0 || selector.protocol == ip.transport.number())
        && port(selector.source_port, from)
        && port(selector.destination_port, to)
}
