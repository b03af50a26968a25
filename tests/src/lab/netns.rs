//! A network namespace and the commands run in it.

use super::files;
use super::process::{self, Background, Output};
use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// No setup command takes longer, not even the one that fills the table of connections on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Holds the mounts of its own files, where it has any.
    keeper: Option<Background>,
}

impl Namespace {
    /// Makes the namespace, its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        process::check(Command::new("ip").args(["netns", "add", name]), LIMIT)?;
        let namespace = Self { name: name.to_owned(), keeper: None };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it files of its own; `directory` is the lab's.
    pub fn own_files(&mut self, directory: &Path) -> Result<()> {
        self.keeper = Some(files::hold(self, directory)?);
        Ok(())
    }

    /// A command that will run in the namespace, with the namespace's own /sys.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = if let Some(keeper) = &self.keeper {
            files::enter(keeper.pid())
        } else {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.name]);
            command
        };
        command.arg(program);
        command
    }

    /// What a person types before a command that is to run there.
    pub fn entrance(&self) -> String {
        match &self.keeper {
            Some(keeper) => format!("nsenter --target {} --mount --net", keeper.pid()),
            None => format!("ip netns exec {}", self.name),
        }
    }

    /// A shell command line.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = self.command("sh");
        command.arg("-c").arg(line);
        command
    }

    /// Runs a shell command line, whatever comes of it.
    pub fn run(&self, line: &str) -> Result<Output> {
        process::run(&mut self.shell(line), LIMIT)
    }

    /// Runs a shell command line that must succeed; its standard output.
    pub fn check(&self, line: &str) -> Result<String> {
        let output = self.run(line)?;
        if !output.status.success() {
            bail!("{}: `{line}` failed: {}{}", self.name, output.stdout.trim(), output.stderr.trim());
        }
        Ok(output.stdout)
    }

    /// Runs a shell command line in the background.
    pub fn background(&self, line: &str) -> Result<Background> {
        Background::start(&mut self.shell(&format!("exec {line}")))
    }

    /// Runs `ip` commands as one batch.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let text: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::die_with_parent(&mut command).spawn().context("cannot run ip")?;
        child.stdin.take().context("ip has no standard input")?.write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("ip -n {} failed: {}\n{text}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Sets kernel parameters, given as `key=value`.
    pub fn sysctl(&self, settings: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
        process::check(self.command("sysctl").arg("-qw").args(settings), LIMIT)?;
        Ok(())
    }

    /// Loads an nft ruleset.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        process::check(self.command("nft").arg(ruleset), LIMIT)?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Ends what runs in the namespace, then deletes it. What the lab started is gone already; a command typed by a person
/// or left by a fault is not, and would keep the namespace alive.
pub(super) fn delete(name: &str) {
    if let Ok(output) = process::run(Command::new("ip").args(["netns", "pids", name]), LIMIT) {
        for pid in output.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
    process::run(Command::new("ip").args(["netns", "del", name]), LIMIT).ok();
}

/// The names of all namespaces there are.
pub(super) fn all() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
