//! The lab and the tests that need one: network namespaces with real TAPs, whose guests are played by a relay process,
//! real traffic, faults made with the commands that an operator would type, and scenarios that judge kvmtrace from
//! outside.
//!
//! Nothing here knows kvmtrace's inside: the binary is run, its JSON is read, its proposed commands are pasted. But for
//! [`object`], which loads the BPF programs alone.

// The lab is the world around kvmtrace: it waits, so it has a clock, and it talks to the person at the terminal.
#![expect(clippy::disallowed_methods, reason = "the lab waits for real processes and real packets")]

pub mod demo;
pub mod lab;
pub mod matrix;
pub mod object;
pub mod playground;
pub mod product;
pub mod scenario;
pub mod terminal;
