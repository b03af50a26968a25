//! Prometheus' text format, version 0.0.4: a family is its help, its type and its samples.

use crate::sink::escape::escape;
use std::fmt::Write as _;

/// What a body of this format is served as.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They never go down.
    Counter,
    /// They go up and down.
    Gauge,
}

/// A text that grows by families.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a family; one without samples is left out.
    pub(super) fn family<'a, L, V>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) where
        L: IntoIterator<Item = (&'static str, &'a str)>,
        V: std::fmt::Display,
    {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing into a string can't fail.
            self.text.write_fmt(text).unwrap_or_default();
            self.text.push('\n');
        };
        line(format_args!("# HELP {name} {help}"));
        line(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(label, text)| format!("{label}=\"{}\"", quoted(text))).collect();
            if labels.is_empty() {
                line(format_args!("{name} {value}"));
            } else {
                line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    /// A family of one number without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help, [([], value)]);
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A label's value: nothing in it may end it, or steer a terminal that shows it.
fn quoted(text: &str) -> String {
    escape(text).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_label_can_end_neither_it_nor_the_line() {
        let mut exposition = Exposition::default();
        exposition.family("a_total", Kind::Counter, "Help.", [([("guest", "x\"} 1\nb_total 2\\\u{1b}[2J")], 7)]);
        exposition.family("none", Kind::Gauge, "Left out.", Vec::<([(&str, &str); 0], u64)>::new());
        exposition.single("b", Kind::Gauge, "Other.", 0.5);
        let expected = "# HELP a_total Help.\n# TYPE a_total counter\n\
                        a_total{guest=\"x\\\"} 1\\\\u{a}b_total 2\\\\\\\\u{1b}[2J\"} 7\n\
                        # HELP b Other.\n# TYPE b gauge\nb 0.5\n";
        assert_eq!(exposition.finish(), expected);
    }
}
