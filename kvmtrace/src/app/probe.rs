//! `kvmtrace probe`: sends a few packets as if a guest had, traces them there and back, gives the verdict.
//!
//! 1. [`ask`] makes questions of what was typed, and [`crate::forward::asked`] makes packets of those.
//! 2. [`refuse`] says no where nobody can be spoken for, or where what would be sent is a guess.
//! 3. [`run`] attaches, sends and waits. A next hop whose MAC address is not known is asked for first, as the guest would.
//! 4. [`crate::diagnose::probe`] finds the probe's flows in the report of the trace.

mod ask;
mod beside_check;
mod refuse;
mod run;
mod sending;
mod sweep;
mod watch;

pub(super) use beside_check::probed;

use super::color::view;
use super::outcome::Outcome as Status;
use super::record::tell;
use crate::cli::{Cli, Expect, Probe};
use crate::diagnose::probe::{Limit, Outcome, ProbeReport};
use crate::event::HostState;
use crate::forward::asked::Asked;
use crate::forward::packet::{Network, Packet, Transport};
use crate::kernel::privilege;
use crate::{host, sink};
use anyhow::{Context as _, bail};
use run::Run;
use sending::{Done, FEW, entries, expected, place, report, send, with_next_hop};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use sweep::Sweep;

/// The smallest and the largest payload that a sweep begins with, and packets that it may take.
const SWEEP_LEAST: u32 = 128;
const SWEEP_PACKETS: usize = 20;

pub(super) async fn probe(cli: &Cli, options: &Probe) -> anyhow::Result<Status> {
    privilege::check()?;
    let host = host::snapshot().await?;
    let ask = ask::ask(&host, options).await?;
    let Some(first) = ask.packets.first() else { bail!("nothing to send") };
    if let Some(refusal) = ask.packets.iter().find_map(|asked| refuse::check(&host, asked).err()) {
        return refused(cli, options, &host, &refusal);
    }
    if !ask.named && !options.yes && !agreed(&ask.packets, options.count.min(FEW))? {
        bail!("nothing was sent");
    }
    if !ask.unknown.is_empty() {
        let unknown =
            crate::diagnose::words::list(&ask.unknown.iter().map(|what| (*what).to_owned()).collect::<Vec<_>>());
        tell(cli, &format!("no address is known here of {unknown}; to probe one: `to ADDRESS`"));
    }
    let entries = entries(&host, &ask.packets)?;
    let mut run = Run::start(vec![first.guest.clone()], &entries, options.rules.trace_rules).await?;
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

/// Nothing was sent. What stands in the way may be a fault that the configuration shows; its fix is the way out then.
fn refused(cli: &Cli, options: &Probe, host: &HostState, refusal: &refuse::Refusal) -> anyhow::Result<Status> {
    let Some(report) = refusal.faults(host) else { return Err(anyhow::Error::new(refusal.clone())) };
    tell(cli, &format!("nothing was sent: {refusal}"));
    let mut out = std::io::stdout().lock();
    let status = Status::of(report.severity());
    if options.json {
        sink::probe::json(&ProbeReport { report, probes: Vec::new(), limit: None }, &mut out)?;
    } else {
        sink::check::report(&report, view(cli), &mut out)?;
    }
    out.flush()?;
    Ok(status)
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

/// Finds the largest packet that passes.
async fn sweep(run: &mut Run, host: &HostState, asked: &Asked, options: &Probe) -> anyhow::Result<(Vec<Done>, Limit)> {
    let entry = place(host, asked.entry)?;
    let packet = match with_next_hop(run, host, asked).await? {
        Ok(packet) => packet,
        Err(unanswered) => {
            let done = Done { asked: asked.clone(), expected: None, sent: unanswered.sent };
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
        let expected = expected(host, &packet, (asked.entry, asked.goal), run.mtu(entry));
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
