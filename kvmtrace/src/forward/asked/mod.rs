//! From a question ("web1 to 198.51.100.7, tcp 443") to the packet that would be sent, and where it enters this host.
//!
//! Shared by `explain`, `probe` and `check`. Pure: names that only a resolver knows come in as addresses. A fact that this host
//! does not have is an error that names the option to give.

mod frames;
mod inbound;
mod make;
mod owners;
mod question;
mod segment;
#[cfg(test)]
mod tests;
mod usual;

pub use frames::STAND_IN;
pub use question::{Asked, Goal, Kind, NextHop, Question, QuestionError, Resolution, Target, guest_named};
pub use segment::Segment;
pub use usual::{Usual, usual};

use crate::event::HostState;

/// Turns a question into a packet.
pub fn resolve(host: &HostState, question: &Question) -> Result<Asked, QuestionError> {
    match question.from {
        Some(from) => inbound::to_guest(host, question, from),
        None => make::from_guest(host, question),
    }
}
