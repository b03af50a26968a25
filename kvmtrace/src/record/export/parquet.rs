//! Events and flows as two tables: `events.parquet` and `flows.parquet` in a directory.

use super::columns::{self, Counted, DROPPED, FlowColumns, Identity, kind};
use super::seen::{Exporter, Seen, Verdicts};
use crate::diagnose::report::FlowReport;
use crate::event::{EventKind, Timestamp, UnlistedPlace};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use serde::Serialize;
use std::io::{Error, Write};
use std::sync::Arc;

/// Rows that are held in memory before they are written.
const ROW_GROUP: usize = 65_536;
/// Bytes of text that are held in memory before they are written.
const ROW_GROUP_BYTES: usize = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bytes,
    Integer,
    /// In microseconds: not every reader takes nanoseconds.
    Time,
    Flag,
}

/// `packets` and `bytes` are what the row adds to the sums; null in rows of single packets, which other rows count.
const EVENTS: &[(&str, Type)] = &[
    ("time", Type::Time),
    ("time_ns", Type::Integer),
    ("host", Type::Text),
    ("event", Type::Text),
    ("flow_id", Type::Text),
    ("guest", Type::Text),
    ("device", Type::Text),
    ("direction", Type::Text),
    ("protocol", Type::Text),
    ("source", Type::Text),
    ("source_port", Type::Integer),
    ("destination", Type::Text),
    ("destination_port", Type::Integer),
    ("vlan", Type::Integer),
    ("icmp_id", Type::Integer),
    ("packets", Type::Integer),
    ("bytes", Type::Integer),
    ("count", Type::Integer),
    ("length", Type::Integer),
    ("largest", Type::Integer),
    ("cause", Type::Text),
    ("reason", Type::Text),
    ("function", Type::Text),
    ("first", Type::Time),
    ("header", Type::Bytes),
];

const FLOWS: &[(&str, Type)] = &[
    ("id", Type::Text),
    ("host", Type::Text),
    ("netns", Type::Text),
    ("incident", Type::Text),
    ("first_seen", Type::Time),
    ("last_seen", Type::Time),
    ("guest", Type::Text),
    ("device", Type::Text),
    ("direction", Type::Text),
    ("protocol", Type::Text),
    ("source", Type::Text),
    ("source_port", Type::Integer),
    ("destination", Type::Text),
    ("destination_port", Type::Integer),
    ("vlan", Type::Integer),
    ("icmp_id", Type::Integer),
    ("verdict", Type::Text),
    ("cause", Type::Text),
    ("severity", Type::Text),
    ("basis", Type::Text),
    ("complete", Type::Flag),
    ("packets", Type::Integer),
    ("bytes", Type::Integer),
    ("dropped", Type::Integer),
    ("fragments", Type::Integer),
    ("where_device", Type::Text),
    ("where_point", Type::Text),
    ("where_function", Type::Text),
    ("where_reason", Type::Text),
    ("explanation", Type::Text),
    ("fix", Type::Text),
    ("path", Type::Text),
];

enum Cell {
    Bytes(Option<Vec<u8>>),
    Integer(Option<i64>),
    Flag(bool),
}

fn text(text: Option<impl Into<String>>) -> Cell {
    Cell::Bytes(text.map(|text| text.into().into_bytes()))
}

fn integer(number: Option<impl TryInto<i64>>) -> Cell {
    // Counts beyond 2^63 can only come from a forged file.
    Cell::Integer(number.map(|number| number.try_into().unwrap_or(i64::MAX)))
}

fn time(time: Option<Timestamp>) -> Cell {
    integer(time.map(|time| time.0 / 1000))
}

/// An enum's name, as JSON writes it.
fn name(value: Option<impl Serialize>) -> Cell {
    let name = value.and_then(|value| serde_json::to_value(value).ok());
    text(name.as_ref().and_then(serde_json::Value::as_str))
}

/// Values that are there, and for each row whether one is.
#[derive(Default)]
struct Values<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Values<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

#[derive(Default)]
struct Column {
    bytes: Values<ByteArray>,
    integers: Values<i64>,
    flags: Values<bool>,
}

