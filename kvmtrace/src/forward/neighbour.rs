//! The next hop's MAC address (`ip_finish_output2`, `net/core/neighbour.c`), and this host's answers to ARP (`arp_process` in
//! `net/ipv4/arp.c` of 6.12).

use super::firewall::At as Site;
use super::packet::{Arp, Network};
use super::packet::{Fragment, Ip, Transport};
use super::step::{Arrival, Decision, Outcome, Stage, Stop};
use super::walker::{Position, Task, Walker};
use crate::event::MacAddress;
use crate::event::host::Link;
use crate::event::names::NeighbourState;
use crate::event::ruleset::{Hook, Layer};
use crate::topology::routing::Question;
use std::net::{IpAddr, Ipv4Addr};

const ARP: &[&str] = &["arp_process"];

impl<'a> Walker<'a, '_> {
    /// Puts the next hop's MAC address on a packet and sends it.
    pub(super) fn neighbour(
        &mut self,
        mut task: Task,
        link: &'a Link,
        next_hop: IpAddr,
        functions: &'static [&'static str],
    ) {
        let mut packet = task.packet.clone();
        packet.tags.clear();
        packet.source_mac = if link.ethernet { link.mac } else { None };
        packet.destination_mac = None;
        let mut decisions = Vec::new();
        if link.ethernet && !link.arp_off {
            if next_hop.is_multicast() {
                packet.destination_mac = Some(group_mac(next_hop));
            } else if self.topology.is_broadcast(next_hop) {
                packet.destination_mac = Some(MacAddress([0xff; 6]));
            } else if let Some(entry) = self.topology.neighbour(link.index, next_hop) {
                decisions.push(Decision::Neighbour(Box::new(entry.clone())));
                if entry.mac.is_none() && entry.state == NeighbourState::Failed {
                    let functions = &["neigh_resolve_output", "neigh_invalidate"];
                    self.stop(
                        &task,
                        Stage::Neighbour,
                        link.index,
                        functions,
                        decisions,
                        Stop::NeighbourFailed(next_hop),
                    );
                    return;
                }
                packet.destination_mac = entry.mac;
            }
            if packet.destination_mac.is_none() {
                packet.destination_mac = self.answerer(link, next_hop);
                decisions.push(Decision::Setting(format!("asks who has {next_hop}")));
            }
        }
        self.pass(&mut task, Stage::Neighbour, Some(link.index), functions, decisions, Some(packet));
        let after = task.parent.unwrap_or_default();
        self.go(task, after, Position::Transmit(link.index));
    }

    /// The guest of this device's network that will answer ARP or ND for an address.
    fn answerer(&self, link: &Link, address: IpAddr) -> Option<MacAddress> {
        let device = self.topology.guest_by_address(address)?;
        let tap = self.topology.link(device)?;
        let near = tap.index == link.index || tap.master == Some(link.index);
        near.then(|| self.topology.interface(device).and_then(|(_, interface)| interface.mac)).flatten()
    }

    /// `arp_rcv`, `arp_process`.
    pub(super) fn arp_receive(&mut self, mut task: Task, link: &'a Link) {
        let Network::Arp(arp) = task.packet.network else { return };
        let site = Site {
            layer: Layer::Arp,
            hook: Hook::Input,
            input: Some(link.index),
            output: None,
            input_port: None,
            output_port: None,
            next_hop: None,
        };
        if !self.rules(&mut task, super::route::RULES, &site) {
            return;
        }
        let ignored = |decisions: Vec<Decision>, stop: Option<Stop>| {
            (decisions, stop.map_or(Outcome::Arrives(Arrival::Ignored), Outcome::Stops))
        };
        let (decisions, outcome) = if link.arp_off {
            ignored(vec![Decision::Setting("arp off".to_owned())], Some(Stop::NotAnswered))
        } else if arp.operation != 1 {
            (Vec::new(), Outcome::Arrives(Arrival::Host))
        } else {
            match self.arp_answer(link, arp) {
                Ok(decision) => (vec![decision], Outcome::Arrives(Arrival::Answered)),
                Err(Some((stop, decisions))) => ignored(decisions, Some(stop)),
                Err(None) => ignored(Vec::new(), None),
            }
        };
        self.step(&task, Stage::NeighbourAnswer, Some(link.index), ARP, decisions, outcome);
    }

    /// What answers an ARP request; else why this host, which should, does not; none where it need not.
    fn arp_answer(&self, link: &'a Link, arp: Arp) -> Result<Decision, Option<(Stop, Vec<Decision>)>> {
        let target = arp.target;
        let question = Ip {
            source: arp.sender,
            destination: target,
            transport: Transport::Other(0),
            time_to_live: None,
            dont_fragment: false,
            fragment: Fragment::Whole,
            traffic_class: None,
        };
        if let Some((_, network)) = self.topology.own(target).first() {
            let near = self.topology.own(target).iter().any(|(owner, _)| owner.index == link.index);
            let ignore = self.conf_max(link, "arp_ignore");
            let reachable = arp.sender.is_unspecified()
                || self
                    .topology
                    .own(target)
                    .iter()
                    .any(|(owner, network)| owner.index == link.index && network.contains(arp.sender));
            let refused = match ignore {
                1 => !near,
                2 | 3 => !near || !reachable,
                8 => true,
                _ => false,
            };
            if refused {
                let decision = Decision::Sysctl(self.deciding(link, "arp_ignore", ignore), ignore.to_string());
                return Err(Some((Stop::NotAnswered, vec![decision])));
            }
            // A probe for a duplicate bears no source, and is answered before the route is asked.
            if arp.sender != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
                self.martian(link, &question)
                    .and_then(|()| self.source_check(link, Some(0), &question))
                    .map_err(Some)?;
                if self.conf_any(link, "arp_filter") {
                    let back = Question::of(Some(target), arp.sender, "lo");
                    let answer = self.topology.routes.lookup(self.topology.host, back);
                    if answer.unicast().is_none_or(|route| route.device != Some(link.index)) {
                        let decision = Decision::Sysctl(self.deciding(link, "arp_filter", 1), "1".to_owned());
                        return Err(Some((Stop::NotAnswered, vec![decision])));
                    }
                }
            }
            return Ok(Decision::OwnAddress(*network));
        }
        self.proxy_answer(link, &question)
    }

    /// `proxy_arp`, and addresses set by `ip neigh add proxy`: only where the device forwards and a route leads elsewhere.
    fn proxy_answer(&self, link: &Link, question: &Ip) -> Result<Decision, Option<(Stop, Vec<Decision>)>> {
        let set = self
            .topology
            .host
            .proxies
            .iter()
            .any(|(address, device)| *address == question.destination && *device == link.index);
        let all = self.conf_any(link, "proxy_arp");
        if !set && !all || self.topology.device_sysctl("ipv4", link, "forwarding") == Some(0) {
            return Err(None);
        }
        // arp_process asks `ip_route_input_noref` first: a source that can't be gets no answer.
        self.martian(link, question).and_then(|()| self.source_check(link, Some(0), question)).map_err(Some)?;
        let asked = Question {
            mark: Some(0),
            layer4: Some((0, 0, 0)),
            ..Question::of(Some(question.source), question.destination, &link.name)
        };
        let answer = self.topology.routes.lookup(self.topology.host, asked);
        let elsewhere = answer.unicast().filter(|route| route.device != Some(link.index));
        match elsewhere {
            Some(_) if set => Ok(Decision::Setting(format!("neigh proxy {}", question.destination))),
            Some(_) => Ok(Decision::Sysctl(self.deciding(link, "proxy_arp", 1), "1".to_owned())),
            None => Err(None),
        }
    }
}

/// `ip_eth_mc_map`, `ipv6_eth_mc_map`.
fn group_mac(group: IpAddr) -> MacAddress {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddress([0x33, 0x33, a, b, c, d])
        }
    }
}
