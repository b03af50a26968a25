//! The commands of `bpf(2)` that aya has no call for: many entries of a hash map at once, and one that is read as it is
//! removed.

use super::hook::Hook;
use super::loader::ProbeError;
use aya::maps::{Map, MapData};
use nix::errno::Errno;
use nix::libc;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Entries that one call reads. A bucket with more than so many could not be read at all; the kernel's hash is seeded.
const AT_ONCE: u32 = 2_048;

// `enum bpf_cmd` in include/uapi/linux/bpf.h.
const LOOKUP: libc::c_long = 1;
const DELETE: libc::c_long = 3;
const QUERY: libc::c_long = 16;
/// Of hash maps since 5.14.
const LOOKUP_AND_DELETE: libc::c_long = 21;
/// Of hash maps since 5.6.
const LOOKUP_BATCH: libc::c_long = 24;

/// `bpf_attr` of the batch commands.
#[repr(C)]
struct Batch {
    begin: u64,
    end: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// `bpf_attr` of the commands for one entry.
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A hash map with keys `K` and values `V`.
pub(super) struct Table<K, V> {
    map: MapData,
    keys: Vec<K>,
    values: Vec<V>,
    _types: PhantomData<(K, V)>,
}

/// What lies in a map: any bytes are a valid value, and none of them is padding.
pub(super) trait Plain: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Plain for T {}

impl<K: Plain, V: Plain> Table<K, V> {
    /// Wraps the map of this name.
    pub(super) fn new(map: Map, name: &'static str) -> Result<Self, ProbeError> {
        let Map::HashMap(map) = map else { return Err(ProbeError::Absent(name)) };
        let info = map.info().map_err(ProbeError::load)?;
        if info.key_size() as usize != size_of::<K>() || info.value_size() as usize != size_of::<V>() {
            return Err(ProbeError::Absent(name));
        }
        let keys = vec![K::new_zeroed(); AT_ONCE as usize];
        let values = vec![V::new_zeroed(); AT_ONCE as usize];
        Ok(Self { map, keys, values, _types: PhantomData })
    }

    fn descriptor(&self) -> u32 {
        self.map.fd().as_fd().as_raw_fd().cast_unsigned()
    }

    /// Hands over all entries. Entries that are made meanwhile may be missing.
    pub(super) fn for_each(&mut self, mut entry: impl FnMut(&K, &V)) -> io::Result<()> {
        let (mut position, mut next) = (0_u32, 0_u32);
        let mut first = true;
        loop {
            let mut batch = Batch {
                begin: if first { 0 } else { (&raw const position) as u64 },
                end: (&raw mut next) as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: AT_ONCE,
                map: self.descriptor(),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel writes at most `count` keys and values, for which there is room and whose sizes were
            // compared with the map's; it reads and writes one number of a bucket.
            let result = unsafe { bpf(LOOKUP_BATCH, &mut batch) };
            let last = match result {
                Ok(()) => false,
                // That was the last bucket.
                Err(Errno::ENOENT) => true,
                Err(error) => return Err(error.into()),
            };
            for (key, value) in self.keys.iter().zip(&self.values).take(batch.count as usize) {
                entry(key, value);
            }
            if last {
                return Ok(());
            }
            (position, first) = (next, false);
        }
    }

    /// Removes an entry and gives what it held; nothing where there is none.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let mut value = V::new_zeroed();
        let mut element = Element {
            map: self.descriptor(),
            _pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value: (&raw mut value) as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads a key and writes a value, whose sizes were compared with the map's.
        match unsafe { bpf(LOOKUP_AND_DELETE, &mut element) } {
            Ok(()) => return Some(value),
            Err(Errno::ENOENT) => return None,
            Err(_) => {}
        }
        // SAFETY: as above.
        unsafe { bpf(LOOKUP, &mut element) }.ok()?;
        element.value = 0;
        // SAFETY: as above; this command reads the key alone.
        unsafe { bpf(DELETE, &mut element) }.ok()?;
        Some(value)
    }
}

/// Programs on one hook at most: `BPF_MPROG_MAX` in `include/linux/bpf_mprog.h`.
const PROGRAMS: usize = 64;

/// `bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    device: u32,
    hook: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The ids of the tcx programs on a hook of a device, in the order in which they run.
pub(super) fn attached_programs(device: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS];
    // `enum bpf_attach_type`.
    let number = match hook {
        Hook::Ingress => 46,
        Hook::Egress => 47,
    };
    let programs = ids.as_mut_ptr() as u64;
    let mut query = Query { device, hook: number, programs, count: PROGRAMS as u32, ..Query::default() };
    // SAFETY: the kernel writes at most `count` numbers, for which there is room.
    match unsafe { bpf(QUERY, &mut query) } {
        Ok(()) => Ok(ids.into_iter().take(query.count as usize).collect()),
        // Nothing was ever attached there, or nothing is any more (`tcx_prog_query`).
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// # Safety
/// `attributes` must be what the command expects, and its pointers valid for what the kernel reads and writes there.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> nix::Result<()> {
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    Errno::result(result).map(drop)
}
