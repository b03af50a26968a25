//! The kernel's side of the tool as seen from user space, and the only importer of aya: loads the BPF programs, attaches
//! them, reads ring and counters, gives [`crate::event::Event`]s. Where rules are to be traced it also has tables of its
//! own in nftables.

mod counters;
mod drops;
mod hot;
mod inject;
mod kernel_log;
mod live;
mod loader;
mod rule_trace;

pub use drops::{Drops, DropsError};
pub use inject::InjectError;
pub use live::{Live, Plan, Stop};
pub use loader::{ProbeError, clean};