/// A file with one table.
struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    schema: &'static [(&'static str, Type)],
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> Table<W> {
    fn new(file: W, schema: &'static [(&'static str, Type)]) -> std::io::Result<Self> {
        let columns: Vec<String> = schema
            .iter()
            .map(|(name, kind)| match kind {
                Type::Text => format!("OPTIONAL BYTE_ARRAY {name} (STRING);"),
                Type::Bytes => format!("OPTIONAL BYTE_ARRAY {name};"),
                Type::Integer => format!("OPTIONAL INT64 {name};"),
                Type::Time => format!("OPTIONAL INT64 {name} (TIMESTAMP(MICROS,true));"),
                Type::Flag => format!("OPTIONAL BOOLEAN {name};"),
            })
            .collect();
        let message = format!("message kvmtrace {{ {} }}", columns.join(" "));
        let message = parquet::schema::parser::parse_message_type(&message).map_err(Error::other)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = SerializedFileWriter::new(file, Arc::new(message), Arc::new(properties)).map_err(Error::other)?;
        let columns = schema.iter().map(|_| Column::default()).collect();
        Ok(Self { writer, schema, columns, rows: 0, bytes: 0 })
    }

    fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> std::io::Result<()> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            match cell {
                Cell::Bytes(bytes) => {
                    self.bytes += bytes.as_ref().map_or(0, Vec::len);
                    column.bytes.push(bytes.map(ByteArray::from));
                }
                Cell::Integer(number) => column.integers.push(number),
                Cell::Flag(flag) => column.flags.push(Some(flag)),
            }
        }
        self.rows += 1;
        if self.rows >= ROW_GROUP || self.bytes >= ROW_GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(Error::other)?;
        for ((_, kind), column) in self.schema.iter().zip(&mut self.columns) {
            let Some(mut writer) = group.next_column().map_err(Error::other)? else { break };
            let Column { bytes, integers, flags } = std::mem::take(column);
            let written = match kind {
                Type::Text | Type::Bytes => {
                    writer.typed::<ByteArrayType>().write_batch(&bytes.values, Some(&bytes.levels), None)
                }
                Type::Integer | Type::Time => {
                    writer.typed::<Int64Type>().write_batch(&integers.values, Some(&integers.levels), None)
                }
                Type::Flag => writer.typed::<BoolType>().write_batch(&flags.values, Some(&flags.levels), None),
            };
            written.map_err(Error::other)?;
            writer.close().map_err(Error::other)?;
        }
        group.close().map_err(Error::other)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.flush()?;
        self.writer.finish().map(|_| ()).map_err(Error::other)
    }
}

/// Writes both tables.
pub(super) struct Tables<W: Write + Send> {
    events: Table<W>,
    flows: Table<W>,
}

impl<W: Write + Send> Tables<W> {
    /// Into files that are open already.
    pub(super) fn into_files(events: W, flows: W) -> std::io::Result<Self> {
        Ok(Self { events: Table::new(events, EVENTS)?, flows: Table::new(flows, FLOWS)? })
    }
}

/// Columns that only some kinds of events fill in.
#[derive(Default)]
struct Extra {
    first: Option<Timestamp>,
    /// How many packets the flow has had here, or a rule has taken, so far.
    count: Option<u64>,
    length: Option<u32>,
    header: Option<Vec<u8>>,
    /// `dropped` for whatever counts or shows dropped packets.
    cause: Option<&'static str>,
}

impl Extra {
    fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::Flow(sample) => Self { first: Some(sample.counters.first), ..Self::default() },
            EventKind::Drop(sample) => Self { first: Some(sample.first), cause: Some(DROPPED), ..Self::default() },
            EventKind::Packet(packet) => Self {
                count: Some(packet.count),
                length: Some(packet.length),
                header: Some(packet.header.clone()),
                cause: Some(columns::cause(&packet.cause)),
                ..Self::default()
            },
            EventKind::RuleDrop(drop) => Self { count: Some(drop.packets), cause: Some(DROPPED), ..Self::default() },
            EventKind::Unlisted(unlisted) => {
                Self { cause: matches!(unlisted.place, UnlistedPlace::Drop(_)).then_some(DROPPED), ..Self::default() }
            }
            EventKind::Started(_)
            | EventKind::Host(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Ended => Self::default(),
        }
    }
}

