//! A BPF program of two instructions that drops everything, pinned for `tc` and `ip` to attach: the fault of a filter
//! that somebody forgot.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use nix::libc;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where the program will be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A tc hook; it answers `TC_ACT_SHOT`.
    Tc,
    /// XDP; it answers `XDP_DROP`.
    Xdp,
}

const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is needed.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
}

/// `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
}

/// Loads the program and pins it at `path`.
pub fn pin_drop(kind: Kind, path: &Path) -> Result<()> {
    let (kind, answer): (u32, u64) = match kind {
        Kind::Tc => (3, 2),
        Kind::Xdp => (6, 1),
    };
    // r0 = answer; exit
    let code: [u64; 2] = [0xb7 | answer << 32, 0x95];
    let load = Load { kind, instructions: 2, code: code.as_ptr() as u64, licence: c"GPL".as_ptr() as u64 };
    let program = bpf(PROG_LOAD, &load).context("cannot load a BPF program")?;
    let name = CString::new(path.as_os_str().as_bytes())?;
    let pin = Pin { path: name.as_ptr() as u64, program: program.try_into()?, flags: 0 };
    bpf(OBJ_PIN, &pin).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(())
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<libc::c_long> {
    // SAFETY: the attributes live through the call, their size is theirs, and so do what their addresses point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Ok(nix::errno::Errno::result(result)?)
}
