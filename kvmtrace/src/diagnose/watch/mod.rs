//! What an onlooker hears of at once: the lines of `kvmtrace watch`.
//!
//! 1. A line counts what no line before it did. The kernel reports the first packet that a site drops of a flow, the second, the
//!    fourth, … as they happen, and all counters twice a second: each line has the difference, so lines add up.
//! 2. At most so many lines a second are given as things happen ([`Options::rate`]). What comes faster waits for the end of the
//!    second and is one line per flow and place then.
//! 3. In the end each flow that lost packets has a line with the sum of all its lines ([`NoticeKind::Total`]).

mod journeys;
mod notice;
mod owner;
mod shares;
mod told;

pub use notice::{Ends, IcmpNotice, Notice, NoticeKind};

use crate::diagnose::facts::scene::Scene;
use crate::event::{Event, EventKind, FlowKey, IfIndex, PacketCause, Timestamp, UnlistedPlace};
use crate::track::Track;
use journeys::Journeys;
use owner::{Owner, Owners};
use shares::Shares;
use told::{Subject, Told};

/// A second.
const SECOND: u64 = 1_000_000_000;
/// Lines of sums at the end of a second, or of the trace, and of totals.
const SUMS: usize = 100;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lines per second that are given as things happen; more become sums.
    pub rate: u32,
    /// The ways of packets too, where each packet is reported.
    pub paths: bool,
    /// Only ways that took at least this long, in nanoseconds.
    pub min_latency: u64,
}

/// What a flow lost, as its lines had it.
#[derive(Clone, Debug)]
struct Sum {
    packets: u64,
    last: Notice,
}

/// Turns events into lines. A pure fold: what the time is it takes from the events.
#[derive(Debug)]
pub struct Watcher {
    options: Options,
    told: Told,
    owners: Owners,
    journeys: Journeys,
    /// The second that is running, and how many lines it has had.
    second: (u64, u32),
    /// What waits for the end of the second: how much there is so far.
    waiting: Shares<Subject, u64>,
    /// By flow.
    sums: Shares<FlowKey, Sum>,
    /// Lost by flows that are too many to be kept.
    rest: u64,
    /// Ways of packets that had no line in this second.
    unshown: u64,
}

impl Watcher {
    /// Nothing was told yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            told: Told::default(),
            owners: Owners::default(),
            journeys: Journeys::new(options.min_latency),
            second: (0, 0),
            waiting: Shares::default(),
            sums: Shares::default(),
            rest: 0,
            unshown: 0,
        }
    }

    /// The lines that an event is worth; `track` has already taken it in.
    pub fn step(&mut self, event: &Event, track: &Track) -> Vec<Notice> {
        let mut notices = self.idle(event.time, track);
        if let EventKind::Host(_) = &event.kind {
            self.owners.forget();
        }
        if let (EventKind::Packet(record), true) = (&event.kind, self.options.paths) {
            let ended = self.journeys.step(record, event.time);
            notices.extend(self.ways(ended, track));
        }
        if let Some((subject, so_far)) = subject(event)
            && self.told.is_news(&subject, so_far)
        {
            let speaks = self.may_speak(event.time);
            let spoken = if speaks { self.speak(&subject, so_far, event, track, false) } else { None };
            // Of a young flow it may not be known yet whose it is.
            let waits = !speaks || spoken.is_none() && is_young(&subject, event.time, track);
            notices.extend(spoken);
            if waits {
                self.wait(&subject, so_far, track);
            }
        }
        notices
    }

    /// Keeps for the end of the second how much there is of a subject.
    fn wait(&mut self, subject: &Subject, so_far: u64, track: &Track) {
        let device = charged(subject, track);
        match self.waiting.entry(device, subject.clone(), || 0) {
            Some(waiting) => *waiting = so_far.max(*waiting),
            None if subject.is_drop() => self.rest += self.told.news(subject, so_far),
            None => {}
        }
    }

    /// What the passing of time brings: sums of the second that is over, and ways of packets that are seen no more.
    pub fn idle(&mut self, now: Timestamp, track: &Track) -> Vec<Notice> {
        let ended = self.journeys.ended(now);
        let mut notices = self.ways(ended, track);
        if now.0 / SECOND > self.second.0 {
            self.second = (now.0 / SECOND, 0);
            notices.extend(self.sums(now, track));
        }
        notices
    }

    /// The lines of the end: what still waits, then a total for each flow.
    pub fn finish(&mut self, track: &Track) -> Vec<Notice> {
        let ended = self.journeys.all();
        let mut notices = self.ways(ended, track);
        notices.extend(self.sums(track.end(), track));
        // More flows than lines: their packets are in the totals all the same.
        loop {
            let waiting = self.waiting.take(SUMS);
            if waiting.is_empty() {
                break;
            }
            self.speak_all(&waiting, track.end(), track);
        }
        let mut rest = (0, 0);
        let devices: Vec<Vec<Sum>> = std::mem::take(&mut self.sums).into_all().collect();
        let each = (SUMS / devices.len().max(1)).max(1);
        for mut sums in devices {
            sums.sort_by_key(|sum| std::cmp::Reverse(sum.packets));
            let beyond = sums.split_off(sums.len().min(each));
            notices.extend(sums.iter().map(|sum| notice::total(sum.packets, &sum.last, track)));
            rest.0 += beyond.iter().map(|sum| sum.packets).sum::<u64>();
            rest.1 += beyond.len() as u64;
        }
        rest.0 += std::mem::take(&mut self.rest);
        notices.extend((rest.0 > 0).then(|| notice::rest(track, rest.0, rest.1)));
        notices
    }

    /// A line more may be given in this second.
    fn may_speak(&mut self, now: Timestamp) -> bool {
        self.second.1 += 1;
        self.second.1 <= self.options.rate && now.0 / SECOND >= self.second.0
    }

    /// A line for each subject that waits, as many as there may be.
    fn sums(&mut self, now: Timestamp, track: &Track) -> Vec<Notice> {
        let event = Event { time: now, kind: EventKind::Ended };
        let mut notices = Vec::new();
        for (subject, so_far) in self.waiting.take(SUMS) {
            match self.speak(&subject, so_far, &event, track, true) {
                Some(notice) => notices.push(notice),
                // The counters that show whose it is may still come.
                None if is_young(&subject, now, track) => self.wait(&subject, so_far, track),
                None => {}
            }
        }
        let unshown = std::mem::take(&mut self.unshown);
        notices.extend((unshown > 0).then(|| notice::unshown(track, now, unshown)));
        notices
    }

    fn speak_all(&mut self, subjects: &[(Subject, u64)], now: Timestamp, track: &Track) -> Vec<Notice> {
        let event = Event { time: now, kind: EventKind::Ended };
        subjects.iter().filter_map(|(subject, so_far)| self.speak(subject, *so_far, &event, track, true)).collect()
    }

    /// The line about a subject, with what is new of it; none for what is nobody's, or no loss. One that has waited is asked for
    /// again, whatever was known of it.
    fn speak(&mut self, subject: &Subject, so_far: u64, event: &Event, track: &Track, waited: bool) -> Option<Notice> {
        let owner = match subject.flow() {
            Some(flow) if waited => Some(self.owners.get_again(flow, track, event.time)?),
            Some(flow) => Some(self.owners.get(flow, track, event.time)?),
            None => None,
        };
        let scene = Scene::of_host(track);
        let packets = self.told.news(subject, so_far);
        let mut notice = notice::notice(subject, owner.as_ref(), event, &scene)?;
        (notice.packets, notice.count) = (packets, so_far);
        notice::say(&mut notice);
        if subject.is_drop() {
            self.add(owner.as_ref(), &notice);
        }
        Some(notice)
    }

    fn add(&mut self, owner: Option<&Owner>, notice: &Notice) {
        let new = || Sum { packets: 0, last: notice.clone() };
        match owner.and_then(|owner| self.sums.entry(owner.device, owner.key, new)) {
            Some(sum) => (sum.packets, sum.last) = (sum.packets + notice.packets, notice.clone()),
            None => self.rest += notice.packets,
        }
    }

    /// The lines of ways that have ended.
    fn ways(&mut self, ended: Vec<journeys::Journey>, track: &Track) -> Vec<Notice> {
        let mut notices = Vec::new();
        for journey in ended {
            let Some(owner) = self.owners.get(journey.flow, track, journey.last()) else { continue };
            if self.may_speak(self.second_begins()) {
                notices.push(notice::way(&journey, &owner, &Scene::of_host(track)));
            } else {
                self.unshown += 1;
            }
        }
        notices
    }

    fn second_begins(&self) -> Timestamp {
        Timestamp(self.second.0 * SECOND)
    }
}

