//! What passes in a second.

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowRates {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped: u64,
}

impl FlowRates {
    /// Adds another's rates.
    pub(super) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.dropped += other.dropped;
    }
}
