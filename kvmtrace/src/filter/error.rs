//! What can be wrong with a filter: each names the word and the way out.

use kvmtrace_common::filter::INSTRUCTIONS;

/// Why a filter is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No word of the language, nor an address.
    #[error("filter: unknown keyword {word:?} ({hint})")]
    Unknown {
        /// The word.
        word: String,
        /// The keyword that looks like it, or the usual ones.
        hint: String,
    },
    /// A word of pcap-filter that flows can't answer.
    #[error("filter: {what} is not supported; {instead}")]
    Unsupported {
        /// What.
        what: String,
        /// What to write.
        instead: &'static str,
    },
    /// Something else should stand here.
    #[error("filter: expected {expected}, found {found}")]
    Expected {
        /// What should stand here.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// An identifier of the wrong kind.
    #[error("filter: {word:?} is no {kind}; {hint}")]
    Bad {
        /// What it should be.
        kind: &'static str,
        /// The word.
        word: String,
        /// What to write.
        hint: String,
    },
    /// Words that don't go together.
    #[error("filter: {first:?} can't be followed by {second:?}; write {instead:?}")]
    Mismatch {
        /// One word.
        first: String,
        /// The other.
        second: String,
        /// What to write.
        instead: String,
    },
    /// It does not fit.
    #[error("filter: it has {tests} tests, more than the {} that fit; use a net or a portrange", INSTRUCTIONS - 2)]
    TooLong {
        /// How many it has.
        tests: usize,
    },
    /// No packet passes it.
    #[error("filter: it selects nothing: {0}")]
    Empty(String),
    /// Nested too deep.
    #[error("filter: it is nested more than {0} deep; leave out parentheses")]
    TooDeep(usize),
}
