//! Building hosts, sending packets, judging.

use crate::compare::{self, Death, Seen, Verdict};
use crate::frame;
use crate::generate::{self, Abilities, Sent, Way};
use crate::plan::{End, Plan, Setup};
use crate::report::{Summary, described, report};
use crate::wires::{Place, Sighting, Wires, enter};
use anyhow::{Context as _, Result, bail};
use kvmtrace::event::{EventKind, HostState, PacketCause, PacketRecord};
use kvmtrace::forward::packet::{Network, Transport};
use kvmtrace::forward::step::Walk;
use kvmtrace::forward::{Entry, walk};
use kvmtrace::probe::Drops;
use kvmtrace::topology::Topology;
use kvmtrace_tests::lab::draw::{Draw, Seed};
use kvmtrace_tests::lab::netns::Namespace;
use kvmtrace_tests::lab::process;
use nix::errno::Errno;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Packets of one host.
const PER_HOST: u16 = 40;
/// How long a packet may take to arrive or die: resolving a neighbour in vain takes a fraction of it.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long one that behaves as expected is watched for a copy too many.
const LINGER: Duration = Duration::from_millis(4);
/// The most address space that this process may have, in bytes.
const MEMORY: u64 = 6 << 30;

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed of all that is drawn.
    pub seed: Seed,
    /// How many pairs of host and packet.
    pub pairs: u32,
    /// This host alone.
    pub only: Option<u32>,
    /// Each pair is shown.
    pub verbose: bool,
}

/// One packet with all that belongs to it.
pub(crate) struct Pair {
    pub(crate) sent: Sent,
    pub(crate) host: HostState,
    pub(crate) walk: Walk,
    pub(crate) seen: Seen,
}

/// Compares so many pairs; writes what is wrong, and the counts.
pub fn run(options: Options, out: &mut impl Write) -> Result<Summary> {
    kvmtrace_tests::lab::require_root()?;
    // A model gone wild is to end this process and no other.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, MEMORY, MEMORY).context("setrlimit")?;
    let abilities = abilities()?;
    let mut summary = Summary::default();
    let hosts = options.pairs.div_ceil(u32::from(PER_HOST));
    for number in 0..hosts {
        if options.only.is_some_and(|only| only != number) {
            continue;
        }
        let packets = (options.pairs - number * u32::from(PER_HOST)).min(u32::from(PER_HOST)) as u16;
        let seed = options.seed;
        // A thread of its own enters the host's namespace and ends with it.
        let tried = thread::spawn(move || one_host(seed, number, packets, abilities)).join();
        let (plan, pairs) = match tried {
            Ok(result) => result.with_context(|| format!("host {number} of seed {seed}"))?,
            Err(_) => bail!("host {number} of seed {seed}: its thread panicked"),
        };
        let mut shown = false;
        for (index, pair) in pairs.iter().enumerate() {
            if was_not_sent(pair) {
                continue;
            }
            let verdict = compare::judge(&pair.host, &pair.sent.packet, &pair.walk, &pair.seen);
            summary.count(pair, &verdict);
            let wrong = matches!(verdict, Verdict::Contradiction(_));
            if wrong && !shown {
                writeln!(out, "host {number} of seed {seed}:\n{}", described(&plan))?;
                shown = true;
            }
            if wrong || options.verbose {
                writeln!(out, "{}", report(options.seed, number, index, pair, &verdict))?;
            }
        }
        out.flush()?;
    }
    for (stage, count) in &summary.stages {
        writeln!(out, "{count:>6} end at {stage:?}")?;
    }
    for (doubt, count) in &summary.doubts {
        writeln!(out, "{count:>6} unknown: {doubt}")?;
    }
    writeln!(out, "{}", summary.line()?)?;
    Ok(summary)
}

