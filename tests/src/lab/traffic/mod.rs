//! Real traffic between the places of a lab, and the facts about what became of it.

mod ping;
pub mod programs;
mod programs_claim;
mod programs_tcp;
mod programs_udp;

use super::{Lab, files, lab_binary, process};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ICMP echo.
    Ping,
    /// Datagrams that are echoed.
    Udp,
    /// Datagrams that are only counted where they arrive.
    UdpOneWay,
    /// One connection that carries much, with GSO where the path has it.
    Tcp,
    /// Many short connections, one after the other.
    TcpShort,
    /// Short questions, each from a new port, to port 53.
    Dns,
    /// Datagrams to a group, counted by a member.
    Multicast,
    /// ARP requests as fast as they go.
    ArpStorm,
    /// Frames from a spoofed or otherwise made-up source.
    Command,
}

/// What the traffic must do once the fault is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It fails.
    #[default]
    Fails,
    /// It works.
    Works,
    /// Either: it is there to be seen.
    Any,
}

/// One piece of traffic of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Traffic {
    /// What kind.
    pub kind: Kind,
    /// Who begins: `guest1`, `host`, `lan`.
    pub from: String,
    /// To whom.
    #[serde(default)]
    pub to: String,
    /// The destination address, where it is not the one of `to`.
    pub address: Option<String>,
    /// The address that the server listens on, where translation leads from `address` to another.
    pub bind: Option<String>,
    /// Bytes of payload; for `tcp` of the whole transfer.
    pub size: Option<Number>,
    /// How many packets or connections.
    pub count: Option<u32>,
    /// Milliseconds between two packets.
    pub interval: Option<u64>,
    /// The port; else the lab's.
    pub port: Option<Number>,
    /// Forbids fragments, or asks for them.
    pub df: Option<bool>,
    /// The server sends (tcp).
    #[serde(default)]
    pub down: bool,
    /// The share that must arrive for it to count as working.
    pub pass: Option<f64>,
    /// What it must do before the fault.
    #[serde(default = "works")]
    pub before: Expected,
    /// What it must do with the fault.
    #[serde(default)]
    pub after: Expected,
    /// The server is part of the fault: the runner starts one only before it.
    #[serde(default)]
    pub served_by_break: bool,
    /// A shell command in `from`, for `command`; its success is the traffic's.
    pub command: Option<String>,
}

fn works() -> Expected {
    Expected::Works
}

/// A number, or a placeholder for one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// As it is.
    Literal(u32),
    /// To be filled in.
    Text(String),
}

impl Number {
    fn value(&self, placeholders: &BTreeMap<String, String>) -> Result<u32> {
        match self {
            Self::Literal(number) => Ok(*number),
            Self::Text(text) => {
                let filled = fill(text, placeholders)?;
                filled.parse().with_context(|| format!("{text} = {filled} is no number"))
            }
        }
    }
}

/// Replaces every `{name}`; an unknown name is an error, `{ ` as in an nft ruleset is not a name.
pub fn fill(text: &str, placeholders: &BTreeMap<String, String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        match after.find('}').map(|end| (&after[..end], end)) {
            Some((name, end)) if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.') => {
                filled.push_str(placeholders.get(name).with_context(|| format!("no placeholder {{{name}}}"))?);
                rest = &after[end + 1..];
            }
            _ => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What became of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Packets sent, or connections tried.
    pub sent: u32,
    /// Packets answered or counted, or connections that carried all they should.
    pub received: u32,
    /// Connections made.
    pub connected: u32,
}

impl Facts {
    /// Whether at least the share `pass` arrived.
    pub fn passed(&self, pass: f64) -> bool {
        self.sent > 0 && f64::from(self.received) >= f64::from(self.sent) * pass
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} passed", self.received, self.sent)
    }
}

impl Traffic {
    /// A few pings: what a person tries first.
    pub fn ping(from: &str, to: &str) -> Self {
        Self {
            kind: Kind::Ping,
            from: from.to_owned(),
            to: to.to_owned(),
            address: None,
            bind: None,
            size: None,
            count: None,
            interval: None,
            port: None,
            df: None,
            down: false,
            pass: None,
            before: Expected::Works,
            after: Expected::Fails,
            served_by_break: false,
            command: None,
        }
    }

    /// The share that must arrive.
    pub fn share(&self) -> f64 {
        self.pass.unwrap_or(0.9)
    }

