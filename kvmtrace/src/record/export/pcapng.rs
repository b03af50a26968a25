//! Packets as pcapng (draft-ietf-opsawg-pcapng): an interface for each observation point, the guests' names, and what
//! kvmtrace says of a packet as its comment.
//!
//! An interface is Ethernet, or raw IP where the device has no Ethernet header (tun, `WireGuard`, GRE, …). A packet of an
//! Ethernet device that the kernel had as a layer-3 packet when it dropped it gets an Ethernet header with addresses of
//! zero, and its comment says so: most tools read no file with two link types, and few hosts need one.

use super::columns;
use super::lookup::Devices;
use super::seen::{Exporter, Seen, Trace, Verdicts};
use crate::diagnose::identity::icmp_id;
use crate::event::{Address, EventKind, HostState, PacketCause, PacketRecord};
use bytes::BufMut as _;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::net::IpAddr;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAME_RESOLUTION: u32 = 4;
const ENHANCED_PACKET: u32 = 6;

const COMMENT: u16 = 1;
const SECTION_OS: u16 = 3;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;

/// What an interface's packets begin with: the numbers are tcpdump.org's (`LINKTYPE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LinkType {
    Ethernet = 1,
    /// An IPv4 or IPv6 header.
    Raw = 101,
}
/// Longer names are cut.
const LONGEST_NAME: usize = 250;
/// Options are counted in 16 bits.
const LONGEST_TEXT: usize = 60_000;
/// More points than this on one host mean a hostile file: they share the last one of their link type.
const INTERFACES: u32 = 65_536;

/// Writes a capture.
pub(super) struct Capture {
    output: Box<dyn Write>,
    interfaces: HashMap<(String, LinkType), u32>,
    /// The interface that was made last, of each link type.
    last: HashMap<LinkType, u32>,
    names: BTreeMap<IpAddr, String>,
}

impl Capture {
    pub(super) fn begin(mut output: Box<dyn Write>, traces: &[&Trace]) -> std::io::Result<Self> {
        let mut body = Vec::new();
        // Byte-order magic, version 1.0, length of the section not known.
        body.put_u32_le(0x1a2b_3c4d);
        body.put_u16_le(1);
        body.put_u16_le(0);
        body.put_u64_le(u64::MAX);
        let of_all = |text: &dyn Fn(&Trace) -> String| {
            let texts: BTreeSet<String> = traces.iter().map(|trace| text(trace)).collect();
            texts.into_iter().collect::<Vec<_>>().join("; ")
        };
        option(&mut body, SECTION_OS, &of_all(&|trace| format!("Linux {} ({})", trace.header.kernel, trace.host)));
        option(&mut body, SECTION_APPLICATION, &of_all(&|trace| format!("kvmtrace {}", trace.header.kvmtrace)));
        end_of_options(&mut body);
        write_block(&mut output, SECTION, &body)?;
        Ok(Self { output, interfaces: HashMap::new(), last: HashMap::new(), names: BTreeMap::new() })
    }

    /// Tells the names of guests whose addresses were not told before.
    fn resolve(&mut self, host: &HostState) -> std::io::Result<()> {
        let mut body = Vec::new();
        for guest in &host.guests {
            for address in guest.interfaces.iter().flat_map(|interface| &interface.addresses) {
                if self.names.insert(*address, guest.name.clone()).as_ref() == Some(&guest.name) {
                    continue;
                }
                let mut record = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                // A name ends with a zero byte; control characters would only confuse.
                let end = guest.name.floor_char_boundary(LONGEST_NAME);
                record.extend(plain(guest.name.get(..end).unwrap_or_default()).replace(' ', "_").bytes());
                record.push(0);
                body.put_u16_le(if address.is_ipv4() { 1 } else { 2 });
                body.put_u16_le(record.len() as u16);
                body.put_slice(&record);
                pad(&mut body);
            }
        }
        if body.is_empty() {
            return Ok(());
        }
        body.put_u32_le(0);
        write_block(&mut self.output, NAME_RESOLUTION, &body)
    }

    /// What the packet is written as: raw only where the device has no Ethernet header and the packet is IP.
    fn link_type(packet: &PacketRecord, devices: &Devices) -> LinkType {
        let device = match &packet.cause {
            PacketCause::Dropped { site, .. } => site.device,
            PacketCause::First | PacketCause::IcmpError | PacketCause::MacChanged | PacketCause::Wanted => {
                packet.place.map(|place| place.device)
            }
        };
        let is_ip = matches!(packet.header.first().map(|byte| byte >> 4), Some(4 | 6))
            && matches!(packet.flow.source, Address::Ip(_));
        let has_no_ethernet = device.is_some_and(|device| devices.has_no_ethernet(device));
        if !packet.ethernet && is_ip && has_no_ethernet { LinkType::Raw } else { LinkType::Ethernet }
    }

