//! Devices, bridges, addresses, routes, neighbours and settings of a host.

use super::{Abilities, chance};
use crate::plan::{End, Plan, Segment, Station};
use kvmtrace::event::MacAddress;
use kvmtrace_tests::lab::draw::Draw;
use std::net::IpAddr;

/// Where a tap or veth is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In this bridge.
    Bridge(usize),
    /// It has an address itself.
    Own,
    /// Nowhere.
    Nowhere,
}

/// The drawing of one host.
struct Drawing<'a> {
    draw: &'a mut Draw,
    plan: Plan,
    abilities: Abilities,
    /// First byte of its IPv4 networks' second byte, so that hosts differ.
    net: u8,
}

/// Draws a host without rules.
pub(super) fn draw(draw: &mut Draw, abilities: Abilities) -> Plan {
    let net = draw.number(1, 250) as u8;
    let mut drawing = Drawing { draw, plan: Plan::default(), abilities, net };
    drawing.defaults();
    drawing.devices();
    drawing.beyond();
    drawing.ports();
    drawing.settings();
    drawing.neighbours();
    drawing.routes();
    drawing.faults();
    drawing.plan
}

impl Drawing<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        chance(self.draw, percent)
    }

    fn mac(&mut self) -> MacAddress {
        let bits = self.draw.bits().to_be_bytes();
        MacAddress([0x52, 0x54, bits[2], bits[3], bits[4], bits[5]])
    }

    fn name(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.draw.hex(4))
    }

    fn sysctl(&mut self, path: impl Into<String>, value: u32) {
        self.plan.setup.sysctls.push((path.into(), value.to_string()));
    }

    /// Quiet: no duplicate address detection, no solicitations.
    fn defaults(&mut self) {
        let mut set = |path: &str, value: &str| self.plan.setup.defaults.push((path.to_owned(), value.to_owned()));
        for scope in ["all", "default"] {
            set(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
            set(&format!("net/ipv4/conf/{scope}/rp_filter"), "0");
        }
        set("net/ipv6/conf/default/accept_ra", "0");
        set("net/ipv6/conf/default/autoconf", "0");
        set("net/ipv6/conf/default/router_solicitations", "0");
        set("net/ipv4/icmp_ratelimit", "0");
        set("net/ipv6/icmp/ratelimit", "0");
        set("net/ipv4/icmp_msgs_per_sec", "100000");
        set("net/ipv4/icmp_msgs_burst", "100000");
    }

    fn segment(&mut self, device: &str, mac: MacAddress, hosted: bool) -> usize {
        let number = self.plan.segments.len() as u8;
        let v4 = [10, self.net, number];
        let v6 = [0xfd00 | u16::from(self.net), 0, 0, u16::from(number)];
        let segment = Segment { device: device.to_owned(), mac, v4, v6, hosted };
        if hosted {
            self.plan.setup.devices.push(format!("addr add {}/24 dev {device}", segment.v4(1)));
            self.plan.setup.devices.push(format!("addr add {}/64 dev {device} nodad", segment.v6(1)));
        }
        self.plan.segments.push(segment);
        self.plan.segments.len() - 1
    }

    fn devices(&mut self) {
        let bridges = self.draw.pick(&[0_u32, 1, 1, 1, 1, 2, 2, 3]) as usize;
        for _ in 0..bridges {
            let (name, mac, snooping) = (self.name("br"), self.mac(), self.draw.number(0, 1));
            let filtering = self.abilities.vlan_filtering && self.chance(40);
            self.plan.setup.devices.push(format!(
                "link add {name} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping {snooping}{}",
                if filtering { " vlan_filtering 1" } else { "" }
            ));
            if self.chance(15) {
                let mtu = self.draw.pick(&[1400, 1280, 1450]);
                self.plan.setup.devices.push(format!("link set {name} mtu {mtu}"));
            }
            self.plan.setup.devices.push(format!("link set {name} up"));
            let hosted = self.chance(65);
            self.segment(&name, mac, hosted);
            self.plan.bridges.push(name);
        }
        for _ in 0..self.draw.number(2, 4) {
            self.tap();
        }
        for number in 0..self.draw.number(1, 3) {
            self.wire(number == 0);
        }
        self.stacked();
    }

    /// Devices on the wires that the host has addresses on: tunnels that are ports of bridges, macvlans and VLANs of its own.
    fn stacked(&mut self) {
        let wires: Vec<(String, usize)> = self
            .plan
            .stations
            .iter()
            .filter(|station| self.plan.segments[station.segment].hosted && station.segment >= self.plan.bridges.len())
            .filter_map(|station| match &station.end {
                End::Wire(name) => Some((name.clone(), station.segment)),
                End::Tap(_) => None,
            })
            .collect();
        if wires.is_empty() {
            return;
        }
        let (wire, segment) = wires[self.draw.number(0, wires.len() as u32 - 1) as usize].clone();
        if self.abilities.vxlan && !self.plan.bridges.is_empty() && self.chance(30) {
            let name = self.name("vx");
            let number = self.draw.number(0, self.plan.bridges.len() as u32 - 1) as usize;
            let (bridge, segment) = (self.plan.bridges[number].clone(), self.plan.segments[segment].clone());
            let remote = self.plan.stations.iter().find(|station| station.end == End::Wire(wire.clone()));
            let remote = segment.v4(remote.map_or(200, |station| station.host));
            let (mtu, df) =
                (self.draw.pick(&[1450, 1500, 1300]), self.draw.pick(&["unset", "unset", "set", "inherit"]));
            self.plan.setup.devices.push(format!(
                "link add {name} mtu {mtu} type vxlan id {} dstport 4789 local {} remote {remote} df {df}",
                self.draw.number(1, 9000),
                segment.v4(1)
            ));
            self.plan.setup.devices.push(format!("link set {name} master {bridge} up"));
            self.plan.stacked.push(name);
        }
        for (able, kind) in [
            (self.abilities.macvlan, "macvlan mode bridge".to_owned()),
            (self.abilities.vlan_devices, "vlan id 30".to_owned()),
        ] {
            if able && self.chance(15) {
                let (name, mac) = (self.name("up"), self.mac());
                self.plan.setup.devices.push(format!("link add link {wire} name {name} address {mac} type {kind}"));
                self.plan.setup.devices.push(format!("link set {name} up"));
                self.segment(&name, mac, true);
                self.plan.stacked.push(name);
            }
        }
    }

    fn home(&mut self, bridged: u32, own: u32) -> Home {
        let drawn = self.draw.number(1, 100);
        match self.plan.bridges.len() as u32 {
            bridges @ 1.. if drawn <= bridged => Home::Bridge(self.draw.number(0, bridges - 1) as usize),
            0 if drawn <= bridged => Home::Own,
            _ if drawn <= bridged + own => Home::Own,
            _ => Home::Nowhere,
        }
    }

    fn tap(&mut self) {
        let (name, mac, guest) = (self.name("vnet"), self.mac(), self.mac());
        let own = MacAddress([0xfe, mac.0[1], mac.0[2], mac.0[3], mac.0[4], mac.0[5]]);
        self.plan.setup.devices.push(format!("tuntap add dev {name} mode tap vnet_hdr"));
        let mtu = self.draw.pick(&[1500, 1500, 1500, 1500, 1400, 9000]);
        self.plan.setup.devices.push(format!("link set {name} address {own} mtu {mtu}"));
        let home = self.home(80, 15);
        if !self.chance(4) {
            self.plan.taps.push(name.clone());
        }
        let segment = self.settle(&name, own, home);
        self.station(End::Tap(name), guest, segment);
    }

    fn wire(&mut self, first: bool) {
        let (name, mac, far) = (self.name("eth"), self.mac(), self.name("far"));
        let mtu = self.draw.pick(&[1500, 1500, 1500, 1400, 9000]);
        // The far end sends and takes what no port here does.
        let far_mac = self.mac();
        self.plan.setup.devices.push(format!(
            "link add {name} mtu {mtu} address {mac} type veth peer name {far} mtu 9000 address {far_mac} netns ELSEWHERE"
        ));
        self.plan.setup.elsewhere.push(format!("link set {far} up"));
        self.plan.wires.push((name.clone(), far));
        let home = if first { self.home(50, 50) } else { self.home(60, 35) };
        let segment = self.settle(&name, mac, home);
        for _ in 0..self.draw.number(1, 2) {
            let mac = self.mac();
            self.station(End::Wire(name.clone()), mac, segment);
        }
    }

    /// Puts a device where it belongs; its network.
    fn settle(&mut self, name: &str, mac: MacAddress, home: Home) -> usize {
        match home {
            Home::Bridge(bridge) => {
                let bridge_name = self.plan.bridges[bridge].clone();
                self.plan.setup.devices.push(format!("link set {name} master {bridge_name} up"));
                bridge
            }
            Home::Own | Home::Nowhere => {
                self.plan.setup.devices.push(format!("link set {name} up"));
                self.segment(name, mac, home == Home::Own)
            }
        }
    }

    fn station(&mut self, end: End, mac: MacAddress, segment: usize) {
        let host = 10 + self.plan.stations.len() as u8;
        let deaf = [self.chance(10), self.chance(10)];
        self.plan.stations.push(Station { end, mac, segment, host, deaf, tag: None });
    }

    /// Networks that are nobody's neighbours.
    fn beyond(&mut self) {
        for number in 0..4_u8 {
            self.plan.beyond.push(IpAddr::from([198, 51, 100, 10 + 60 * number]));
            self.plan.beyond.push(IpAddr::from([0x2001, 0xdb8, 0, u16::from(number), 0, 0, 0, 9]));
        }
    }

    /// A bridge's ports with the bridge's index.
    fn ports_of_bridges(&self) -> Vec<(String, usize)> {
        let mut ports: Vec<(String, usize)> = self
            .plan
            .stations
            .iter()
            .filter(|station| station.segment < self.plan.bridges.len())
            .map(|station| match &station.end {
                End::Tap(name) | End::Wire(name) => (name.clone(), station.segment),
            })
            .collect();
        ports.dedup();
        ports
    }

    fn ports(&mut self) {
        for (port, bridge) in self.ports_of_bridges() {
            let mut flags = Vec::new();
            for (flag, usual) in [
                ("isolated", "on"),
                ("hairpin", "on"),
                ("flood", "off"),
                ("mcast_flood", "off"),
                ("bcast_flood", "off"),
                ("learning", "off"),
            ] {
                if self.chance(8) {
                    flags.push(format!("{flag} {usual}"));
                }
            }
            if self.abilities.locked_ports && self.chance(5) {
                flags.push("locked on".to_owned());
            }
            if !flags.is_empty() {
                self.plan.setup.bridge.push(format!("link set dev {port} {}", flags.join(" ")));
            }
            if self.chance(5) {
                let state = self.draw.number(0, 4);
                self.plan.setup.bridge.push(format!("link set dev {port} state {state}"));
            }
            self.forwarding_entries(&port, bridge);
        }
    }

    /// Entries set by hand: right ones, ones behind the wrong port, the bridge's own.
    fn forwarding_entries(&mut self, port: &str, bridge: usize) {
        let neighbours: Vec<MacAddress> =
            self.plan.stations.iter().filter(|station| station.segment == bridge).map(|station| station.mac).collect();
        if !neighbours.is_empty() && self.chance(12) {
            let mac = self.draw.pick(&neighbours);
            let kind = self.draw.pick(&["static", "static", "static sticky", "dynamic", "local"]);
            self.plan.setup.bridge.push(format!("fdb replace {mac} dev {port} master {kind}"));
        }
    }

    fn settings(&mut self) {
        let forwarding = u32::from(self.chance(85));
        self.sysctl("net/ipv4/ip_forward", forwarding);
        let forwarding = u32::from(self.chance(85));
        self.sysctl("net/ipv6/conf/all/forwarding", forwarding);
        let filter = self.draw.pick(&[0, 0, 0, 0, 1, 2]);
        self.sysctl("net/ipv4/conf/all/rp_filter", filter);
        if self.abilities.bridge_netfilter {
            for table in ["ip", "ip6", "arp"] {
                let called = self.draw.number(0, 1);
                self.sysctl(format!("net/bridge/bridge-nf-call-{table}tables"), called);
            }
        }
        let devices: Vec<String> = self.plan.devices().into_iter().map(str::to_owned).collect();
        for device in devices {
            // Resolving in vain ends early. A namespace has no defaults for it.
            for family in ["ipv4", "ipv6"] {
                // A proxy answers after a random delay otherwise (`pneigh_enqueue`).
                for (setting, value) in
                    [("retrans_time_ms", 40), ("mcast_solicit", 2), ("ucast_solicit", 2), ("proxy_delay", 0)]
                {
                    self.sysctl(format!("net/{family}/neigh/{device}/{setting}"), value);
                }
            }
            for (family, setting, percent, values) in [
                ("ipv4", "forwarding", 4, &[0][..]),
                ("ipv4", "rp_filter", 12, &[0, 1, 2]),
                ("ipv4", "proxy_arp", 8, &[1]),
                ("ipv4", "arp_ignore", 8, &[1, 2, 8]),
                ("ipv4", "arp_filter", 5, &[1]),
                ("ipv4", "accept_local", 5, &[1]),
                ("ipv4", "route_localnet", 5, &[1]),
                ("ipv6", "disable_ipv6", 3, &[1]),
                ("ipv6", "proxy_ndp", 5, &[1]),
            ] {
                if self.chance(percent) {
                    let value = self.draw.pick(values);
                    self.sysctl(format!("net/{family}/conf/{device}/{setting}"), value);
                }
            }
        }
    }

    /// Who is known to whom: most stations for ever, some wrongly, some not at all.
    fn neighbours(&mut self) {
        for (number, station) in self.plan.stations.clone().into_iter().enumerate() {
            let segment = self.plan.segments[station.segment].clone();
            if !segment.hosted {
                continue;
            }
            for v6 in [false, true] {
                let (address, device) = (segment.address(v6, station.host), &segment.device);
                let entry = |mac, state: &str| format!("neigh replace {address} lladdr {mac} dev {device} nud {state}");
                let line = match self.draw.number(1, 100) {
                    1..=76 => entry(station.mac, "permanent"),
                    77..=80 => {
                        let wrong = self.mac();
                        entry(wrong, "permanent")
                    }
                    81..=86 => entry(station.mac, "reachable"),
                    87..=90 => entry(station.mac, "stale"),
                    91..=95 => {
                        self.plan.stations[number].deaf[usize::from(v6)] = true;
                        format!("neigh replace {address} dev {device} nud failed")
                    }
                    _ => continue,
                };
                self.network(v6).push(line);
            }
        }
    }

    fn network(&mut self, v6: bool) -> &mut Vec<String> {
        if v6 { &mut self.plan.setup.network6 } else { &mut self.plan.setup.network }
    }

    fn routes(&mut self) {
        let gateways: Vec<(usize, u8)> = self
            .plan
            .stations
            .iter()
            .filter(|station| matches!(station.end, End::Wire(_)) && self.plan.segments[station.segment].hosted)
            .map(|station| (station.segment, station.host))
            .collect();
        let via = |drawing: &mut Self, v6: bool| -> Option<String> {
            if gateways.is_empty() {
                return None;
            }
            let (segment, host) = drawing.draw.pick(&gateways);
            let segment = &drawing.plan.segments[segment];
            Some(format!("via {} dev {}", segment.address(v6, host), segment.device))
        };
        for v6 in [false, true] {
            if self.chance(80)
                && let Some(via) = via(self, v6)
            {
                self.network(v6).push(format!("route replace default {via}"));
            }
            let beyond: Vec<IpAddr> =
                self.plan.beyond.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
            for address in beyond {
                let net = match address {
                    IpAddr::V4(_) => format!("{address}/{}", self.draw.pick(&[32, 28, 30])),
                    IpAddr::V6(_) => format!("{address}/{}", self.draw.pick(&[128, 120, 64])),
                };
                let net = masked(&net);
                let table = if self.chance(25) { " table 100" } else { "" };
                let route = match self.draw.number(1, 100) {
                    1..=25 => continue,
                    26..=50 => match via(self, v6) {
                        Some(via) => format!("route replace {net} {via}"),
                        None => continue,
                    },
                    51..=60 => match via(self, v6) {
                        Some(via) => format!("route replace {net} {via} mtu {}", self.draw.pick(&[1280, 1300, 1400])),
                        None => continue,
                    },
                    61..=65 => match via(self, v6) {
                        Some(via) => format!("route replace {net} {via} metric {}", self.draw.pick(&[5, 50, 5000])),
                        None => continue,
                    },
                    66..=74 => format!("route replace blackhole {net}"),
                    75..=83 => format!("route replace unreachable {net}"),
                    84..=92 => format!("route replace prohibit {net}"),
                    _ => format!("route replace throw {net}"),
                };
                self.network(v6).push(format!("{route}{table}"));
            }
            if self.abilities.ipsec && self.chance(10) {
                self.ipsec_policy(v6);
            }
            if self.chance(30) {
                let rule = self.policy_rule(v6);
                let line = format!("rule add pref {} {rule}", self.draw.number(100, 900));
                self.network(v6).push(line);
            }
        }
    }

    fn ipsec_policy(&mut self, v6: bool) {
        let segment = self.draw.number(0, self.plan.segments.len() as u32 - 1) as usize;
        let near = masked(&format!("{}/{}", self.plan.segments[segment].address(v6, 1), if v6 { 64 } else { 24 }));
        let beyond: Vec<IpAddr> = self.plan.beyond.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
        let far = format!("{}/{}", self.draw.pick(&beyond), if v6 { 128 } else { 32 });
        let (from, to) = if self.chance(50) { (near, far) } else { (far, near) };
        let direction = self.draw.pick(&["out", "fwd", "in"]);
        let action = self.draw.pick(&["block", "block", "allow"]);
        let line = format!("xfrm policy add src {from} dst {to} dir {direction} priority 10 action {action}");
        self.network(v6).push(line);
    }

    fn policy_rule(&mut self, v6: bool) -> String {
        let segment = self.draw.number(0, self.plan.segments.len() as u32 - 1) as usize;
        let segment = self.plan.segments[segment].clone();
        let net = masked(&format!("{}/{}", segment.address(v6, 1), if v6 { 64 } else { 24 }));
        let beyond: Vec<IpAddr> = self.plan.beyond.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
        let beyond = self.draw.pick(&beyond);
        let selector = match self.draw.number(0, 5) {
            0 => format!("from {net}"),
            1 => format!("iif {}", segment.device),
            2 => format!("to {beyond}"),
            3 => format!("from {net} to {beyond}"),
            4 => "fwmark 5".to_owned(),
            _ => "from all".to_owned(),
        };
        let action = self.draw.pick(&[
            "lookup 100",
            "lookup 100",
            "lookup 100",
            "lookup main suppress_prefixlength 0",
            "prohibit",
            "unreachable",
            "blackhole",
        ]);
        if selector == "from all" { "from all lookup 100".to_owned() } else { format!("{selector} {action}") }
    }

    /// Devices that are down, and wires that are cut.
    fn faults(&mut self) {
        let devices: Vec<String> = self.plan.devices().into_iter().map(str::to_owned).collect();
        for device in devices {
            if self.chance(3) {
                self.plan.setup.network.push(format!("link set {device} down"));
                self.plan.cut.push(device);
            }
        }
        for (near, far) in self.plan.wires.clone() {
            if self.chance(3) {
                self.plan.setup.elsewhere.push(format!("link set {far} down"));
                self.plan.cut.push(near);
            }
        }
    }
}

/// A network without the bits that its prefix leaves out.
fn masked(net: &str) -> String {
    let Some((address, prefix)) = net.split_once('/') else { return net.to_owned() };
    let prefix: u32 = prefix.parse().unwrap_or(0);
    match address.parse() {
        Ok(IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from(u32::from(address) & mask))
        }
        Ok(IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv6Addr::from(u128::from(address) & mask))
        }
        Err(_) => net.to_owned(),
    }
}
