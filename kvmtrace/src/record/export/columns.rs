//! An event as flat fields: what a line of JSON and a row of a table have in common, and the one place that names them.

use super::lookup::Devices;
use super::seen::Seen;
use crate::diagnose::identity::icmp_id;
use crate::event::{Direction, DropSite, Event, EventKind, FlowKey, PacketCause, Timestamp, UnlistedPlace};
use serde::Serialize;

/// Whose an event is. Keys are always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Identity<'a> {
    /// The host, as the report names it.
    pub(super) host: &'a str,
    /// The flow's id in the report; null for what is in no flow of it.
    pub(super) flow_id: Option<&'a str>,
    /// The flow's guest, else the device's.
    pub(super) guest: Option<&'a str>,
}

impl<'a> Identity<'a> {
    pub(super) fn of(seen: &Seen<'a>) -> Self {
        let flow = seen.flow;
        let of_device = || seen.devices.guest(device(seen.event)?);
        Self {
            host: seen.host,
            flow_id: flow.map(|flow| flow.id.as_str()),
            guest: flow.map_or_else(of_device, |flow| flow.guest.as_deref()),
        }
    }
}

/// The device that an event names.
fn device(event: &Event) -> Option<crate::event::IfIndex> {
    match &event.kind {
        EventKind::Flow(sample) => Some(sample.place.device),
        EventKind::Drop(sample) => sample.site.device,
        EventKind::Packet(packet) => match &packet.cause {
            PacketCause::Dropped { site, .. } => site.device,
            PacketCause::First | PacketCause::IcmpError | PacketCause::MacChanged | PacketCause::Wanted => {
                packet.place.map(|place| place.device)
            }
        },
        EventKind::Unlisted(unlisted) => match &unlisted.place {
            UnlistedPlace::Hook(place) => Some(place.device),
            UnlistedPlace::Drop(site) => site.device,
        },
        EventKind::Started(_)
        | EventKind::Host(_)
        | EventKind::RuleDrop(_)
        | EventKind::Loss(_)
        | EventKind::Degraded(_)
        | EventKind::Command(_)
        | EventKind::Ended => None,
    }
}

/// An event that concerns a flow, flattened. Keys are always there, null where there is nothing to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FlowColumns {
    /// `ingress` or `egress`; null for drops.
    pub(super) device: Option<String>,
    pub(super) direction: Option<Direction>,
    pub(super) protocol: String,
    pub(super) source: String,
    pub(super) source_port: Option<u16>,
    pub(super) destination: String,
    pub(super) destination_port: Option<u16>,
    pub(super) vlan: Option<u16>,
    /// Of an echo.
    pub(super) icmp_id: Option<u16>,
    /// Packets and bytes since the start; of a packet: how many its flow has had here.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Length at layer 3 of the largest packet.
    pub(super) largest: Option<u32>,
    /// Why a packet is shown: `dropped`, `first`, `icmp-error`, `mac-changed`, `wanted`.
    pub(super) cause: Option<&'static str>,
    pub(super) reason: Option<String>,
    pub(super) function: Option<String>,
    pub(super) first: Option<Text<Timestamp>>,
}

/// The cause of packets that were dropped.
pub(super) const DROPPED: &str = "dropped";

/// Where packets were counted without their flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    pub(super) device: Option<String>,
    /// Null for drops.
    pub(super) direction: Option<Direction>,
    pub(super) reason: Option<String>,
    pub(super) function: Option<String>,
}

impl Counted {
    pub(super) fn of(place: &UnlistedPlace, devices: &Devices) -> Self {
        let (device, direction, site) = match place {
            UnlistedPlace::Hook(place) => (Some(place.device), Some(place.direction), None),
            UnlistedPlace::Drop(site) => (site.device, None, Some(site)),
        };
        Self {
            device: device.map(|device| devices.name(device)),
            direction,
            reason: site.and_then(|site| site.reason.clone()),
            function: site.and_then(|site| site.function.clone()),
        }
    }
}

/// A value that is written as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The name of an event's kind.
pub(super) fn kind(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Started(_) => "started",
        EventKind::Host(_) => "host",
        EventKind::Flow(_) => "flow",
        EventKind::Drop(_) => "drop",
        EventKind::Packet(_) => "packet",
        EventKind::RuleDrop(_) => "rule-drop",
        EventKind::Loss(_) => "loss",
        EventKind::Degraded(_) => "degraded",
        EventKind::Command(_) => "command",
        EventKind::Unlisted(_) => "unlisted",
        EventKind::Ended => "ended",
    }
}

/// Why a packet is shown.
pub(super) fn cause(cause: &PacketCause) -> &'static str {
    match cause {
        PacketCause::Dropped { .. } => DROPPED,
        PacketCause::First => "first",
        PacketCause::IcmpError => "icmp-error",
        PacketCause::MacChanged => "mac-changed",
        PacketCause::Wanted => "wanted",
    }
}

impl FlowColumns {
    /// Flattens an event; `None` when it concerns no flow.
    pub(super) fn of(event: &Event, devices: &Devices) -> Option<Self> {
        match &event.kind {
            EventKind::Flow(sample) => Some(Self {
                device: Some(devices.name(sample.place.device)),
                direction: Some(sample.place.direction),
                packets: sample.counters.packets,
                bytes: sample.counters.bytes,
                largest: Some(sample.counters.largest),
                first: Some(Text(sample.counters.first)),
                ..Self::of_flow(&sample.flow)
            }),
            EventKind::Drop(sample) => Some(Self {
                packets: sample.packets,
                bytes: sample.bytes,
                largest: Some(sample.largest),
                first: Some(Text(sample.first)),
                ..Self::of_flow(&sample.flow).at(&sample.site, devices)
            }),
            EventKind::Packet(packet) => {
                let mut columns = Self {
                    device: packet.place.map(|place| devices.name(place.device)),
                    direction: packet.place.map(|place| place.direction),
                    packets: packet.count,
                    bytes: u64::from(packet.length),
                    cause: Some(cause(&packet.cause)),
                    ..Self::of_flow(&packet.flow)
                };
                if let PacketCause::Dropped { site, .. } = &packet.cause {
                    columns = columns.at(site, devices);
                }
                Some(columns)
            }
            EventKind::RuleDrop(drop) => Some(Self { packets: drop.packets, ..Self::of_flow(&drop.flow) }),
            EventKind::Started(_)
            | EventKind::Host(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Unlisted(_)
            | EventKind::Ended => None,
        }
    }

    fn of_flow(flow: &FlowKey) -> Self {
        Self {
            device: None,
            direction: None,
            protocol: flow.protocol.to_string(),
            source: flow.source.to_string(),
            source_port: flow.source_port,
            destination: flow.destination.to_string(),
            destination_port: flow.destination_port,
            vlan: flow.vlan,
            icmp_id: icmp_id(flow),
            packets: 0,
            bytes: 0,
            largest: None,
            cause: None,
            reason: None,
            function: None,
            first: None,
        }
    }

    fn at(self, site: &DropSite, devices: &Devices) -> Self {
        Self {
            device: site.device.map(|device| devices.name(device)),
            reason: site.reason.clone(),
            function: site.function.clone(),
            ..self
        }
    }
}
