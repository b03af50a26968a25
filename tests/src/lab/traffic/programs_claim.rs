//! A machine that says, again and again, that an address is its own: what `arpspoof` and two machines with one address do. Or
//! that it is a router.

use super::programs::own_mac;
use crate::lab::raw::FrameSocket;
use anyhow::{Result, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Claims `address` by `device`, unasked, every `interval` milliseconds, until it is killed.
pub(super) fn claim(device: &str, address: IpAddr, interval: u64) -> Result<()> {
    let mac = own_mac(device)?;
    let frame = match address {
        IpAddr::V4(address) => announcement(&mac, address),
        IpAddr::V6(address) => advertisement(&mac, address),
    };
    let socket = FrameSocket::open(device)?;
    loop {
        socket.send(&frame)?;
        std::thread::sleep(Duration::from_millis(interval));
    }
}

/// A gratuitous ARP request: whoever has an entry for the address changes it (`arp_process`, `is_garp`).
fn announcement(mac: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let head = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], mac, &head, mac, &address.octets(), &[0; 6], &address.octets(), &[0; 18]].concat()
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag (RFC 4861, 4.4).
fn advertisement(mac: &[u8], address: Ipv6Addr) -> Vec<u8> {
    to_all(mac, address, [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address.octets(), &[2, 1], mac].concat())
}

/// Says by `device`, every `interval` milliseconds and until it is killed, that a router is here, and that machines may make
/// themselves an address of the /64 that `prefix` is in (RFC 4861, 4.2 and 4.6.2).
pub(super) fn advertise(device: &str, prefix: Ipv6Addr, interval: u64) -> Result<()> {
    let mac = own_mac(device)?;
    let &[a, b, c, d, e, f] = mac.as_slice() else { bail!("{device} has no Ethernet address") };
    let own = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let source = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(own));
    let network = Ipv6Addr::from_bits(prefix.to_bits() >> 64 << 64);
    let head = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let prefix = [3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0];
    let frame = to_all(&mac, source, [&head[..], &[1, 1], &mac, &prefix, &network.octets()].concat());
    let socket = FrameSocket::open(device)?;
    loop {
        socket.send(&frame)?;
        std::thread::sleep(Duration::from_millis(interval));
    }
}

/// A frame with an `ICMPv6` message to all nodes, whose checksum is filled in.
fn to_all(mac: &[u8], source: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let length = (body.len() as u16).to_be_bytes();
    let pseudo = [&source.octets()[..], &all.octets(), &[0, 0], &length, &[0, 0, 0, 58], &body].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0][..], &length, &[58, 255], &source.octets(), &all.octets()].concat();
    [&[0x33, 0x33, 0, 0, 0, 1][..], mac, &[0x86, 0xdd], &header, &body].concat()
}
