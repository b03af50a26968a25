//! Commands and background processes that never outlive the lab.

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// What a command said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code, with 128 + signal where a signal ended it, as a shell has it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

/// The kernel kills the child when the thread that started it ends, however it ends.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let prepare = || {
        // A process of ours that waits for signals has them blocked: the child must not inherit that.
        SigSet::empty().thread_set_mask()?;
        Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
    };
    // SAFETY: prctl(2) and sigprocmask(2) are async-signal-safe and touch no memory of the parent.
    unsafe { command.pre_exec(prepare) }
}

/// Runs a command to its end; kills it after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    die_with_parent(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    // The pipes are drained while waiting: a full pipe would stop the child.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().ok();
            child.wait()?;
            bail!("{shown} did not end within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    };
    Ok(Output { status, stdout: joined(stdout), stderr: joined(stderr) })
}

/// Runs a command that must succeed; its standard output.
pub fn check(command: &mut Command, limit: Duration) -> Result<String> {
    let output = run(command, limit)?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}{}", output.status, output.stdout.trim(), output.stderr.trim());
    }
    Ok(output.stdout)
}

type Drain = Option<thread::JoinHandle<String>>;

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> Drain {
    pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}

fn joined(drain: Drain) -> String {
    drain.and_then(|drain| drain.join().ok()).unwrap_or_default()
}

/// A process in the background, ended when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    stdout: Drain,
    stderr: Drain,
}

impl Background {
    /// Starts a command; its output is kept for [`Background::finish`].
    pub fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        die_with_parent(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
        Ok(Self::adopt(child))
    }

    /// Takes over a child that [`die_with_parent`] has prepared.
    pub fn adopt(mut child: Child) -> Self {
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Self { child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.child.id()))
    }

    /// Waits for its end, at most `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("process {} did not end within {} s", self.child.id(), limit.as_secs());
            }
            thread::sleep(POLL);
        };
        Ok(Output { status, stdout: joined(self.stdout.take()), stderr: joined(self.stderr.take()) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL, too.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Tries until it holds, at most `limit`.
pub fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}
