//! An array map in memory that the programs and this process share: reading it takes no system call.

use super::loader::ProbeError;
use aya::maps::{Map, MapData};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// An entry that consists of atomic numbers alone: the programs change it at any time.
///
/// # Safety
/// Any bytes must be a valid value, and all access must be atomic.
pub(super) unsafe trait Atoms {}
// SAFETY: any bytes are valid numbers.
unsafe impl<const N: usize> Atoms for [AtomicU64; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Atoms for [AtomicU32; N] {}

/// The shared memory.
pub(super) struct Mapped<E> {
    /// Keeps the map alive.
    _map: MapData,
    start: NonNull<c_void>,
    entries: usize,
    _type: PhantomData<E>,
}

// SAFETY: the memory belongs to this value alone and is reached through atomic numbers only.
unsafe impl<E: Atoms> Send for Mapped<E> {}
// SAFETY: as above.
unsafe impl<E: Atoms> Sync for Mapped<E> {}

impl<E: Atoms> Mapped<E> {
    /// Maps an array of so many entries.
    pub(super) fn new(map: Map, name: &'static str, entries: usize) -> Result<Self, ProbeError> {
        let Map::Array(map) = map else { return Err(ProbeError::Absent(name)) };
        let info = map.info().map_err(ProbeError::load)?;
        if info.value_size() as usize != size_of::<E>() || (info.max_entries() as usize) < entries {
            return Err(ProbeError::Absent(name));
        }
        let length = NonZeroUsize::new(entries * size_of::<E>()).ok_or(ProbeError::Absent(name))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the map has so many entries.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(ProbeError::load)?;
        Ok(Self { _map: map, start, entries, _type: PhantomData })
    }

    /// The entries.
    pub(super) fn entries(&self) -> &[E] {
        // SAFETY: the mapping holds so many entries (their size is a multiple of 8, as the kernel lays them out, and the first
        // begins at a page), lives as long as this value, and any bytes are valid entries.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.entries) }
    }
}

impl<E> Drop for Mapped<E> {
    fn drop(&mut self) {
        // SAFETY: mapped in new() with this length, and no reference outlives this value.
        if let Err(error) = unsafe { munmap(self.start, self.entries * size_of::<E>()) } {
            tracing::debug!(%error, "munmap");
        }
    }
}
