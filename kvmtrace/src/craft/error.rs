//! Why a packet can't be made.

/// The packet can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CraftError {
    /// The model left something open.
    #[error("a packet without {0} can't be sent")]
    Unknown(&'static str),
    /// Nothing of this kind is sent.
    #[error("kvmtrace does not send packets of {0}")]
    Kind(String),
    /// Longer or shorter than its protocol allows.
    #[error("such a packet has {least} to {most} bytes from its IP header on, not {length}")]
    Length {
        /// As asked for.
        length: usize,
        /// The headers alone.
        least: usize,
        /// With the longest payload.
        most: usize,
    },
}
