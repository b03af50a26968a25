//! A recording as something that plays, stands still, runs faster, and jumps. Pure: the time that passes is an argument.

use super::feed::Feed;
use super::snapshot::{Hosts, Replay, Snapshot, Status};
use super::update::Command;
use crate::diagnose::report::{Cause, Severity};
use crate::event::{Event, EventKind, Timestamp};
use crate::pipeline::Pipeline;
use crate::selection::Selection;
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// A quarter of real time up to 256 times as fast.
const SPEEDS: std::ops::RangeInclusive<u32> = 1..=1_024;

/// Seconds before a place that one jumps to for which rates are worked out, so that sparklines are not empty.
const LEAD: u64 = 15;

/// A recording and where in it one is.
#[derive(Debug)]
pub(super) struct Player {
    events: Vec<Event>,
    /// When each event has happened by: their times, made to rise.
    times: Vec<u64>,
    feed: Feed,
    selection: Selection,
    next: usize,
    /// Where the clock begins and ends: with its own events, or with those of others that play beside it.
    span: (u64, u64),
    position: u64,
    paused: bool,
    quarter_speed: u32,
    scan: Scan,
}

impl Player {
    /// Stands at the start of these events, playing what is selected of them.
    pub(super) fn new(events: Vec<Event>, selection: Selection) -> Self {
        let mut latest = 0;
        let times: Vec<u64> = events
            .iter()
            .map(|event| {
                latest = event.time.0.max(latest);
                latest
            })
            .collect();
        let position = times.first().copied().unwrap_or(0);
        let span = (position, times.last().copied().unwrap_or(0));
        let mut player = Self {
            events,
            times,
            feed: Feed::of(selection.clone()),
            selection,
            next: 0,
            span,
            position,
            paused: false,
            quarter_speed: 4,
            scan: Scan::default(),
        };
        player.fold();
        player
    }

    /// When its first and its last event happened, in nanoseconds; none without events.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        (!self.times.is_empty()).then_some(self.span)
    }

    /// Lets the clock run from `start` to `end`, beyond its own events.
    pub(super) fn stretch(&mut self, start: u64, end: u64) {
        self.span = (start, end);
        self.seek(Timestamp(start));
    }

    fn start(&self) -> u64 {
        self.span.0
    }

    fn end(&self) -> u64 {
        self.span.1
    }

    /// Time moves by itself.
    pub(super) fn playing(&self) -> bool {
        !self.paused
    }

    /// Lets so much real time pass.
    pub(super) fn advance(&mut self, elapsed: Duration) {
        if self.paused {
            return;
        }
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(nanoseconds.saturating_mul(u64::from(self.quarter_speed)) / 4);
        if self.position >= self.end() {
            self.position = self.end();
            self.paused = true;
        }
        self.fold();
    }

    /// Takes in all events up to where one is.
    fn fold(&mut self) {
        while self.times.get(self.next).is_some_and(|time| *time <= self.position) {
            self.feed.step(&self.events[self.next]);
            self.next += 1;
        }
    }

    /// Jumps to a time.
    pub(super) fn seek(&mut self, to: Timestamp) {
        let to = to.0.clamp(self.start(), self.end());
        if to < self.position {
            self.feed = Feed::of(self.selection.clone());
            self.next = 0;
            self.position = self.start();
        }
        self.position = self.position.max(to.saturating_sub(LEAD * SECOND));
        while self.position < to {
            self.fold();
            drop(self.snapshot());
            self.position = (self.position + SECOND).min(to);
        }
        self.fold();
    }

    /// Does what the operator wants of its clock.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Pause if self.paused && self.position >= self.end() => {
                self.seek(Timestamp(self.start()));
                self.paused = false;
            }
            Command::Pause => self.paused = !self.paused,
            Command::Speed(step) => {
                let speed = if step > 0 { self.quarter_speed * 2 } else { self.quarter_speed / 2 };
                self.quarter_speed = speed.clamp(*SPEEDS.start(), *SPEEDS.end());
            }
            Command::Seek(seconds) => {
                let to = self.position.saturating_add_signed(i64::from(seconds) * 1_000_000_000);
                self.seek(Timestamp(to));
            }
            Command::SeekTo(time) => self.seek(time),
            // Others that play beside it have a say in these.
            Command::Fault(_) | Command::Host(_) | Command::Record | Command::Reset => {}
        }
    }

    /// Jumps to a time and stands still there.
    pub(super) fn stop_at(&mut self, time: Timestamp) {
        self.seek(time);
        self.paused = true;
    }

    /// When the next fault came up, or the one before.
    pub(super) fn fault(&mut self, forth: bool) -> Option<u64> {
        let position = self.position;
        if forth {
            while self.scan.faults.last().is_none_or(|last| *last <= position)
                && self.scan.second(&self.events, &self.times, &self.selection)
            {}
            self.scan.faults.iter().copied().find(|time| *time > position)
        } else {
            while self.scan.reached < position && self.scan.second(&self.events, &self.times, &self.selection) {}
            self.scan.faults.iter().copied().rfind(|time| *time < position)
        }
    }

    /// What the screen shows now.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let replay = Replay {
            start: Timestamp(self.start()),
            end: Timestamp(self.end()),
            paused: self.paused,
            quarter_speed: self.quarter_speed,
            hosts: Hosts::default(),
        };
        self.feed.snapshot(Timestamp(self.position), Status { replay: Some(replay), ..Status::default() })
    }
}

