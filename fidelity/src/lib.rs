//! The model of the packet path is held to the kernel: generated hosts, generated packets, each really sent; where it
//! arrived or died must be what `kvmtrace::forward::walk` says, or the walk must say that it can't know.
//!
//! A host is a network namespace. This process holds its taps and plays its guests; the far ends of its veths are in a second
//! namespace, which only listens. The kernel's drops come from kvmtrace's own program. Everything is drawn from a seed.

// The lab is the world around kvmtrace: it waits for packets, so it has a clock.
#![expect(clippy::disallowed_methods, reason = "the lab waits for real packets")]

pub mod compare;
pub mod frame;
pub mod generate;
pub mod packet_socket;
pub mod plan;
pub mod report;
pub mod run;
pub mod sites;
pub mod wires;
