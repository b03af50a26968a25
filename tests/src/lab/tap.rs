//! TAP and macvtap devices, opened as QEMU opens them, and tun devices, opened as a VPN opens them.

use anyhow::{Context as _, Result};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// `struct virtio_net_hdr_v1`, the header before every frame.
static VNET_HEADER: libc::c_int = 12;
/// Checksum, TSO for both families, TSO with ECN, USO for both families: what a virtio-net guest offers.
const OFFLOADS: [libc::c_int; 3] = [0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40, 0x01 | 0x02 | 0x04 | 0x08, 0];

use requests::{set_header_size, set_interface, set_offload};

/// Opens the TAP called `name` in the caller's network namespace.
pub fn open_tap(name: &str) -> Result<File> {
    prepare(open(Path::new("/dev/net/tun"))?, name)
}

/// Opens a macvtap's character device.
pub fn open_macvtap(path: &Path) -> Result<File> {
    // The kernel ignores the name here: the node says which device it is.
    prepare(open(path)?, "")
}

/// Opens the tun device called `name` in the caller's network namespace: IP packets, with nothing before them.
pub fn open_tun(name: &str) -> Result<File> {
    let file = open(Path::new("/dev/net/tun"))?;
    attach(&file, name, libc::IFF_TUN | libc::IFF_NO_PI)?;
    Ok(file)
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Attaches the file to the device of this name.
fn attach(file: &File, name: &str, flags: libc::c_int) -> Result<()> {
    // SAFETY: an ifreq of zeroes is a valid one, without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *target = source.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: the descriptor is open and the request lives through the call.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("cannot attach to {name}"))?;
    Ok(())
}

fn prepare(file: File, name: &str) -> Result<File> {
    attach(&file, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    // SAFETY: as above; the kernel reads one int.
    unsafe { set_header_size(file.as_raw_fd(), &raw const VNET_HEADER) }
        .context("cannot set the vnet header's size")?;
    // The richest set that this kernel takes: USO came with 6.2.
    let accepts = |&set: &libc::c_int| {
        // SAFETY: the descriptor is open; the argument is a value.
        unsafe { set_offload(file.as_raw_fd(), set) }.is_ok()
    };
    OFFLOADS.iter().find(|set| accepts(set)).context("cannot set offloads")?;
    Ok(file)
}

/// The ioctls of `linux/if_tun.h`; the macros make functions that take no documentation.
mod requests {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
    nix::ioctl_write_ptr_bad!(set_header_size, nix::request_code_write!(b'T', 216, 4), libc::c_int);
}
