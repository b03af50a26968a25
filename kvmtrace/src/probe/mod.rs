//! The kernel's side of the tool as seen from user space, and the only importer of aya: loads the BPF programs, attaches
//! them, reads ring and counters, gives [`crate::event::Event`]s.

mod counters;
mod hot;
mod live;
mod loader;

pub use live::{Live, Plan, Stop};
pub use loader::{ProbeError, clean};
