//! Which rows a list shows, and in which order: vectors of indices into the snapshot, made when something changes and
//! never while drawing. Sort keys are numbers, so that 100,000 flows sort in milliseconds.

use super::snapshot::{FlowFacts, Snapshot};
use crate::diagnose::report::{Cause, FlowReport};

/// What flows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowColumn {
    /// Worst first, as the report has them.
    Worst,
    /// By what became of them.
    Verdict,
    /// By what is wrong.
    Cause,
    /// By guest.
    Guest,
    /// By protocol.
    Protocol,
    /// By source.
    Source,
    /// By destination.
    Destination,
    /// By packets per second.
    PacketRate,
    /// By bytes per second.
    ByteRate,
    /// By packets.
    Packets,
    /// By packets dropped.
    Dropped,
    /// By latency.
    Latency,
}

impl FlowColumn {
    pub(super) const ALL: [Self; 12] = [
        Self::Worst,
        Self::Verdict,
        Self::Cause,
        Self::Guest,
        Self::Protocol,
        Self::Source,
        Self::Destination,
        Self::PacketRate,
        Self::ByteRate,
        Self::Packets,
        Self::Dropped,
        Self::Latency,
    ];

    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Verdict => "verdict",
            Self::Cause => "cause",
            Self::Guest => "guest",
            Self::Protocol => "protocol",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::PacketRate => "packets/s",
            Self::ByteRate => "bytes/s",
            Self::Packets => "packets",
            Self::Dropped => "dropped",
            Self::Latency => "latency of the first packet",
        }
    }

    /// Most interesting are the largest.
    pub(super) fn largest_first(self) -> bool {
        matches!(
            self,
            Self::Verdict | Self::PacketRate | Self::ByteRate | Self::Packets | Self::Dropped | Self::Latency
        )
    }

    fn key(self, index: usize, flow: &FlowReport, facts: &FlowFacts) -> u128 {
        match self {
            Self::Worst => index as u128,
            Self::Verdict => flow.verdict as u128,
            Self::Cause => flow.cause.map_or(u128::MAX, |cause: Cause| cause as u128),
            Self::Guest => u128::from(facts.guest_rank),
            Self::Protocol => protocol_key(&flow.protocol),
            Self::Source => facts.ends[0],
            Self::Destination => facts.ends[1],
            Self::PacketRate => u128::from(facts.rates.packets),
            Self::ByteRate => u128::from(facts.rates.bytes),
            Self::Packets => u128::from(flow.packets),
            Self::Dropped => u128::from(flow.dropped),
            Self::Latency => u128::from(facts.latency.map_or(0, |latency| latency.p50)),
        }
    }
}

/// Names in alphabetic order, as far as sixteen bytes tell.
fn protocol_key(name: &str) -> u128 {
    name.bytes().chain(std::iter::repeat(0)).take(16).fold(0, |key, byte| key << 8 | u128::from(byte))
}

/// What guests are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestColumn {
    /// Worst first.
    Worst,
    /// By name.
    Name,
    /// By its devices.
    Path,
    /// By packets per second.
    PacketRate,
    /// By bytes per second.
    ByteRate,
    /// By packets dropped.
    Dropped,
    /// By fragments.
    Fragments,
}

impl GuestColumn {
    pub(super) const ALL: [Self; 7] =
        [Self::Worst, Self::Name, Self::Path, Self::PacketRate, Self::ByteRate, Self::Dropped, Self::Fragments];

    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Name => "name",
            Self::Path => "path",
            Self::PacketRate => "packets/s",
            Self::ByteRate => "bytes/s",
            Self::Dropped => "dropped",
            Self::Fragments => "fragments",
        }
    }
}

/// A column and a way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort<C> {
    /// By what.
    pub column: C,
    /// Against its usual order.
    pub reversed: bool,
}

impl Sort<FlowColumn> {
    /// By the next column.
    pub(super) fn next(self) -> Self {
        Self { column: following(&FlowColumn::ALL, self.column), reversed: false }
    }
}

impl Sort<GuestColumn> {
    /// By the next column.
    pub(super) fn next(self) -> Self {
        Self { column: following(&GuestColumn::ALL, self.column), reversed: false }
    }
}

