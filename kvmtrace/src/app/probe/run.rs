//! A trace with packets of our own in it: sends them, and waits for what becomes of them.

use super::watch::Watch;
use crate::craft::{self, Mark};
use crate::event::{Event, FlowKey, Place, Started};
use crate::forward::packet::Packet;
use crate::host::path::Scope;
use crate::kernel::privilege;
use crate::pipeline::Pipeline;
use crate::probe::{Live, Plan};
use crate::source::Source as _;
use anyhow::Context as _;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Between two packets: ten a second.
const GAP: Duration = Duration::from_millis(100);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a packet may wait for this host to find its next hop: three requests, a second apart (`mcast_solicit`,
/// `retrans_time_ms`).
const NEIGHBOUR_PATIENCE: Duration = Duration::from_millis(3_300);
/// Once something is certain: for what belongs to it and comes a moment later.
const AFTERWARDS: Duration = Duration::from_millis(80);
/// After a drop the verdict needs to know that nothing came back ([`crate::diagnose`] waits a quarter of a second).
const AFTER_A_LOSS: Duration = Duration::from_millis(300);
/// A packet of a sweep: most answers take less, and one that takes longer is tried again.
const SWEEP_PATIENCE: Duration = Duration::from_millis(400);

/// Packets that were sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Their flow.
    pub(super) key: FlowKey,
    /// How many packets; fragments of one count as one.
    pub(super) packets: u64,
    /// The packet, as it was sent.
    pub(super) packet: Packet,
    /// Where it entered.
    pub(super) entry: Place,
    /// What was seen of them.
    pub(super) watch: Watch,
}

/// A running trace.
pub(super) struct Run {
    live: Live,
    pipeline: Pipeline,
    stop: tokio::sync::watch::Sender<bool>,
    signals: Vec<Signal>,
    mark: Mark,
    flows: u16,
    /// A signal, or the end of the trace: nothing more is sent.
    ended: bool,
}

impl Run {
    /// Attaches everything on the guests' ways, and opens the ways in.
    pub(super) async fn start(guests: Vec<String>, entries: &[Place], trace_rules: bool) -> anyhow::Result<Self> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals =
            signals.into_iter().map(signal).collect::<Result<Vec<_>, _>>().context("listening for signals")?;
        let started = Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: Vec::new(),
            guests: guests.clone(),
            all: false,
            filter: String::new(),
            followed: false,
        };
        let scope = Scope { guests, ..Scope::default() };
        let plan = Plan { scope, started: Some(started), trace_rules, ..Plan::default() };
        let mut live = Live::start(plan, stopped).await?;
        for entry in entries {
            live.open_entry(entry.device)?;
        }
        live.start_helpers();
        privilege::confine().context("after attaching")?;
        let mark = Mark::of_second((live.kernel().clock.now().0 / 1_000_000_000) as u32);
        Ok(Self { live, pipeline: Pipeline::of_probe(), stop, signals, mark, flows: 0, ended: false })
    }

    /// The MTU of the device that a packet enters by.
    pub(super) fn mtu(&self, entry: Place) -> u32 {
        self.live.host().link(entry.device).map_or(1500, |link| link.mtu)
    }

    /// Sends a packet `count` times as one flow of its own, and waits until its fate is known.
    pub(super) async fn probe(&mut self, packet: &Packet, entry: Place, count: u16) -> anyhow::Result<Sent> {
        let mut sent = self.send(packet, entry, count).await?;
        let begin = Instant::now();
        self.wait(begin + PATIENCE, &mut sent.watch).await?;
        if !sent.watch.is_decided() && !sent.watch.left {
            self.wait(begin + NEIGHBOUR_PATIENCE, &mut sent.watch).await?;
        }
        let rest = if sent.watch.answered { AFTERWARDS } else { AFTER_A_LOSS };
        self.until(Instant::now() + rest, &mut sent.watch).await?;
        Ok(sent)
    }

    /// Sends one packet of a sweep; once more where nothing is known of it.
    pub(super) async fn attempt(&mut self, packet: &Packet, entry: Place) -> anyhow::Result<Sent> {
        let sent = self.attempt_once(packet, entry).await?;
        if sent.watch.is_decided() || self.ended { Ok(sent) } else { self.attempt_once(packet, entry).await }
    }

    async fn attempt_once(&mut self, packet: &Packet, entry: Place) -> anyhow::Result<Sent> {
        let mut sent = self.send(packet, entry, 1).await?;
        self.wait(Instant::now() + SWEEP_PATIENCE, &mut sent.watch).await?;
        if sent.watch.is_decided() && !sent.watch.answered {
            // Whether the sender is told is seen a moment later.
            self.until(Instant::now() + AFTERWARDS, &mut sent.watch).await?;
        }
        Ok(sent)
    }

    async fn send(&mut self, packet: &Packet, entry: Place, count: u16) -> anyhow::Result<Sent> {
        let mtu = self.mtu(entry);
        let packet = craft::marked(packet, self.mark, self.flows);
        self.flows += 1;
        let mut sent: Option<Sent> = None;
        for number in 1..=count {
            if self.ended {
                break;
            }
            let frames = craft::frames(&packet, self.mark, number, mtu)?;
            for frame in &frames {
                self.live.send(entry.device, frame)?;
            }
            let sent = sent.get_or_insert_with(|| {
                let key = craft::flow_of(frames.first().map_or(&[], Vec::as_slice));
                Sent { key, packets: 0, packet: packet.clone(), entry, watch: Watch::new(key, entry) }
            });
            sent.packets += 1;
            if number < count {
                let next = Instant::now() + GAP;
                self.until(next, &mut sent.watch).await?;
            }
        }
        sent.context("interrupted before anything was sent")
    }

    /// Until its fate is known, or the time is over.
    async fn wait(&mut self, deadline: Instant, watch: &mut Watch) -> anyhow::Result<()> {
        while !watch.is_decided() && !self.ended && Instant::now() < deadline {
            self.step(deadline, watch).await?;
        }
        Ok(())
    }

    /// Until the time is over.
    async fn until(&mut self, deadline: Instant, watch: &mut Watch) -> anyhow::Result<()> {
        while !self.ended && Instant::now() < deadline {
            self.step(deadline, watch).await?;
        }
        Ok(())
    }

    async fn step(&mut self, deadline: Instant, watch: &mut Watch) -> anyhow::Result<()> {
        let signals = &mut self.signals;
        let signalled = async {
            let [interrupt, terminate, hangup] = signals.as_mut_slice() else { return std::future::pending().await };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::select! {
            event = self.live.next() => match event? {
                Some(event) => {
                    watch.take(&event);
                    take(&mut self.pipeline, &event);
                }
                None => self.ended = true,
            },
            () = sleep_until(deadline) => {}
            () = signalled => self.ended = true,
        }
        Ok(())
    }

    /// Detaches, drains, and gives all that was seen.
    pub(super) async fn finish(mut self) -> anyhow::Result<Pipeline> {
        if self.stop.send(true).is_err() {
            tracing::debug!("the trace had ended already");
        }
        while let Some(event) = self.live.next().await? {
            take(&mut self.pipeline, &event);
        }
        Ok(self.pipeline)
    }
}

fn take(pipeline: &mut Pipeline, event: &Event) {
    tracing::trace!(?event);
    pipeline.take(event);
}