    /// The interface of a packet's observation point.
    fn interface(&mut self, packet: &PacketRecord, link_type: LinkType, devices: &Devices) -> std::io::Result<u32> {
        let (name, description) = if let PacketCause::Dropped { site, .. } = &packet.cause {
            let device = site.device.map_or_else(|| "no device".to_owned(), |device| devices.name(device));
            (format!("{device} drop"), format!("packets that the kernel dropped at {device}"))
        } else {
            match packet.place {
                Some(place) => {
                    let device = devices.name(place.device);
                    match place.direction {
                        crate::event::Direction::Ingress => {
                            (format!("{device} ingress"), format!("packets that {device} received"))
                        }
                        crate::event::Direction::Egress => {
                            (format!("{device} egress"), format!("packets that {device} sent"))
                        }
                    }
                }
                None => ("unknown".to_owned(), "packets seen at an unknown place".to_owned()),
            }
        };
        let key = (name, link_type);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = self.interfaces.len() as u32;
        if number >= INTERFACES
            && let Some(last) = self.last.get(&link_type)
        {
            return Ok(*last);
        }
        let mut body = Vec::new();
        body.put_u16_le(link_type as u16);
        body.put_bytes(0, 6);
        option(&mut body, INTERFACE_NAME, &key.0);
        option(&mut body, INTERFACE_DESCRIPTION, &description);
        option_bytes(&mut body, INTERFACE_RESOLUTION, &[9]);
        end_of_options(&mut body);
        write_block(&mut self.output, INTERFACE, &body)?;
        self.interfaces.insert(key, number);
        self.last.insert(link_type, number);
        Ok(number)
    }

    /// What is known of a packet and its flow.
    fn comment(seen: &Seen<'_>, packet: &PacketRecord, made_up: bool) -> String {
        let mut parts = vec![columns::cause(&packet.cause).to_owned()];
        if let PacketCause::Dropped { site, .. } = &packet.cause {
            parts.push(format!(
                "reason {} in {}",
                site.reason.as_deref().unwrap_or("unknown"),
                site.function.as_deref().unwrap_or("unknown")
            ));
        }
        if let Some(flow) = seen.flow {
            parts.push(format!("flow {}", flow.id));
        }
        if let Some(id) = icmp_id(&packet.flow) {
            parts.push(format!("icmp id {id}"));
        }
        if let Some(vlan) = packet.flow.vlan {
            parts.push(format!("vlan {vlan}"));
        }
        if let Some(guest) = columns::Identity::of(seen).guest {
            parts.push(format!("guest {guest}"));
        }
        parts.push(format!("host {}", seen.host));
        if let Some(flow) = seen.flow {
            let verdict = serde_json::to_value(flow.verdict).unwrap_or_default();
            parts.push(format!("verdict {}", verdict.as_str().unwrap_or_default()));
            if let Some(cause) = flow.cause {
                parts.push(format!("cause {}", cause.id()));
                parts.push(flow.explanation.clone());
            }
        }
        if made_up {
            parts.push("Ethernet header made up".to_owned());
        }
        parts.join("; ")
    }

    fn packet(&mut self, seen: &Seen<'_>, packet: &PacketRecord) -> std::io::Result<()> {
        let event = seen.event;
        let link_type = Self::link_type(packet, seen.devices);
        let interface = self.interface(packet, link_type, seen.devices)?;
        let made_up = link_type == LinkType::Ethernet && !packet.ethernet;
        let mut bytes = Vec::with_capacity(packet.header.len() + 14);
        if made_up {
            bytes.put_bytes(0, 12);
            bytes.put_u16(packet.ether_type);
        }
        bytes.put_slice(&packet.header);
        let added = bytes.len() - packet.header.len();
        let length = packet.length.saturating_add(added as u32).max(bytes.len() as u32);
        let mut body = Vec::new();
        body.put_u32_le(interface);
        body.put_u32_le((event.time.0 >> 32) as u32);
        body.put_u32_le(event.time.0 as u32);
        body.put_u32_le(bytes.len() as u32);
        body.put_u32_le(length);
        body.put_slice(&bytes);
        pad(&mut body);
        option(&mut body, COMMENT, &Self::comment(seen, packet, made_up));
        end_of_options(&mut body);
        write_block(&mut self.output, ENHANCED_PACKET, &body)
    }
}

impl Exporter for Capture {
    fn names(&mut self, host: &HostState) -> std::io::Result<()> {
        self.resolve(host)
    }

    fn event(&mut self, seen: &Seen<'_>) -> std::io::Result<()> {
        match &seen.event.kind {
            EventKind::Host(host) => self.resolve(host),
            EventKind::Packet(packet) => self.packet(seen, packet),
            EventKind::Started(_)
            | EventKind::Flow(_)
            | EventKind::Drop(_)
            | EventKind::RuleDrop(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Unlisted(_)
            | EventKind::Ended => Ok(()),
        }
    }

    fn finish(&mut self, _verdicts: &Verdicts<'_>) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// A block: its kind, its length before and after, its body, whose length is a multiple of four.
fn write_block(output: &mut dyn Write, kind: u32, body: &[u8]) -> std::io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    output.write_all(&kind.to_le_bytes())?;
    output.write_all(&length)?;
    output.write_all(body)?;
    output.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, text: &str) {
    let text = plain(text);
    let end = text.floor_char_boundary(LONGEST_TEXT);
    option_bytes(body, code, text.get(..end).unwrap_or_default().as_bytes());
}

fn option_bytes(body: &mut Vec<u8>, code: u16, bytes: &[u8]) {
    body.put_u16_le(code);
    body.put_u16_le(bytes.len() as u16);
    body.put_slice(bytes);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.put_u32_le(0);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Text without control characters: names come from guests, and end on terminals.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
