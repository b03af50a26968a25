//! Sets and maps that are asked in logarithmic time.

use indexmap::IndexMap;

/// Values from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "two ends")]
pub struct Range {
    pub low: u128,
    pub high: u128,
}

impl Range {
    /// One value.
    pub fn one(value: u128) -> Self {
        Self { low: value, high: value }
    }

    /// The value lies in it.
    pub fn contains(self, value: u128) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The elements of a set, or of a map with its answers `T`.
///
/// An element is one value, or several that must all fit. Elements of single values are found by their hash; elements with
/// ranges by their first range's low end, which no more than the elements that reach as far have to be passed for.
#[derive(Clone, Debug, PartialEq)]
pub struct Elements<T> {
    exact: IndexMap<Box<[u128]>, T>,
    /// Ordered by the low end of the first range.
    ranges: Vec<(Box<[Range]>, T)>,
    /// The highest value that the first ranges up to here reach.
    reach: Vec<u128>,
    /// No element is missing.
    pub complete: bool,
}

impl<T> Elements<T> {
    /// The set of these elements.
    pub fn new(elements: impl IntoIterator<Item = (Vec<Range>, T)>, complete: bool) -> Self {
        let (mut exact, mut ranges) = (IndexMap::new(), Vec::new());
        for (element, answer) in elements {
            if element.iter().all(|range| range.low == range.high) {
                exact.entry(element.iter().map(|range| range.low).collect()).or_insert(answer);
            } else {
                ranges.push((element.into_boxed_slice(), answer));
            }
        }
        ranges.sort_by_key(|(element, _)| element.first().map(|range| range.low));
        let mut highest = 0;
        let reach = ranges.iter().map(|(element, _)| {
            highest = element.first().map_or(highest, |range| range.high.max(highest));
            highest
        });
        let reach = reach.collect();
        Self { exact, ranges, reach, complete }
    }

    /// The answer for these values.
    pub fn find(&self, values: &[u128]) -> Option<&T> {
        if let Some(answer) = self.exact.get(values) {
            return Some(answer);
        }
        let first = *values.first()?;
        let mut at =
            self.ranges.partition_point(|(element, _)| element.first().is_some_and(|range| range.low <= first));
        while at > 0 && self.reach.get(at - 1).is_some_and(|reach| *reach >= first) {
            at -= 1;
            let (element, answer) = self.ranges.get(at)?;
            if element.len() == values.len() && element.iter().zip(values).all(|(range, value)| range.contains(*value))
            {
                return Some(answer);
            }
        }
        None
    }

    /// All elements with their answers, those of single values first.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<Range>, &T)> {
        let exact =
            self.exact.iter().map(|(values, answer)| (values.iter().map(|value| Range::one(*value)).collect(), answer));
        exact.chain(self.ranges.iter().map(|(element, answer)| (element.to_vec(), answer)))
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.exact.len() + self.ranges.len()
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
