//! Rulesets of nftables, iptables and arptables: chains of all families at all hooks, with tests of all kinds that speak of the
//! host's own devices, stations and networks.

#![expect(clippy::format_push_string, reason = "a ruleset is a text that grows line by line")]

use super::packets::PORTS;
use super::{Abilities, chance};
use crate::plan::Plan;
use kvmtrace_tests::lab::draw::Draw;

/// A family of nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ip,
    Ip6,
    Inet,
    Bridge,
    Arp,
    Netdev,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
        }
    }

    fn hooks(self) -> &'static [&'static str] {
        match self {
            Self::Ip | Self::Ip6 | Self::Inet | Self::Bridge => {
                &["prerouting", "input", "forward", "forward", "forward", "output", "postrouting"]
            }
            Self::Arp => &["input", "output"],
            Self::Netdev => &["ingress", "ingress", "egress"],
        }
    }

    fn is_ip(self) -> bool {
        matches!(self, Self::Ip | Self::Ip6 | Self::Inet)
    }
}

/// The drawing of a ruleset.
struct Drawing<'a> {
    plan: &'a mut Plan,
    draw: &'a mut Draw,
    abilities: Abilities,
}

/// Adds a ruleset; every fourth host has none.
pub(super) fn draw(plan: &mut Plan, draw: &mut Draw, abilities: Abilities) {
    let mut drawing = Drawing { plan, draw, abilities };
    if drawing.chance(25) {
        return;
    }
    for number in 0..drawing.draw.number(1, 3) {
        let family = drawing.draw.pick(&[
            Family::Ip,
            Family::Ip6,
            Family::Inet,
            Family::Inet,
            Family::Inet,
            Family::Bridge,
            Family::Bridge,
            Family::Arp,
            Family::Netdev,
        ]);
        let table = drawing.table(family, number);
        drawing.plan.setup.nft.push(table);
    }
    if drawing.chance(35) {
        let table = drawing.translation();
        drawing.plan.setup.nft.push(table);
    }
    if drawing.chance(35) {
        drawing.iptables();
    }
}

