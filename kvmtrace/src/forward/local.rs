//! This host's own stack: the input rules, then ICMP or a socket (`ip_local_deliver`, `icmp_echo`, `ndisc_rcv` of 6.12).

use super::packet::Transport;
use super::step::{Arrival, Decision, Outcome, Stage, Stop};
use super::walker::{Task, Walker};
use crate::event::IfIndex;
use crate::event::ruleset::Hook;

impl Walker<'_, '_> {
    /// `ip_local_deliver`, `ip6_input`.
    pub(super) fn deliver(&mut self, mut task: Task, device: IfIndex) {
        let v6 = task.packet.ip().is_some_and(|ip| ip.destination.is_ipv6());
        let site = self.ip_site(Hook::Input, v6, Some(device), None);
        if !self.rules(&mut task, super::route::RULES, &site) {
            return;
        }
        let Some(ip) = task.packet.ip().cloned() else { return };
        let all = if v6 { "net.ipv6.icmp.echo_ignore_all" } else { "net.ipv4.icmp_echo_ignore_all" };
        let ignored = || self.topology.sysctl(all) == Some(1);
        let (decisions, outcome): (Vec<Decision>, Outcome) = match ip.transport {
            Transport::Icmp { kind: 8, .. } | Transport::Icmpv6 { kind: 128, .. } if ignored() => {
                (vec![Decision::Sysctl(all.to_owned(), "1".to_owned())], Outcome::Stops(Stop::IcmpIgnored))
            }
            Transport::Icmp { kind: 8, .. }
                if ip.destination.is_multicast() || self.topology.is_broadcast(ip.destination) =>
            {
                (Vec::new(), Outcome::Arrives(Arrival::Ignored))
            }
            Transport::Icmp { kind: 8, .. } | Transport::Icmpv6 { kind: 128, .. } => {
                (Vec::new(), Outcome::Arrives(Arrival::Answered))
            }
            Transport::Icmpv6 { kind: 135, target: Some(target), .. } => {
                let own = self.topology.own(target).iter().find(|(owner, _)| owner.index == device);
                match own {
                    Some((_, network)) => (vec![Decision::OwnAddress(*network)], Outcome::Arrives(Arrival::Answered)),
                    None => (Vec::new(), Outcome::Arrives(Arrival::Ignored)),
                }
            }
            Transport::Icmp { .. }
            | Transport::Icmpv6 { .. }
            | Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Sctp { .. }
            | Transport::Other(_) => (Vec::new(), Outcome::Arrives(Arrival::Host)),
        };
        let functions = &[
            "ip_local_deliver_finish",
            "icmp_rcv",
            "icmpv6_rcv",
            "udp_rcv",
            "__udp4_lib_rcv",
            "tcp_v4_rcv",
            "tcp_v6_rcv",
        ];
        self.step(&task, Stage::Local, Some(device), functions, decisions, outcome);
    }
}
