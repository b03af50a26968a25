//! Puts finished frames into the stack at a device, as if the device had received them. Three ways:
//!
//! 1. **Live frames** (`BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`, v5.18): an XDP program that passes everything
//!    runs on the frame with `ingress_ifindex` set, and the kernel gives the result to `netif_receive_skb_list`. No device is
//!    made. The frame must fit one page with its headroom and `skb_shared_info`, and the device must have registered its
//!    receive queue for XDP (`xdp_convert_md_to_buff`): an attached tap has, a veth without XDP and many NICs have not.
//! 2. **Hand over**: a tap of our own, whose tc program redirects each frame to the ingress of the device (`bpf_redirect` with
//!    `BPF_F_INGRESS`). Every kernel since 5.10, every device, frames up to 64 KiB (before 5.12 up to the device's MTU:
//!    `__bpf_rx_skb` checked it). The tap is not persistent: it ends with its file descriptor, however the process ends.
//! 3. **Transmit**: a packet socket. A guest behind a macvtap sends by `dev_queue_xmit` on it (`tap_get_user`), and so does a
//!    packet socket; the macvtap's ingress is the way *to* the guest.
//!
//! The first way is tried where it can work, and the second where the kernel refuses the first.

use super::loader::{ProbeError, Programs};
use crate::event::IfIndex;
use crate::event::host::{Link, LinkKind};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Devices of our own begin with this. They are no guest's.
pub(crate) use crate::host::OWN_DEVICES;

/// Header of an Ethernet frame.
const ETHERNET: usize = 14;
/// The longest frame that a tap takes (`tun_get_user`): an IP packet of 65,535 bytes and its header.
const LONGEST: usize = 65_535 + ETHERNET;

/// A frame could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// Neither way is open.
    #[error("{device} takes no frames from kvmtrace: {reason}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// No device takes it.
    #[error("a frame of {0} bytes is too long: {LONGEST} is the most")]
    TooLong(usize),
    /// A frame without a whole Ethernet header.
    #[error("a frame of {0} bytes has no Ethernet header")]
    TooShort(usize),
    /// The programs.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// How frames enter.
#[derive(Debug)]
enum Entry {
    /// A test run of an XDP program.
    LiveFrames,
    /// A tap of our own; the name is for messages.
    HandOver(File),
    /// A packet socket that is bound to the device.
    Transmit(OwnedFd),
}

/// Sends frames by one device.
#[derive(Debug)]
pub(super) struct Injector {
    device: IfIndex,
    name: String,
    entry: Entry,
}

impl Injector {
    /// Opens a way in by this device. `live_frames`: this kernel has them.
    pub(super) fn open(programs: &mut Programs, link: &Link, live_frames: bool) -> Result<Self, InjectError> {
        let entry = if matches!(link.kind, LinkKind::Macvtap { .. }) {
            Entry::Transmit(packet_socket(link.index).map_err(|error| refused(&link.name, "a packet socket", &error))?)
        } else if live_frames {
            programs.load_enter()?;
            Entry::LiveFrames
        } else {
            hand_over(programs, link.index, &link.name)?
        };
        Ok(Self { device: link.index, name: link.name.clone(), entry })
    }

    /// Sends one frame.
    pub(super) fn send(&mut self, programs: &mut Programs, frame: &[u8]) -> Result<(), InjectError> {
        match frame.len() {
            length if length < ETHERNET => return Err(InjectError::TooShort(length)),
            length if length > LONGEST => return Err(InjectError::TooLong(length)),
            _ => {}
        }
        if matches!(self.entry, Entry::LiveFrames) {
            match programs.enter(self.device, frame) {
                Ok(()) => return Ok(()),
                // A frame of more than a page, a queue that is not registered, a kernel without the mode: nothing was sent.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::debug!(device = self.name, length = frame.len(), "no live frames; a tap hands over");
                    self.entry = hand_over(programs, self.device, &self.name)?;
                }
                Err(error) => return Err(refused(&self.name, "BPF_PROG_TEST_RUN", &error)),
            }
        }
        match &mut self.entry {
            Entry::LiveFrames => Ok(()),
            Entry::HandOver(tap) => {
                let written =
                    tap.write(frame).map_err(|error| refused(&self.name, "writing to kvmtrace's tap", &error))?;
                if written == frame.len() { Ok(()) } else { Err(InjectError::TooLong(frame.len())) }
            }
            Entry::Transmit(socket) => nix::unistd::write(&*socket, frame)
                .map(drop)
                .map_err(|errno| refused(&self.name, "sending", &io::Error::from(errno))),
        }
    }
}

fn refused(device: &str, what: &str, error: &io::Error) -> InjectError {
    InjectError::Refused { device: device.to_owned(), reason: format!("{what}: {error}") }
}

/// Makes the tap, quiet and up, with its program attached.
fn hand_over(programs: &mut Programs, device: IfIndex, name: &str) -> Result<Entry, InjectError> {
    let (tap, own) = open_tap().map_err(|error| refused(name, "making a tap that hands frames over", &error))?;
    // Nothing but our frames is to come from it; without IPv6 on this kernel there is no such file.
    let quiet = format!("/proc/sys/net/ipv6/conf/{own}/disable_ipv6");
    if let Err(error) = std::fs::write(&quiet, "1") {
        tracing::debug!(quiet, %error, "the tap may ask for routers");
    }
    programs.attach_hand_over(&own, device)?;
    bring_up(&own).map_err(|error| refused(name, "bringing kvmtrace's tap up", &error))?;
    Ok(Entry::HandOver(tap))
}

/// A tap that ends with its descriptor, and its name.
fn open_tap() -> io::Result<(File, String)> {
    let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // `%d` takes the first free number (`__dev_alloc_name`).
    let mut request = interface_request(&format!("{OWN_DEVICES}%d"));
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open and the request lives through the call; the kernel writes the name into it.
    unsafe { requests::set_interface(tap.as_raw_fd(), &raw mut request) }?;
    let name =
        request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(byte.cast_unsigned())).collect();
    Ok((tap, name))
}

/// `ip link set NAME up`.
fn bring_up(name: &str) -> io::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the descriptor is open and the request, which the kernel only reads, lives through the call.
    unsafe { requests::set_flags(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq of zeroes is a valid one, without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *target = source.cast_signed();
    }
    request
}

/// A packet socket that sends by this device and receives nothing.
fn packet_socket(device: IfIndex) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(device.0).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the descriptor is open, the address lives through the call and is as long as is said.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(bound)?;
    Ok(socket)
}

/// ioctls of `linux/if_tun.h` and `linux/sockios.h`; the macros make functions that take no documentation.
mod requests {
    use nix::libc;

    nix::ioctl_readwrite_bad!(set_interface, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
}

#[cfg(test)]
mod tests;