impl<C: Copy + PartialEq> Sort<C> {
    /// By a column whose title was clicked; a second click turns the order round.
    pub(super) fn clicked(self, column: C) -> Self {
        Self { column, reversed: column == self.column && !self.reversed }
    }
}

fn following<C: Copy + PartialEq>(all: &[C], column: C) -> C {
    let index = all.iter().position(|other| *other == column).unwrap_or(0);
    all[(index + 1) % all.len()]
}

/// The words of a filter; a row matches when it holds all of them, and none that has a `!` in front.
struct Filter {
    words: Vec<String>,
    unwanted: Vec<String>,
}

impl Filter {
    fn new(text: &str) -> Self {
        let (mut words, mut unwanted) = (Vec::new(), Vec::new());
        for word in text.to_lowercase().split_whitespace() {
            match word.strip_prefix('!') {
                // Half typed.
                Some("") => {}
                Some(word) => unwanted.push(word.to_owned()),
                None => words.push(word.to_owned()),
            }
        }
        Self { words, unwanted }
    }

    fn admits(&self, text: &str) -> bool {
        self.words.iter().all(|word| text.contains(word.as_str()))
            && !self.unwanted.iter().any(|word| text.contains(word.as_str()))
    }
}

fn admitted<'a>(texts: impl Iterator<Item = &'a str>, filter: &str) -> Vec<u32> {
    let filter = Filter::new(filter);
    (0..).zip(texts).filter(|(_, text)| filter.admits(text)).map(|(index, _)| index).collect()
}

/// The flows to show: all, or those of one guest.
pub(super) fn flows(snapshot: &Snapshot, filter: &str, sort: Sort<FlowColumn>, guest: Option<&str>) -> Vec<u32> {
    let mut rows = admitted(snapshot.flows.iter().map(|flow| flow.text.as_str()), filter);
    if guest.is_some() {
        rows.retain(|row| snapshot.report.flows[*row as usize].guest.as_deref() == guest);
    }
    if sort.column != FlowColumn::Worst {
        let flip = if sort.column.largest_first() { u128::MAX } else { 0 };
        let key = |row: u32| {
            let index = row as usize;
            sort.column.key(index, &snapshot.report.flows[index], &snapshot.flows[index]) ^ flip
        };
        let mut keyed: Vec<(u128, u32)> = rows.iter().map(|row| (key(*row), *row)).collect();
        keyed.sort_unstable();
        rows = keyed.into_iter().map(|(_, row)| row).collect();
    }
    if sort.reversed {
        rows.reverse();
    }
    rows
}

/// The guests to show.
pub(super) fn guests(snapshot: &Snapshot, filter: &str, sort: Sort<GuestColumn>) -> Vec<u32> {
    let mut rows = admitted(snapshot.guests.iter().map(|guest| guest.text.as_str()), filter);
    let facts = |row: &u32| &snapshot.guests[*row as usize];
    match sort.column {
        GuestColumn::Worst => {}
        GuestColumn::Name => {
            rows.sort_by_cached_key(|row| super::text::natural(&snapshot.report.guests[facts(row).index].name));
        }
        GuestColumn::Path => rows.sort_by_key(|row| {
            let first = snapshot.report.guests[facts(row).index].interfaces.first();
            first.map(|interface| (interface.uplinks.first(), interface.bridge.as_ref(), interface.device.as_str()))
        }),
        GuestColumn::PacketRate => rows.sort_by_key(|row| std::cmp::Reverse(facts(row).history.rates.packets)),
        GuestColumn::ByteRate => rows.sort_by_key(|row| std::cmp::Reverse(facts(row).history.rates.bytes)),
        GuestColumn::Dropped => rows.sort_by_key(|row| std::cmp::Reverse(facts(row).dropped)),
        GuestColumn::Fragments => rows.sort_by_key(|row| std::cmp::Reverse(facts(row).fragments)),
    }
    if sort.reversed {
        rows.reverse();
    }
    rows
}

/// The faults to show.
pub(super) fn faults(snapshot: &Snapshot, filter: &str) -> Vec<u32> {
    admitted(snapshot.faults.iter().map(|fault| fault.text.as_str()), filter)
}

/// The events to show.
pub(super) fn events(snapshot: &Snapshot, filter: &str) -> Vec<u32> {
    admitted(snapshot.events.iter().map(|event| event.search.as_str()), filter)
}
