//! One place on the path of a flow.

use super::kinds::Point;
use crate::event::Direction;
use serde::Serialize;

/// A flow's counts at one place of its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Name of the device.
    pub device: String,
    /// Its side.
    pub direction: Direction,
    /// The stage of the packet path, in the words of `where.point`.
    pub stage: Point,
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
    /// Time from the hop before to this one, in nanoseconds; null at the first hop and where it was not measured.
    pub latency_ns: Option<Latency>,
    /// The model expects the packets here, and none was seen.
    pub expected: bool,
}

/// How long packets took, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// 99 of 100 were as fast.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
    /// An addition to the contract: packets that were measured.
    pub samples: u64,
}

impl Latency {
    /// Of a single packet.
    pub fn once(nanoseconds: u64) -> Self {
        Self { p50: nanoseconds, p99: nanoseconds, max: nanoseconds, samples: 1 }
    }
}
