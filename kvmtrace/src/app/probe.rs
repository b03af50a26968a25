//! `kvmtrace probe`: sends a few packets as if a guest had, traces them there and back, gives the verdict.
//!
//! 1. [`ask`] makes questions of what was typed, and [`crate::forward::asked`] makes packets of those.
//! 2. [`refuse`] says no where nobody can be spoken for, or where what would be sent is a guess.
//! 3. [`run`] attaches, sends and waits. A next hop whose MAC address is not known is asked for first, as the guest would.
//! 4. [`crate::diagnose::probe`] finds the probe's flows in the report of the trace.

mod ask;
mod refuse;
mod run;
mod sweep;
mod watch;

use super::color::view;
use super::outcome::Outcome as Status;
use crate::cli::{Cli, Expect, Probe};
use crate::diagnose::probe::{Expected, Limit, Outcome, ProbeReport, Probed, flows, narrowed, outcome};
use crate::event::host::LinkKind;
use crate::event::{Direction, HostState, IfIndex, Place};
use crate::forward::asked::Asked;
use crate::forward::packet::{Fragment, Network, Packet, Transport};
use crate::forward::{Entry, walk};
use crate::kernel::privilege;
use crate::topology::Topology;
use crate::{host, sink};
use anyhow::{Context as _, bail};
use run::{Run, Sent};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use sweep::Sweep;

/// The smallest and the largest payload that a sweep begins with, and packets that it may take.
const SWEEP_LEAST: u32 = 128;
const SWEEP_PACKETS: usize = 20;
/// Packets for each target where none was named.
const FEW: u16 = 2;

/// A probe that was sent.
struct Done {
    asked: Asked,
    sent: Sent,
    expected: Option<Expected>,
}

pub(super) async fn probe(cli: &Cli, options: &Probe) -> anyhow::Result<Status> {
    privilege::check()?;
    let host = host::snapshot().await?;
    let ask = ask::ask(&host, options).await?;
    let Some(first) = ask.packets.first() else { bail!("nothing to send") };
    for asked in &ask.packets {
        refuse::check(&host, asked)?;
    }
    if !ask.named && !options.yes && !agreed(&ask.packets, options.count.min(FEW))? {
        bail!("nothing was sent");
    }
    let entries = entries(&host, &ask.packets)?;
    let mut run = Run::start(&first.guest, &entries, options.rules.trace_rules).await?;
    let (done, limit) = if options.sweep {
        let (done, limit) = sweep(&mut run, &host, first, options).await?;
        (done, Some(limit))
    } else {
        let mut done = Vec::new();
        for asked in &ask.packets {
            let count = if ask.named { options.count } else { options.count.min(FEW) };
            done.push(send(&mut run, &host, asked, count).await?);
        }
        (done, None)
    };
    let pipeline = run.finish().await?;
    let report = report(&host, &pipeline.report(), &done, limit)?;
    let mut out = std::io::stdout().lock();
    if options.json {
        sink::probe::json(&report, &mut out)?;
    } else {
        sink::probe::text(&report, view(cli), &mut out)?;
    }
    out.flush()?;
    Ok(match options.expect {
        Some(expected) if report.probes.iter().all(|probe| probe.outcome == meant(expected)) => Status::Clean,
        Some(_) => Status::Faults,
        None => Status::of(report.report.severity()),
    })
}

fn meant(expect: Expect) -> Outcome {
    match expect {
        Expect::Answered => Outcome::Answered,
        Expect::Delivered => Outcome::Delivered,
        Expect::Refused => Outcome::Refused,
        Expect::Unanswered => Outcome::Unanswered,
        Expect::Lost => Outcome::Lost,
        Expect::Dropped => Outcome::Dropped,
    }
}

/// Where all of it enters: the packets, and the requests that may come before them.
fn entries(host: &HostState, all: &[Asked]) -> anyhow::Result<Vec<Place>> {
    let mut entries = Vec::new();
    for asked in all {
        let request = request(asked).map(|_| Entry::Guest(asked.interface));
        for entry in std::iter::once(asked.entry).chain(request) {
            let place = place(host, entry)?;
            if !entries.contains(&place) {
                entries.push(place);
            }
        }
    }
    Ok(entries)
}

