//! Recordings: the events of a trace in a file, to be judged again later and elsewhere with the same result.
//!
//! [`format`] is the outer form (blocks), [`schema`] the inner one (events). docs/recording-format.md describes both.
#![forbid(unsafe_code)]

pub mod format;
mod output;
pub mod reader;
pub mod schema;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use format::Header;
pub use output::{BadRotation, Destination, Rotation};
pub use reader::{Damage, ReadError, Reader};
pub use writer::{Options, WriteError, Writer, Written};