    /// Whether these facts say that it works.
    pub fn works(&self, facts: &Facts) -> bool {
        facts.passed(self.share())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind =
            serde_json::to_value(self.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
        let to = self.address.as_deref().unwrap_or(&self.to);
        write!(f, "{kind} {} → {to}", self.from)
    }
}

impl Lab {
    /// Sends it; `serve` says whether the runner also starts the server.
    pub fn send(&self, traffic: &Traffic, serve: bool) -> Result<Facts> {
        let from = self.namespace(&traffic.from)?;
        if traffic.kind == Kind::Command {
            let line = traffic.command.as_deref().context("a command is needed")?;
            let output = from.run(&fill(line, &self.placeholders()?)?)?;
            return Ok(Facts { sent: 1, received: u32::from(output.status.success()), connected: 0 });
        }
        if traffic.kind == Kind::Ping {
            let size = self.size(traffic)?.unwrap_or(56);
            let (count, interval) = (traffic.count.unwrap_or(4), traffic.interval.unwrap_or(200));
            return ping::ping(from, self.destination(traffic)?, size, count, interval, traffic.df);
        }
        let (server, client, arguments) = self.exchange(traffic)?;
        let mut one_way = None;
        let _server = match server {
            Some(server) if serve => {
                let process = self.listen(traffic, server, &arguments)?;
                if server == "udp-sink" {
                    one_way = Some(process);
                    None
                } else {
                    Some(process)
                }
            }
            _ => None,
        };
        let facts = self.client(traffic, client, &arguments)?;
        match one_way {
            Some(sink) => {
                let counted = sink.finish(Duration::from_secs(15))?;
                let counted: Facts = serde_json::from_str(counted.stdout.trim()).context("the sink said nothing")?;
                Ok(Facts { received: counted.received, ..facts })
            }
            None => Ok(facts),
        }
    }

    /// Starts the server of the traffic alone, where it needs one.
    pub fn serve(&self, traffic: &Traffic) -> Result<Option<process::Background>> {
        if matches!(traffic.kind, Kind::Command | Kind::Ping) {
            return Ok(None);
        }
        let (server, _, arguments) = self.exchange(traffic)?;
        // Who only counts ends when the sender would have ended.
        let server = server.map(|server| if server == "udp-sink" { "udp-echo" } else { server });
        server.map(|server| self.listen(traffic, server, &arguments)).transpose()
    }

    /// Where it goes.
    pub fn destination(&self, traffic: &Traffic) -> Result<IpAddr> {
        let placeholders = self.placeholders()?;
        match &traffic.address {
            Some(text) => fill(text, &placeholders)?.parse().with_context(|| format!("{text} is no address")),
            None if traffic.kind == Kind::Multicast => Ok(placeholders["group"].parse()?),
            None => self.address(&traffic.to),
        }
    }

    /// The destination port.
    pub fn port(&self, traffic: &Traffic) -> Result<u16> {
        let default = if traffic.kind == Kind::Dns { 53 } else { self.plan.port };
        let placeholders = self.placeholders()?;
        traffic.port.as_ref().map_or(Ok(default), |port| Ok(port.value(&placeholders)? as u16))
    }

    /// The bytes of payload that it asks for; of a TCP connection, of the whole transfer.
    pub fn size(&self, traffic: &Traffic) -> Result<Option<u32>> {
        let placeholders = self.placeholders()?;
        traffic.size.as_ref().map(|size| size.value(&placeholders)).transpose()
    }

    /// The programs of a server, where there is one, and of its client, and what they say to each other.
    fn exchange(&self, traffic: &Traffic) -> Result<(Option<&'static str>, &'static str, programs::Exchange)> {
        let size = |default: u32| Ok::<_, anyhow::Error>(self.size(traffic)?.unwrap_or(default));
        let arguments = programs::Exchange {
            address: self.destination(traffic)?,
            port: self.port(traffic)?,
            size: 0,
            count: traffic.count.unwrap_or(10),
            interval: traffic.interval.unwrap_or(20),
            df: traffic.df,
            fresh: false,
            down: traffic.down,
            device: None,
        };
        Ok(match traffic.kind {
            Kind::Udp => (Some("udp-echo"), "udp-ask", programs::Exchange { size: size(200)?, ..arguments }),
            Kind::Dns => (Some("udp-echo"), "udp-ask", programs::Exchange { size: 40, fresh: true, ..arguments }),
            Kind::UdpOneWay => (Some("udp-sink"), "udp-send", programs::Exchange { size: size(200)?, ..arguments }),
            Kind::Multicast => {
                let device = Some(self.device(&traffic.from));
                (Some("udp-sink"), "udp-send", programs::Exchange { size: size(200)?, device, ..arguments })
            }
            Kind::Tcp => {
                let count = traffic.count.unwrap_or(1);
                (Some("tcp-serve"), "tcp-ask", programs::Exchange { size: size(4 << 20)?, count, ..arguments })
            }
            Kind::TcpShort => (Some("tcp-serve"), "tcp-ask", programs::Exchange { size: size(300)?, ..arguments }),
            Kind::ArpStorm => {
                let (count, device) = (traffic.count.unwrap_or(20000), Some(self.device(&traffic.from)));
                (None, "arp-storm", programs::Exchange { count, device, ..arguments })
            }
            Kind::Ping | Kind::Command => bail!("{traffic} is no exchange of two programs"),
        })
    }

