//! A line of JSON per event, then one per verdict, finding and incident: docs/export.schema.json describes each.

use super::columns::{Counted, FlowColumns, Identity, Text, kind};
use super::growth::Counts;
use super::lookup::Devices;
use super::seen::{Exporter, Seen, Trace, Verdicts};
use crate::diagnose::report::{Finding, FlowReport, Incident};
use crate::event::{
    CommandEnd, Degraded, EventKind, FlowCounters, HostState, Loss, PacketCause, PacketRecord, RuleSite, Started,
    Timestamp, Unlisted,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write;

/// `recording` line: the version of this form.
const SCHEMA: &str = "kvmtrace/export/1";

/// Writes lines.
pub(super) struct Lines {
    output: Box<dyn Write>,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Text<Timestamp>>,
    #[serde(flatten)]
    identity: Option<Identity<'a>>,
    #[serde(flatten)]
    new: Option<New>,
    #[serde(flatten)]
    body: Body<'a>,
}

/// What this line adds to the sums, of lines that count.
#[derive(Serialize)]
struct New {
    new_packets: u64,
    new_bytes: u64,
}

impl From<Counts> for New {
    fn from(counts: Counts) -> Self {
        Self { new_packets: counts.packets, new_bytes: counts.bytes }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Recording {
        schema: &'static str,
        host: &'a str,
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
    #[serde(flatten)]
    place: Counted,
    packets: u64,
    bytes: u64,
}

impl UnlistedLine {
    fn new(unlisted: &Unlisted, devices: &Devices) -> Self {
        let place = Counted::of(&unlisted.place, devices);
        Self { place, packets: unlisted.packets, bytes: unlisted.bytes }
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
    pub(super) fn begin(output: Box<dyn Write>, traces: &[&Trace]) -> std::io::Result<Self> {
        let mut lines = Self { output };
        for trace in traces {
            let body = Body::Recording { schema: SCHEMA, host: &trace.host, header: &trace.header };
            lines.write("recording", body)?;
        }
        Ok(lines)
    }

    /// A line that is no event.
    fn write(&mut self, event: &'static str, body: Body<'_>) -> std::io::Result<()> {
        write_line(&mut self.output, &Line { event, time: None, identity: None, new: None, body })
    }
}

fn write_line(output: &mut dyn Write, line: &Line<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}

impl Exporter for Lines {
    fn event(&mut self, seen: &Seen<'_>) -> std::io::Result<()> {
        let event = seen.event;
        let flow = FlowColumns::of(event, seen.devices);
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
            (EventKind::Unlisted(unlisted), _) => Body::Unlisted(UnlistedLine::new(unlisted, seen.devices)),
            (
                EventKind::Ended
                | EventKind::Flow(_)
                | EventKind::Drop(_)
                | EventKind::RuleDrop(_)
                | EventKind::Packet(_),
                None,
            ) => Body::Ended {},
        };
        let identity = Some(Identity::of(seen));
        let line =
            Line { event: kind(event), time: Some(Text(event.time)), identity, new: seen.new.map(New::from), body };
        write_line(&mut self.output, &line)
    }

    fn finish(&mut self, verdicts: &Verdicts<'_>) -> std::io::Result<()> {
        for flow in &verdicts.flows {
            self.write("verdict", Body::Verdict(flow))?;
        }
        for finding in &verdicts.findings {
            self.write("finding", Body::Finding(finding))?;
        }
        for incident in &verdicts.incidents {
            self.write("incident", Body::Incident(incident))?;
        }
        self.output.flush()
    }
}
