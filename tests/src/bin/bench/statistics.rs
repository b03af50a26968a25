//! Medians and spread: on a machine that does other things too, a mean tells of those.

use serde::Serialize;

/// What a few measurements of one thing came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// First quartile.
    pub(crate) lower: f64,
    /// Third quartile.
    pub(crate) upper: f64,
}

impl Summary {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: usize| sorted[(sorted.len() - 1) * share / 4];
        Self { median: at(2), lower: at(1), upper: at(3) }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn one_wild_value_does_not_move_the_median() {
        let summary = Summary::of(&[10.0, 12.0, 11.0, 9000.0, 9.0]);
        let rounded = [summary.lower, summary.median, summary.upper].map(f64::round);
        assert_eq!(format!("{rounded:?}"), "[10.0, 11.0, 12.0]");
    }
}
