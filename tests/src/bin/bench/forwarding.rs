//! How many packets per second a host still forwards: 64-byte UDP from one veth over a bridge to another, untraced,
//! traced by kvmtrace and traced by tcpdump, in turns.

use crate::statistics::Summary;
use anyhow::{Context as _, Result, bail};
use kvmtrace_tests::lab::netns::Namespace;
use kvmtrace_tests::lab::process::{Background, wait_until};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process;
use std::time::Duration;

/// How long each measurement sends.
const MILLISECONDS: u64 = 1_000;
/// UDP payload of a frame of 64 bytes (14 Ethernet, 20 IPv4, 8 UDP).
const PAYLOAD: usize = 22;
const TO: &str = "10.99.0.2:9000";
const PATIENCE: Duration = Duration::from_secs(20);

/// Who watches meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Tracer {
    Nobody,
    Kvmtrace,
    Tcpdump,
}

const TRACERS: [Tracer; 3] = [Tracer::Nobody, Tracer::Kvmtrace, Tracer::Tcpdump];

/// Packets per second with each tracer.
#[derive(Serialize)]
pub(crate) struct Rates {
    rows: Vec<Rate>,
}

#[derive(Serialize)]
struct Rate {
    tracer: Tracer,
    /// Packets that came out of the bridge per second.
    packets_per_second: Summary,
    /// CPU time per packet: of the sender, in whose context a packet travels through the bridge, and of the tracer.
    ns_per_packet: Summary,
}

/// What one sender has done.
#[derive(Serialize, Deserialize)]
struct Sent {
    seconds: f64,
    cpu_ns: f64,
    packets: u64,
}

/// Each tracer `rounds` times, in turns.
pub(crate) fn measure(rounds: usize) -> Result<Rates> {
    let hosts = Hosts::build()?;
    let mut measured: Vec<(Tracer, Vec<f64>, Vec<f64>)> =
        TRACERS.iter().map(|tracer| (*tracer, Vec::new(), Vec::new())).collect();
    for _ in 0..rounds {
        for (tracer, rates, costs) in &mut measured {
            let running = hosts.start(*tracer)?;
            let before = hosts.received()?;
            let own = running.as_ref().map_or(Ok(0.0), cpu_ns)?;
            let sent = hosts.send()?;
            let forwarded = hosts.received()? - before;
            let mut cpu = sent.cpu_ns;
            if let Some(running) = running {
                cpu += cpu_ns(&running)? - own;
                stop(*tracer, running)?;
            }
            rates.push(forwarded as f64 / sent.seconds);
            costs.push(cpu / sent.packets.max(1) as f64);
        }
    }
    let row = |(tracer, rates, costs): &(Tracer, Vec<f64>, Vec<f64>)| Rate {
        tracer: *tracer,
        packets_per_second: Summary::of(rates),
        ns_per_packet: Summary::of(costs),
    };
    Ok(Rates { rows: measured.iter().map(row).collect() })
}

impl Rates {
    fn cost(&self, tracer: Tracer) -> f64 {
        self.rows.iter().find(|row| row.tracer == tracer).map_or(0.0, |row| row.ns_per_packet.median)
    }

    /// The aims that were missed. CPU time decides: unlike packets per second it does not depend on what else the
    /// machine does meanwhile, and it holds what a tracer takes from other cores.
    pub(crate) fn missed(&self) -> Vec<String> {
        let (ours, tcpdump) = (self.cost(Tracer::Kvmtrace), self.cost(Tracer::Tcpdump));
        if ours < tcpdump {
            return Vec::new();
        }
        vec![format!("a packet costs {ours:.0} ns traced and {tcpdump:.0} ns with tcpdump; the aim is to cost less")]
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["forwarding, 64-byte UDP", "packets/s", "quartiles", "CPU ns/packet", "quartiles"];
        let [name, rate, rates, cost, costs] = heading;
        writeln!(f, "{name:<24} {rate:>10}  {rates:>17}  {cost:>13}  {costs:>13}")?;
        for row in &self.rows {
            let name = match row.tracer {
                Tracer::Nobody => "nobody watches",
                Tracer::Kvmtrace => "kvmtrace verdict",
                Tracer::Tcpdump => "tcpdump -i any",
            };
            let quartiles = |summary: &Summary| format!("{:.0}–{:.0}", summary.lower, summary.upper);
            let (rate, cost) = (&row.packets_per_second, &row.ns_per_packet);
            let (rates, costs) = (quartiles(rate), quartiles(cost));
            writeln!(f, "{name:<24} {:>10.0}  {rates:>17}  {:>13.0}  {costs:>13}", rate.median, cost.median)?;
        }
        Ok(())
    }
}

/// A sender, a host with a bridge, and a receiver.
struct Hosts {
    sender: Namespace,
    host: Namespace,
    receiver: Namespace,
    /// Takes the packets in.
    _taking: Background,
    ready: PathBuf,
}

