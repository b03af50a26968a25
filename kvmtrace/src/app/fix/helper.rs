//! The helper: a process of its own, in a session of its own, that holds the undo of a fix on trial.
//!
//! Its input is a pipe from kvmtrace: first the [`Order`] as a line of JSON, then `asking SECONDS`, `keep` or `undo WHY`. The end
//! of the input means that kvmtrace is dead: then the undo runs, as it does when time is over. Its standard error is the lock's
//! file, so that no other fix begins while an undo is due.

use super::journal::{Journal, Outcome};
use super::lock::Lock;
use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// kvmtrace answers for itself before the helper does.
const SLACK: Duration = Duration::from_secs(5);

/// What the helper has to do.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    undo: String,
    number: u32,
    journal: PathBuf,
    patience_ms: u64,
}

/// kvmtrace's end.
pub(super) struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts the helper; returns once it is ready to undo.
    pub(super) fn start(
        lock: &Lock,
        journal: &Journal,
        number: u32,
        undo: &str,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["fix", "--helper"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(lock.share().context("sharing the lock")?)
            .spawn()
            .context("starting the helper that holds the undo")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the helper has no output")?);
        let mut helper = Self { child, input, output };
        let order = Order {
            undo: undo.to_owned(),
            number,
            journal: journal.path().to_owned(),
            patience_ms: u64::try_from((patience + SLACK).as_millis()).unwrap_or(u64::MAX),
        };
        helper.send(&serde_json::to_string(&order)?)?;
        if helper.heard()? != "ready" {
            bail!("the helper that holds the undo did not start; nothing was changed");
        }
        Ok(helper)
    }

    fn send(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the helper is gone")?;
        writeln!(input, "{line}").and_then(|()| input.flush()).context("talking to the helper that holds the undo")
    }

    fn heard(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("hearing from the helper that holds the undo")?;
        Ok(line.trim().to_owned())
    }

    /// The operator is asked now, for so long.
    pub(super) fn asking(&mut self, within: Duration) -> anyhow::Result<()> {
        self.send(&format!("asking {}", (within + SLACK).as_millis()))
    }

    /// The fix is kept. An error where it was undone meanwhile.
    pub(super) fn keep(mut self) -> anyhow::Result<()> {
        self.send("keep")?;
        let heard = self.heard()?;
        self.child.wait().context("waiting for the helper")?;
        if heard == "kept" { Ok(()) } else { bail!("the fix was undone meanwhile") }
    }

    /// The fix is undone; whether that went well.
    pub(super) fn undo(mut self, why: &str) -> anyhow::Result<bool> {
        let why = why.replace(['\n', '\r'], " ");
        self.send(&format!("undo {why}"))?;
        let heard = self.heard()?;
        self.child.wait().context("waiting for the helper")?;
        Ok(heard == "undone")
    }
}

/// The helper's end: the whole life of its process.
pub(super) fn serve() -> anyhow::Result<()> {
    // What ends kvmtrace and its terminal does not end this.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGTSTP] {
        ignored.add(signal);
    }
    ignored.thread_block().context("blocking signals")?;
    nix::unistd::setsid().context("beginning a session")?;
    let mut first = String::new();
    std::io::stdin().lock().read_line(&mut first).context("reading the order")?;
    let order: Order = serde_json::from_str(&first).context("the order")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    answer("ready");
    let mut patience = Duration::from_millis(order.patience_ms);
    let why = loop {
        match lines.recv_timeout(patience) {
            Ok(line) if line == "keep" => {
                let journal = Journal::known(order.journal);
                answer("kept");
                return journal.end(order.number, Outcome::Kept);
            }
            Ok(line) => match line.split_once(' ') {
                Some(("asking", milliseconds)) => {
                    patience = Duration::from_millis(milliseconds.parse().unwrap_or(0));
                }
                Some((_, why)) => break why.to_owned(),
                None => break line,
            },
            Err(RecvTimeoutError::Timeout) => break "no answer came".to_owned(),
            Err(RecvTimeoutError::Disconnected) => break "kvmtrace ended before it was kept".to_owned(),
        }
    };
    let undone = run(&order.undo);
    let result = if undone { Outcome::Undone } else { Outcome::UndoFailed };
    let logged = Journal::known(order.journal).end_because(order.number, result, &why);
    answer(if undone { "undone" } else { "failed" });
    logged
}

/// Runs a command of ours; whether it succeeded.
pub(super) fn run(command: &str) -> bool {
    let status = shell(command).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A command of ours: its tools are this system's own, not what the caller's `PATH` leads to.
pub(super) fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).env("PATH", crate::kernel::tools::path()).stdin(Stdio::null());
    shell
}

/// kvmtrace may be dead; then nobody hears it.
fn answer(word: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{word}").and_then(|()| out.flush()));
}
