//! The command that is traced (`--cmd`), and its end as an event: recordings hold it, too.

mod keeper;

pub use keeper::{is_keeper, keep};

use crate::event::{CommandEnd, Event, EventKind};
use crate::source::{ProgramCost, Source};
use anyhow::{Context as _, bail};
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::time::timeout;

/// The keeper needs no longer to end a command, unless the kernel keeps a process from ending.
const LONGEST_END: Duration = Duration::from_secs(3);
/// A shell's status where it found no such command, or may not run it.
const NOT_RUN: [i32; 2] = [126, 127];

/// A command that runs in a process group of its own, with a keeper that ends all of it.
#[derive(Debug)]
pub(super) struct Running {
    keeper: Child,
    input: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a command line, in these namespaces (files) if there are any.
    pub(super) async fn start(command: &str, namespaces: &[OsString]) -> anyhow::Result<Self> {
        let mut keeper = tokio::process::Command::new("/proc/self/exe");
        keeper.arg0(keeper::NAME).args(namespaces).arg(command).process_group(0);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped());
        let context = || format!("--cmd {command:?}: can't be started");
        let mut keeper = keeper.spawn().with_context(context)?;
        let input = keeper.stdin.take();
        let said = BufReader::new(keeper.stdout.take().context("no pipe").with_context(context)?).lines();
        let mut running = Self { keeper, input, said };
        match running.said.next_line().await.with_context(context)? {
            Some(line) if line == "started" => Ok(running),
            Some(line) => bail!("{}: {}", context(), line.strip_prefix("failed ").unwrap_or(&line)),
            None => bail!("{}", context()),
        }
    }

    /// Returns once it has ended, with its status.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let line = self.said.next_line().await.ok().flatten()?;
        line.strip_prefix("ended ")?.parse().ok()
    }

    /// Ends what is left of it.
    pub(super) async fn end(mut self) {
        drop(self.input.take());
        if timeout(LONGEST_END, self.keeper.wait()).await.is_err() {
            tracing::warn!("a process of the command does not end");
        }
    }
}

/// What is known of the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Its status, if it ended by itself.
    pub(super) status: Option<i32>,
    /// Nothing is left of it.
    pub(super) over: bool,
}

/// How the command ended, once it has.
#[derive(Clone, Debug)]
pub(super) struct Ending(watch::Receiver<Progress>);

impl Ending {
    /// Learns it from whoever runs the command.
    pub(super) fn of(progress: watch::Receiver<Progress>) -> Self {
        Self(progress)
    }

    /// Waits until nothing is left of it.
    async fn over(&mut self) -> Option<CommandEnd> {
        // Nobody who could tell: then it is over, too.
        drop(self.0.wait_for(|progress| progress.over).await.map(|progress| *progress));
        let status = self.0.borrow().status;
        status.map(|status| CommandEnd { status })
    }

    /// Its status, if it ended by itself.
    pub(super) fn status(&self) -> Option<i32> {
        self.0.borrow().status
    }
}

/// What to say of a command that was not run.
pub(super) fn not_run(status: Option<i32>) -> Option<String> {
    let status = status.filter(|status| NOT_RUN.contains(status))?;
    Some(format!("--cmd: the shell could not run the command (its status is {status})"))
}

/// A source that reports the command's end before its own.
#[derive(Debug)]
pub(super) struct Commanded<S> {
    source: S,
    ending: Ending,
    /// The source's own end, which the command's comes before.
    held: Option<Event>,
    /// The command's end was reported.
    told: bool,
}

impl<S> Commanded<S> {
    /// Adds the end of a command to a source.
    pub(super) fn new(source: S, ending: Ending) -> Self {
        Self { source, ending, held: None, told: false }
    }

    /// What became of the command.
    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// The source within.
    pub(super) fn inner(&self) -> &S {
        &self.source
    }
}

impl<S: Source + Send> Source for Commanded<S> {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        // Cancel-safe: what waits for the command's end is noted before.
        if self.held.is_none() {
            match self.source.next().await? {
                Some(event) if event.kind == EventKind::Ended => self.held = Some(event),
                event => return Ok(event),
            }
        }
        if let Some(last) = &self.held
            && !self.told
        {
            let time = last.time;
            let end = self.ending.over().await;
            self.told = true;
            if let Some(end) = end {
                return Ok(Some(Event { time, kind: EventKind::Command(end) }));
            }
        }
        Ok(self.held.take())
    }

    fn cost(&self) -> Option<ProgramCost> {
        self.source.cost()
    }
}
