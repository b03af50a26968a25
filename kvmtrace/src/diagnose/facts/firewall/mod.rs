//! The firewall's rules: at which hook a packet died, and which rules may have done it.

pub(in crate::diagnose) mod fit;
pub mod limit;
pub mod protection;
pub mod sets;
pub mod stage;
pub mod suspects;
pub mod traced;
pub(in crate::diagnose) mod words;