/// Looks for the moments at which something new went wrong, second by second and only as far as asked.
#[derive(Debug, Default)]
struct Scan {
    pipeline: Pipeline,
    next: usize,
    reached: u64,
    seen: BTreeSet<(Option<Cause>, Option<String>, Option<String>)>,
    faults: Vec<u64>,
}

impl Scan {
    /// Looks at one more second; false when there is none.
    fn second(&mut self, events: &[Event], times: &[u64], selection: &Selection) -> bool {
        let Some(first) = times.get(self.next) else {
            self.reached = u64::MAX;
            return false;
        };
        let until = first + SECOND;
        let mut news = false;
        while let Some(time) = times.get(self.next).filter(|time| **time < until) {
            let event = &events[self.next];
            news |= !matches!(event.kind, EventKind::Started(_) | EventKind::Degraded(_));
            self.pipeline.take(event);
            self.reached = *time;
            self.next += 1;
        }
        if news && self.look(selection) {
            self.faults.push(self.reached);
        }
        true
    }

    /// Something is wrong that was not wrong before.
    fn look(&mut self, selection: &Selection) -> bool {
        let report = selection.narrowed(self.pipeline.report());
        let known = self.seen.len();
        for flow in report.flows.iter().filter(|flow| flow.severity >= Severity::Warning) {
            self.seen.insert((
                flow.cause,
                flow.guest.clone(),
                flow.place.as_ref().and_then(|place| place.device.clone()),
            ));
        }
        for finding in report.findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
            self.seen.insert((
                Some(finding.cause),
                finding.guest.clone(),
                finding.place.as_ref().and_then(|place| place.device.clone()),
            ));
        }
        self.seen.len() > known
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::event::Loss;

    fn recording() -> Vec<Event> {
        let mut events = vec![fixture::started(Timestamp(100 * SECOND))];
        let loss = |second: u64| Event {
            time: Timestamp((100 + second) * SECOND),
            kind: EventKind::Loss(Loss { ring_events: second, ..Loss::default() }),
        };
        events.extend((1..=60).map(loss));
        events
    }

    /// What the screen tells: how far, how many losses, playing or not.
    fn at(player: &mut Player) -> (u64, usize, bool) {
        let snapshot = player.snapshot();
        (snapshot.now.0 / SECOND - 100, snapshot.events.len() - 1, player.playing())
    }

    #[test]
    fn it_plays_by_the_recordings_own_times() {
        let mut player = Player::new(recording(), Selection::default());
        assert_eq!(at(&mut player), (0, 0, true));
        player.advance(Duration::from_secs(5));
        assert_eq!(at(&mut player), (5, 5, true));
        player.command(Command::Speed(1));
        player.advance(Duration::from_secs(5));
        assert_eq!(at(&mut player), (15, 15, true));
        player.command(Command::Pause);
        player.advance(Duration::from_secs(5));
        assert_eq!(at(&mut player), (15, 15, false));
    }

    #[test]
    fn seeking_back_forgets_what_had_not_happened_yet() {
        let mut player = Player::new(recording(), Selection::default());
        player.command(Command::Seek(50));
        assert_eq!(at(&mut player), (50, 50, true));
        player.command(Command::Seek(-30));
        assert_eq!(at(&mut player), (20, 20, true));
        player.command(Command::SeekTo(Timestamp(0)));
        assert_eq!(at(&mut player), (0, 0, true));
        player.command(Command::SeekTo(Timestamp(u64::MAX)));
        assert_eq!(at(&mut player).0, 60);
    }

    #[test]
    fn it_stops_at_the_end_and_begins_again() {
        let mut player = Player::new(recording(), Selection::default());
        player.advance(Duration::from_secs(1_000));
        assert_eq!(at(&mut player), (60, 60, false));
        player.command(Command::Pause);
        assert_eq!(at(&mut player), (0, 0, true));
    }

    #[test]
    fn a_recording_of_nothing_plays_nothing() {
        let mut player = Player::new(Vec::new(), Selection::default());
        player.advance(Duration::from_secs(1));
        assert!(!player.playing());
        assert_eq!(player.fault(true), None);
    }
}
