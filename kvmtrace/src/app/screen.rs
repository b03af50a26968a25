//! `live` and `replay`: the screen, over a running trace or over a recording.

use super::color::unwanted_color;
use super::errands::Errands;
use super::keep::{Keeper, unused};
use super::outcome::Outcome;
use super::part::files_and_part;
use super::record;
use super::session::{End, Session};
use crate::cli::{self, Cli, Color};
use crate::event::Event;
use crate::record::{Destination, Options, Writer, Written, recording};
use crate::tui::{self, Theme};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::time::Duration;

/// `kvmtrace live`
pub(super) async fn live(cli: &Cli, command: &cli::Live) -> anyhow::Result<Outcome> {
    // Before anything is attached.
    tui::check()?;
    // It can't be started once privileges are given up.
    let errands = Errands::start()?;
    let mut session = Session::start(&command.scope, End::Signal, command.rules.into()).await?;
    let (written, done) = std::sync::mpsc::channel();
    let recorder = Recorder { options: record::options(session.source.inner()), writer: None, written };
    let saver = Keeper { headers: vec![recorder.options.header.clone()] };
    let options = tui::Options {
        theme: theme(cli),
        recorder: Some(Box::new(recorder)),
        saver: Some(Box::new(saver)),
        runner: Some(Box::new(errands)),
        processor_time,
    };
    let result = tui::run_live(&mut session.source, options).await;
    for written in done.try_iter() {
        record::tell(cli, &record::saved(&written));
    }
    result.map(|()| Outcome::Clean).map_err(Into::into)
}

/// `kvmtrace replay`
pub(super) async fn replay(cli: &Cli, command: &cli::Replay) -> anyhow::Result<Outcome> {
    tui::check()?;
    let (files, selection) = files_and_part(&command.words, &command.part)?;
    let mut recordings = recording::open(&files)?;
    let headers = recordings.iter().map(|recording| recording.header().cloned().unwrap_or_default()).collect();
    tui::run_replay(&mut recordings, &selection, theme(cli), Some(Box::new(Keeper { headers }))).await?;
    for recording in &recordings {
        record::warn(cli, recording);
    }
    Ok(Outcome::Clean)
}

/// How long this process has used a processor.
fn processor_time() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
        Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
    })
}

fn theme(cli: &Cli) -> Theme {
    let color = match cli.common.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => !unwanted_color(),
    };
    Theme::detect(|name| std::env::var(name).ok(), color)
}

/// Writes the recordings that `w` asks for, each into a new file here.
struct Recorder {
    options: Options,
    writer: Option<Writer>,
    written: std::sync::mpsc::Sender<Written>,
}

impl tui::Recorder for Recorder {
    fn begin(&mut self, first: &[Event]) -> anyhow::Result<String> {
        let time = first.first().map(|event| event.time.to_string()).unwrap_or_default();
        let stamp: String = time.chars().take(19).filter(char::is_ascii_alphanumeric).collect();
        let path = unused(&format!("kvmtrace-{stamp}"), "kvmtrace");
        let mut writer = Writer::create(&Destination::new(&path, false), self.options.clone())?;
        for event in first {
            writer.write(event)?;
        }
        writer.flush()?;
        self.writer = Some(writer);
        Ok(path.display().to_string())
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write(event)?;
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(writer) = self.writer.take() {
            let written = writer.finish()?;
            // After the screen has gone, these are told; nobody waits when the program fails.
            drop(self.written.send(written));
        }
        Ok(())
    }
}
