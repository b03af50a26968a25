//! What a live trace is asked for.

use crate::event::Started;
use crate::filter::Filter;
use crate::host::path::Scope;

/// What to trace.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Which devices.
    pub scope: Scope,
    /// What the first event tells of it.
    pub started: Option<Started>,
    /// Which packets are wanted; all when there is none.
    pub filter: Option<Filter>,
    /// A record for each packet.
    pub every_packet: bool,
    /// A record for each dropped packet.
    pub every_drop: bool,
    /// Which rule drops a packet, by nft's trace.
    pub trace_rules: bool,
}
