//! From the expression to the program: short-circuit evaluation as forward jumps.
//!
//! The program is built from its end: the two instructions that end a run first, then each test after (that is, before)
//! the ones that it may jump to. So every jump's goal is known when it is made, and all jumps go forward.

use super::{Expression, FilterError, Side, Test};
use kvmtrace_common::filter::{INSTRUCTIONS, Instruction, Operation, Program, mac_words, words};
use kvmtrace_common::flow::Family;
use std::net::IpAddr;

/// Compiles an expression; tells the length too.
pub(super) fn compile(expression: &Expression) -> Result<(Program, u32), FilterError> {
    let tests = expression.tests();
    if tests > INSTRUCTIONS - 2 {
        return Err(FilterError::TooLong { tests });
    }
    // Positions count from the end until the program is turned round.
    let mut reversed = vec![operation(Operation::REJECT), operation(Operation::ACCEPT)];
    lower(expression, 1, 0, &mut reversed);
    let last = reversed.len() - 1;
    let mut program = Program::EVERYTHING;
    for (slot, instruction) in program.instructions.iter_mut().zip(reversed.iter().rev()) {
        *slot = Instruction {
            when_true: (last - usize::from(instruction.when_true)) as u8,
            when_false: (last - usize::from(instruction.when_false)) as u8,
            ..*instruction
        };
    }
    Ok((program, reversed.len() as u32))
}

/// Appends what decides `expression` and tells where that begins.
fn lower(expression: &Expression, when_true: u8, when_false: u8, out: &mut Vec<Instruction>) -> u8 {
    match expression {
        Expression::Test(test) => {
            out.push(Instruction { when_true, when_false, ..instruction(*test) });
            (out.len() - 1) as u8
        }
        Expression::Not(inner) => lower(inner, when_false, when_true, out),
        Expression::And(left, right) => {
            let right = lower(right, when_true, when_false, out);
            lower(left, right, when_false, out)
        }
        Expression::Or(left, right) => {
            let right = lower(right, when_true, when_false, out);
            lower(left, when_true, right, out)
        }
    }
}

fn operation(operation: u8) -> Instruction {
    Instruction { operation, ..Instruction::default() }
}

fn instruction(test: Test) -> Instruction {
    match test {
        Test::Family(family) => Instruction { family, ..operation(Operation::FAMILY) },
        Test::Protocol { family, number } => {
            Instruction { family: family.unwrap_or(0), protocol: number, ..operation(Operation::PROTOCOL) }
        }
        Test::Address { side, network } => {
            let (family, address, mask) = match network.address {
                IpAddr::V4(address) => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(network.prefix.min(32))).unwrap_or(0);
                    (Family::IPV4, widen(address.octets()), widen(mask.to_be_bytes()))
                }
                IpAddr::V6(address) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(network.prefix.min(128))).unwrap_or(0);
                    (Family::IPV6, address.octets(), mask.to_be_bytes())
                }
            };
            let operation = of_side(side, Operation::SOURCE, Operation::DESTINATION);
            masked(operation, family, words(&address), words(&mask))
        }
        Test::Port { side, protocol, low, high } => {
            let side = of_side(side, Operation::SOURCE_PORT, Operation::DESTINATION_PORT);
            Instruction { protocol: protocol.unwrap_or(0), low, high, ..operation(side) }
        }
        Test::Vlan { low, high } => Instruction { low, high, ..operation(Operation::VLAN) },
        Test::EtherType(number) => Instruction { low: number, high: number, ..operation(Operation::ETHER_TYPE) },
        Test::Mac { side, value, mask } => {
            let operation = of_side(side, Operation::SOURCE_MAC, Operation::DESTINATION_MAC);
            masked(operation, 0, mac_words(&value), mac_words(&mask))
        }
    }
}

fn of_side(side: Side, source: u8, destination: u8) -> u8 {
    match side {
        Side::Source => source,
        Side::Destination => destination,
    }
}

fn masked(code: u8, family: u8, address: [u32; 4], mask: [u32; 4]) -> Instruction {
    let mut value = address;
    for (word, bits) in value.iter_mut().zip(mask) {
        *word &= bits;
    }
    Instruction { family, value, mask, ..operation(code) }
}

fn widen(octets: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = octets;
    let mut wide = [0; 16];
    [wide[0], wide[1], wide[2], wide[3]] = [a, b, c, d];
    wide
}
