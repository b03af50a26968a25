//! A live trace from its start to its end: the source, what ends it, the ready file.

use super::command::{Commanded, Ending};
use super::ready::ReadyFile;
use crate::cli::{RuleTrace, Scope};
use crate::event::Started;
use crate::filter::Filter;
use crate::host::path;
use crate::kernel::privilege;
use crate::probe::{Live, Plan};
use anyhow::Context as _;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What ends a trace. SIGINT, SIGTERM and SIGHUP always do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Only a signal.
    Signal,
    /// Time.
    After(Duration),
    /// The end of a command, or time if that is over first.
    Command(String, Option<Duration>),
}

impl End {
    /// What `--cmd` and `-d` mean together.
    pub(super) fn new(command: Option<&str>, duration: Option<Duration>) -> Self {
        match (command, duration) {
            (Some(command), duration) => Self::Command(command.to_owned(), duration),
            (None, Some(duration)) => Self::After(duration),
            (None, None) => Self::Signal,
        }
    }
}

/// A live trace.
pub(super) struct Session {
    /// Where the events come from; it ends by itself.
    pub(super) source: Commanded<Live>,
    _ready: Option<ReadyFile>,
}

/// What is told beyond what every trace tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    /// A record of every packet.
    pub(super) every_packet: bool,
    /// Which rule dropped a packet.
    pub(super) rules: RuleTrace,
}

impl From<RuleTrace> for Extras {
    fn from(rules: RuleTrace) -> Self {
        Self { rules, ..Self::default() }
    }
}

impl Session {
    /// Attaches everything, then begins to wait for the end.
    pub(super) async fn start(scope: &Scope, end: End, extras: Extras) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let filter = scope.filter.join(" ");
        let parsed = (!filter.trim().is_empty()).then(|| Filter::parse(&filter)).transpose()?;
        let plan = Plan {
            scope: path::Scope { guests: scope.guests.clone(), devices: scope.interfaces.clone(), all: scope.all },
            started: Some(Started {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                devices: scope.interfaces.clone(),
                guests: scope.guests.clone(),
                all: scope.all,
                filter,
                followed: parsed.is_some() && !extras.every_packet,
            }),
            filter: parsed,
            every_packet: extras.every_packet,
            trace_rules: extras.rules.trace_rules,
        };
        privilege::check()?;
        // Before attaching: a signal from here on ends the trace in order.
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .into_iter()
            .map(signal)
            .collect::<Result<Vec<_>, _>>()
            .context("listening for signals")?;
        let ready_file = scope.ready_file.as_ref().map(|path| ReadyFile::prepare(path)).transpose()?;
        // A thousand devices take a while: the end may come before all are attached.
        let source = tokio::select! {
            biased;
            () = any(&mut signals) => anyhow::bail!("interrupted before everything was attached: nothing was traced"),
            source = Live::start(plan, stopped) => source?,
        };
        if source.devices().next().is_none() {
            tracing::warn!("no guest here yet, so nothing is traced until one starts; --all traces every device");
            for hint in super::elsewhere::hints("kvmtrace guests") {
                tracing::warn!("{hint}");
            }
        }
        let ready = ready_file.map(ReadyFile::announce).transpose()?;
        // The command gets what the operator may do; the tracer keeps only what it needs from here on.
        let child = if let End::Command(command, _) = &end { Some(spawn(command)?) } else { None };
        privilege::drop_unneeded().context("giving up privileges")?;
        let ending = Ending::default();
        let ended = ending.clone();
        let duration = match end {
            End::Signal => None,
            End::After(duration) => Some(duration),
            End::Command(_, duration) => duration,
        };
        tokio::spawn(async move {
            let command = async {
                match child {
                    Some(mut child) => match child.wait().await {
                        Ok(status) => ended.set(status),
                        Err(error) => tracing::warn!(%error, "waiting for the command"),
                    },
                    None => std::future::pending().await,
                }
            };
            let time = async {
                match duration {
                    Some(duration) => tokio::time::sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = any(&mut signals) => {} () = command => {} () = time => {} }
            if stop.send(true).is_err() {
                tracing::debug!("the trace had ended already");
            }
        });
        Ok(Self { source: Commanded::new(source, ending), _ready: ready })
    }
}

/// Returns once one of the signals has come.
async fn any(signals: &mut [Signal]) {
    let [interrupt, terminate, hangup] = signals else { return };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Runs a command line; its output goes to standard error, for ours may be JSON.
fn spawn(command: &str) -> anyhow::Result<tokio::process::Child> {
    let stderr = std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().context("standard error")?;
    tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(std::process::Stdio::null())
        .stdout(stderr)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("running {command:?}"))
}
