//! The kernel's side of the tool as seen from user space, and the only importer of aya: loads the BPF programs, attaches
//! them, reads ring and counters, gives [`crate::event::Event`]s. Where rules are to be traced it also has tables of its
//! own in nftables.

mod book;
mod counters;
mod drops;
mod expedite;
mod hook;
mod hooks;
mod hot;
mod inject;
mod kernel_log;
mod limits;
mod live;
mod loader;
mod mapped;
mod plan;
mod reason;
mod ring;
mod rule_trace;
mod shares;
mod syscall;

pub use drops::{Drops, DropsError};
pub use expedite::{hold as hold_grace_periods, is_holder as holds_grace_periods, restore as restore_grace_periods};
pub use inject::InjectError;
pub use live::{Live, Stop};
pub use loader::{ProbeError, clean};
pub use plan::Plan;
