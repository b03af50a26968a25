//! Sends what was asked for, and finds it again in the report of the trace.

use super::run::{Run, Sent};
use crate::diagnose::probe::{Expected, Limit, ProbeReport, Probed, flows, narrowed, outcome};
use crate::event::host::LinkKind;
use crate::event::{Direction, HostState, IfIndex, Place};
use crate::forward::asked::{Asked, Goal};
use crate::forward::packet::{Fragment, Packet};
use crate::forward::reading::{self, Reading};
use crate::forward::{Entry, walk};
use crate::topology::Topology;
use anyhow::{Context as _, bail};

/// Packets for each target where none was named.
pub(super) const FEW: u16 = 2;

/// A probe that was sent.
pub(super) struct Done {
    pub(super) asked: Asked,
    pub(super) sent: Sent,
    /// What the model says of it.
    pub(super) expected: Option<Expected>,
}

/// Where all of it enters: the packets, and the requests that come before them.
pub(super) fn entries(host: &HostState, all: &[Asked]) -> anyhow::Result<Vec<Place>> {
    let mut entries = Vec::new();
    for asked in all {
        for entry in asked.entries() {
            let place = place(host, entry)?;
            if !entries.contains(&place) {
                entries.push(place);
            }
        }
    }
    Ok(entries)
}

/// Where a packet enters, as the tc hooks see it.
pub(super) fn place(host: &HostState, entry: Entry) -> anyhow::Result<Place> {
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

/// Sends one probe; before it the request for the next hop's MAC address, and only that if nobody answers.
pub(super) async fn send(run: &mut Run, host: &HostState, asked: &Asked, count: u16) -> anyhow::Result<Done> {
    let entry = place(host, asked.entry)?;
    match with_next_hop(run, host, asked).await? {
        Ok(packet) => {
            let expected = expected(host, &packet, (asked.entry, asked.goal), run.mtu(entry));
            // One request is enough for what is broadcast.
            let count =
                if packet.destination_mac.is_some_and(crate::event::MacAddress::is_multicast) { 1 } else { count };
            let sent = run.probe(&packet, entry, count).await?;
            Ok(Done { asked: asked.clone(), sent, expected })
        }
        Err(unanswered) => {
            let by = unanswered.asked_by;
            let unanswered = unanswered.sent;
            let expected = expected(host, &unanswered.packet, (by, request_goal(asked, by)), run.mtu(unanswered.entry));
            Ok(Done { asked: asked.clone(), sent: unanswered, expected })
        }
    }
}

/// A request that nobody answered.
pub(super) struct Unanswered {
    pub(super) sent: Sent,
    asked_by: Entry,
}

/// The packet with its receiver's MAC address and its sender's; or the request for one of them which nobody answered.
pub(super) async fn with_next_hop(
    run: &mut Run,
    host: &HostState,
    asked: &Asked,
) -> anyhow::Result<Result<Packet, Box<Unanswered>>> {
    let mut asked = asked.clone();
    if let Some(request) = &asked.sender {
        let sent = run.probe(&request.packet, place(host, request.entry)?, 1).await?;
        // The answer need not have reached the guest.
        let Some(mac) = sent.watch.answerer else {
            return Ok(Err(Box::new(Unanswered { sent, asked_by: request.entry })));
        };
        asked.set_sender(mac);
    }
    let Some(request) = &asked.first else { return Ok(Ok(asked.packet)) };
    let sent = run.probe(&request.packet, place(host, request.entry)?, 1).await?;
    // An answer that did not reach who asked gives it no next hop.
    if !sent.watch.answered {
        return Ok(Err(Box::new(Unanswered { sent, asked_by: request.entry })));
    }
    Ok(Ok(Packet { destination_mac: sent.watch.answerer, ..asked.packet }))
}

/// Whom a request for a MAC address should reach.
fn request_goal(asked: &Asked, by: Entry) -> Goal {
    match by {
        Entry::Wire(_) => Goal::Guest(asked.interface),
        Entry::Guest(_) | Entry::Host => asked.next_hop.map_or(Goal::Beyond, |hop| hop.owner),
    }
}

/// The model's answer. A packet that its sender fragments is walked as its first fragment.
pub(super) fn expected(host: &HostState, packet: &Packet, (entry, goal): (Entry, Goal), mtu: u32) -> Option<Expected> {
    let mut packet = packet.clone();
    let may_fragment = packet.ip().is_some_and(|ip| ip.destination.is_ipv6() || !ip.dont_fragment);
    if may_fragment && packet.length > mtu {
        packet.length = mtu;
        if let Some(ip) = packet.ip_mut() {
            ip.fragment = Fragment::First;
        }
    }
    let topology = Topology::new(host);
    let walked = walk(&topology, &packet, entry);
    let there = Expected::of(&walked, host)?;
    let answer = reading::reply(&Reading::new(&walked, &packet, goal));
    let back = answer.and_then(|(entry, packet)| Expected::of(&walk(&topology, &packet, entry), host));
    Some(match back {
        Some(back) => there.and_answer(&back),
        None => there,
    })
}

/// The report of the trace, narrowed to what was sent.
pub(super) fn report(
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
