//! IP above a device: prerouting, the choice between this host and the next hop, `ip_forward` (`net/ipv4/{ip_input,route,ip_forward,
//! ip_output}.c`, `net/ipv6/{ip6_input,ip6_output}.c` of 6.12).

use super::firewall::At as Site;
use super::ipsec::Leaving;
use super::packet::{Fragment, Ip, Packet};
use super::step::{Arrival, Decision, Doubt, Outcome, Stage, Stop};
use super::walker::{Output, Position, Task, Walker};
use crate::event::host::{Link, Route};
use crate::event::is_link_local;
use crate::event::names::RouteKind;
use crate::event::overlay::IpsecDirection;
use crate::event::ruleset::{Hook, Layer};
use crate::event::{IfIndex, MacAddress};
use crate::topology::routing::{Answer, Question};
use std::net::{IpAddr, Ipv4Addr};

const INPUT: &[&str] = &["ip_rcv_finish_core", "ip_route_input_slow", "ip6_route_input"];
const ERROR: &[&str] = &["ip_error", "ip6_pkt_drop", "ip6_forward"];
const FORWARD: &[&str] = &["ip_forward", "ip6_forward"];
const OUTPUT: &[&str] = &["ip_output", "ip6_output", "ip_finish_output", "ip6_finish_output"];
pub(super) const RULES: &[&str] = &["nft_do_chain", "ipt_do_table", "nf_hook_slow"];