impl Hosts {
    fn build() -> Result<Self> {
        let name = |role: &str| format!("ktbench-{}-{role}", process::id());
        let sender = Namespace::create(&name("from"))?;
        let host = Namespace::create(&name("host"))?;
        let receiver = Namespace::create(&name("to"))?;
        host.ip(&[
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
            format!("link add port1 type veth peer name eth0 netns {}", sender.name()),
            format!("link add port2 type veth peer name eth0 netns {}", receiver.name()),
            "link set port1 master br0 up".to_owned(),
            "link set port2 master br0 up".to_owned(),
        ])?;
        for (namespace, address) in [(&sender, "10.99.0.1/24"), (&receiver, "10.99.0.2/24")] {
            namespace.ip(&[format!("address add {address} dev eth0"), "link set eth0 up".to_owned()])?;
        }
        let taking = Background::start(receiver.command(std::env::current_exe()?).args(["receive", TO]))?;
        let hosts = Self { sender, host, receiver, _taking: taking, ready: std::env::temp_dir().join(name("ready")) };
        // A bridge port learns and ARP is answered before anything is measured.
        let reached = || hosts.sender.run("ping -c1 -W1 10.99.0.2").is_ok_and(|output| output.status.success());
        if !wait_until(PATIENCE, reached) {
            bail!("the bench's bridge forwards nothing");
        }
        Ok(hosts)
    }

    fn start(&self, tracer: Tracer) -> Result<Option<Background>> {
        std::fs::remove_file(&self.ready).ok();
        let mut command = match tracer {
            Tracer::Nobody => return Ok(None),
            Tracer::Kvmtrace => {
                let binary =
                    std::env::var("KVMTRACE_BIN").context("KVMTRACE_BIN is not set: run `cargo xtask bench`")?;
                let mut command = self.host.command(binary);
                command.args(["verdict", "-i", "port1", "-i", "port2", "--json", "--ready-file"]).arg(&self.ready);
                command
            }
            Tracer::Tcpdump => {
                let mut command = self.host.command("tcpdump");
                command.args(["-i", "any", "-w", "/dev/null"]);
                command
            }
        };
        let mut running = Background::start(&mut command)?;
        if !wait_until(PATIENCE, || self.is_ready(tracer) || !running.is_running()) || !self.is_ready(tracer) {
            running.signal(Signal::SIGKILL).ok();
            let said = running.finish(PATIENCE)?;
            bail!("{tracer:?} did not get ready: {}{}", said.stdout.trim(), said.stderr.trim());
        }
        Ok(Some(running))
    }

    fn is_ready(&self, tracer: Tracer) -> bool {
        match tracer {
            Tracer::Nobody => true,
            Tracer::Kvmtrace => self.ready.exists(),
            // A line per packet socket, after the heading.
            Tracer::Tcpdump => self.host.check("cat /proc/net/packet").is_ok_and(|text| text.lines().count() > 1),
        }
    }

    fn send(&self) -> Result<Sent> {
        let mut command = self.sender.command(std::env::current_exe()?);
        command.args(["send", TO, &MILLISECONDS.to_string()]);
        let output = Background::start(&mut command)?.finish(PATIENCE)?;
        serde_json::from_str(&output.stdout).with_context(|| format!("the sender failed: {}", output.stderr.trim()))
    }

    /// Packets that have reached the receiver's device.
    fn received(&self) -> Result<u64> {
        let text = self.receiver.check("cat /sys/class/net/eth0/statistics/rx_packets")?;
        text.trim().parse().context("rx_packets is no number")
    }
}

/// CPU time that the threads of a process have taken so far.
fn cpu_ns(process: &Background) -> Result<f64> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).context("the tracer is gone")?;
    let mut total = 0.0;
    for thread in threads {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let running = text.split_whitespace().next().context("schedstat is empty")?;
        total += running.parse::<f64>().context("schedstat holds no number")?;
    }
    Ok(total)
}

fn stop(tracer: Tracer, running: Background) -> Result<()> {
    running.signal(Signal::SIGINT)?;
    let output = running.finish(PATIENCE)?;
    if tracer == Tracer::Kvmtrace && output.code() > 1 {
        bail!("kvmtrace failed: {}", output.stderr.trim());
    }
    Ok(())
}

/// Sends small packets as fast as possible and tells how many those were.
pub(crate) fn send(to: SocketAddr, milliseconds: u64) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:40000")?;
    socket.connect(to)?;
    let payload = [0; PAYLOAD];
    let (start, cpu) = (now(ClockId::CLOCK_MONOTONIC)?, now(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    let end = start + Duration::from_millis(milliseconds);
    let mut packets = 0;
    while now(ClockId::CLOCK_MONOTONIC)? < end {
        // The clock is read once for so many packets.
        for _ in 0..64 {
            // A full queue is no fault of the sender's; what came through is counted at the other end.
            packets += u64::from(socket.send(&payload).is_ok());
        }
    }
    let seconds = now(ClockId::CLOCK_MONOTONIC)?.saturating_sub(start).as_secs_f64();
    let cpu_ns = now(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(cpu).as_nanos() as f64;
    println!("{}", serde_json::to_string(&Sent { seconds, cpu_ns, packets })?);
    Ok(())
}

fn now(clock: ClockId) -> Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}

/// Takes packets in until killed.
pub(crate) fn receive(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    let mut buffer = [0; 2048];
    loop {
        socket.recv(&mut buffer)?;
    }
}
