//! kvmtrace's own tables: they mark packets for nft's trace and decide nothing.
//!
//! 1. **They go with the socket** that made them (`NFT_TABLE_F_OWNER`, since 5.12): the kernel removes them when it
//!    closes, however the process ends (`nft_rcv_nl_event`). The socket is closed on exec. Nobody else can change them,
//!    and `nft flush ruleset` passes them by (`nft_table_has_owner`). An older kernel refuses the flag, and then nothing
//!    was made.
//! 2. **They stand before everything**: what comes in by a traced device is marked at its ingress (family `netdev`), and
//!    what this host itself sends by one at the output hooks of IP and ARP. The mark stays with the packet through all
//!    hooks of all families; a tunnel takes it off (`skb_scrub_packet`), but what comes out of it is marked again.
//! 3. **They mark few**: a packet of each flow every [`AGAIN_MS`], and [`FLOWS`] per second and set altogether, however
//!    many flows a guest makes up: a flow that no longer finds room in the set is not marked. What is not IP, what has no
//!    whole header and what found no room is sampled by its pair of MAC addresses, so that one guest's flood does not
//!    hide another's packets.

use super::encode::{
    Base, Batch, Family, Meta, Register, Set, accept, add, equals, is_new, jump, meta, payload, trace,
};
use crate::event::IfIndex;
use crate::host::netlink::{NLMSG_ERROR, frames, read_i32};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::collections::BTreeSet;
use std::io;

/// A flow is marked again after so long, in milliseconds.
const AGAIN_MS: u64 = 250;
/// Flows marked between two collections, per set.
const FLOWS: u32 = 1_024;
/// A collection every so often.
const COLLECTED_MS: u32 = 1_000;
/// Devices per batch: a batch must fit in the socket's buffer.
const DEVICES: usize = 64;

/// Chain that looks at what came in, and at what goes out.
const LOOK: &str = "look";
const OUTPUT: &str = "output";

const INGRESS_HOOK: u32 = 0;
const LOCAL_OUT_HOOK: u32 = 3;
const ARP_OUT_HOOK: u32 = 1;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// nft's numbers of types (`enum datatypes`), joined as it joins them.
const IPV4_ADDRESS: u32 = 7;
const IPV6_ADDRESS: u32 = 8;
const ETHER_ADDRESS: u32 = 9;
const ETHER_TYPE: u32 = 10;
const INET_PROTOCOL: u32 = 12;
const INET_SERVICE: u32 = 13;

const fn joined(types: &[u32]) -> u32 {
    let (mut number, mut index) = (0, 0);
    while index < types.len() {
        number = number << 6 | types[index];
        index += 1;
    }
    number
}

const fn set(name: &'static str, id: u32, key_type: u32, words: u32) -> Set {
    Set { name, id, key_type, key_length: 4 * words, size: FLOWS, timeout_ms: AGAIN_MS, collected_ms: COLLECTED_MS }
}

/// Source, destination, protocol, source port (of ICMP: type and code).
const FLOWS_4: Set = set("flows4", 1, joined(&[IPV4_ADDRESS, IPV4_ADDRESS, INET_PROTOCOL, INET_SERVICE]), 4);
const FLOWS_6: Set = set("flows6", 2, joined(&[IPV6_ADDRESS, IPV6_ADDRESS, INET_PROTOCOL, INET_SERVICE]), 10);
/// Destination, source, `EtherType`.
const FRAMES: Set = set("frames", 3, joined(&[ETHER_ADDRESS, ETHER_ADDRESS, ETHER_TYPE]), 5);
/// Sender and target of ARP.
const NEIGHBOURS: Set = set("neighbours", 4, joined(&[IPV4_ADDRESS, IPV4_ADDRESS]), 2);

/// A device whose packets are to be marked.
#[derive(Clone, Copy, Debug)]
pub(in crate::probe) struct Watched<'a> {
    pub(in crate::probe) index: IfIndex,
    pub(in crate::probe) name: &'a str,
    /// Also what comes in by it, not only what this host sends by it.
    pub(in crate::probe) ingress: bool,
}

/// The tables, and the socket that keeps them.
pub(super) struct OwnTables {
    socket: Socket,
    sequence: u32,
    name: String,
    devices: BTreeSet<IfIndex>,
}

