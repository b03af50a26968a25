//! Names of maps and programs, so that loader and object can't disagree.

/// Ring buffer of [`crate::event::Record`].
pub const EVENTS: &str = "EVENTS";
/// Hash of [`crate::flow::FlowKey`] to [`crate::flow::FlowCounters`].
pub const FLOWS: &str = "FLOWS";
/// Array of [`crate::flow::HotFlow`]: flows that are counted without a search, see [`crate::flow::hot_index`].
pub const HOT: &str = "HOT";
/// Array with one entry, a `u32`: devices with a smaller index are counted; 0: nothing is.
pub const GATE: &str = "GATE";
/// Hash of [`crate::flow::DropKey`] to [`crate::flow::DropCounters`].
pub const DROPS: &str = "DROPS";
/// Per-CPU array of `u64`, indexed by [`crate::event::LossIndex`].
pub const LOSSES: &str = "LOSSES";
/// Hash of [`crate::event::overflow_key`] to [`crate::event::OverflowCounters`].
pub const OVERFLOW: &str = "OVERFLOW";
/// Hash of [`crate::event::DropPlace`] to [`crate::event::OverflowCounters`].
pub const DROP_OVERFLOW: &str = "DROP_OVERFLOW";
/// Array of [`crate::share::Share`]: how much of the maps each device and address takes up.
pub const SHARES: &str = "SHARES";
/// Array with one entry: the filter, a [`crate::filter::Program`].
pub const FILTER: &str = "FILTER";

/// Array with one entry, a `u32`: the index of the device that `kvmtrace probe` sends by.
pub const PROBED: &str = "PROBED";

/// Ring buffer of what the programs say of themselves (aya-log's).
pub const LOG: &str = "AYA_LOGS";

/// tc program, ingress.
pub const TC_INGRESS: &str = "kvmtrace_in";
/// tc program, egress.
pub const TC_EGRESS: &str = "kvmtrace_out";
/// tc program, ingress of a device whose packets have no Ethernet header.
pub const TC_INGRESS_RAW: &str = "kvmtrace_in_l3";
/// tc program, egress of such a device.
pub const TC_EGRESS_RAW: &str = "kvmtrace_out_l3";
/// `tp_btf/kfree_skb`.
pub const KFREE_SKB: &str = "kvmtrace_drop";
/// XDP program of `kvmtrace probe`, for test runs alone.
pub const ENTER: &str = "kvmtrace_enter";
/// tc program of `kvmtrace probe`, ingress of a device of its own.
pub const HAND_OVER: &str = "kvmtrace_hand";
