//! A line of JSON per event, then one per verdict, finding and incident: docs/export.schema.json describes each.

use super::columns::{FlowColumns, Text, kind};
use super::lookup::DeviceNames;
use super::{Context, Exporter};
use crate::diagnose::report::{Finding, FlowReport, Incident};
use crate::event::{
    CommandEnd, Degraded, Direction, Event, EventKind, FlowCounters, HostState, Loss, PacketCause, PacketRecord,
    RuleSite, Started, Timestamp, Unlisted, UnlistedPlace,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write;

/// `recording` line: the version of this form.
const SCHEMA: &str = "kvmtrace/export/1";

/// Writes lines.
pub(super) struct Lines {
    output: Box<dyn Write>,
    context: Context,
    devices: DeviceNames,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Text<Timestamp>>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Recording {
        schema: &'static str,
        header: &'a crate::record::Header,
    },
    Started(&'a Started),
    Host {
        state: &'a HostState,
    },
    Flow(FlowColumns),
    Sample {
        #[serde(flatten)]
        flow: FlowColumns,
        counters: &'a FlowCounters,
    },
    RuleDrop {
        #[serde(flatten)]
        flow: FlowColumns,
        rule: &'a RuleSite,
    },
    Command(CommandEnd),
    Packet {
        #[serde(flatten)]
        flow: FlowColumns,
        #[serde(flatten)]
        packet: PacketLine<'a>,
    },
    Loss(Loss),
    Degraded(&'a Degraded),
    Unlisted(UnlistedLine),
    Ended {},
    Verdict(&'a FlowReport),
    Finding(&'a Finding),
    Incident(&'a Incident),
}

#[derive(Serialize)]
struct PacketLine<'a> {
    length: u32,
    gso_size: u16,
    segments: u16,
    ether_type: u16,
    ethernet: bool,
    header: String,
    stack: &'a [String],
}

/// Packets that were counted without their flows; keys as in [`FlowColumns`].
#[derive(Serialize)]
struct UnlistedLine {
    device: Option<String>,
    direction: Option<Direction>,
    reason: Option<String>,
    function: Option<String>,
    packets: u64,
    bytes: u64,
}

impl UnlistedLine {
    fn new(unlisted: &Unlisted, devices: &DeviceNames) -> Self {
        let (device, direction, site) = match &unlisted.place {
            UnlistedPlace::Hook(place) => (Some(place.device), Some(place.direction), None),
            UnlistedPlace::Drop(site) => (site.device, None, Some(site)),
        };
        Self {
            device: device.map(|device| devices.get(device)),
            direction,
            reason: site.and_then(|site| site.reason.clone()),
            function: site.and_then(|site| site.function.clone()),
            packets: unlisted.packets,
            bytes: unlisted.bytes,
        }
    }
}

impl<'a> PacketLine<'a> {
    fn new(packet: &'a PacketRecord) -> Self {
        let header = packet.header.iter().fold(String::with_capacity(packet.header.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").ok();
            text
        });
        let stack = if let PacketCause::Dropped { stack, .. } = &packet.cause { stack.as_slice() } else { &[] };
        let PacketRecord { length, gso_size, segments, ether_type, ethernet, .. } = *packet;
        Self { length, gso_size, segments, ether_type, ethernet, header, stack }
    }
}

impl Lines {
    pub(super) fn begin(output: Box<dyn Write>, context: Context) -> std::io::Result<Self> {
        let mut lines = Self { output, context, devices: DeviceNames::default() };
        let line = Line {
            event: "recording",
            time: None,
            body: Body::Recording { schema: SCHEMA, header: &lines.context.header },
        };
        write_line(&mut lines.output, &line)?;
        Ok(lines)
    }
}

fn write_line(output: &mut dyn Write, line: &Line<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}

impl Exporter for Lines {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.devices.learn(event);
        let flow = FlowColumns::of(event, &self.devices);
        let body = match (&event.kind, flow) {
            (EventKind::Packet(packet), Some(flow)) => Body::Packet { flow, packet: PacketLine::new(packet) },
            (EventKind::Flow(sample), Some(flow)) => Body::Sample { flow, counters: &sample.counters },
            (EventKind::RuleDrop(drop), Some(flow)) => Body::RuleDrop { flow, rule: &drop.rule },
            (_, Some(flow)) => Body::Flow(flow),
            (EventKind::Started(started), None) => Body::Started(started),
            (EventKind::Host(state), None) => Body::Host { state },
            (EventKind::Loss(loss), None) => Body::Loss(*loss),
            (EventKind::Degraded(degraded), None) => Body::Degraded(degraded),
            (EventKind::Command(end), None) => Body::Command(*end),
            (EventKind::Unlisted(unlisted), _) => Body::Unlisted(UnlistedLine::new(unlisted, &self.devices)),
            (
                EventKind::Ended
                | EventKind::Flow(_)
                | EventKind::Drop(_)
                | EventKind::RuleDrop(_)
                | EventKind::Packet(_),
                None,
            ) => Body::Ended {},
        };
        let line = Line { event: kind(event), time: Some(Text(event.time)), body };
        write_line(&mut self.output, &line)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        for flow in &self.context.report.flows {
            write_line(&mut self.output, &Line { event: "verdict", time: None, body: Body::Verdict(flow) })?;
        }
        for finding in &self.context.report.findings {
            write_line(&mut self.output, &Line { event: "finding", time: None, body: Body::Finding(finding) })?;
        }
        for incident in &self.context.report.incidents {
            write_line(&mut self.output, &Line { event: "incident", time: None, body: Body::Incident(incident) })?;
        }
        self.output.flush()
    }
}