impl Drawing<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        chance(self.draw, percent)
    }

    fn device(&mut self) -> String {
        let devices: Vec<String> = self.plan.devices().into_iter().map(str::to_owned).collect();
        self.draw.pick(&devices.iter().map(String::as_str).collect::<Vec<_>>()).to_owned()
    }

    /// An address that packets of the host bear.
    fn address(&mut self, v6: bool) -> String {
        let stations = self.plan.stations.len() as u32;
        match self.draw.number(0, 9) {
            0..=5 => {
                let station = self.draw.number(0, stations - 1) as usize;
                self.plan.address(&self.plan.stations[station], v6).to_string()
            }
            6 | 7 => {
                let segment = self.draw.number(0, self.plan.segments.len() as u32 - 1) as usize;
                self.plan.segments[segment].address(v6, 1).to_string()
            }
            _ => {
                let beyond: Vec<_> =
                    self.plan.beyond.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
                self.draw.pick(&beyond).to_string()
            }
        }
    }

    /// One of the host's networks.
    fn network(&mut self, v6: bool) -> String {
        let segment = self.draw.number(0, self.plan.segments.len() as u32 - 1) as usize;
        let segment = &self.plan.segments[segment];
        if v6 { format!("{}/64", segment.v6(0)) } else { format!("{}/24", segment.v4(0)) }
    }

    /// One table with its sets and chains.
    fn table(&mut self, family: Family, number: u32) -> String {
        let v6 = family == Family::Ip6 || family == Family::Inet && self.chance(40);
        let mut text = format!("table {} t{number} {{\n", family.name());
        if family.is_ip() || family == Family::Bridge {
            let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
            let mut members = vec![self.address(v6), self.network(v6)];
            if self.chance(50) {
                members.push(if v6 {
                    "2001:db8:0:1::-2001:db8:0:1::ff".into()
                } else {
                    "198.51.100.60-198.51.100.80".into()
                });
            }
            text += &format!(
                "set hosts {{ type {kind}; flags interval; auto-merge; elements = {{ {} }}; }}\n",
                members.join(", ")
            );
            text += &format!("set ports {{ type inet_service; elements = {{ {} }}; }}\n", self.ports().join(", "));
            let verdict = self.draw.pick(&["drop", "accept", "return"]);
            text += &format!(
                "map verdicts {{ type {kind} : verdict; elements = {{ {} : {verdict} }}; }}\n",
                self.address(v6)
            );
            let pair = (self.address(v6), self.draw.pick(&PORTS));
            text += &format!("set pairs {{ type {kind} . inet_service; elements = {{ {} . {} }}; }}\n", pair.0, pair.1);
        }
        let chains = self.draw.number(0, 2);
        for chain in 0..chains {
            text += &format!("chain c{chain} {{\n");
            for _ in 0..self.draw.number(1, 3) {
                // Only chains before it, so that none jumps in a circle.
                text += &self.rule(family, "", v6, chain);
            }
            text += "}\n";
        }
        for base in 0..self.draw.number(1, 3) {
            let hook = self.draw.pick(family.hooks());
            let priority = self.draw.pick(&["0", "10", "-10", "-150", "-300", "50"]);
            let policy = if self.chance(18) { "drop" } else { "accept" };
            let device = if family == Family::Netdev { format!(" device {}", self.device()) } else { String::new() };
            text +=
                &format!("chain b{base} {{ type filter hook {hook}{device} priority {priority}; policy {policy};\n");
            for _ in 0..self.draw.number(1, 5) {
                text += &self.rule(family, hook, v6, chains);
            }
            text += "}\n";
        }
        text + "}\n"
    }

    fn ports(&mut self) -> Vec<String> {
        let mut ports = vec![self.draw.pick(&PORTS), self.draw.pick(&PORTS)];
        ports.dedup();
        ports.iter().map(u16::to_string).collect()
    }

    /// A rule that may jump to the first `chains` chains.
    fn rule(&mut self, family: Family, hook: &str, v6: bool, chains: u32) -> String {
        let mut parts: Vec<String> = Vec::new();
        for _ in 0..self.draw.pick(&[0, 1, 1, 1, 2, 2, 3]) {
            parts.push(self.test(family, hook, v6));
        }
        if self.chance(30) {
            parts.push("counter".to_owned());
        }
        parts.push(self.verdict(family, hook, v6, chains, parts.is_empty()));
        parts.join(" ") + "\n"
    }

    fn verdict(&mut self, family: Family, hook: &str, v6: bool, chains: u32, bare: bool) -> String {
        let mac_or_ip = if v6 { "ip6" } else { "ip" };
        match self.draw.number(1, 100) {
            // A rule without a test takes all packets: mostly one that lets them pass.
            1..=35 if !bare => "drop".to_owned(),
            1..=50 => "accept".to_owned(),
            51..=58 if chains > 0 => format!("jump c{}", self.draw.number(0, chains - 1)),
            59..=62 if chains > 0 => format!("goto c{}", self.draw.number(0, chains - 1)),
            63..=68 => "return".to_owned(),
            69..=74 => "meta mark set 0x5".to_owned(),
            75..=77 => format!("meta mark set {}", self.draw.pick(&["meta mark or 0x10", "0x7", "meta mark and 0xff"])),
            78..=83 if family.is_ip() && !bare && matches!(hook, "input" | "forward" | "output") => {
                self.draw.pick(&["reject", "reject with icmpx admin-prohibited"]).to_owned()
            }
            84..=87 if family.is_ip() || family == Family::Bridge => format!("{mac_or_ip} saddr vmap @verdicts"),
            88..=90 if family.is_ip() || family == Family::Bridge => {
                let drop = self.draw.pick(&PORTS);
                format!("th dport vmap {{ {drop} : drop, 7 : accept }}")
            }
            91 if family.is_ip() && matches!(hook, "prerouting" | "output") => "notrack".to_owned(),
            _ => "counter".to_owned(),
        }
    }

    /// One test.
    fn test(&mut self, family: Family, hook: &str, v6: bool) -> String {
        let input = matches!(hook, "prerouting" | "input" | "forward" | "ingress");
        let output = matches!(hook, "forward" | "output" | "postrouting" | "egress");
        let not = if self.chance(15) { "!= " } else { "" };
        let ip = if v6 { "ip6" } else { "ip" };
        let icmp = if v6 { "icmpv6" } else { "icmp" };
        let port = self.draw.pick(&PORTS);
        if family == Family::Arp {
            return match self.draw.number(0, 4) {
                0 => "arp operation request".to_owned(),
                1 => format!("arp saddr ip {not}{}", self.address(false)),
                2 => format!("arp daddr ip {not}{}", self.address(false)),
                3 if input => format!("iifname {not}\"{}\"", self.device()),
                _ => "arp operation reply".to_owned(),
            };
        }
        let layer2 = matches!(family, Family::Bridge | Family::Netdev);
        let kind = self.draw.number(0, if layer2 { 26 } else { 22 });
        match kind {
            0 | 1 if input => format!("iifname {not}\"{}\"", self.device()),
            2 | 3 if output => format!("oifname {not}\"{}\"", self.device()),
            4 if input => format!("iifname \"{}*\"", self.draw.pick(&["vnet", "eth", "br"])),
            5 | 6 => format!("{ip} saddr {not}{}", self.address(v6)),
            7 | 8 => format!("{ip} daddr {not}{}", self.network(v6)),
            9 if family.is_ip() || family == Family::Bridge => {
                format!("{ip} {} {not}@hosts", self.draw.pick(&["saddr", "daddr"]))
            }
            10 if family.is_ip() || family == Family::Bridge => format!("th dport {not}@ports"),
            11 => format!("{} dport {not}{port}", self.draw.pick(&["tcp", "udp"])),
            12 => format!("tcp dport {{ {port}, 1000-6000 }}"),
            13 => format!("meta l4proto {not}{}", self.draw.pick(&["tcp", "udp", "{ tcp, udp }", icmp])),
            14 => format!("{icmp} type echo-request"),
            15 if family.is_ip() || family == Family::Bridge && self.abilities.bridge_conntrack => {
                format!(
                    "ct state {not}{}",
                    self.draw.pick(&["new", "established,related", "invalid", "{ new, untracked }"])
                )
            }
            16 => format!("meta mark {not}{}", self.draw.pick(&["0x5", "0x0", "and 0x10 == 0x10"]))
                .replace("!= and", "and"),
            17 if family.is_ip() && matches!(hook, "prerouting" | "input" | "forward") => self
                .draw
                .pick(&["fib saddr . iif oif missing", "fib daddr type local", "fib saddr . iif oif exists"])
                .to_owned(),
            18 => {
                format!("{ip} {} {}", if v6 { "hoplimit" } else { "ttl" }, self.draw.pick(&["1", "< 3", "64", "> 64"]))
            }
            19 => format!("meta length {} {}", self.draw.pick(&["<", ">"]), self.draw.pick(&["150", "1300", "1400"])),
            20 if family.is_ip() || family == Family::Bridge => format!("{ip} saddr . th dport {not}@pairs"),
            21 => format!("{ip} dscp {not}{}", self.draw.pick(&["cs0", "ef"])),
            22 => format!("tcp flags & (fin|syn|rst|ack) == {}", self.draw.pick(&["syn", "ack"])),
            23 => {
                let station = self.draw.number(0, self.plan.stations.len() as u32 - 1) as usize;
                format!("ether saddr {not}{}", self.plan.stations[station].mac)
            }
            24 => format!("ether daddr {}", self.draw.pick(&["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:00/16"]))
                .replace("/16", ""),
            25 => format!("ether type {}", self.draw.pick(&["arp", "ip", "ip6"])),
            26 => format!("meta protocol {}", self.draw.pick(&["arp", "ip", "ip6"])),
            _ => format!("{ip} daddr {not}{}", self.address(v6)),
        }
    }

    /// Destination and source translation.
    fn translation(&mut self) -> String {
        let v6 = self.chance(30);
        let (family, other) = if v6 { ("ip6", "ip6") } else { ("ip", "ip") };
        let mut text = format!("table {family} nat {{\n");
        text += "chain pre { type nat hook prerouting priority -100;\n";
        for _ in 0..self.draw.number(0, 2) {
            let (to, port, device) = (self.address(v6), self.draw.pick(&PORTS), self.device());
            let shown = if v6 { format!("[{to}]") } else { to.clone() };
            text += &match self.draw.number(0, 3) {
                0 => format!("iifname \"{device}\" tcp dport {port} dnat to {shown}:{}\n", self.draw.pick(&PORTS)),
                1 => format!("{other} daddr {} dnat to {to}\n", self.address(v6)),
                2 => format!("udp dport {port} redirect to :{}\n", self.draw.pick(&PORTS)),
                _ => format!("{other} daddr {} udp dport {port} dnat to {shown}:5000\n", self.address(v6)),
            };
        }
        text += "}\nchain post { type nat hook postrouting priority 100;\n";
        for _ in 0..self.draw.number(0, 2) {
            let (device, net) = (self.device(), self.network(v6));
            text += &match self.draw.number(0, 3) {
                0 => format!("oifname \"{device}\" masquerade\n"),
                1 => format!("{other} saddr {net} {other} daddr != {net} masquerade\n"),
                2 => format!("oifname \"{device}\" snat to {}\n", self.address(v6)),
                _ => format!("{other} saddr {net} oifname \"{device}\" masquerade\n"),
            };
        }
        text + "}\n}\n"
    }

    /// Rules of iptables, of the nft or the legacy back end.
    fn iptables(&mut self) {
        let v6 = self.chance(35);
        let backend = if self.abilities.legacy && self.chance(50) { "legacy" } else { "nft" };
        let command = format!("{}-{backend}", if v6 { "ip6tables" } else { "iptables" });
        let command = if backend == "legacy" { format!("{command} -w") } else { command };
        for _ in 0..self.draw.number(1, 4) {
            let chain = self.draw.pick(&["FORWARD", "FORWARD", "FORWARD", "INPUT", "OUTPUT"]);
            let mut tests = String::new();
            for _ in 0..self.draw.number(0, 2) {
                let not = if self.chance(15) { "! " } else { "" };
                let test = match self.draw.number(0, 8) {
                    0 if chain != "OUTPUT" && !tests.contains("-i ") => format!("{not}-i {}", self.device()),
                    1 if chain != "INPUT" && !tests.contains("-o ") => format!("{not}-o {}", self.device()),
                    2 if !tests.contains("-s ") => format!("{not}-s {}", self.network(v6)),
                    3 if !tests.contains("-d ") => format!("{not}-d {}", self.address(v6)),
                    4 if !tests.contains("-p ") => {
                        let protocol = self.draw.pick(&["tcp", "udp"]);
                        format!("-p {protocol} -m {protocol} --dport {}", self.draw.pick(&["53", "80", "22:443"]))
                    }
                    5 => "-m conntrack --ctstate NEW".to_owned(),
                    6 => "-m mark --mark 0x5".to_owned(),
                    7 if chain == "FORWARD" && self.abilities.bridge_netfilter => {
                        format!("-m physdev {not}--physdev-in {}", self.device())
                    }
                    8 if !tests.contains("-p ") => "-p tcp -m multiport --dports 22,80,5000".to_owned(),
                    _ => continue,
                };
                tests += &format!("{test} ");
            }
            let target =
                if tests.is_empty() { "ACCEPT" } else { self.draw.pick(&["ACCEPT", "DROP", "DROP", "REJECT"]) };
            self.plan.setup.rules.push(format!("{command} -A {chain} {tests}-j {target}"));
        }
        if self.chance(15) {
            self.plan.setup.rules.push(format!("{command} -P FORWARD DROP"));
        }
        if !v6 && self.chance(30) {
            let (device, net) = (self.device(), self.network(false));
            let rule =
                self.draw.pick(&["-o DEVICE", "-s NET ! -d NET"]).replace("DEVICE", &device).replace("NET", &net);
            self.plan.setup.rules.push(format!("{command} -t nat -A POSTROUTING {rule} -j MASQUERADE"));
        }
    }
}