impl<'a> Walker<'a, '_> {
    /// `ip_rcv`, `ipv6_rcv`.
    pub(super) fn ip_receive(&mut self, mut task: Task, device: IfIndex, filtered: bool) {
        let Some(link) = self.known(&task, Stage::Route, device) else { return };
        let Some(ip) = task.packet.ip().cloned() else { return };
        let v6 = ip.destination.is_ipv6();
        if v6 && self.ipv6_is_disabled(link) {
            let decision = Decision::Sysctl(format!("net.ipv6.conf.{}.disable_ipv6", link.name), "1".to_owned());
            self.stop(&task, Stage::Route, device, &["ip6_rcv_core"], vec![decision], Stop::Ipv6Disabled);
            return;
        }
        if let Some((stop, decisions)) = self.refused_v6(link, &task.packet) {
            self.stop(&task, Stage::SourceCheck, device, &["ip6_rcv_core"], decisions, stop);
            return;
        }
        if !filtered {
            let site = self.ip_site(Hook::Prerouting, v6, Some(device), None);
            if !self.rules(&mut task, RULES, &site) {
                return;
            }
        }
        let Some(ip) = task.packet.ip().cloned() else { return };
        self.route_input(task, link, &ip);
    }

    /// `ip_route_input_slow`, `ip6_route_input`: here, onward, or nowhere.
    fn route_input(&mut self, mut task: Task, link: &'a Link, ip: &Ip) {
        let device = link.index;
        if ip.destination.is_multicast() {
            self.group_receive(&task, link, ip);
            return;
        }
        if let Err((stop, decisions)) = self.martian(link, ip) {
            self.stop(&task, Stage::SourceCheck, device, INPUT, decisions, stop);
            return;
        }
        let everyone = matches!(ip.destination, IpAddr::V4(address) if address.is_broadcast());
        let own = self.topology.own(ip.destination).first().map(|(_, network)| *network);
        if everyone || own.is_some() || self.topology.is_broadcast(ip.destination) {
            if !(everyone && ip.source.is_unspecified())
                && let Err((stop, decisions)) = self.source_check(link, task.packet.mark, ip)
            {
                self.stop(&task, Stage::SourceCheck, device, INPUT, decisions, stop);
                return;
            }
            let decisions = own.map(Decision::OwnAddress).into_iter().collect();
            self.pass(&mut task, Stage::Route, Some(device), INPUT, decisions, None);
            let after = task.parent.unwrap_or_default();
            self.go(task, after, Position::Deliver(device));
            return;
        }
        let v6 = ip.destination.is_ipv6();
        if let Some(decision) = self.not_forwarding(link, v6) {
            self.stop(&task, Stage::Route, device, ERROR, vec![decision], Stop::ForwardingDisabled);
            return;
        }
        if v6 && is_link_local(ip.destination) {
            // ip6_forward has no business with link-local addresses of others (`__ipv6_addr_type`).
            self.stop(&task, Stage::Route, device, ERROR, Vec::new(), Stop::NoRoute);
            return;
        }
        let question = Question {
            mark: task.packet.mark,
            layer4: ip.layer4(),
            ..Question::of(Some(ip.source), ip.destination, &link.name)
        };
        let Some((route, decisions)) = self.route(&mut task, device, question) else { return };
        let output = route.device.unwrap_or(device);
        if let Err((stop, decisions)) = self.source_check(link, task.packet.mark, ip) {
            self.stop(&task, Stage::SourceCheck, device, INPUT, decisions, stop);
            return;
        }
        self.pass(&mut task, Stage::Route, Some(device), INPUT, decisions, None);
        self.forward(task, link, ip, route, output);
    }

    /// Asks the routes. None where the packet ends: the step is made.
    pub(super) fn route(
        &mut self,
        task: &mut Task,
        device: IfIndex,
        question: Question<'_>,
    ) -> Option<(&'a Route, Vec<Decision>)> {
        let answer: Answer<'a> = self.topology.routes.lookup(self.topology.host, question);
        if let Some(rule) = answer.doubt {
            let doubt = Doubt::PolicyRule(Box::new(rule.clone()));
            self.doubt(task, Stage::Route, Some(device), INPUT, doubt);
        }
        if answer.legs.len() > 1 && answer.unicast().is_some() && !question.to.is_multicast() {
            let doubt = Doubt::Packet(format!("which of {} next hops the kernel chooses for it", answer.legs.len()));
            self.doubt(task, Stage::Route, Some(device), INPUT, doubt);
        }
        if self.topology.host.is_cut("routes") {
            self.doubt(task, Stage::Route, Some(device), INPUT, Doubt::Missing("routes".to_owned()));
        }
        let mut decisions: Vec<Decision> = Vec::new();
        // The rules that every host has say nothing.
        let ordinary = |priority: u32| matches!(priority, 0 | 32_766 | 32_767);
        decisions.extend(
            answer
                .rule
                .filter(|rule| !ordinary(rule.priority))
                .map(|rule| Decision::PolicyRule(Box::new(rule.clone()))),
        );
        let kind = match (answer.route, answer.rule) {
            (Some(route), _) => {
                decisions.push(Decision::Route(Box::new(route.clone())));
                Some(route.kind)
            }
            (None, rule) => rule.and_then(|rule| rule.action.as_route()),
        };
        let stop = match kind {
            Some(RouteKind::Unicast) => return answer.route.map(|route| (route, decisions)),
            Some(RouteKind::Blackhole) => Stop::Blackhole,
            Some(RouteKind::Prohibit) => Stop::Prohibited,
            Some(RouteKind::Unreachable) => Stop::Unreachable,
            Some(RouteKind::Throw | RouteKind::Other) | None => Stop::NoRoute,
        };
        self.stop(task, Stage::Route, device, ERROR, decisions, stop);
        None
    }

    /// `ip_forward`, `ip6_forward`: TTL, MTU, the forward rules.
    fn forward(&mut self, mut task: Task, link: &Link, ip: &Ip, route: &Route, output: IfIndex) {
        if task.packet.destination_mac.is_some_and(MacAddress::is_multicast) {
            // Who sent it to a group of layer 2 has sent it to other routers as well: skb->pkt_type is not PACKET_HOST.
            self.stop(&task, Stage::IpForward, link.index, FORWARD, Vec::new(), Stop::OtherHost);
            return;
        }
        if !self.ipsec_check(&mut task, link.index, IpsecDirection::Forward) {
            return;
        }
        if ip.time_to_live.is_some_and(|ttl| ttl <= 1) {
            self.stop(&task, Stage::IpForward, link.index, FORWARD, Vec::new(), Stop::TimeToLive);
            return;
        }
        let ipsec = match self.ipsec_leaving(&mut task, output) {
            Leaving::Plain => None,
            Leaving::Wrapped(state) => Some(state),
            Leaving::Stopped => return,
        };
        if let IpAddr::V6(source) = ip.source
            && output != link.index
            && (source.is_unspecified() || source.is_unicast_link_local())
        {
            self.stop(&task, Stage::IpForward, link.index, FORWARD, Vec::new(), Stop::MartianSource);
            return;
        }
        let device_mtu = self.topology.link(output).map_or(u32::MAX, |link| link.mtu);
        let mtu = route.mtu.unwrap_or(device_mtu);
        let v6 = ip.destination.is_ipv6();
        if task.packet.length > mtu && (ip.dont_fragment || v6) && !(v6 && mtu < 1280 && task.packet.length <= 1280) {
            let decision = route
                .mtu
                .map_or_else(|| Decision::Setting(format!("mtu {mtu}")), |_| Decision::Route(Box::new(route.clone())));
            self.stop(&task, Stage::IpForward, output, FORWARD, vec![decision], Stop::RouteMtu(mtu));
            return;
        }
        let mut packet = task.packet.clone();
        if let Some(ip) = packet.ip_mut() {
            ip.time_to_live = ip.time_to_live.map(|ttl| ttl.saturating_sub(1));
        }
        self.pass(&mut task, Stage::IpForward, Some(output), FORWARD, Vec::new(), None);
        task.packet = packet;
        let site = self.ip_site(Hook::Forward, v6, Some(link.index), Some(output));
        if !self.rules(&mut task, RULES, &site) {
            return;
        }
        let next_hop = route.gateway.unwrap_or(ip.destination);
        let after = task.parent.unwrap_or_default();
        let output = Output { device: output, next_hop, input: Some(link.index), mtu, ipsec };
        self.go(task, after, Position::Output(output));
    }

    /// This host's own packet: `ip_route_output_key`, the output rules (`__ip_local_out`), and once more where they have changed
    /// its destination (`ip_route_me_harder`).
    pub(super) fn originate(&mut self, mut task: Task) {
        let mut asked = None;
        for _ in 0..2 {
            let Some(ip) = task.packet.ip().cloned() else {
                self.step(
                    &task,
                    Stage::Route,
                    None,
                    &[],
                    Vec::new(),
                    Outcome::Unknown(Doubt::Packet("not IP".to_owned())),
                );
                return;
            };
            if asked == Some(ip.destination) {
                break;
            }
            let v6 = ip.destination.is_ipv6();
            let first = asked.is_none();
            asked = Some(ip.destination);
            let loopback = self.topology.loopback();
            if !self.topology.own(ip.destination).is_empty() || ip.destination.is_loopback() {
                let Some(loopback) = loopback else { return };
                let site = self.ip_site(Hook::Output, v6, None, Some(loopback.index));
                if first && !self.rules(&mut task, RULES, &site) {
                    return;
                }
                if task.packet.ip().map(|ip| ip.destination) == asked {
                    self.loop_back(task, loopback.index, v6);
                    return;
                }
                continue;
            }
            if v6 && (ip.destination.is_multicast() || is_link_local(ip.destination)) {
                // Each device has such a route: the socket says by which.
                let doubt = Doubt::Packet("the device that its sender chose".to_owned());
                self.step(&task, Stage::Route, None, &["ip6_route_output_flags"], Vec::new(), Outcome::Unknown(doubt));
                return;
            }
            let Some((output, next_hop, mtu)) = self.way_out(&mut task, &ip, loopback) else { return };
            let ipsec = match self.ipsec_leaving(&mut task, output) {
                Leaving::Plain => None,
                Leaving::Wrapped(state) => Some(state),
                Leaving::Stopped => return,
            };
            let site = self.ip_site(Hook::Output, v6, None, Some(output));
            if first && !self.rules(&mut task, RULES, &site) {
                return;
            }
            if task.packet.ip().map(|ip| ip.destination) == asked {
                // ip_mc_output: this host hears what it says to everyone (RTCF_LOCAL).
                // A device that is down is in no group (`ip_mc_down`).
                let up = self.topology.link(output).is_some_and(|link| link.up);
                let all_hosts = up && ip.destination == IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
                if all_hosts || self.topology.is_broadcast(ip.destination) {
                    let outcome = Outcome::Branches;
                    task.parent =
                        Some(self.step(&task, Stage::Route, Some(output), &["ip_mc_output"], Vec::new(), outcome));
                    self.loop_back(task.clone(), output, v6);
                }
                let after = task.parent.unwrap_or_default();
                let output = Output { device: output, next_hop, input: None, mtu, ipsec };
                self.go(task, after, Position::Output(output));
                return;
            }
        }
    }

    /// Device, next hop and MTU of this host's own packet (`ip_route_output_key_hash_rcu`, `ip6_route_output_flags`).
    fn way_out(&mut self, task: &mut Task, ip: &Ip, loopback: Option<&Link>) -> Option<(IfIndex, IpAddr, u32)> {
        const FUNCTIONS: &[&str] = &["ip_route_output_flow", "ip6_route_output_flags"];
        let mtu_of = |device: IfIndex| self.topology.link(device).map_or(u32::MAX, |link| link.mtu);
        // A group, or everyone, is asked for at the device that has the source, up or down; no route is.
        let everyone = matches!(ip.destination, IpAddr::V4(to) if to.is_multicast() || to.is_broadcast());
        let owner = self.topology.own(ip.source).first();
        if let (true, Some((owner, network))) = (everyone, owner) {
            let (device, mtu) = (owner.index, mtu_of(owner.index));
            self.pass(task, Stage::Route, Some(device), FUNCTIONS, vec![Decision::OwnAddress(*network)], None);
            return Some((device, ip.destination, mtu));
        }
        let from = Some(ip.source).filter(|source| !source.is_unspecified());
        let question =
            Question { mark: task.packet.mark, layer4: ip.layer4(), ..Question::of(from, ip.destination, "lo") };
        let anchor = loopback.map_or(IfIndex(1), |loopback| loopback.index);
        let (route, decisions) = self.route(task, anchor, question)?;
        let device = route.device?;
        self.pass(task, Stage::Route, Some(device), FUNCTIONS, decisions, None);
        // The default route's gateway is none for a group (`__mkroute_output`).
        let gateway = route.gateway.filter(|_| !ip.destination.is_multicast() || route.destination.prefix >= 4);
        Some((device, gateway.unwrap_or(ip.destination), route.mtu.unwrap_or_else(|| mtu_of(device))))
    }

    /// A packet of this host's own comes back to it by a device: the rules on the way out and in (`ip_output`, `ip_rcv`), then the
    /// stack. Its route is known already.
    fn loop_back(&mut self, mut task: Task, device: IfIndex, v6: bool) {
        let out = self.ip_site(Hook::Postrouting, v6, None, Some(device));
        let back = self.ip_site(Hook::Prerouting, v6, Some(device), None);
        if self.rules(&mut task, RULES, &out) && self.rules(&mut task, RULES, &back) {
            let after = task.parent.unwrap_or_default();
            self.go(task, after, Position::Deliver(device));
        }
    }

    /// `ip_output`: postrouting, fragments, then the neighbour.
    pub(super) fn output(&mut self, mut task: Task, output: &Output) {
        let Some(link) = self.known(&task, Stage::DeviceTransmit, output.device) else { return };
        let v6 = task.packet.ip().is_some_and(|ip| ip.destination.is_ipv6());
        // The device that it came in by is known here since 5.7 (ip_output takes `indev` from skb->dev).
        let site = Site {
            next_hop: Some(output.next_hop),
            ..self.ip_site(Hook::Postrouting, v6, output.input, Some(output.device))
        };
        if !self.rules(&mut task, RULES, &site) {
            return;
        }
        if let Some(state) = &output.ipsec {
            self.ipsec_wrap(task, output.device, state);
            return;
        }
        if task.packet.length > output.mtu {
            let Some(ip) = task.packet.ip() else { return };
            let decision = Decision::Setting(format!("mtu {}", output.mtu));
            if ip.dont_fragment {
                self.stop(
                    &task,
                    Stage::IpForward,
                    output.device,
                    &["ip_fragment", "ip6_fragment"],
                    vec![decision],
                    Stop::RouteMtu(output.mtu),
                );
                return;
            }
            let fragment = first_fragment(&task.packet, output.mtu);
            self.pass(
                &mut task,
                Stage::IpForward,
                Some(output.device),
                &["ip_do_fragment"],
                vec![decision],
                Some(fragment),
            );
        }
        self.neighbour(task, link, output.next_hop, OUTPUT);
    }

    /// A packet for a group (`ip_mc_input`, `ip6_mc_input`): this host's stack takes those of groups that it joined. Which those are
    /// is known of all-hosts and solicited-node groups.
    fn group_receive(&mut self, task: &Task, link: &Link, ip: &Ip) {
        let joined = match ip.destination {
            IpAddr::V4(group) => group == Ipv4Addr::new(224, 0, 0, 1),
            IpAddr::V6(group) => {
                let octets = group.octets();
                let solicited = octets.starts_with(&[0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
                let own = self
                    .topology
                    .host
                    .links
                    .values()
                    .filter(|own| own.index == link.index)
                    .flat_map(|own| &own.addresses);
                let mut tails = own.filter_map(|network| match network.address {
                    IpAddr::V6(address) => address.octets().get(13..16).map(<[u8]>::to_vec),
                    IpAddr::V4(_) => None,
                });
                let all = group.segments() == [0xff02, 0, 0, 0, 0, 0, 0, 1];
                all || solicited && tails.any(|tail| octets.get(13..16) == Some(tail.as_slice()))
            }
        };
        if joined && let Err((stop, decisions)) = self.group_source(task, link, ip) {
            self.stop(task, Stage::SourceCheck, link.index, INPUT, decisions, stop);
        } else if joined {
            let after = task.parent.unwrap_or_default();
            self.go(task.clone(), after, Position::Deliver(link.index));
        } else {
            let functions = &["ip_rcv_finish_core", "ip6_mc_input"];
            self.step(task, Stage::Route, Some(link.index), functions, Vec::new(), Outcome::Arrives(Arrival::Ignored));
        }
    }

    /// The IP family's hook.
    #[expect(clippy::unused_self, reason = "reads as the walker's own, beside `rules`")]
    pub(super) fn ip_site(&self, hook: Hook, v6: bool, input: Option<IfIndex>, output: Option<IfIndex>) -> Site {
        let layer = if v6 { Layer::Ipv6 } else { Layer::Ipv4 };
        Site { layer, hook, input, output, input_port: None, output_port: None, next_hop: None }
    }

    /// The setting that keeps a device from forwarding (`IN_DEV_FORWARD`; for IPv6 `devconf_all` alone, in `ip6_forward`).
    fn not_forwarding(&self, link: &Link, v6: bool) -> Option<Decision> {
        let name = if v6 {
            "net.ipv6.conf.all.forwarding".to_owned()
        } else {
            let own = format!("net.ipv4.conf.{}.forwarding", link.name);
            // ip_forward is `conf.all.forwarding`, and sets all devices when it is written.
            if self.topology.host.sysctl(&own).is_some() && self.topology.sysctl("net.ipv4.ip_forward") != Some(0) {
                own
            } else {
                "net.ipv4.ip_forward".to_owned()
            }
        };
        let own = if v6 { None } else { self.topology.device_sysctl("ipv4", link, "forwarding") };
        let value = own.or_else(|| self.topology.sysctl(&name))?;
        (value == 0).then(|| Decision::Sysctl(name, "0".to_owned()))
    }

    fn ipv6_is_disabled(&self, link: &Link) -> bool {
        self.topology.device_sysctl("ipv6", link, "disable_ipv6") == Some(1)
    }
}

/// The first of the fragments of a packet (`ip_do_fragment`): the walk follows it for all.
fn first_fragment(packet: &Packet, mtu: u32) -> Packet {
    let mut fragment = packet.clone();
    fragment.length = mtu;
    if let Some(ip) = fragment.ip_mut()
        && ip.fragment == Fragment::Whole
    {
        ip.fragment = Fragment::First;
    }
    fragment
}
