//! kvmtrace tells where, why and at which device of a KVM host a guest's packets are dropped or fragmented, and which
//! command mends it.
//!
//! Data flows one way: kernel → [`event::decode`] → [`track`] → [`diagnose`] → [`sink`]. See ARCHITECTURE.md.

pub mod app;
pub mod cli;
pub mod craft;
pub mod diagnose;
pub mod event;
pub mod filter;
pub mod forward;
pub mod host;
pub mod kernel;
pub mod pipeline;
pub mod probe;
pub mod record;
pub mod selection;
pub mod sink;
pub mod source;
pub mod topology;
pub mod track;
pub mod tui;
