//! What this host does with a packet: an executable model of Linux's packet path.
//!
//! The model is pure: it knows the host's tables and a packet, and answers with the packet's way. What it can't know it says.
#![forbid(unsafe_code)]

pub mod firewall;
pub mod packet;
pub mod step;
