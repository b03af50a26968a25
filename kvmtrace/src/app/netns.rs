//! `--netns`: one namespace is entered, and the command is as it always is. Of several, `verdict` traces each by a process of
//! its own, and judges their recordings together.

use super::command::not_run;
use super::outcome::Outcome;
use super::ready::ReadyFile;
use super::record::judged_together;
use super::session::{End, Wait};
use super::show::show;
use crate::cli::{Cli, Command, Verdict};
use crate::diagnose::report::Report;
use crate::host::{self, OtherNamespace, namespace};
use crate::kernel::privilege;
use crate::selection::Selection;
use crate::sink;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Child;

/// All namespaces that have guests.
const ALL: &str = "all";
/// How often children are looked at while they attach.
const LOOK: Duration = Duration::from_millis(50);
/// Namespaces traced at once: each is a process with maps of its own.
const MOST: usize = 32;

/// Enters the namespace that was named. Must come before anything that starts a thread.
pub(super) fn enter(cli: &Cli) -> anyhow::Result<()> {
    let names = cli.common.netns.as_slice();
    let no_host = matches!(
        cli.command,
        Command::Report(_)
            | Command::Replay(_)
            | Command::Export(_)
            | Command::Completions { .. }
            | Command::Man { .. }
    );
    match names {
        [] => Ok(()),
        _ if no_host => bail!("--netns: this command looks at no host; leave it out"),
        [one] if one != ALL => Ok(namespace::enter(one)?),
        _ if matches!(cli.command, Command::Verdict(_)) => Ok(()),
        _ => bail!("--netns: only verdict takes several namespaces at once; name one"),
    }
}

/// The namespaces to trace each by a process of its own; none where this process looks itself.
pub(super) fn several(cli: &Cli) -> anyhow::Result<Vec<Option<String>>> {
    let names = cli.common.netns.as_slice();
    if names.is_empty() || !namespace::is_own() {
        return Ok(Vec::new());
    }
    let mut places: Vec<Option<String>> = Vec::new();
    for name in names {
        if name == ALL {
            let elsewhere = host::guests_elsewhere().into_keys().map(|way| match way {
                OtherNamespace::Named(name) => name,
                OtherNamespace::Process(pid) => format!("/proc/{pid}/ns/net"),
            });
            places.extend(std::iter::once(None).chain(elsewhere.map(Some)));
        } else {
            places.push(Some(name.clone()));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    if places.len() > MOST {
        bail!("--netns: {} namespaces, and {MOST} at once are the most; name some of them", places.len());
    }
    Ok(places)
}

/// Traces all of them, judges what they recorded.
pub(super) async fn verdict(cli: &Cli, options: &Verdict, places: Vec<Option<String>>) -> anyhow::Result<Outcome> {
    privilege::check()?;
    if options.output.is_some() {
        bail!("-o: a recording is of one namespace; name one");
    }
    let wait = Wait::prepare()?;
    let ready = options.scope.ready_file.as_ref().map(|path| ReadyFile::prepare(path)).transpose()?;
    let directory = tempfile::tempdir().context("a directory for the recordings")?;
    let traces =
        places.into_iter().enumerate().map(|(number, place)| Trace::start(directory.path(), number, place, options));
    let mut traces = traces.collect::<anyhow::Result<Vec<_>>>()?;
    for trace in &mut traces {
        trace.attached().await?;
    }
    // A guest that is asked for is in one of them.
    if let Some(complaint) = traces.iter().filter_map(|trace| trace.failed.as_ref()).next_back()
        && traces.iter().all(|trace| trace.failed.is_some())
    {
        bail!("{complaint}");
    }
    let _ready = ready.map(ReadyFile::announce).transpose()?;
    let (status, command) = wait.begin(End::new(options.cmd.as_deref(), options.duration)).await?.over().await;
    if let Some(command) = command {
        command.end().await;
    }
    let mut files = Vec::new();
    for trace in traces.into_iter().filter(|trace| trace.failed.is_none()) {
        files.push(trace.end().await?);
    }
    match judged_together(cli, &files, &mut Selection::default())? {
        Some(report) => {
            let report = Report { command_status: status, ..report };
            let outcome = show(cli, &report, options.json, sink::text::report)?;
            not_run(status).map_or(Ok(outcome), |complaint| bail!("{complaint}"))
        }
        None => Ok(Outcome::Clean),
    }
}

/// A child that records one namespace.
struct Trace {
    child: Child,
    place: Option<String>,
    file: PathBuf,
    ready: PathBuf,
    /// What it complained of, where it could not begin.
    failed: Option<String>,
}

impl Trace {
    fn start(directory: &Path, number: usize, place: Option<String>, options: &Verdict) -> anyhow::Result<Self> {
        let (file, ready) = (directory.join(format!("{number}.kvmtrace")), directory.join(format!("{number}.ready")));
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.arg("record").arg("--output").arg(&file).arg("--ready-file").arg(&ready).arg("--quiet");
        if let Some(place) = &place {
            command.arg("--netns").arg(place);
        }
        let scope = &options.scope;
        for (option, names) in [("--guest", &scope.guests), ("--interface", &scope.interfaces)] {
            for name in names {
                command.arg(option).arg(name);
            }
        }
        for (wanted, option) in
            [(scope.all, "--all"), (options.rules.trace_rules, "--trace-rules"), (options.packets.every, "--packets")]
        {
            if wanted {
                command.arg(option);
            }
        }
        command.args(&scope.filter).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().context("starting a trace")?;
        Ok(Self { child, place, file, ready, failed: None })
    }

    /// Waits until it has attached, or has given up.
    async fn attached(&mut self) -> anyhow::Result<()> {
        while !self.ready.exists() {
            if self.child.try_wait().context("a trace")?.is_some() {
                self.failed = Some(self.complaint().await);
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The last line that it printed, with its namespace.
    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            use tokio::io::AsyncReadExt as _;
            drop(stderr.read_to_string(&mut text).await);
        }
        let line = text.lines().next_back().unwrap_or("it ended").trim_start_matches("kvmtrace: ").to_owned();
        match &self.place {
            Some(place) => format!("{place}: {line}"),
            None => line,
        }
    }

    /// Ends it, and gives its recording.
    async fn end(mut self) -> anyhow::Result<PathBuf> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let signalled = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT);
            signalled.context("ending a trace")?;
        }
        let status = self.child.wait().await.context("waiting for a trace")?;
        if !status.success() {
            bail!("{}", self.complaint().await);
        }
        Ok(self.file)
    }
}
