//! Frames of any content, sent by an interface of the caller's namespace.

use anyhow::{Context as _, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A packet socket bound to one device.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl FrameSocket {
    /// Opens one on `device`.
    pub fn open(device: &str) -> Result<Self> {
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).context("no packet socket")?;
        let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
        // SAFETY: a sockaddr_ll of zeroes is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index.cast_signed();
        Ok(Self { socket, address })
    }

    /// Sends one whole Ethernet frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: both pointers outlive the call and the lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        nix::errno::Errno::result(sent).map(drop).context("cannot send a frame")
    }
}
