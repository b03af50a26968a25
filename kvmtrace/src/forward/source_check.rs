//! Whether a source can be: martians and `rp_filter` (`ip_route_input_slow`, `fib_validate_source` in
//! `net/ipv4/{route,fib_frontend}.c` of 6.12). IPv6 has no such check outside of netfilter.

use super::packet::{Ip, Packet};
use super::step::{Decision, Stop};
use super::walker::{Task, Walker};
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind};
use crate::topology::routing::Question;
use std::net::{IpAddr, Ipv4Addr};

type Refusal = (Stop, Vec<Decision>);

impl Walker<'_, '_> {
    /// Addresses that can't be on the wire.
    pub(super) fn martian(&self, link: &Link, ip: &Ip) -> Result<(), Refusal> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (ip.source, ip.destination) else {
            // `ip6_rcv_core` has refused those of IPv6.
            return Ok(());
        };
        if source.is_multicast() || source.is_broadcast() {
            return Err((Stop::MartianSource, Vec::new()));
        }
        if destination.is_broadcast() {
            return Ok(());
        }
        let zero = |address: std::net::Ipv4Addr| address.octets()[0] == 0;
        if zero(source) {
            return Err((Stop::MartianSource, Vec::new()));
        }
        if zero(destination) {
            return Err((Stop::MartianDestination, Vec::new()));
        }
        let localnet = self.conf_max(link, "route_localnet");
        if localnet == 0 && (source.is_loopback() || destination.is_loopback()) {
            let decision = Decision::Sysctl(format!("net.ipv4.conf.{}.route_localnet", link.name), "0".to_owned());
            let stop = if destination.is_loopback() { Stop::MartianDestination } else { Stop::MartianSource };
            return Err((stop, vec![decision]));
        }
        Ok(())
    }

    /// Why `ip6_rcv_core` refuses a packet, before any rule sees it: loopback addresses from outside, a group as source, scopes that
    /// end at a device (RFC 4291, 2.5.3 and 2.7), and unicast in a group's frame where `drop_unicast_in_l2_multicast` is on.
    pub(super) fn refused_v6(&self, link: &Link, packet: &Packet) -> Option<Refusal> {
        let Some((IpAddr::V6(source), IpAddr::V6(destination))) = packet.ip().map(|ip| (ip.source, ip.destination))
        else {
            return None;
        };
        let own = link.kind == LinkKind::Loopback;
        let vrf = matches!(&link.kind, LinkKind::Other(kind) if kind == "vrf");
        if source.is_loopback() && !own && !vrf || source.is_multicast() {
            return Some((Stop::MartianSource, Vec::new()));
        }
        let scope = destination.octets()[1] & 0xf;
        let bound = destination.is_multicast() && (scope == 0 || scope == 1 && !own);
        if destination.is_loopback() && !own && !vrf || bound {
            return Some((Stop::MartianDestination, Vec::new()));
        }
        let in_group = packet.destination_mac.is_some_and(MacAddress::is_multicast) && !destination.is_multicast();
        if in_group && self.topology.device_sysctl("ipv6", link, "drop_unicast_in_l2_multicast") == Some(1) {
            let name = format!("net.ipv6.conf.{}.drop_unicast_in_l2_multicast", link.name);
            return Some((Stop::MartianDestination, vec![Decision::Sysctl(name, "1".to_owned())]));
        }
        None
    }

    /// `fib_validate_source`: the source is not this host's own, and under `rp_filter` the way back leads by the device that the packet
    /// came in by (1, strict), or by any (2, loose).
    pub(super) fn source_check(&self, link: &Link, mark: Option<u32>, ip: &Ip) -> Result<(), Refusal> {
        if ip.source.is_ipv6() {
            return Ok(());
        }
        let accept_local = self.conf_any(link, "accept_local");
        let own = self.topology.own(ip.source).first().map(|(_, network)| *network);
        if let Some(own) = own
            && !accept_local
        {
            return Err((Stop::MartianSource, vec![Decision::OwnAddress(own)]));
        }
        let filter = self.conf_max(link, "rp_filter");
        if filter == 0 || own.is_some() {
            return Ok(());
        }
        let sysctl = || Decision::Sysctl(self.deciding(link, "rp_filter", filter), filter.to_string());
        if self.topology.is_broadcast(ip.source) {
            return Err((Stop::MartianSource, Vec::new()));
        }
        let mark = if self.conf_any(link, "src_valid_mark") { mark } else { Some(0) };
        let layer4 = ip.layer4().map(|(protocol, source, destination)| (protocol, destination, source));
        let back = Question { mark, layer4, ..Question::of(Some(ip.destination), ip.source, "lo") };
        let answer = self.topology.routes.lookup(self.topology.host, back);
        let Some(route) = answer.unicast() else {
            return Err((Stop::ReversePath(None), vec![sysctl()]));
        };
        let decisions = || vec![sysctl(), Decision::Route(Box::new(route.clone()))];
        let has_address = link.addresses.iter().any(|network| network.address.is_ipv4());
        if answer.leg(link.index).is_some() || filter == 2 && has_address {
            Ok(())
        } else {
            Err((Stop::ReversePath(route.device), decisions()))
        }
    }

    /// `ip_mc_validate_source`: the source of a packet for a group that this host joined.
    pub(super) fn group_source(&self, task: &Task, link: &Link, ip: &Ip) -> Result<(), Refusal> {
        let IpAddr::V4(source) = ip.source else { return Ok(()) };
        let looped = source.is_loopback() && self.conf_max(link, "route_localnet") == 0;
        if source.is_multicast() || source.is_broadcast() || looped {
            return Err((Stop::MartianSource, Vec::new()));
        }
        if source.octets()[0] == 0 {
            let local = matches!(ip.destination, IpAddr::V4(group) if group.octets().starts_with(&[224, 0, 0]));
            return if local { Ok(()) } else { Err((Stop::MartianSource, Vec::new())) };
        }
        let nobody = Ip { destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..ip.clone() };
        self.source_check(link, task.packet.mark, &nobody)
    }

    /// The larger of the device's setting and `all` (`IN_DEV_MAXCONF`).
    pub(super) fn conf_max(&self, link: &Link, key: &str) -> i64 {
        let all = self.topology.sysctl(&format!("net.ipv4.conf.all.{key}")).unwrap_or(0);
        self.topology.device_sysctl("ipv4", link, key).unwrap_or(0).max(all)
    }

    /// The device's setting or `all` (`IN_DEV_ORCONF`).
    pub(super) fn conf_any(&self, link: &Link, key: &str) -> bool {
        self.conf_max(link, key) != 0
    }

    /// The name of the setting that `conf_max` took.
    pub(super) fn deciding(&self, link: &Link, key: &str, value: i64) -> String {
        let own = self.topology.device_sysctl("ipv4", link, key) == Some(value);
        format!("net.ipv4.conf.{}.{key}", if own { link.name.as_str() } else { "all" })
    }
}
