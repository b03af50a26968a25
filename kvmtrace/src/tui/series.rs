//! Hours of a guest's past, with bounded memory: sums over ten seconds each, for six hours.
//!
//! Parts that are full are shared between snapshots and never change; only the newest, of at most [`PART`] buckets, is copied.

use super::rates::FlowRates;
use crate::event::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// Nanoseconds of a bucket.
pub(super) const BUCKET_NS: u64 = 10_000_000_000;
/// Buckets of a part.
const PART: usize = 60;
/// Full parts that are kept: six hours.
const PARTS: usize = 36;

/// What happened in ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Packets.
    pub packets: u32,
    /// Bytes, in units of 1,024.
    pub kibibytes: u32,
    /// Packets dropped.
    pub dropped: u32,
    /// Incidents that lasted meanwhile.
    pub faults: u8,
    /// The trace ran.
    pub known: bool,
}

impl Bucket {
    /// Both together.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            kibibytes: self.kibibytes.saturating_add(other.kibibytes),
            dropped: self.dropped.saturating_add(other.dropped),
            faults: self.faults.max(other.faults),
            known: self.known || other.known,
        }
    }
}

/// Buckets in the order of time, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    full: VecDeque<Arc<[Bucket]>>,
    open: Vec<Bucket>,
    /// Number of the first bucket of `open`, counted from the epoch.
    at: u64,
}

impl Series {
    /// Adds what happened between two times at these rates, while so many incidents lasted.
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp, rates: FlowRates, faults: u8) {
        let last = to.0.saturating_sub(1) / BUCKET_NS;
        let oldest = last.saturating_sub((PART * PARTS) as u64);
        let first = (from.0 / BUCKET_NS).clamp(oldest, last);
        for number in first..=last {
            let begin = from.0.max(number * BUCKET_NS);
            let span = to.0.min((number + 1) * BUCKET_NS).saturating_sub(begin);
            let share = |rate: u64, unit: u64| {
                let amount = u128::from(rate) * u128::from(span) / 1_000_000_000 / u128::from(unit);
                u32::try_from(amount).unwrap_or(u32::MAX)
            };
            // Less than one is not none: a single drop must be seen.
            let some = |rate: u64, unit: u64| share(rate, unit).max(u32::from(rate > 0));
            let new = Bucket {
                packets: some(rates.packets, 1),
                kibibytes: some(rates.bytes, 1_024),
                dropped: some(rates.dropped, 1),
                faults,
                known: true,
            };
            if let Some(bucket) = self.bucket(number) {
                *bucket = bucket.with(new);
            }
        }
    }

    /// The bucket of this number; none where time ran backwards into a part that is full.
    fn bucket(&mut self, number: u64) -> Option<&mut Bucket> {
        if self.open.is_empty() && self.full.is_empty() {
            self.at = number;
        }
        let index = number.checked_sub(self.at)?;
        if index > (PART * PARTS) as u64 {
            // So long a gap leaves nothing of what was before.
            *self = Self { at: number, ..Self::default() };
        }
        while self.at + self.open.len() as u64 <= number {
            if self.open.len() == PART {
                self.full.push_back(std::mem::take(&mut self.open).into());
                self.at += PART as u64;
                if self.full.len() > PARTS {
                    self.full.pop_front();
                }
            }
            self.open.push(Bucket::default());
        }
        self.open.get_mut(usize::try_from(number.checked_sub(self.at)?).ok()?)
    }

    /// Number of the newest bucket.
    pub(super) fn newest(&self) -> u64 {
        self.at + (self.open.len() as u64).saturating_sub(1)
    }

    /// Number of the oldest bucket.
    pub(super) fn oldest(&self) -> u64 {
        self.at - (self.full.len() * PART) as u64
    }

    /// What is known of a bucket.
    fn get(&self, number: u64) -> Bucket {
        let Some(index) = number.checked_sub(self.oldest()).and_then(|index| usize::try_from(index).ok()) else {
            return Bucket::default();
        };
        let part = self.full.get(index / PART).map_or(self.open.as_slice(), |part| part);
        let within = if index / PART < self.full.len() { index % PART } else { index - self.full.len() * PART };
        part.get(within).copied().unwrap_or_default()
    }

    /// So many columns of so many buckets each, the last of which ends with the bucket `last`.
    pub(super) fn columns(&self, last: u64, columns: usize, each: u64) -> Vec<Bucket> {
        let column = |index: u64| {
            let end = last.checked_sub(index * each)?;
            let begin = (end + 1).saturating_sub(each);
            Some((begin..=end).map(|number| self.get(number)).fold(Bucket::default(), Bucket::with))
        };
        let mut columns: Vec<Bucket> = (0..columns as u64).map(|index| column(index).unwrap_or_default()).collect();
        columns.reverse();
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn sums_are_those_of_the_time_and_a_single_drop_is_seen() {
        let mut series = Series::default();
        let rates = FlowRates { packets: 10, bytes: 10_240, dropped: 0 };
        for second in 1_000..1_030 {
            series.add(at(second), at(second + 1), rates, 0);
        }
        series.add(at(1_030), at(1_035), FlowRates { dropped: 1, ..FlowRates::default() }, 2);
        let columns = series.columns(series.newest(), 5, 1);
        assert_eq!(columns.iter().map(|bucket| bucket.packets).collect::<Vec<_>>(), [0, 100, 100, 100, 0]);
        assert_eq!(columns[1].kibibytes, 100);
        assert_eq!((columns[4].dropped, columns[4].faults, columns[0].known), (5, 2, false));
        let wide = series.columns(series.newest(), 1, 6);
        assert_eq!((wide[0].packets, wide[0].dropped, wide[0].faults), (300, 5, 2));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_six_hours_are_kept() {
        let mut series = Series::default();
        for number in 0..10_000 {
            series.add(at(number * 10), at(number * 10 + 10), FlowRates { packets: 1, ..FlowRates::default() }, 0);
        }
        assert!(series.full.len() <= PARTS && series.open.len() <= PART);
        assert_eq!(series.newest(), 9_999);
        let hours = (series.newest() - series.oldest()) * 10 / 3_600;
        assert!((5..=6).contains(&hours), "{hours}");
        assert!(series.columns(series.newest(), 2_000, 1).iter().all(|bucket| bucket.packets == 10));
        // A leap over days costs no time, and leaves what is new.
        series.add(at(10_000_000), at(10_000_010), FlowRates { packets: 7, ..FlowRates::default() }, 0);
        assert_eq!(series.columns(series.newest(), 1, 1)[0].packets, 70);
        // Time that runs backwards is left out.
        series.add(at(5), at(6), FlowRates::default(), 0);
        assert_eq!(series.newest(), 1_000_000);
    }
}