/// A far end gives no frame to a device that is down, or that has a smaller MTU; no socket is bound to an address that went with
/// its device.
fn was_not_sent(pair: &Pair) -> bool {
    match (pair.seen.refused, &pair.sent.way) {
        (Some(Errno::EADDRNOTAVAIL), Way::Host) | (Some(_), Way::End(End::Wire(_))) => true,
        (_, Way::Host | Way::End(_)) => false,
    }
}

/// What this kernel offers, tried in a namespace.
fn abilities() -> Result<Abilities> {
    let namespace = Namespace::create(&name("ask"))?;
    let can = |line: &str| namespace.run(line).is_ok_and(|output| output.status.success());
    namespace.ip(&["link add br0 type bridge", "link add v0 type veth peer name v1", "link set v0 master br0"])?;
    Ok(Abilities {
        vlan_filtering: can("ip link set br0 type bridge vlan_filtering 1"),
        vlan_devices: can("ip link add link v1 name v1.5 type vlan id 5"),
        locked_ports: can("bridge link set dev v0 locked on"),
        bridge_netfilter: can("test -e /proc/sys/net/bridge/bridge-nf-call-iptables"),
        bridge_conntrack: can("nft 'add table bridge t; add chain bridge t c; add rule bridge t c ct state new'"),
        legacy: can("iptables-legacy -w -L -n"),
        ebtables: can("ebtables-legacy -L"),
        vxlan: can("ip link add vx0 type vxlan id 7 dstport 4789 remote 192.0.2.1"),
        macvlan: can("ip link add link v1 name mv0 type macvlan mode bridge"),
        ipsec: can("ip xfrm policy add dst 192.0.2.1/32 dir out action block"),
    })
}