impl OwnTables {
    /// Makes them; they mark nothing yet.
    pub(super) fn make() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let address = socket.bind_auto()?;
        // The kernel answers before the send returns.
        socket.set_non_blocking(true)?;
        // No two sockets of a network namespace have one number.
        let name = format!("kvmtrace-{}", address.port_number());
        let mut tables = Self { socket, sequence: 0, name, devices: BTreeSet::new() };
        let mut batch = Batch::new();
        tables.ingress(&mut batch);
        tables.output(&mut batch);
        tables.arp(&mut batch);
        tables.send(&batch)?;
        Ok(tables)
    }

    /// The name of all three.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn ingress(&self, batch: &mut Batch) {
        let family = Family::Netdev;
        batch.table(family, &self.name);
        for set in [&FLOWS_4, &FLOWS_6, &FRAMES] {
            batch.set(family, &self.name, set);
        }
        batch.chain(family, &self.name, LOOK);
        batch.rule(family, &self.name, LOOK, &flows4());
        batch.rule(family, &self.name, LOOK, &flows6());
        let key = [
            payload(Base::Link, 0, 6, Register(0)),
            payload(Base::Link, 6, 6, Register(2)),
            meta(Meta::Protocol, Register(4)),
        ];
        batch.rule(family, &self.name, LOOK, &marked(&FRAMES, &key));
    }

    fn output(&self, batch: &mut Batch) {
        let family = Family::Inet;
        batch.table(family, &self.name);
        for set in [&FLOWS_4, &FLOWS_6] {
            batch.set(family, &self.name, set);
        }
        batch.chain(family, &self.name, LOOK);
        batch.rule(family, &self.name, LOOK, &flows4());
        batch.rule(family, &self.name, LOOK, &flows6());
        batch.base_chain(family, &self.name, OUTPUT, LOCAL_OUT_HOOK, None);
    }

    fn arp(&self, batch: &mut Batch) {
        let family = Family::Arp;
        batch.table(family, &self.name);
        batch.set(family, &self.name, &NEIGHBOURS);
        batch.chain(family, &self.name, LOOK);
        let key = [payload(Base::Network, 14, 4, Register(0)), payload(Base::Network, 24, 4, Register(1))];
        batch.rule(family, &self.name, LOOK, &marked(&NEIGHBOURS, &key));
        batch.base_chain(family, &self.name, OUTPUT, ARP_OUT_HOOK, None);
    }

    /// Marks what comes in and goes out by these devices too. One that is gone meanwhile is passed over; the kernel takes
    /// its chain away with it.
    pub(super) fn watch<'a>(&mut self, devices: impl Iterator<Item = Watched<'a>>) -> io::Result<()> {
        let new: Vec<_> = devices.filter(|device| !self.devices.contains(&device.index)).collect();
        for chunk in new.chunks(DEVICES) {
            if self.send(&self.of_devices(chunk)).is_err() {
                for device in chunk {
                    match self.send(&self.of_devices(std::slice::from_ref(device))) {
                        Err(error) if !is_gone(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
            self.devices.extend(chunk.iter().map(|device| device.index));
        }
        Ok(())
    }

    fn of_devices(&self, devices: &[Watched<'_>]) -> Batch {
        let mut batch = Batch::new();
        for Watched { index, name, ingress } in devices {
            if *ingress {
                let chain = format!("in-{}", index.0);
                batch.base_chain(Family::Netdev, &self.name, &chain, INGRESS_HOOK, Some(name));
                batch.rule(Family::Netdev, &self.name, &chain, &[jump(LOOK)]);
            }
            let goes_out =
                [meta(Meta::OutputDevice, Register(0)), equals(Register(0), &index.0.to_ne_bytes()), jump(LOOK)];
            for family in [Family::Inet, Family::Arp] {
                batch.rule(family, &self.name, OUTPUT, &goes_out);
            }
        }
        batch
    }

    fn send(&mut self, batch: &Batch) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send_to(&batch.bytes(self.sequence)?, &SocketAddr::new(0, 0), 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (header, body) in frames(&datagram) {
                if header.kind == NLMSG_ERROR && header.sequence == self.sequence {
                    return match read_i32(body) {
                        Some(0) => Ok(()),
                        Some(error) => Err(io::Error::from_raw_os_error(-error)),
                        None => Err(io::ErrorKind::InvalidData.into()),
                    };
                }
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| [nix::libc::ENOENT, nix::libc::ENODEV].contains(&number))
}

fn flows4() -> Vec<Vec<u8>> {
    let addresses = [payload(Base::Network, 12, 4, Register(0)), payload(Base::Network, 16, 4, Register(1))];
    marked(&FLOWS_4, &flow_key(&IPV4, addresses, [Register(2), Register(3)]))
}

fn flows6() -> Vec<Vec<u8>> {
    let addresses = [payload(Base::Network, 8, 16, Register(0)), payload(Base::Network, 24, 16, Register(4))];
    marked(&FLOWS_6, &flow_key(&IPV6, addresses, [Register(8), Register(9)]))
}

/// Of packets of this protocol: their addresses, protocol and ports, one behind the other in the registers.
fn flow_key(protocol: &[u8], addresses: [Vec<u8>; 2], [layer4, ports]: [Register; 2]) -> Vec<Vec<u8>> {
    let protocol = [meta(Meta::Protocol, Register(0)), equals(Register(0), protocol)];
    let transport = [meta(Meta::Layer4, layer4), payload(Base::Transport, 0, 2, ports)];
    protocol.into_iter().chain(addresses).chain(transport).collect()
}

/// Marks a packet whose key the set does not have, and has done with it.
fn marked(set: &Set, key: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut expressions = key.to_vec();
    expressions.extend([is_new(set, Register(0)), add(set, Register(0))]);
    expressions.extend(trace(Register(0)));
    expressions.push(accept());
    expressions
}
