//! The ends of a generated host: its guests' taps, held by this process, the far ends of its veths in a namespace that is
//! only listened to, and raw sockets of the host itself.

use crate::frame::{self, Likeness};
use crate::packet_socket::PacketSocket;
use anyhow::{Context as _, Result};
use kvmtrace_tests::lab::netns::Namespace;
use kvmtrace_tests::lab::tap;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockaddrStorage, bind, recv, sendto, setsockopt, sockopt};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `struct virtio_net_hdr_v1`, which stands before each frame of a tap.
const VNET_HEADER: usize = 12;
/// The longest frame that is read.
const LONGEST: usize = 70_000;
/// IP protocols that raw sockets of the host listen to: all that packets are drawn of, beside ICMP.
const LISTENED: [libc::c_int; 4] = [libc::IPPROTO_UDP, libc::IPPROTO_TCP, libc::IPPROTO_SCTP, 253];

/// A place that a packet can be seen to arrive at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The guest behind the tap of this name.
    Guest(String),
    /// The far end of the veth of this name.
    Wire(String),
    /// The host's own stack.
    Host,
}

/// A frame or packet that came out.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Where.
    pub place: Place,
    /// `EtherType` behind the tags.
    pub ether_type: u16,
    /// VLAN tags, the outermost first.
    pub tags: Vec<u16>,
    /// The packet from layer 3 on; of IPv6 at the host: from layer 4 on.
    pub bytes: Vec<u8>,
    /// Source and destination MAC address; none at the host.
    pub macs: Option<([u8; 6], [u8; 6])>,
}

impl Sighting {
    /// The packet that it belongs to, and what it is to that one.
    pub fn about(&self) -> Option<(u16, Likeness)> {
        Some((frame::number_in(&self.bytes)?, frame::likeness(self.ether_type, &self.bytes)))
    }
}

/// All ends of a host, open.
#[derive(Debug)]
pub struct Wires {
    taps: BTreeMap<String, File>,
    far: BTreeMap<String, PacketSocket>,
    /// With the `EtherType` of what they give; 0 where no header comes with it.
    listening: Vec<(u16, OwnedFd)>,
}

/// Moves this thread into a namespace.
pub fn enter(namespace: &Namespace) -> Result<()> {
    let name = namespace.name();
    let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("no namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {name}"))
}

impl Wires {
    /// Opens taps and sockets; `far` are the host's veths with the names of their other ends. The thread is in `host` then.
    pub fn open(host: &Namespace, elsewhere: &Namespace, taps: &[String], far: &[(String, String)]) -> Result<Self> {
        enter(elsewhere)?;
        let far = far.iter().map(|(near, far)| Ok((near.clone(), PacketSocket::open(far)?))).collect::<Result<_>>();
        enter(host)?;
        let open = |name: &String| {
            let file = tap::open_tap(name)?;
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("a tap that does not block")?;
            Ok((name.clone(), file))
        };
        let mut listening = Vec::new();
        for protocol in LISTENED.into_iter().chain([libc::IPPROTO_ICMP]) {
            listening.push((0x0800, raw(AddressFamily::Inet, protocol)?));
        }
        for protocol in LISTENED {
            listening.push((0, raw(AddressFamily::Inet6, protocol)?));
        }
        listening.push((frame::BARE_ICMPV6, raw(AddressFamily::Inet6, libc::IPPROTO_ICMPV6)?));
        Ok(Self { taps: taps.iter().map(open).collect::<Result<_>>()?, far: far?, listening })
    }

    /// The guest behind a tap sends a frame; a device that is down refuses it.
    pub fn send_by_tap(&self, tap: &str, frame: &[u8]) -> Result<Option<Errno>> {
        let bytes = [&[0; VNET_HEADER][..], frame].concat();
        let mut file = self.taps.get(tap).with_context(|| format!("the tap {tap} is not open"))?;
        Ok(file.write(&bytes).err().and_then(|error| error.raw_os_error()).map(Errno::from_raw))
    }

    /// A frame comes in by a veth; a far end that is down refuses it.
    pub fn send_by_wire(&self, device: &str, frame: &[u8]) -> Result<Option<Errno>> {
        Ok(self.far.get(device).with_context(|| format!("no far end of {device}"))?.send(frame).err())
    }

    /// The host itself sends a packet, header and all. What the stack has against it is an answer, not a failure.
    pub fn send_by_host(&self, source: IpAddr, destination: IpAddr, packet: &[u8]) -> Result<Option<Errno>> {
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = raw(family, libc::IPPROTO_RAW)?;
        setsockopt(&socket, sockopt::Broadcast, &true).context("SO_BROADCAST")?;
        // The route is looked up for the address that the socket is bound to.
        let address = |of: IpAddr| SockaddrStorage::from(SocketAddr::new(of, 0));
        let bound = bind(socket.as_raw_fd(), &address(source));
        let sent =
            bound.and_then(|()| sendto(socket.as_raw_fd(), packet, &address(destination), MsgFlags::empty()).map(drop));
        Ok(sent.err())
    }

    /// All that has come out since the last call.
    pub fn sightings(&self) -> Vec<Sighting> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; LONGEST];
        for (name, mut file) in &self.taps {
            while let Ok(length) = file.read(&mut buffer) {
                let frame = buffer.get(VNET_HEADER..length).unwrap_or_default();
                seen.extend(of_frame(Place::Guest(name.clone()), frame, None));
            }
        }
        for (name, socket) in &self.far {
            while let Some((frame, tag)) = socket.receive(&mut buffer) {
                seen.extend(of_frame(Place::Wire(name.clone()), frame, tag));
            }
        }
        for (ether_type, socket) in &self.listening {
            while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                let (place, tags) = (Place::Host, Vec::new());
                seen.push(Sighting { place, ether_type: *ether_type, tags, bytes, macs: None });
            }
        }
        seen
    }
}

/// What a frame that was read holds.
fn of_frame(place: Place, frame: &[u8], tag: Option<u16>) -> Option<Sighting> {
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok();
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let macs = Some((mac(6)?, mac(0)?));
    let mut tags: Vec<u16> = tag.map(|tag| tag & 0xfff).into_iter().collect();
    let mut at = 12;
    while matches!(word(at)?, 0x8100 | 0x88a8) {
        tags.push(word(at + 2)? & 0xfff);
        at += 4;
    }
    Some(Sighting { place, ether_type: word(at)?, tags, bytes: frame.get(at + 2..)?.to_vec(), macs })
}

/// A raw socket that does not block. The crate `nix` knows few of the protocols.
fn raw(family: AddressFamily, protocol: libc::c_int) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes no pointers.
    let socket = unsafe { libc::socket(family as libc::c_int, kind, protocol) };
    let socket = Errno::result(socket).with_context(|| format!("no raw socket for protocol {protocol}"))?;
    // SAFETY: the kernel has just given the descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}
