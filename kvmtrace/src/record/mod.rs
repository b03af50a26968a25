//! Recordings: the events of a trace in a file, to be judged again later and elsewhere with the same result.
//!
//! [`mod@format`] is the outer form (blocks), [`schema`] the inner one (events). docs/recording-format.md describes both.
#![forbid(unsafe_code)]

pub mod export;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
mod join;
mod judge;
mod output;
mod place;
mod progress;
pub mod reader;
pub mod recording;
pub mod schema;
mod tee;
mod writer;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use format::Header;
pub use join::{Joined, Judged, join};
pub use judge::{judge, judge_for_joining};
pub use output::{BadRotation, Destination, Rotation};
pub use place::new_file;
pub use progress::Progress;
pub use reader::{Damage, ReadError, Reader};
pub use recording::Recording;
pub use tee::Tee;
pub use writer::{Options, WriteError, Writer, Written};
