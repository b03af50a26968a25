//! The binary under test, run from outside.

use crate::lab::netns::Namespace;
use crate::lab::process::{self, Background, Output};
use crate::lab::{Lab, beside};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long attaching may take: verifying the programs is slow on a busy machine.
const ATTACH: Duration = Duration::from_secs(30);
/// How long printing may take after the end.
const FINISH: Duration = Duration::from_secs(20);
/// What is in flight when the traffic's programs end.
const GRACE: Duration = Duration::from_millis(400);

/// kvmtrace.
#[derive(Clone, Debug)]
pub struct Product {
    binary: PathBuf,
}

impl Product {
    /// The one of `KVMTRACE_BIN`, else the one beside this executable.
    pub fn find() -> Result<Self> {
        match std::env::var_os("KVMTRACE_BIN") {
            // A command among a host's own files starts in their root.
            Some(path) => Ok(Self::at(&std::path::absolute(path)?)),
            None => Ok(Self { binary: beside("kvmtrace")? }),
        }
    }

    /// A given one.
    pub fn at(binary: &Path) -> Self {
        Self { binary: binary.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.binary
    }

    /// A command of it in a namespace.
    pub fn command(&self, namespace: &Namespace, arguments: &[&str]) -> Command {
        let mut command = namespace.command(&self.binary);
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, namespace: &Namespace, arguments: &[&str]) -> Result<Output> {
        process::run(&mut self.command(namespace, arguments), ATTACH + FINISH)
    }

    /// Starts it on the lab's host; returns once all is attached.
    pub fn start(&self, lab: &Lab, arguments: &[&str]) -> Result<Tracing> {
        let ready = lab.directory().join("kvmtrace-ready");
        std::fs::remove_file(&ready).ok();
        let mut command = self.command(&lab.host, arguments);
        command.arg("--ready-file").arg(&ready);
        let mut process = Background::start(&mut command)?;
        let up = process::wait_until(ATTACH, || ready.exists() || !process.is_running());
        if !up || !ready.exists() {
            process.signal(Signal::SIGKILL).ok();
            let output = process.finish(FINISH)?;
            bail!("kvmtrace did not get ready: {}", output.stderr.trim());
        }
        Ok(Tracing { process, ready })
    }

    /// `kvmtrace verdict --json` with more options while `during` runs. It is recorded, and the report of the recording
    /// must be the same bytes.
    pub fn verdict<T>(&self, lab: &Lab, options: &[&str], during: impl FnOnce() -> Result<T>) -> Result<(T, Verdict)> {
        let recording = lab.directory().join("verdict.kvmtrace");
        let file = recording.to_str().context("the lab's directory has no name in UTF-8")?;
        let tracing = self.start(lab, &[&["verdict", "--json", "--force", "-o", file], options].concat())?;
        let done = during()?;
        let live = tracing.interrupt(Signal::SIGINT)?;
        let verdict = Verdict::of(&live)?;
        let report = process::run(Command::new(&self.binary).args(["report", "--json", file]), FINISH)?;
        if (report.code(), &report.stdout) != (live.code(), &live.stdout) {
            let at = report.stdout.bytes().zip(live.stdout.bytes()).take_while(|(one, other)| one == other).count();
            let excerpt = |text: &str| {
                String::from_utf8_lossy(text.as_bytes().get(at.saturating_sub(200)..).unwrap_or_default())
                    .chars()
                    .take(400)
                    .collect::<String>()
            };
            bail!(
                "the recording is judged otherwise (exit {}, not {}) from byte {at} on\nlive: {}\nreport: {}\n{}",
                report.code(),
                live.code(),
                excerpt(&live.stdout),
                excerpt(&report.stdout),
                report.stderr.trim()
            );
        }
        Ok((done, verdict))
    }
}

/// A run of kvmtrace that is attached.
#[derive(Debug)]
pub struct Tracing {
    /// The process.
    pub process: Background,
    /// Its ready file.
    pub ready: PathBuf,
}

impl Tracing {
    /// Lets the last packets pass, ends it by a signal, and takes what it says.
    pub fn interrupt(self, signal: Signal) -> Result<Output> {
        std::thread::sleep(GRACE);
        self.process.signal(signal)?;
        self.process.finish(FINISH)
    }
}

/// What `verdict --json` said.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The object.
    pub json: Value,
    /// The exit code.
    pub code: i32,
    /// Progress and warnings.
    pub stderr: String,
}

impl Verdict {
    /// Reads the output, which must keep the published schema.
    pub fn of(output: &Output) -> Result<Self> {
        let code = output.code();
        let json: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("exit {code}, no JSON: {:.300}\n{}", output.stdout, output.stderr.trim()))?;
        let errors: Vec<String> = schema()?
            .iter_errors(&json)
            .take(5)
            .map(|error| format!("{}: {error:.200}", error.instance_path))
            .collect();
        if !errors.is_empty() {
            bail!("the JSON breaks docs/verdict.schema.json:\n{}", errors.join("\n"));
        }
        Ok(Self { json, code, stderr: output.stderr.clone() })
    }

    /// Flows and findings, as one list.
    pub fn items(&self) -> impl Iterator<Item = &Value> {
        ["flows", "findings"].into_iter().filter_map(|key| self.json[key].as_array()).flatten()
    }
}

fn schema() -> Result<jsonschema::Validator> {
    let text = include_str!("../../docs/verdict.schema.json");
    Ok(jsonschema::draft202012::new(&serde_json::from_str(text)?)?)
}
