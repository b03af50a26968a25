//! What `x` saves in the live view: a part of what is on the screen, in a new file here that only its owner may read.

use crate::diagnose::report::{Report, Totals};
use crate::event::{Event, EventKind};
use crate::record::{Header, export, new_file};
use crate::sink::{self, text::View};
use crate::tui::{Form, Keep, Saver, Snapshot};
use anyhow::{Context as _, ensure};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Writes such files.
pub(super) struct Keeper {
    /// What the trace, or each recording, says of itself.
    pub(super) headers: Vec<Header>,
}

impl Saver for Keeper {
    fn save(&mut self, snapshot: &Snapshot, keep: &Keep) -> anyhow::Result<PathBuf> {
        let extension = match keep.form {
            Form::Text => "txt",
            Form::Json => "json",
            Form::Pcapng => "pcapng",
            Form::Command => "sh",
        };
        let here = std::env::current_dir().context("the directory that kvmtrace was started in")?;
        let path = here.join(unused(&keep.stem(snapshot.now), extension));
        if keep.form == Form::Pcapng {
            let events = packets(snapshot, keep);
            ensure!(events.len() > 1, "no packet of it is among the newest events; w records all that come");
            let shown = snapshot.status.replay.as_ref().map_or(0, |replay| replay.hosts.shown);
            let header = self.headers.get(shown).cloned().unwrap_or_default();
            export::capture(&path, &header, &part(snapshot, keep), &events)?;
            return Ok(path);
        }
        let file = new_file(&path).with_context(|| path.display().to_string())?;
        let mut out = BufWriter::new(file);
        let written = match keep.form {
            Form::Text => sink::text::report(&part(snapshot, keep), View::new(false, None, true), &mut out),
            Form::Json => sink::json::report(&part(snapshot, keep), &mut out),
            Form::Pcapng | Form::Command => writeln!(out, "{}", keep.command.as_deref().unwrap_or_default()),
        };
        written.and_then(|()| out.flush()).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// The report without all that was not asked for.
fn part(snapshot: &Snapshot, keep: &Keep) -> Report {
    fn chosen<T: Clone>(all: &[T], wanted: &[usize]) -> Vec<T> {
        wanted.iter().filter_map(|index| all.get(*index).cloned()).collect()
    }
    let whole = &snapshot.report;
    let flows = chosen(&whole.flows, &keep.flows);
    let mut totals = Totals { flows: flows.len() as u64, packets: 0, bytes: 0, dropped: 0, fragmented: 0 };
    for flow in &flows {
        totals.packets += flow.packets;
        totals.bytes += flow.bytes;
        totals.dropped += flow.dropped;
        totals.fragmented += u64::from(flow.fragments > 0);
    }
    Report {
        schema: whole.schema,
        host: whole.host.clone(),
        window: whole.window.clone(),
        degraded: whole.degraded.clone(),
        lost: whole.lost,
        lost_at: whole.lost_at.clone(),
        totals,
        guests: whole.guests.clone(),
        incidents: chosen(&whole.incidents, &keep.incidents),
        flows,
        findings: chosen(&whole.findings, &keep.findings),
        command_status: whole.command_status,
        ledger: whole.ledger.clone(),
        reachability: None,
        reachability_left_out: None,
    }
}

/// The host, and the packets of these flows that are among the newest events.
fn packets(snapshot: &Snapshot, keep: &Keep) -> Vec<Event> {
    let flows = keep.flows.iter().filter_map(|index| snapshot.report.flows.get(*index));
    let keys = flows.flat_map(|flow| std::iter::once(flow.key).chain(flow.other_keys.iter().map(|other| other.key)));
    let keys: std::collections::HashSet<_> = keys.collect();
    let host = snapshot.host.clone().map(|host| Event { time: snapshot.now, kind: EventKind::Host(host) });
    let packets = snapshot.events.iter().filter_map(|entry| {
        let packet = entry.packet.as_ref().filter(|packet| keys.contains(&packet.flow))?;
        Some(Event { time: entry.time, kind: EventKind::Packet(packet.clone()) })
    });
    host.into_iter().chain(packets).collect()
}

/// The first name of the form that no file has.
pub(super) fn unused(stem: &str, extension: &str) -> PathBuf {
    let names = std::iter::once(format!("{stem}.{extension}"))
        .chain((2..).map(|number| format!("{stem}-{number}.{extension}")));
    names.map(PathBuf::from).find(|path| !Path::exists(path)).unwrap_or_else(|| PathBuf::from(stem))
}
