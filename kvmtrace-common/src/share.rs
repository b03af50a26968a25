//! How the maps of flows and drops are shared out, so that one guest's flood leaves room for the others.
//!
//! An entry is charged to three accounts: the pair of devices that the packet came in by and was seen at, and with these
//! its source and its destination address. The ingress device can't be forged by a guest, so a guest that makes up
//! addresses fills its own account. The addresses distinguish guests where all of them come by one device (a routed
//! bridge, an uplink).
//!
//! No account has a fixed size. As in the buffers of a switch with dynamic thresholds, an account may grow as long as it
//! is small beside what is free ([`may_grow`]): a guest alone may take up most of a map, several share it, and some of it
//! is always free for those who come next.
//!
//! Both sides count in a table of their own ([`Share`]): the programs what they made, user space what it removed.

use crate::config::SHARE_SHIFT;
use crate::flow::KeyWords;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of a map that are charged to one account.
///
/// Programs on several CPUs add to `made` without a lock, so that an addition may get lost. User space puts that right
/// whenever it has read a map that did not change meanwhile.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Share {
    /// Entries made. Only the programs write it.
    pub made: u32,
    /// Entries removed. Only user space writes it.
    pub removed: u32,
}

impl Share {
    /// Entries that there are now.
    #[inline(always)]
    pub fn taken(self) -> u32 {
        let taken = self.made.wrapping_sub(self.removed);
        // Lost additions: fewer were counted than removed.
        if taken > u32::MAX / 2 { 0 } else { taken }
    }
}

/// A map whose entries are shared out: where in the table its sum is.
pub struct Shared;

impl Shared {
    /// The map of flows.
    pub const FLOWS: u32 = 0;
    /// The map of drops.
    pub const DROPS: u32 = 1;
    /// Places of the table that are sums.
    const SUMS: u32 = 2;
}

/// The accounts of an entry: places in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Of the devices.
    pub devices: u32,
    /// Of the devices and the source address.
    pub source: u32,
    /// Of the devices and the destination address.
    pub destination: u32,
}

impl Accounts {
    /// Of an entry of `map` ([`Shared`]) with this key, whose packet came in by the device `input`.
    #[inline(always)]
    pub fn of(map: u32, words: &KeyWords, input: u32, salt: u64) -> Self {
        let [a, b, c, d, _, place] = *words;
        // Without the CPU: `place_word`.
        let devices = mix(salt ^ u64::from(map), (place & 0xff_ffff_ffff) ^ (u64::from(input) << 40), 0);
        Self {
            devices: index(devices),
            source: index(mix(devices ^ 1, a, b)),
            destination: index(mix(devices ^ 2, c, d)),
        }
    }
}

/// The account may have one more entry: `taken` of it, where all accounts together have `total` of `capacity`.
#[inline(always)]
pub fn may_grow(total: u32, capacity: u32, devices: u32, source: u32, destination: u32) -> bool {
    let free = capacity.saturating_sub(total);
    devices < free.saturating_mul(2) && source < free / 2 && destination < free / 2
}

#[inline(always)]
fn mix(seed: u64, a: u64, b: u64) -> u64 {
    // As in `hot_index`, with a step that brings the high bits down between the products.
    let mixed = (seed ^ a).wrapping_mul(0x428a_2f98_d728_ae23);
    let mixed = (mixed ^ (mixed >> 32) ^ b).wrapping_mul(0x7137_4491_23ef_65cd);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xb5c0_fbcf_ec4d_3b2f)
}

#[inline(always)]
fn index(mixed: u64) -> u32 {
    let index = (mixed >> (64 - SHARE_SHIFT)) as u32;
    if index < Shared::SUMS { index + Shared::SUMS } else { index }
}