/// A namespace's name that no other process has.
fn name(role: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("ktf{}-{}-{role}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Builds a host, sends its packets, and takes it down.
fn one_host(seed: Seed, number: u32, packets: u16, abilities: Abilities) -> Result<(Plan, Vec<Pair>)> {
    let mut draw = seed.draw(&format!("host {number}"));
    let plan = generate::host(&mut draw, abilities);
    let host = Namespace::create(&name("host"))?;
    let elsewhere = Namespace::create(&name("far"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let wires = build(&plan, &host, &elsewhere, &runtime)?;
    let mut session = Session { plan, wires, drops: Drops::open()?, pairs: Vec::new(), draw };
    let mut state = runtime.block_on(kvmtrace::host::snapshot())?;
    for index in 0..packets {
        session.collect();
        state = runtime.block_on(kvmtrace::host::refresh(&state))?;
        session.send(&state, index)?;
    }
    thread::sleep(LINGER);
    session.collect();
    Ok((session.plan, session.pairs))
}

/// Types what builds a host, and opens its ends.
fn build(plan: &Plan, host: &Namespace, elsewhere: &Namespace, runtime: &tokio::runtime::Runtime) -> Result<Wires> {
    enter(elsewhere)?;
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").context("disable_ipv6")?;
    }
    enter(host)?;
    let Setup { defaults, devices, sysctls, bridge, network, network6, nft, rules, elsewhere: far } = &plan.setup;
    let write = |settings: &[(String, String)]| {
        for (path, value) in settings {
            // Not every kernel has each of them.
            drop(std::fs::write(format!("/proc/sys/{path}"), value));
        }
    };
    write(defaults);
    let devices: Vec<String> = devices.iter().map(|line| line.replace("ELSEWHERE", elsewhere.name())).collect();
    host.ip(&devices)?;
    elsewhere.ip(far)?;
    let wires = Wires::open(host, elsewhere, &plan.taps, &plan.wires)?;
    write(sysctls);
    runtime.block_on(kvmtrace::host::settle())?;
    batch(host.command("bridge").args(["-force", "-batch", "-"]), bridge)?;
    batch(host.command("ip").args(["-force", "-4", "-batch", "-"]), network)?;
    batch(host.command("ip").args(["-force", "-6", "-batch", "-"]), network6)?;
    for ruleset in nft {
        load(host, ruleset)?;
    }
    for rule in rules {
        host.check(rule)?;
    }
    runtime.block_on(kvmtrace::host::settle())?;
    Ok(wires)
}

/// Loads a ruleset without the rules that this nft or this kernel refuses: not all tests go together.
fn load(host: &Namespace, ruleset: &str) -> Result<()> {
    let mut lines: Vec<&str> = ruleset.lines().collect();
    loop {
        let refused = batch(host.command("nft").args(["-f", "-"]), &lines)?;
        // `/dev/stdin:7:3-20: Error: …`
        let places = refused.split("/dev/stdin:").skip(1);
        let places = places.filter_map(|place| place.split(':').next()?.parse::<usize>().ok());
        let Some(line) = places.filter(|place| (1..=lines.len()).contains(place)).max() else {
            return if refused.is_empty() { Ok(()) } else { bail!("nft refuses a ruleset: {refused}\n{ruleset}") };
        };
        lines.remove(line - 1);
    }
}

/// Gives lines to a program; what it has against some of them. A route by a device that is down, say, is not there then.
fn batch(command: &mut Command, lines: &[impl AsRef<str>]) -> Result<String> {
    if lines.is_empty() {
        return Ok(String::new());
    }
    let text: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = process::die_with_parent(command).spawn().context("cannot run a setup command")?;
    child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(if output.status.success() { String::new() } else { String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A host under test.
struct Session {
    plan: Plan,
    wires: Wires,
    drops: Drops,
    pairs: Vec<Pair>,
    draw: Draw,
}

impl Session {
    /// Sends the next packet and waits until it has arrived or died.
    fn send(&mut self, state: &HostState, index: u16) -> Result<()> {
        let sent = generate::packet(&self.plan, &mut self.draw, index);
        let topology = Topology::new(state);
        let device = |name: &str| state.link_named(name).map(|link| link.index).context("a device is gone");
        let entry = match &sent.way {
            Way::Host => Entry::Host,
            Way::End(End::Tap(name)) => Entry::Guest(device(name)?),
            Way::End(End::Wire(name)) => Entry::Wire(device(name)?),
        };
        let walk = walk(&topology, &sent.packet, entry);
        self.pairs.push(Pair { sent: sent.clone(), host: state.clone(), walk, seen: Seen::default() });
        let refused = match &sent.way {
            Way::Host => {
                let ip = sent.packet.ip().context("the host sends IP")?;
                self.wires.send_by_host(ip.source, ip.destination, &frame::network(&sent.packet, index))?
            }
            Way::End(End::Tap(name)) => self.wires.send_by_tap(name, &frame::encode(&sent.packet, index))?,
            Way::End(End::Wire(name)) => self.wires.send_by_wire(name, &frame::encode(&sent.packet, index))?,
        };
        if let Some(pair) = self.pairs.last_mut() {
            pair.seen.refused = refused;
        }
        let begin = Instant::now();
        loop {
            thread::sleep(LINGER / 4);
            self.collect();
            let Some(pair) = self.pairs.last() else { return Ok(()) };
            let wrong = matches!(
                compare::judge(&pair.host, &pair.sent.packet, &pair.walk, &pair.seen),
                Verdict::Contradiction(_)
            );
            if begin.elapsed() > if wrong { PATIENCE } else { LINGER } {
                return Ok(());
            }
        }
    }

    /// Takes in what has come out or died, and answers who asks for an address.
    fn collect(&mut self) {
        loop {
            let (sightings, drops) = (self.wires.sightings(), self.drops.take());
            if sightings.is_empty() && drops.is_empty() {
                return;
            }
            for sighting in sightings {
                self.answer(&sighting);
                if !self.is_a_stations(&sighting) {
                    self.note_answer(sighting.ether_type, &sighting.bytes);
                }
                if let Some((number, _)) = sighting.about()
                    && let Some(pair) = self.pairs.get_mut(usize::from(number))
                {
                    pair.seen.sightings.push(sighting);
                }
            }
            for event in drops {
                let EventKind::Packet(record) = event.kind else { continue };
                // An answer of the host's that died was given all the same; a station's was not.
                if !self.is_a_stations_frame(&record) {
                    self.note_answer(record.ether_type, network_bytes(&record));
                }
                if let Some((number, death)) = death(&record)
                    && let Some(pair) = self.pairs.get_mut(usize::from(number))
                {
                    pair.seen.deaths.push(death);
                }
            }
        }
    }

    /// A station answers ARP requests and neighbour solicitations for its addresses.
    fn answer(&self, sighting: &Sighting) {
        let Some((asker, target)) = question(sighting) else { return };
        let end = match &sighting.place {
            Place::Guest(name) => End::Tap(name.clone()),
            Place::Wire(name) => End::Wire(name.clone()),
            Place::Host => return,
        };
        let station = self.plan.stations.iter().find(|station| {
            let v6 = target.is_ipv6();
            station.end == end && station.answers(v6) && self.plan.address(station, v6) == target
        });
        if let (Some(station), Some((mac, _))) = (station, sighting.macs) {
            let frame = frame::answer(station.mac.0, mac, target, asker, &sighting.tags);
            // What is down answers nobody.
            match &end {
                End::Tap(name) => drop(self.wires.send_by_tap(name, &frame)),
                End::Wire(name) => drop(self.wires.send_by_wire(name, &frame)),
            }
        }
    }

    /// A station sent it: it may answer before the host does.
    fn is_a_stations(&self, sighting: &Sighting) -> bool {
        sighting.macs.is_none_or(|(mac, _)| self.plan.stations.iter().any(|station| station.mac.0 == mac))
    }

    /// The source of a frame that died is a station's.
    fn is_a_stations_frame(&self, record: &PacketRecord) -> bool {
        let source = record.header.as_slice().get(6..12).filter(|_| record.ethernet);
        source.is_some_and(|source| self.plan.stations.iter().any(|station| station.mac.0 == source))
    }

    /// An answer to the question that the last packet was.
    fn note_answer(&mut self, ether_type: u16, bytes: &[u8]) {
        let Some(pair) = self.pairs.last_mut() else { return };
        let asked = match &pair.sent.packet.network {
            Network::Arp(arp) => (arp.sender, arp.target),
            Network::Ip(ip) => match ip.transport {
                Transport::Icmpv6 { kind: 135, target: Some(target), .. } => (ip.source, target),
                Transport::Icmp { .. }
                | Transport::Icmpv6 { .. }
                | Transport::Tcp { .. }
                | Transport::Udp { .. }
                | Transport::Sctp { .. }
                | Transport::Other(_) => return,
            },
            Network::Other(_) => return,
        };
        pair.seen.answered |= frame::answered(ether_type, bytes) == Some(asked);
    }
}

/// Who asks whose MAC address.
fn question(sighting: &Sighting) -> Option<(IpAddr, IpAddr)> {
    frame::question(sighting.ether_type, &sighting.bytes)
}

/// A drop of a packet that was sent.
fn death(record: &PacketRecord) -> Option<(u16, Death)> {
    let PacketCause::Dropped { site, stack } = &record.cause else { return None };
    let number = frame::number_in(&record.header)?;
    let death = Death {
        function: site.function.clone(),
        device: site.device,
        reason: site.reason.clone(),
        stack: stack.clone(),
        likeness: frame::likeness(record.ether_type, network_bytes(record)),
    };
    Some((number, death))
}

/// A dropped packet from layer 3 on.
fn network_bytes(record: &PacketRecord) -> &[u8] {
    let bytes = record.header.as_slice();
    let tagged = matches!(bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
    let header = if !record.ethernet {
        0
    } else if tagged {
        18
    } else {
        14
    };
    bytes.get(header..).unwrap_or_default()
}
