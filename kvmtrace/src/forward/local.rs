//! This host's own stack: the input rules, then ICMP or a socket (`ip_local_deliver`, `icmp_echo`, `ndisc_rcv` of 6.12).

use super::packet::Transport;
use super::step::{Arrival, Decision, Doubt, Outcome, Stage, Stop};
use super::walker::{Position, Task, Walker};
use crate::event::IfIndex;
use crate::event::overlay::{IpsecDirection, VirtualService};
use crate::event::ruleset::Hook;

impl Walker<'_, '_> {
    /// `ip_local_deliver`, `ip6_input`.
    pub(super) fn deliver(&mut self, mut task: Task, device: IfIndex) {
        let v6 = task.packet.ip().is_some_and(|ip| ip.destination.is_ipv6());
        let site = self.ip_site(Hook::Input, v6, Some(device), None);
        if !self.rules(&mut task, super::route::RULES, &site) {
            return;
        }
        if self.unwrap(&mut task, device) || self.ipvs(&mut task, device) {
            return;
        }
        if !self.ipsec_check(&mut task, device, IpsecDirection::In) {
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

    /// IPVS takes packets for its services from the input hook (`ip_vs_in_hook`). False where none is for this one.
    fn ipvs(&mut self, task: &mut Task, device: IfIndex) -> bool {
        const FUNCTIONS: &[&str] = &["ip_vs_in_hook", "ip_vs_schedule"];
        let host = self.topology.host;
        let Some(ip) = task.packet.ip().filter(|_| !host.overlay.services.is_empty()) else { return false };
        let to = ip.transport.ports().and_then(|(_, to)| to);
        let number = ip.transport.number();
        let is_for = |service: &&VirtualService| match (service.protocol, service.address) {
            (Some(protocol), Some(address)) => {
                let port = service.port == 0 || to.is_some_and(|to| u32::from(to) == service.port);
                protocol == number && address == ip.destination && port
            }
            (_, _) => service.port != 0 && task.packet.mark == Some(service.port),
        };
        let Some(service) = host.overlay.services.iter().find(is_for) else { return false };
        let mut alive = service.servers.iter().filter(|server| server.weight > 0);
        let Some(server) = alive.next() else {
            self.stop(task, Stage::Local, device, &["ip_vs_schedule", "ip_vs_leave"], Vec::new(), Stop::NoServer);
            return true;
        };
        if alive.next().is_some() {
            let doubt = Doubt::Daemon("IPVS, which chooses one of several servers,".to_owned());
            self.doubt(task, Stage::Local, Some(device), FUNCTIONS, doubt);
        }
        let decisions =
            vec![Decision::Setting(format!("server {}:{} {}", server.address, server.port, server.forward))];
        if server.forward != "Masq" {
            // Direct routing and tunnels leave the addresses as they are; the way is the server's.
            let doubt = Doubt::Daemon(format!("IPVS ({})", server.forward));
            self.step(task, Stage::Local, Some(device), FUNCTIONS, decisions, Outcome::Unknown(doubt));
            return true;
        }
        let mut packet = task.packet.clone();
        if let Some(ip) = packet.ip_mut() {
            ip.destination = server.address;
            if let Transport::Tcp { destination, .. }
            | Transport::Udp { destination, .. }
            | Transport::Sctp { destination, .. } = &mut ip.transport
            {
                *destination = Some(server.port);
            }
        }
        packet.translation.destination_done = true;
        packet.translation.destination_changed = true;
        self.pass(task, Stage::Nat, Some(device), FUNCTIONS, decisions, Some(packet));
        let after = task.parent.unwrap_or_default();
        self.go(task.clone(), after, Position::Originate);
        true
    }
}