/// Where a packet enters, as the tc hooks see it.
fn place(host: &HostState, entry: Entry) -> anyhow::Result<Place> {
    let is_macvtap =
        |device: IfIndex| host.link(device).is_some_and(|link| matches!(link.kind, LinkKind::Macvtap { .. }));
    Ok(match entry {
        // What a macvtap's guest sends leaves by the macvtap.
        Entry::Guest(device) if is_macvtap(device) => Place { device, direction: Direction::Egress },
        Entry::Guest(device) | Entry::Wire(device) => Place { device, direction: Direction::Ingress },
        Entry::Host => {
            bail!("--from is an address of this host: send from here itself, under `kvmtrace verdict --cmd`")
        }
    })
}

/// The guest's request for the MAC address of its next hop: a guest would send nothing before somebody answers. Of a packet
/// to the guest, the request for the sender's, where that is not known.
fn request(asked: &Asked) -> Option<&Packet> {
    let unknown = asked.next_hop.is_some_and(|hop| hop.mac.is_none());
    asked.first.as_ref().filter(|_| unknown || matches!(asked.entry, Entry::Guest(_)))
}

/// Names what will be sent, and asks.
fn agreed(all: &[Asked], count: u16) -> anyhow::Result<bool> {
    let targets: Vec<String> = all.iter().map(target).collect();
    let what = format!("{count} packets as if {} had sent them to each of: {}", name(all), targets.join(", "));
    if !std::io::stdin().is_terminal() {
        bail!("without a target kvmtrace would send {what}; name one, or say --yes");
    }
    let mut err = std::io::stderr();
    write!(err, "Send {what}? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn name(all: &[Asked]) -> String {
    all.first().map(|asked| sink::escape::escape(&asked.guest)).unwrap_or_default()
}

fn target(asked: &Asked) -> String {
    match &asked.packet.network {
        Network::Ip(ip) => ip.destination.to_string(),
        Network::Arp(arp) => arp.target.to_string(),
        Network::Other(ether_type) => format!("EtherType {ether_type:04x}"),
    }
}

/// Sends one probe; before it the request for the next hop's MAC address, and only that if nobody answers.
async fn send(run: &mut Run, host: &HostState, asked: &Asked, count: u16) -> anyhow::Result<Done> {
    let entry = place(host, asked.entry)?;
    match with_next_hop(run, host, asked).await? {
        Ok(packet) => {
            let expected = expected(host, &packet, asked.entry, run.mtu(entry));
            // One request is enough for what is broadcast.
            let count =
                if packet.destination_mac.is_some_and(crate::event::MacAddress::is_multicast) { 1 } else { count };
            let sent = run.probe(&packet, entry, count).await?;
            Ok(Done { asked: asked.clone(), sent, expected })
        }
        Err(unanswered) => {
            let by = Entry::Guest(asked.interface);
            let expected = expected(host, &unanswered.packet, by, run.mtu(unanswered.entry));
            Ok(Done { asked: asked.clone(), sent: *unanswered, expected })
        }
    }
}

/// The packet with its receiver's MAC address, or its sender's; or the request for it which nobody answered.
async fn with_next_hop(run: &mut Run, host: &HostState, asked: &Asked) -> anyhow::Result<Result<Packet, Box<Sent>>> {
    let Some(request) = request(asked) else { return Ok(Ok(asked.packet.clone())) };
    let sent = run.probe(request, place(host, Entry::Guest(asked.interface))?, 1).await?;
    let packet = asked.packet.clone();
    Ok(match (sent.watch.answerer, asked.entry) {
        (None, _) => Err(Box::new(sent)),
        (mac, Entry::Wire(_)) => Ok(Packet { source_mac: mac, ..packet }),
        // An answer that did not reach the guest gives it no next hop.
        (_, Entry::Guest(_) | Entry::Host) if !sent.watch.answered => Err(Box::new(sent)),
        (mac, Entry::Guest(_) | Entry::Host) => Ok(Packet { destination_mac: mac, ..packet }),
    })
}

/// The model's answer. A packet that its sender fragments is walked as its first fragment.
fn expected(host: &HostState, packet: &Packet, entry: Entry, mtu: u32) -> Option<Expected> {
    let mut packet = packet.clone();
    let may_fragment = packet.ip().is_some_and(|ip| ip.destination.is_ipv6() || !ip.dont_fragment);
    if may_fragment && packet.length > mtu {
        packet.length = mtu;
        if let Some(ip) = packet.ip_mut() {
            ip.fragment = Fragment::First;
        }
    }
    Expected::of(&walk(&Topology::new(host), &packet, entry), host)
}

/// Finds the largest packet that passes.
async fn sweep(run: &mut Run, host: &HostState, asked: &Asked, options: &Probe) -> anyhow::Result<(Vec<Done>, Limit)> {
    let entry = place(host, asked.entry)?;
    let packet = match with_next_hop(run, host, asked).await? {
        Ok(packet) => packet,
        Err(unanswered) => {
            let done = Done { asked: asked.clone(), expected: None, sent: *unanswered };
            return Ok((vec![done], Limit { largest: None, next: None, told: None }));
        }
    };
    let fragmentable = packet.ip().is_some_and(|ip| ip.destination.is_ipv6() || !ip.dont_fragment);
    // What may be fragmented may be longer than the guest's MTU; twice that crosses every boundary that there is.
    let usual = if options.packet.df || !fragmentable { run.mtu(entry) } else { run.mtu(entry).saturating_mul(2) };
    let mut sweep = Sweep::new(SWEEP_LEAST, options.packet.size.unwrap_or(usual).min(65_535));
    let (mut passed, mut failed): (Option<Done>, Option<Done>) = (None, None);
    for _ in 0..SWEEP_PACKETS {
        let Some(size) = sweep.next() else { break };
        let packet = Packet { length: size, ..packet.clone() };
        let expected = expected(host, &packet, asked.entry, run.mtu(entry));
        let sent = run.attempt(&packet, entry).await?;
        let expects_answer = !matches!(packet.ip().map(|ip| ip.transport), Some(Transport::Udp { .. }));
        let watch = &sent.watch;
        let passes = watch.answered || !expects_answer && watch.left && !watch.dropped && !watch.refused;
        sweep.note(size, passes);
        let done = Done { asked: asked.clone(), sent, expected };
        if passes {
            passed = if sweep.passes == Some(size) { Some(done) } else { passed };
        } else if sweep.fails == Some(size) {
            failed = Some(done);
        }
    }
    let told = failed.as_ref().map(|done| done.sent.watch.told);
    let limit = Limit { largest: sweep.passes, next: sweep.fails, told };
    Ok((passed.into_iter().chain(failed).collect(), limit))
}

/// The report of the trace, narrowed to what was sent.
fn report(
    host: &HostState,
    whole: &crate::diagnose::report::Report,
    done: &[Done],
    limit: Option<Limit>,
) -> anyhow::Result<ProbeReport> {
    let keys: Vec<_> = done.iter().map(|done| done.sent.key).collect();
    let report = narrowed(whole.clone(), &keys);
    let probes = done.iter().map(|done| {
        let (there, back) = flows(&report, done.sent.key);
        let device = host.link_name(done.sent.entry.device);
        let there = there.with_context(|| format!("{device}: the packets were sent, and no hook there saw them"))?;
        let (outcome, on_the_way_back) = outcome(there, back);
        let judged = if on_the_way_back { back.unwrap_or(there) } else { there };
        let ip = done.sent.packet.ip();
        Ok(Probed {
            key: done.sent.key,
            guest: done.asked.guest.clone(),
            device,
            protocol: there.protocol.clone(),
            source: done.sent.key.source.to_string(),
            source_port: done.sent.key.source_port,
            destination: done.sent.key.destination.to_string(),
            destination_port: done.sent.key.destination_port,
            size: done.sent.packet.length,
            dont_fragment: ip.is_some_and(|ip| ip.dont_fragment),
            sent: done.sent.packets,
            // Fragments of one answer are several packets.
            answered: back.map_or(0, |back| back.packets.min(done.sent.packets)),
            expected: done.expected.clone(),
            outcome,
            cause: judged.cause,
            place: judged.place.clone(),
            severity: judged.severity,
        })
    });
    let probes = probes.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(ProbeReport { report, probes, limit })
}
