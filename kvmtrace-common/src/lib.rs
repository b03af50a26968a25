//! The ABI between the BPF programs and the loader: what lies in the maps and in the ring buffer.
//!
//! Conventions, said once:
//! - Addresses and MAC addresses stand in network byte order, as on the wire. IPv4 addresses fill the first four of
//!   sixteen bytes, the rest is zero; [`flow::Family`] tells which it is.
//! - Ports, lengths, VLAN ids and all other numbers are in the host's byte order.
//! - Times are `bpf_ktime_get_ns`: nanoseconds of `CLOCK_MONOTONIC`.
//! - Every type is `#[repr(C)]` without implicit padding (`IntoBytes` makes padding a compile error) and holds only
//!   integers and arrays, so any bytes are a valid value and decoding can't be undefined.
#![no_std]
#![forbid(unsafe_code)]
#![allow(clippy::inline_always, reason = "a BPF program has no calls: what it uses must be part of it")]

pub mod config;
pub mod event;
pub mod filter;
pub mod flow;
pub mod layout;
pub mod names;
pub mod parse;
pub mod quick;
pub mod share;
