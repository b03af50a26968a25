//! Tunnels: the packet goes on as the outer one (`vxlan_xmit`, `vxlan_xmit_one` in `drivers/net/vxlan` of 6.12).

use super::packet::{Fragment, Ip, Network, Packet, Translation, Transport};
use super::step::{Decision, Stage, Stop};
use super::walker::{Position, Task, Walker};
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind};
use crate::topology::routing::Question;
use std::net::IpAddr;

const SEND: &[&str] = &["vxlan_xmit", "vxlan_xmit_one"];
/// Ethernet header, VXLAN header, UDP header.
const OVERHEAD: u32 = 14 + 8 + 8;

impl<'a> Walker<'a, '_> {
    /// `vxlan_xmit`: by the tunnel's database, else by its default entries.
    pub(super) fn vxlan_transmit(&mut self, task: &Task, link: &'a Link) {
        let LinkKind::Vxlan { remote, local, port, dont_fragment, .. } = &link.kind else { return };
        let known = task.packet.destination_mac.map_or(&[][..], |mac| self.topology.remotes(link.index, mac));
        let entries = if known.is_empty() { self.topology.remotes(link.index, MacAddress([0; 6])) } else { known };
        let mut remotes: Vec<(IpAddr, Vec<Decision>)> = entries
            .iter()
            .filter_map(|entry| Some((entry.remote?, vec![Decision::Fdb(Box::new((*entry).clone()))])))
            .collect();
        if remotes.is_empty() {
            remotes.extend(remote.map(|remote| (remote, vec![Decision::Setting(format!("remote {remote}"))])));
        }
        remotes.dedup_by_key(|(remote, _)| *remote);
        if remotes.is_empty() {
            self.stop(task, Stage::Tunnel, link.index, SEND, Vec::new(), Stop::NoRemote);
            return;
        }
        for (remote, decisions) in remotes {
            let dont_fragment = match dont_fragment {
                0 => false,
                1 => true,
                _ => task.packet.ip().is_some_and(|ip| ip.dont_fragment),
            };
            let outer = self.outer(&task.packet, *local, remote, *port, dont_fragment);
            let mut task = task.clone();
            self.pass(&mut task, Stage::Tunnel, Some(link.index), SEND, decisions, Some(outer));
            let after = task.parent.unwrap_or_default();
            self.go(task, after, Position::Originate);
        }
    }

    fn outer(&self, inner: &Packet, local: Option<IpAddr>, remote: IpAddr, port: u16, dont_fragment: bool) -> Packet {
        let chosen = || {
            let answer = self.topology.routes.lookup(self.topology.host, Question::own(remote));
            let route = answer.unicast()?;
            let own = self.topology.link(route.device?)?.addresses.iter().map(|network| network.address);
            route.source.or_else(|| own.clone().find(|address| address.is_ipv4() == remote.is_ipv4()))
        };
        let unspecified = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let header = if remote.is_ipv4() { 20 } else { 40 };
        let tags = 4 * u32::try_from(inner.tags.len()).unwrap_or(0);
        Packet {
            source_mac: None,
            destination_mac: None,
            tags: Vec::new(),
            network: Network::Ip(Ip {
                source: local.or_else(chosen).unwrap_or(unspecified),
                destination: remote,
                // The source port is a hash of the inner flow.
                transport: Transport::Udp { source: None, destination: Some(port) },
                time_to_live: None,
                dont_fragment,
                fragment: Fragment::Whole,
                traffic_class: None,
            }),
            length: inner.length.saturating_add(OVERHEAD + header + tags),
            gso: inner.gso,
            mark: inner.mark,
            connection: None,
            translation: Translation::default(),
        }
    }
}
