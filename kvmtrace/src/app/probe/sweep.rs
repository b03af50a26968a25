//! The search for the largest packet that passes: by halves, each answer a packet sent. Pure.

/// A search between sizes, in bytes from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    /// The largest that passed; none so far.
    pub(super) passes: Option<u32>,
    /// The smallest that did not; none so far.
    pub(super) fails: Option<u32>,
    least: u32,
    most: u32,
}

impl Sweep {
    /// Between these sizes, both included.
    pub(super) fn new(least: u32, most: u32) -> Self {
        Self { passes: None, fails: None, least: least.min(most), most }
    }

    /// The size to try next; none when the limit is found.
    pub(super) fn next(&self) -> Option<u32> {
        match (self.passes, self.fails) {
            // The largest first: most paths take it, and then one packet is enough.
            (None, None) => Some(self.most),
            (None, Some(fails)) => (fails > self.least).then_some(self.least),
            (Some(passes), Some(fails)) => (fails - passes > 1).then(|| passes.midpoint(fails)),
            (Some(_), None) => None,
        }
    }

    /// Notes what became of a size.
    pub(super) fn note(&mut self, size: u32, passed: bool) {
        if passed {
            self.passes = Some(self.passes.map_or(size, |known| known.max(size)));
        } else {
            self.fails = Some(self.fails.map_or(size, |known| known.min(size)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sweep;
    use rstest::rstest;

    fn search(least: u32, most: u32, limit: u32) -> (Option<u32>, Option<u32>, usize) {
        let mut sweep = Sweep::new(least, most);
        let mut tries = 0;
        while let Some(size) = sweep.next() {
            tries += 1;
            assert!(tries < 40 && (least..=most).contains(&size), "{size}");
            sweep.note(size, size <= limit);
        }
        (sweep.passes, sweep.fails, tries)
    }

    #[rstest]
    #[case::all_pass(28, 1500, 9000, (Some(1500), None))]
    #[case::none_passes(28, 1500, 0, (None, Some(28)))]
    #[case::the_limit_between(28, 9000, 1450, (Some(1450), Some(1451)))]
    #[case::only_the_least(28, 1500, 28, (Some(28), Some(29)))]
    #[case::all_but_the_most(28, 65_535, 65_534, (Some(65_534), Some(65_535)))]
    #[case::one_size(28, 28, 28, (Some(28), None))]
    #[case::one_size_that_fails(28, 28, 27, (None, Some(28)))]
    fn the_limit_is_found(
        #[case] least: u32,
        #[case] most: u32,
        #[case] limit: u32,
        #[case] found: (Option<u32>, Option<u32>),
    ) {
        let (passes, fails, tries) = search(least, most, limit);
        assert_eq!((passes, fails), found);
        assert!(tries <= 18, "{tries} packets");
    }
}
