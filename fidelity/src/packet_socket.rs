//! A packet socket on one device: sends whole frames, reads those that come in, with the tag that the kernel keeps beside a
//! frame.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// `linux/if_packet.h`; the crate `libc` lacks them.
mod option {
    pub(super) const AUXDATA: i32 = 8;
    pub(super) const IGNORE_OUTGOING: i32 = 23;
    /// `TP_STATUS_VLAN_VALID`
    pub(super) const VLAN_VALID: u32 = 1 << 4;
}

/// `struct tpacket_auxdata`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Auxiliary {
    status: u32,
    length: u32,
    captured: u32,
    mac: u16,
    network: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Room for one control message with [`Auxiliary`], aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The socket; it stays in the namespace that it was opened in.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl PacketSocket {
    /// Opens one on a device of the caller's namespace.
    pub fn open(device: &str) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol until it is bound: it would hear all devices in between.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).context("no packet socket")?;
        for name in [option::AUXDATA, option::IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            // SAFETY: the kernel reads one int that outlives the call.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    name,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            Errno::result(set).with_context(|| format!("packet socket option {name}"))?;
        }
        let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
        // SAFETY: a sockaddr_ll of zeroes is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address outlives the call and the length is its own.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        Errno::result(bound).with_context(|| format!("cannot bind to {device}"))?;
        Ok(Self { socket, address })
    }

    /// Sends one whole frame.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
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
        Errno::result(sent).map(drop)
    }

    /// The next frame that came in, and its outermost tag if the kernel holds that beside it.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<(&'a [u8], Option<u16>)> {
        let mut control = Control([0; 64]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a msghdr of zeroes is a valid one, without parts.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: the message's pointers are to memory that lives through the call, each with its length.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).ok()?;
        let mut tag = None;
        // SAFETY: the kernel has filled the control buffer; the macro gives null or a header within it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: not null, so it points into the buffer.
        while let Some(control) = unsafe { header.as_ref() } {
            if control.cmsg_level == libc::SOL_PACKET && control.cmsg_type == option::AUXDATA {
                // SAFETY: the kernel puts a whole tpacket_auxdata there; it may not be aligned.
                let auxiliary = unsafe { libc::CMSG_DATA(header).cast::<Auxiliary>().read_unaligned() };
                tag = (auxiliary.status & option::VLAN_VALID != 0).then_some(auxiliary.vlan_tci);
            }
            // SAFETY: as above.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Some((buffer.get(..length)?, tag))
    }
}
