//! Reading over rtnetlink: dumps, and attributes that may be missing, longer or unknown.
//!
//! The attributes are taken apart here rather than by typed messages of a crate: kernels from 5.10 on differ in what
//! they send, and an attribute that is not understood must cost that attribute, not the device that carries it (nor,
//! as in an asynchronous handle, the rest of the dump).

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};
use std::io;
use std::net::IpAddr;

const HEADER: usize = 16;
pub(crate) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How often a dump is begun again because the tables changed under it.
const RESTARTS: u32 = 4;

/// A message of a dump, without its netlink header.
#[derive(Debug)]
pub(super) struct Message {
    /// `RTM_NEWLINK` and so on.
    pub(super) kind: u16,
    /// The family's own header and the attributes.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The attributes after a header of `size` bytes, and that header; `None` for a message that is too short.
    pub(super) fn split(&self, size: usize) -> Option<(&[u8], Attributes<'_>)> {
        let (header, rest) = self.body.split_at_checked(size)?;
        Some((header, Attributes(rest)))
    }
}

/// A connection to the kernel's routing tables in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        Self::of(NETLINK_ROUTE)
    }

    /// The same to the families of generic netlink.
    pub(super) fn open_generic() -> io::Result<Self> {
        Self::of(NETLINK_GENERIC)
    }

    /// The same to another protocol of netlink.
    pub(super) fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_rx_buf_sz(1 << 20)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Everything that the kernel answers to a dump request of `kind` with the header (and attributes) `body`.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.collect(kind, body, Vec::push)
    }

    /// What the kernel answers to a request for one thing.
    pub(super) fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        let mut answers = Vec::new();
        self.exchange(kind, NLM_F_ACK, body, |message| answers.push(message))?;
        Ok(answers)
    }

    /// The same, each message taken in at once: a table may be longer than what is kept of it.
    pub(super) fn collect<T: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        take: impl Fn(&mut T, Message),
    ) -> io::Result<T> {
        for _ in 0..RESTARTS {
            let mut taken = T::default();
            if !self.exchange(kind, NLM_F_DUMP, body, |message| take(&mut taken, message))? {
                return Ok(taken);
            }
        }
        // A host that never holds still: what the last attempt saw is nearly right, and better than nothing.
        let mut taken = T::default();
        self.exchange(kind, NLM_F_DUMP, body, |message| take(&mut taken, message))?;
        Ok(taken)
    }

    /// Tells whether the table changed meanwhile.
    fn exchange(&mut self, kind: u16, flags: u16, body: &[u8], mut take: impl FnMut(Message)) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(kind, NLM_F_REQUEST | flags, self.sequence, body)?;
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;

        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (header, body) in frames(&datagram) {
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE => return Ok(interrupted),
                    NLMSG_ERROR => match read_i32(body) {
                        Some(0) | None => return Ok(interrupted),
                        Some(error) => return Err(io::Error::from_raw_os_error(-error)),
                    },
                    kind => take(Message { kind, body: body.to_vec() }),
                }
            }
        }
    }
}

/// A message as it is sent, to the kernel.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(body);
    Ok(message)
}

/// The header of a message.
pub(crate) struct Header {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) sequence: u32,
}

/// The messages of a datagram.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(bytes)?).ok()?;
        let message = bytes.get(..length)?;
        let header = Header {
            kind: read_u16(message.get(4..)?)?,
            flags: read_u16(message.get(6..)?)?,
            sequence: read_u32(message.get(8..)?)?,
        };
        let body = message.get(HEADER..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

/// What kinds of messages (`RTM_*`) a datagram holds.
pub(super) fn kinds(datagram: &[u8]) -> impl Iterator<Item = u16> {
    frames(datagram).map(|(header, _)| header.kind)
}

/// A run of attributes. Absent, short and unknown ones are all `None` to whoever asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them in order, with their types.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(read_u16(bytes)?);
            // The two highest bits say "nested" and "network byte order".
            let kind = read_u16(bytes.get(2..)?)? & 0x3fff;
            let value = bytes.get(4..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|&(found, _)| found == kind).map(|(_, value)| value)
    }

    pub(super) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A flag of one byte: present and not zero.
    pub(super) fn flag(self, kind: u16) -> bool {
        self.u8(kind).is_some_and(|value| value != 0)
    }

    pub(super) fn u16(self, kind: u16) -> Option<u16> {
        read_u16(self.get(kind)?)
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        read_u32(self.get(kind)?)
    }

    /// `nf_tables` has its numbers in network byte order.
    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().copied().map(u64::from_be_bytes)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
        value.get(..end).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub(crate) fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    pub(super) fn mac(self, kind: u16) -> Option<crate::event::MacAddress> {
        self.get(kind)?.try_into().ok().map(crate::event::MacAddress)
    }

    pub(super) fn address(self, kind: u16) -> Option<IpAddr> {
        read_address(self.get(kind)?)
    }
}

/// An IP address by its length.
pub(super) fn read_address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(super) fn read_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

pub(super) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

pub(crate) fn read_i32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().copied().map(i32::from_ne_bytes)
}

pub(super) fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_ne_bytes)
}

/// An attribute as it is sent.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_in_order_with_padding() {
        let bytes = [attribute(3, b"vnet0\0"), attribute(4, &1500_u32.to_ne_bytes())].concat();
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.text(3).as_deref(), Some("vnet0"));
        assert_eq!(attributes.u32(4), Some(1500));
        assert_eq!(attributes.u32(5), None);
    }

    #[test]
    fn attributes_that_are_cut_or_lie_about_their_length_end_the_run() {
        for bytes in [&[][..], &[8], &[0, 0, 0, 0], &[3, 0, 1, 0], &[200, 0, 1, 0, 1, 2, 3, 4]] {
            assert_eq!(Attributes(bytes).iter().count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn messages_that_are_cut_or_lie_about_their_length_end_the_datagram() {
        for bytes in [&[][..], &[16, 0, 0, 0], &[0; 16], &[255; 64]] {
            assert_eq!(frames(bytes).count(), 0, "{bytes:?}");
        }
    }
}
