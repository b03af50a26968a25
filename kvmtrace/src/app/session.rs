//! A live trace from its start to its end: the source, what ends it, the ready file.

use super::command::{Commanded, Ending, Progress, Running};
use super::ready::ReadyFile;
use crate::cli::{RuleTrace, Scope};
use crate::event::Started;
use crate::filter::Filter;
use crate::host::{namespace, path};
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
    /// A record of every drop, not only of the first, the second, the fourth, … of each flow.
    pub(super) every_drop: bool,
    /// Which rule dropped a packet.
    pub(super) rules: RuleTrace,
    /// This process starts other programs afterwards (fixes, probes): it keeps the right to.
    pub(super) starts_others: bool,
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
            every_drop: extras.every_drop,
            trace_rules: extras.rules.trace_rules,
        };
        privilege::check()?;
        privilege::lend_to_own_tools().context("capabilities for the firewall's tools")?;
        // Before attaching: a signal from here on ends the trace in order.
        let mut wait = Wait::prepare()?;
        let ready_file = scope.ready_file.as_ref().map(|path| ReadyFile::prepare(path)).transpose()?;
        // A thousand devices take a while: the end may come before all are attached.
        let mut source = tokio::select! {
            biased;
            () = any(&mut wait.signals) => anyhow::bail!("interrupted before everything was attached: nothing was traced"),
            source = Box::pin(Live::start(plan, stopped)) => source?,
        };
        if source.devices().next().is_none() {
            tracing::warn!("no guest here yet, so nothing is traced until one starts; --all traces every device");
            for hint in super::elsewhere::hints("kvmtrace guests") {
                tracing::warn!("{hint}");
            }
        }
        let ready = ready_file.map(ReadyFile::announce).transpose()?;
        // Started before: from here on this process starts no other.
        let waiting = wait.begin(end).await?;
        if extras.starts_others {
            privilege::drop_unneeded().context("giving up privileges")?;
        } else {
            source.start_helpers();
            privilege::confine().context("after attaching")?;
        }
        let (progress, ending) = watch::channel(Progress::default());
        tokio::spawn(async move {
            let (status, command) = waiting.over().await;
            if stop.send(true).is_err() {
                tracing::debug!("the trace had ended already");
            }
            if let Some(command) = command {
                command.end().await;
            }
            progress.send_replace(Progress { status, over: true });
        });
        Ok(Self { source: Commanded::new(source, Ending::of(ending)), _ready: ready })
    }
}

/// Signals that end a wait.
pub(super) struct Wait {
    signals: [Signal; 3],
}

impl Wait {
    /// From here on these signals no longer end the process.
    pub(super) fn prepare() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    /// Starts the command, where there is one.
    pub(super) async fn begin(self, end: End) -> anyhow::Result<Waiting> {
        let (command, duration) = match end {
            End::Signal => (None, None),
            End::After(duration) => (None, Some(duration)),
            // It runs where the operator is.
            End::Command(command, duration) => {
                (Some(Running::start(&command, &namespace::way_back()).await?), duration)
            }
        };
        Ok(Waiting { signals: self.signals, command, duration })
    }
}

/// Waits for what comes first: a signal, the end of a command, the end of a time.
pub(super) struct Waiting {
    signals: [Signal; 3],
    command: Option<Running>,
    duration: Option<Duration>,
}

impl Waiting {
    /// Returns once it is over: the command's status, if it ended by itself, and what has to be ended of it.
    pub(super) async fn over(mut self) -> (Option<i32>, Option<Running>) {
        let command = async {
            match &mut self.command {
                Some(command) => command.ended().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match self.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let status =
            tokio::select! { () = any(&mut self.signals) => None, status = command => status, () = time => None };
        (status, self.command)
    }
}

/// Returns once one of the signals has come.
async fn any([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
