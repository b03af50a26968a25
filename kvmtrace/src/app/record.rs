//! `record`, `report` and `export`: traces in files.

use super::command::{Commanded, not_run};
use super::outcome::Outcome;
use super::part::files_and_part;
use super::session::{End, Extras, Session};
use super::show::show;
use crate::cli::{self, Cli};
use crate::diagnose::report::Report;
use crate::probe::Live;
use crate::record::{
    Destination, Header, Options, Recording, Tee, Writer, Written, export, join, judge_for_joining, recording,
};
use crate::selection::Selection;
use crate::sink;
use crate::source::Source as _;
use anyhow::bail;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `kvmtrace record`
pub(super) async fn record(cli: &Cli, command: &cli::Record) -> anyhow::Result<Outcome> {
    let end = End::new(command.cmd.as_deref(), command.duration);
    let rotation = command.rotate.as_deref().map(str::parse).transpose()?;
    let destination = destination(&command.output, command.force)?;
    let extras = Extras { every_packet: command.packets.every, rules: command.rules, ..Extras::default() };
    let session = Session::start(&command.scope, end, extras).await?;
    let options = Options { rotation, ..options(session.source.inner()) };
    let writer = Writer::create(&destination, options)?;
    let mut tee = Tee::new(session.source, writer).with_snaplen(command.packets.snaplen);
    while let Some(event) = tee.next().await? {
        tracing::trace!(?event);
    }
    if let Some(written) = tee.written() {
        tell(cli, &(saved(written) + &missing(tee.lost(), command.packets.every)));
    }
    not_run(tee.inner().ending().status()).map_or(Ok(Outcome::Clean), |complaint| bail!("{complaint}"))
}

/// Where to record to; nothing is in the way.
pub(super) fn destination(path: &Path, force: bool) -> anyhow::Result<Destination> {
    let destination = Destination::new(path, force);
    destination.check()?;
    Ok(destination)
}

/// What a recording's header tells of the run.
pub(super) fn options(live: &Live) -> Options {
    let kernel = live.kernel();
    let header = Header {
        command: std::env::args().collect(),
        clock_offset_ns: i64::try_from(kernel.clock.time(0).0).unwrap_or(i64::MAX),
        drop_reasons: kernel.reasons.values().cloned().collect(),
        ..Header::default()
    };
    Options { header, ..Options::default() }
}

/// Records what a live trace tells, if it is to go somewhere.
pub(super) fn tee(live: Commanded<Live>, destination: Option<&Destination>) -> anyhow::Result<Tee<Commanded<Live>>> {
    let writer = destination.map(|destination| Writer::create(destination, options(live.inner()))).transpose()?;
    Ok(Tee::maybe(live, writer))
}

/// `kvmtrace report`
pub(super) fn report(cli: &Cli, command: &cli::Report) -> anyhow::Result<Outcome> {
    let (files, mut selection) = files_and_part(&command.words, &command.part)?;
    match judged_together(cli, &files, &mut selection)? {
        Some(report) => show(cli, &selection.narrow(report)?, command.json, sink::text::report),
        None => Ok(Outcome::Clean),
    }
}

/// The verdicts of several recordings, joined.
pub(super) fn judged_together(
    cli: &Cli,
    files: &[PathBuf],
    selection: &mut Selection,
) -> anyhow::Result<Option<Report>> {
    let mut hosts = Vec::new();
    for mut recording in recording::open(files)? {
        hosts.push(judge_for_joining(&mut recording, selection, cli.common.quiet)?);
        warn(cli, &recording);
    }
    Ok(join(hosts).map(|joined| joined.report))
}

/// `kvmtrace export`
pub(super) fn export(cli: &Cli, command: &cli::Export) -> anyhow::Result<Outcome> {
    let form = match command.to {
        cli::Form::Pcapng => export::Form::Pcapng,
        cli::Form::Json => export::Form::Json,
        cli::Form::Parquet => export::Form::Parquet,
    };
    let (files, selection) = files_and_part(&command.words, &command.part)?;
    let partition = command.partition.as_deref().map(str::parse).transpose()?;
    let target = export::Target { form, output: command.output.clone(), force: command.force, partition };
    for complaint in export::export(&files, selection, &target, cli.common.quiet)? {
        tell(cli, &complaint);
    }
    Ok(Outcome::Clean)
}

/// Says what is missing from a recording.
pub(super) fn warn(cli: &Cli, recording: &Recording) {
    if let Some(complaint) = recording.complaint() {
        tell(cli, &complaint);
    }
}

/// A line for the operator, not part of the result.
pub(super) fn tell(cli: &Cli, line: &str) {
    if !cli.common.quiet {
        // Standard error may be gone; then there is nobody to tell.
        drop(writeln!(std::io::stderr(), "kvmtrace: {line}"));
    }
}

/// How much is missing from a recording.
fn missing(lost: u64, every_packet: bool) -> String {
    match (lost, every_packet) {
        (0, false) => String::new(),
        (0, true) => "; no packet is missing".to_owned(),
        (lost, true) => format!("; {lost} packets are missing: they came faster than they could be recorded"),
        (lost, false) => format!("; {lost} records are missing: they came faster than they could be recorded"),
    }
}

pub(super) fn saved(written: &Written) -> String {
    let Written { name, events, bytes, files } = written;
    if *files > 1 {
        format!("{name}: {events} events in {files} files")
    } else {
        format!("{name}: {events} events in {bytes} bytes")
    }
}