    /// Starts a server and waits until it listens.
    fn listen(&self, traffic: &Traffic, server: &str, arguments: &programs::Exchange) -> Result<process::Background> {
        let ready = self.directory().join(format!("ready-{server}-{}-{}", traffic.from, traffic.to));
        std::fs::remove_file(&ready).ok();
        let own = match &traffic.bind {
            Some(text) => {
                fill(text, &self.placeholders()?)?.parse().with_context(|| format!("{text} is no address"))?
            }
            None => arguments.address,
        };
        let device = arguments.device.as_ref().map(|_| self.device(&traffic.to));
        let listening = programs::Exchange { address: own, device, ..arguments.clone() };
        let mut command = self.namespace(&traffic.to)?.command(lab_binary()?);
        command.arg("program").arg(server).args(listening.arguments()).arg("--ready").arg(&ready);
        let mut process = process::Background::start(&mut command)?;
        let up = process::wait_until(Duration::from_secs(3), || ready.exists() || !process.is_running());
        if !up || !ready.exists() {
            drop(process.signal(nix::sys::signal::Signal::SIGKILL));
            bail!("{server} did not start: {}", process.finish(Duration::from_secs(1))?.stderr.trim());
        }
        Ok(process)
    }

    fn client(&self, traffic: &Traffic, program: &str, arguments: &programs::Exchange) -> Result<Facts> {
        let mut command = self.namespace(&traffic.from)?.command(lab_binary()?);
        command.arg("program").arg(program).args(arguments.arguments());
        let output = process::run(&mut command, Duration::from_secs(30))?;
        serde_json::from_str(output.stdout.trim())
            .with_context(|| format!("{program} failed: {}", output.stderr.trim()))
    }

    /// The plan's placeholders, and the lab's own program.
    pub fn placeholders(&self) -> Result<BTreeMap<String, String>> {
        let mut placeholders = self.plan.placeholders();
        for (role, namespace) in &self.record.0.namespaces {
            placeholders.insert(format!("ns.{role}"), namespace.clone());
        }
        placeholders.insert("lab".into(), lab_binary()?.display().to_string());
        placeholders.insert("managers".into(), files::scripts().display().to_string());
        let packages = files::packages().unwrap_or_default();
        placeholders.insert("packages".into(), packages.display().to_string());
        Ok(placeholders)
    }

    /// The address of a place.
    pub fn address(&self, role: &str) -> Result<IpAddr> {
        let addresses = match role {
            "host" => self.plan.host.addresses,
            "lan" => self.plan.lan.addresses,
            _ => self.guests[self.guest_index(role)?].plan.port.addresses,
        };
        Ok(addresses.of(self.plan.options.family))
    }

    fn device(&self, role: &str) -> String {
        match (role, self.guest_index(role)) {
            (_, Ok(index)) => self.plan.guests[index].port.device.clone(),
            ("lan", _) if self.plan.options.topology == super::plan::Topology::Vxlan => "lanbr".into(),
            ("lan", _) => self.plan.lan.device.clone(),
            _ if self.has_bridge() => self.plan.bridge.clone(),
            _ => self.plan.uplink.device.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_nft_braces_are_left_alone() {
        let known = [("tap1".to_owned(), "vnet7".to_owned())].into();
        let filled = fill("nft add chain inet t c '{ type filter; }' iif {tap1}", &known);
        assert_eq!(filled.unwrap(), "nft add chain inet t c '{ type filter; }' iif vnet7");
        assert!(fill("{tap2}", &known).is_err(), "an unknown name is not passed on");
    }

    #[test]
    fn nothing_sent_is_not_a_success() {
        assert!(!Facts::default().passed(0.0));
        assert!(Facts { sent: 10, received: 9, connected: 0 }.passed(0.9));
        assert!(!Facts { sent: 10, received: 8, connected: 0 }.passed(0.9));
    }
}
