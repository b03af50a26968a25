//! The layout, locked: a change of size or offset is a compile error here before it is a wrong number on a screen.

use crate::event::{DropPlace, DropRecord, HEADER_BYTES, OverflowCounters, Record, RecordFacts};
use crate::filter::{INSTRUCTIONS, Instruction, MacAddresses, Program};
use crate::flow::{DropCounters, DropKey, FlowCounters, FlowKey, HotFlow};
use crate::share::Share;
use core::mem::{offset_of, size_of};

const _: () = assert!(size_of::<FlowKey>() == 48);
const _: () = assert!(offset_of!(FlowKey, source_port) == 32);
const _: () = assert!(offset_of!(FlowKey, family) == 38);
const _: () = assert!(offset_of!(FlowKey, ifindex) == 40);
const _: () = assert!(size_of::<FlowCounters>() == 104);
const _: () = assert!(offset_of!(FlowCounters, packets) == 0);
const _: () = assert!(offset_of!(FlowCounters, flags) == 56);
const _: () = assert!(size_of::<HotFlow>() == 152);
const _: () = assert!(offset_of!(HotFlow, counters) == 48);
const _: () = assert!(size_of::<DropKey>() == 64);
const _: () = assert!(size_of::<DropCounters>() == 32);
const _: () = assert!(offset_of!(FlowCounters, input_ifindex) == 76);
const _: () = assert!(offset_of!(FlowCounters, repeated_bytes) == 80);
const _: () = assert!(size_of::<OverflowCounters>() == 16);
const _: () = assert!(size_of::<DropPlace>() == 24);
const _: () = assert!(size_of::<Share>() == 8);
const _: () = assert!(offset_of!(RecordFacts, flow) == 24);
const _: () = assert!(offset_of!(Record, header) == 104);
const _: () = assert!(size_of::<Record>() == 104 + HEADER_BYTES);
const _: () = assert!(size_of::<Record>().is_multiple_of(8));
const _: () = assert!(offset_of!(DropRecord, stack) == size_of::<Record>());
const _: () = assert!(size_of::<Instruction>() == 44);
const _: () = assert!(offset_of!(Instruction, value) == 12);
const _: () = assert!(size_of::<Program>() == 44 * INSTRUCTIONS);
const _: () = assert!(size_of::<MacAddresses>() == 12);