/// Of a flow that began within the last second it may not be known yet whose it is.
fn is_young(subject: &Subject, now: Timestamp, track: &Track) -> bool {
    subject.flow().is_some_and(|flow| track.get(&flow).is_none_or(|known| now.since(known.first).0 < SECOND))
}

/// The guest's device that a subject is charged to, found without asking whose its flow is.
fn charged(subject: &Subject, track: &Track) -> Option<IfIndex> {
    let is_guests = |device: &IfIndex| track.host().guest_of(*device).is_some();
    match subject {
        Subject::Unlisted(site) => site.device.filter(is_guests),
        Subject::Drop(flow, _) | Subject::Fragments(flow) | Subject::Error(flow) | Subject::Mac(flow, _) => {
            let flow = track.get(flow)?;
            let devices = flow.places.keys().map(|place| place.device);
            devices.chain(flow.drops.keys().filter_map(|site| site.device)).find(is_guests)
        }
    }
}

/// What an event is about, and how many packets there were of it so far.
fn subject(event: &Event) -> Option<(Subject, u64)> {
    Some(match &event.kind {
        EventKind::Packet(record) => match &record.cause {
            PacketCause::Dropped { site, .. } => (Subject::Drop(record.flow, site.clone()), record.count),
            PacketCause::IcmpError => (Subject::Error(record.flow), record.count),
            PacketCause::MacChanged => (Subject::Mac(record.flow, record.place?), record.count),
            PacketCause::Wanted if record.flow.protocol.is_icmp_error() => (Subject::Error(record.flow), record.count),
            PacketCause::First | PacketCause::Wanted => return None,
        },
        EventKind::Drop(sample) => (Subject::Drop(sample.flow, sample.site.clone()), sample.packets),
        EventKind::Flow(sample) if sample.counters.fragments > 0 => {
            (Subject::Fragments(sample.flow), u64::from(sample.counters.fragments))
        }
        EventKind::Unlisted(unlisted) => match &unlisted.place {
            UnlistedPlace::Drop(site) => (Subject::Unlisted(site.clone()), unlisted.packets),
            UnlistedPlace::Hook(_) => return None,
        },
        EventKind::Started(_)
        | EventKind::Host(_)
        | EventKind::Flow(_)
        | EventKind::RuleDrop(_)
        | EventKind::Loss(_)
        | EventKind::Degraded(_)
        | EventKind::Command(_)
        | EventKind::Ended => return None,
    })
}
