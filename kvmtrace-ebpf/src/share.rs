//! Each guest's share of the maps: asked before an entry is made, charged after. Only packets that begin a flow, or meet a
//! drop site for the first time, come here.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use kvmtrace_common::config::SHARE_SHIFT;
use kvmtrace_common::flow::KeyWords;
use kvmtrace_common::share::{Accounts, Share, may_grow};

#[map]
static SHARES: Array<Share> = Array::with_max_entries(1 << SHARE_SHIFT, BPF_F_MMAPABLE);

#[unsafe(no_mangle)]
static SHARE_SALT: Global<u64> = Global::new(0);

/// The accounts of one entry.
pub(crate) struct Charge([*mut Share; 4]);

/// The accounts that one more entry of `map` would be charged to; nothing when one of them is full.
#[inline(always)]
pub(crate) fn room(map: u32, capacity: u32, words: &KeyWords, input: u32) -> Option<Charge> {
    let accounts = Accounts::of(map, words, input, SHARE_SALT.load());
    let sum = SHARES.get_ptr_mut(map)?;
    let devices = SHARES.get_ptr_mut(accounts.devices)?;
    let source = SHARES.get_ptr_mut(accounts.source)?;
    let destination = SHARES.get_ptr_mut(accounts.destination)?;
    // SAFETY: the map gave valid pointers. Others write the two numbers meanwhile, each at once.
    let may =
        unsafe { may_grow((*sum).taken(), capacity, (*devices).taken(), (*source).taken(), (*destination).taken()) };
    may.then_some(Charge([sum, devices, source, destination]))
}

impl Charge {
    /// The entry was made.
    #[inline(always)]
    pub(crate) fn enter(self) {
        for share in self.0 {
            // SAFETY: as above; user space writes only the other number.
            unsafe { (*share).made = (*share).made.wrapping_add(1) };
        }
    }
}
