//! Faults that several rules come upon: what is wrong there, as a [`Judgement`](super::judgement::Judgement).
//!
//! A rule finds the place; what is wrong with it is the same whichever way one came there.

pub mod bridge;
pub mod bridge_lone;
pub mod conflict;
pub mod dhcp;
pub mod firewall;
pub mod fragments;
pub mod guest;
pub mod macvtap;
pub mod nat_ports;
pub mod netem;
pub mod overlap;
pub mod port;
pub mod route;
pub mod router;
