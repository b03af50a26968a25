//! The filter at the end of a command line: from a pcap-filter expression to the program that the kernel side runs.
//!
//! The useful part of pcap-filter(7) with its precedences (`and` and `or` bind equally, from left to right) and its way
//! of repeating what was said before (`port 80 or 443`). It differs where a flow is not a packet:
//! - A VLAN tag hides nothing: `host 10.0.0.5` holds inside any VLAN, `vlan 5 and host 10.0.0.5` in that one.
//! - `proto` and its kind look at the last header of IPv6, as `protochain` does.
//! - An address alone, `10.0.0.5` or `10.0.0.0/8`, is one; no `host` or `net` is needed.
//! - A service's name is its number in all of TCP, UDP and SCTP: `port https` takes QUIC in.
//! - Tests of packet bytes and of lengths are not supported, and are refused by name.
#![forbid(unsafe_code)]

mod compile;
mod empty;
mod error;
mod expression;
mod followed;
mod names;
mod parse;
mod primitive;
mod token;

#[cfg(test)]
mod tests;

pub use error::FilterError;
pub use expression::{Expression, Side, Test};

use crate::event::{FlowKey, MacAddress, encode};
use kvmtrace_common::filter::{MacAddresses, Operation, Program, matches};

/// A filter that was understood.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    program: Box<Program>,
    length: u32,
    /// For the kernel side: all that belongs to the flows that are asked for ([`followed`]).
    following: Box<Program>,
    following_length: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            text: String::new(),
            program: Box::new(Program::EVERYTHING),
            length: 0,
            following: Box::new(Program::EVERYTHING),
            following_length: 0,
        }
    }
}

impl Filter {
    /// Understands an expression; an empty one wants everything.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let Some(expression) = parse::parse(text)? else { return Ok(Self::default()) };
        let (program, length) = compile::compile(&expression)?;
        if let Some(why) = empty::reason(&expression) {
            return Err(FilterError::Empty(why));
        }
        // What does not fit lets everything pass: slower, and as right.
        let following = followed::followed(&expression).and_then(|expression| compile::compile(&expression).ok());
        let (following, following_length) = following.unwrap_or((Program::EVERYTHING, 0));
        Ok(Self {
            text: text.trim().to_owned(),
            program: Box::new(program),
            length,
            following: Box::new(following),
            following_length,
        })
    }

    /// The expression as it was written, empty for none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The program that takes the packets that were asked for, and no others.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program that takes all packets by which those flows are judged, and its length: 0 where that is everything.
    pub fn following(&self) -> (&Program, u32) {
        (&self.following, self.following_length)
    }

    /// It asks for MAC addresses, which a flow's key does not have.
    pub fn asks_for_macs(&self) -> bool {
        let is_mac = |operation: u8| matches!(operation, Operation::SOURCE_MAC | Operation::DESTINATION_MAC);
        self.program.instructions.iter().any(|instruction| is_mac(instruction.operation))
    }

    /// A packet of this flow is wanted. MAC addresses (source, destination) are zero where they are not known.
    pub fn wants(&self, flow: &FlowKey, (source, destination): (MacAddress, MacAddress)) -> bool {
        let macs = MacAddresses { source: source.0, destination: destination.0 };
        matches(&self.program, &encode::key(flow), &macs)
    }

    /// Number of instructions in the program, 0 when everything is wanted.
    pub fn length(&self) -> u32 {
        self.length
    }
}