impl<W: Write + Send> Exporter for Tables<W> {
    fn event(&mut self, seen: &Seen<'_>) -> std::io::Result<()> {
        let event = seen.event;
        let Identity { host, flow_id, guest } = Identity::of(seen);
        let flow = FlowColumns::of(event, seen.devices);
        let place = if let EventKind::Unlisted(unlisted) = &event.kind {
            Counted::of(&unlisted.place, seen.devices)
        } else {
            flow.as_ref().map(counted).unwrap_or_default()
        };
        let extra = Extra::of(&event.kind);
        let flow = flow.as_ref();
        self.events.row([
            time(Some(event.time)),
            integer(Some(event.time.0)),
            text(Some(host)),
            text(Some(kind(event))),
            text(flow_id),
            text(guest),
            text(place.device),
            name(place.direction),
            text(flow.map(|flow| flow.protocol.clone())),
            text(flow.map(|flow| flow.source.clone())),
            integer(flow.and_then(|flow| flow.source_port)),
            text(flow.map(|flow| flow.destination.clone())),
            integer(flow.and_then(|flow| flow.destination_port)),
            integer(flow.and_then(|flow| flow.vlan)),
            integer(flow.and_then(|flow| flow.icmp_id)),
            integer(seen.new.map(|new| new.packets)),
            integer(seen.new.map(|new| new.bytes)),
            integer(extra.count),
            integer(extra.length),
            integer(flow.and_then(|flow| flow.largest)),
            text(extra.cause),
            text(place.reason),
            text(place.function),
            time(extra.first),
            Cell::Bytes(extra.header),
        ])
    }

    fn finish(&mut self, verdicts: &Verdicts<'_>) -> std::io::Result<()> {
        for flow in &verdicts.flows {
            self.flows.row(flow_cells(flow))?;
        }
        self.events.finish()?;
        self.flows.finish()
    }
}

fn counted(flow: &FlowColumns) -> Counted {
    Counted {
        device: flow.device.clone(),
        direction: flow.direction,
        reason: flow.reason.clone(),
        function: flow.function.clone(),
    }
}

fn flow_cells(flow: &FlowReport) -> [Cell; FLOWS.len()] {
    let place = flow.place.as_ref();
    let path: Vec<_> = flow.path.iter().map(|hop| format!("{} {}", hop.device, hop.packets)).collect();
    let fixes: Vec<_> = flow.fixes.iter().filter_map(|fix| fix.command.clone()).collect();
    [
        text(Some(flow.id.clone())),
        text(Some(flow.origin.host.clone())),
        text(flow.origin.netns.clone()),
        text(flow.incident.clone()),
        time(Some(flow.first_seen)),
        time(Some(flow.last_seen)),
        text(flow.guest.clone()),
        text(flow.device.clone()),
        name(Some(flow.direction)),
        text(Some(flow.protocol.clone())),
        text(Some(flow.source.clone())),
        integer(flow.source_port),
        text(Some(flow.destination.clone())),
        integer(flow.destination_port),
        integer(flow.vlan),
        integer(flow.icmp_id),
        name(Some(flow.verdict)),
        text(flow.cause.map(crate::diagnose::report::Cause::id)),
        name(Some(flow.severity)),
        name(Some(flow.basis)),
        Cell::Flag(flow.complete),
        integer(Some(flow.packets)),
        integer(Some(flow.bytes)),
        integer(Some(flow.dropped)),
        integer(Some(flow.fragments)),
        text(place.and_then(|place| place.device.clone())),
        name(place.map(|place| place.point)),
        text(place.and_then(|place| place.function.clone())),
        text(place.and_then(|place| place.reason.clone())),
        text(Some(flow.explanation.clone())),
        text(fixes.first().cloned()),
        text(Some(path.join(" → "))),
    ]
}
