//! The firewall's rules: at which hook a packet died, and which rules may have done it.

mod fit;
pub mod sets;
pub mod stage;
pub mod suspects;
pub mod traced;
mod words;
