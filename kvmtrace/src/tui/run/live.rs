//! The thread that folds a running trace into snapshots, and writes the recording of the `w` key.

use super::super::feed::Feed;
use super::super::snapshot::{Snapshot, Status};
use super::super::update::Command;
use super::{LOOK_SHARE, Message, Options};
use crate::event::{Event, Timestamp};
use crate::source::ProgramCost;
use crate::track::rebase::Rebase;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Until the first snapshot.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Between two snapshots, at least.
const LOOK: Duration = Duration::from_millis(500);
/// What making snapshots may take of the time while nothing happens: idle flows, however many, must not keep a processor
/// busy.
const QUIET_SHARE: u32 = 100;
/// How often it is asked what tracing costs.
pub(super) const COST: Duration = Duration::from_secs(2);

/// Makes the snapshots of a running trace.
pub(super) struct Live {
    feed: Feed,
    options: Options,
    publish: watch::Sender<Arc<Snapshot>>,
    /// Old snapshots die here, where it costs no frame, rather than on the screen's thread.
    old: VecDeque<Arc<Snapshot>>,
    /// When the newest event came, by both clocks.
    clock: Option<(Timestamp, Instant)>,
    recording: Option<Rebase>,
    status: Status,
    processor: (Instant, Duration),
    programs: Option<ProgramCost>,
}

impl Live {
    pub(super) fn new(options: Options, publish: watch::Sender<Arc<Snapshot>>) -> Self {
        let processor = (Instant::now(), (options.processor_time)());
        Self {
            feed: Feed::default(),
            options,
            publish,
            old: VecDeque::new(),
            clock: None,
            recording: None,
            status: Status::default(),
            processor,
            programs: None,
        }
    }

    pub(super) async fn run(&mut self, mut inbox: mpsc::Receiver<Message>) {
        // The first look comes soon: what was said before the screen was there is the host and its guests.
        let mut next = Instant::now() + FIRST_LOOK;
        // When to look again if something happens; while nothing does, only the clock in the header moves.
        let mut if_busy = next;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(next) => {
                    let before = Instant::now();
                    self.look();
                    let took = before.elapsed();
                    if_busy = Instant::now() + (took * LOOK_SHARE).max(LOOK);
                    next = Instant::now() + (took * QUIET_SHARE).max(LOOK);
                }
                message = inbox.recv() => match message {
                    Some(Message::Event(event)) => {
                        self.event(&event);
                        next = next.min(if_busy);
                    }
                    Some(Message::Command(command)) => {
                        self.command(command);
                        next = Instant::now();
                    }
                    Some(Message::Cost(cost)) => self.cost(cost),
                    Some(Message::Trouble(text)) => self.status.trouble = Some(text),
                    None => break,
                },
            }
            if self.publish.is_closed() {
                break;
            }
        }
        self.end_recording();
    }

    /// The trace's own time, which goes on while nothing happens.
    fn now(&self) -> Timestamp {
        let (time, seen) = self.clock.unwrap_or((Timestamp::default(), Instant::now()));
        Timestamp(time.0.saturating_add(u64::try_from(seen.elapsed().as_nanos()).unwrap_or(u64::MAX)))
    }

    fn event(&mut self, event: &Event) {
        if event.time >= self.now() || self.clock.is_none() {
            self.clock = Some((event.time, Instant::now()));
        }
        self.feed.step(event);
        if let (Some(rebase), Some(recorder)) = (&self.recording, &mut self.options.recorder)
            && let Some(event) = rebase.apply(event)
            && let Err(error) = recorder.write(&event)
        {
            self.status.trouble = Some(format!("recording: {error:#}"));
            self.end_recording();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Reset => self.feed.reset(self.now()),
            Command::Record if self.recording.is_some() => self.end_recording(),
            Command::Record => self.begin_recording(),
            Command::Pause
            | Command::Speed(_)
            | Command::Seek(_)
            | Command::SeekTo(_)
            | Command::Fault(_)
            | Command::Host(_) => {}
        }
    }

    fn begin_recording(&mut self) {
        let now = self.now();
        let Some(recorder) = &mut self.options.recorder else { return };
        match recorder.begin(&self.feed.latest().preamble(now)) {
            Ok(name) => {
                self.recording = Some(Rebase::new(self.feed.latest(), now));
                self.status.recording = Some(name);
                self.status.trouble = None;
            }
            Err(error) => self.status.trouble = Some(format!("recording: {error:#}")),
        }
    }

    fn end_recording(&mut self) {
        if self.recording.take().is_some()
            && let Some(recorder) = &mut self.options.recorder
            && let Err(error) = recorder.end()
        {
            self.status.trouble = Some(format!("recording: {error:#}"));
        }
        self.status.recording = None;
    }

    fn look(&mut self) {
        self.measure_cost();
        let snapshot = Arc::new(self.feed.snapshot(self.now(), self.status.clone()));
        self.old.push_back(Arc::clone(&snapshot));
        if self.old.len() > 3 {
            self.old.pop_front();
        }
        // Nobody looks any more: run() sees that.
        let _gone = self.publish.send(snapshot);
    }

    fn measure_cost(&mut self) {
        let (since, used) = self.processor;
        let elapsed = since.elapsed();
        if elapsed < COST {
            return;
        }
        let now_used = (self.options.processor_time)();
        let share = now_used.saturating_sub(used).as_micros() * 1_000 / elapsed.as_micros().max(1);
        self.status.cost.cpu_per_mille = u32::try_from(share).ok();
        self.processor = (Instant::now(), now_used);
    }

    /// Time per packet since the last look; what it was stays while there are no packets.
    fn cost(&mut self, cost: Option<ProgramCost>) {
        let before = std::mem::replace(&mut self.programs, cost);
        if cost.is_none() {
            self.status.cost.nanoseconds_per_packet = None;
        }
        if let Some((before, cost)) = before.zip(cost)
            && let packets = cost.packets.saturating_sub(before.packets)
            && let Some(time) = cost.nanoseconds.saturating_sub(before.nanoseconds).checked_div(packets)
        {
            self.status.cost.nanoseconds_per_packet = Some(time);
        }
    }
}
