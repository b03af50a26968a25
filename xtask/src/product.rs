//! Building, running and testing kvmtrace.

use crate::setup::{self, Need};
use crate::{ebpf, packages, shell, vm};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Builds kvmtrace with its BPF programs inside; returns the binary.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    setup::ensure(Need::Build)?;
    ebpf::build()?;
    let mut command = shell::cargo();
    command.args(["build", "--package", "kvmtrace", "--bin", "kvmtrace"]);
    if release {
        command.arg("--release");
    }
    shell::run(&mut command)?;
    Ok(target_directory().join(if release { "release" } else { "debug" }).join("kvmtrace"))
}

/// Builds kvmtrace and runs it as root with these arguments; its exit status is ours.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let binary = build(false)?;
    become_command(setup::as_root(binary)?.args(arguments))
}

/// Builds everything, then runs every test; ends with the closing line of the test runner.
pub(crate) fn test(arguments: &[OsString]) -> Result<ExitCode> {
    become_command(&mut test_command(arguments)?)
}

/// Builds what the tests need; returns the command that runs them.
pub(crate) fn test_command(arguments: &[OsString]) -> Result<Command> {
    build_for_tests()?;
    let nextest = setup::find("cargo-nextest").context("cargo-nextest is not installed")?;
    let mut command = shell::command(nextest);
    command.args(["nextest", "run", "--workspace"]).args(arguments);
    command.env("KVMTRACE_BIN", target_directory().join("debug/kvmtrace"));
    command.env("KVMTRACE_PACKAGES", packages::root(&target_directory()));
    if std::env::var_os("KVMTRACE_PYTHON").is_none()
        && let Some(python) = setup::pyarrow(&target_directory())
    {
        command.env("KVMTRACE_PYTHON", python);
    }
    if !setup::is_root() {
        // Only the tests run as root; cargo and what it writes stay the user's.
        if setup::find("sudo").is_none() {
            bail!("the lab's tests need root: run this as root, or install sudo");
        }
        let runner = format!("CARGO_TARGET_{}_RUNNER", host_triple()?.to_uppercase().replace('-', "_"));
        command.env(runner, "sudo --preserve-env");
    }
    Ok(command)
}

/// Builds what the tests run.
pub(crate) fn build_for_tests() -> Result<()> {
    setup::ensure(Need::Test)?;
    packages::ensure(&target_directory());
    build_all()
}

/// Builds kvmtrace, the lab and all else: the whole workspace, as the tests are built. Another choice of packages would
/// choose other features of the dependencies, and build those twice.
fn build_all() -> Result<()> {
    ebpf::build()?;
    shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))
}

/// Builds the lab and runs it as root with these arguments.
pub(crate) fn lab(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    build_all()?;
    if packages::are_wanted(arguments) {
        packages::ensure(&target_directory());
    }
    become_lab(arguments)
}

fn become_lab(arguments: &[OsString]) -> Result<ExitCode> {
    let target = target_directory();
    let mut lab = setup::as_root(target.join("debug/lab"))?;
    become_command(
        lab.args(arguments)
            .env("KVMTRACE_BIN", target.join("debug/kvmtrace"))
            .env("KVMTRACE_PACKAGES", packages::root(&target)),
    )
}

/// Builds the lab and runs its scenarios under another kernel.
pub(crate) fn matrix_in_vm(kernel: &str, arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    ebpf::build()?;
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--profile", "vm"]))?;
    let target = target_directory();
    packages::ensure(&target);
    let (kvmtrace, lab) = (target.join("vm/kvmtrace"), target.join("vm/lab"));
    let clock = vm::Clock::Instructions(vec![kvmtrace.clone(), lab.clone()]);
    let words = ["matrix", "--jobs", "1", "--bin"].map(OsString::from).into_iter().chain([kvmtrace.into()]);
    let words: Vec<OsString> = std::iter::once(lab.into()).chain(words).chain(arguments.iter().cloned()).collect();
    let line: Vec<String> = words.iter().map(|word| shell::quoted(word)).collect();
    Ok(ExitCode::from(vm::status(kernel, &line.join(" "), &clock)?))
}

/// Compares the model of the packet path with this kernel.
pub(crate) fn fidelity(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    build_all()?;
    become_command(setup::as_root(target_directory().join("debug/fidelity"))?.args(arguments))
}

/// Compares it with another kernel.
pub(crate) fn fidelity_in_vm(kernel: &str, arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    ebpf::build()?;
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--profile", "vm"]))?;
    let fidelity = target_directory().join("vm/fidelity");
    let clock = vm::Clock::Instructions(vec![fidelity.clone()]);
    let words = std::iter::once(fidelity.into()).chain(arguments.iter().cloned());
    let line: Vec<String> = words.map(|word: OsString| shell::quoted(&word)).collect();
    Ok(ExitCode::from(vm::status(kernel, &line.join(" "), &clock)?))
}

/// Measures what tracing costs, with an optimised kvmtrace.
pub(crate) fn bench(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    let kvmtrace = build(true)?;
    let programs = ebpf::build_bench()?;
    // How fast the live view draws, how big and fast recordings are, and how long a walk and a report take: tables of their own, and no JSON.
    if !arguments.iter().any(|argument| argument == "--json") {
        for example in ["live_view_frames", "recording_speed", "walk_speed", "report_speed"] {
            let mut bench = shell::cargo();
            bench.args(["run", "--release", "--package", "kvmtrace", "--example", example]);
            shell::run(&mut bench)?;
        }
    }
    shell::run(shell::cargo().args(["build", "--release", "--package", "kvmtrace-tests", "--bins"]))?;
    let mut bench = setup::as_root(target_directory().join("release/bench"))?;
    bench
        .env("KVMTRACE_BIN", kvmtrace)
        .env("KVMTRACE_BPF_OBJECT", ebpf::object())
        .env("KVMTRACE_BENCH_OBJECT", programs);
    become_command(bench.args(arguments))
}

/// Draws the README's pictures of the live view.
pub(crate) fn screenshots() -> Result<()> {
    std::fs::create_dir_all(shell::root().join("docs/img")).context("docs/img can't be created")?;
    shell::run(shell::cargo().args(["run", "--package", "kvmtrace", "--example", "live_view_pictures", "docs/img"]))
}

/// kvmtrace at work: on this host's own guests if there are any, else on a guest of the lab with a fault.
pub(crate) fn demo() -> Result<ExitCode> {
    setup::ensure(Need::Lab)?;
    build_all()?;
    let kvmtrace = target_directory().join("debug/kvmtrace");
    let guests = shell::output(setup::as_root(&kvmtrace)?.args(["guests", "--json"]))
        .context("`kvmtrace guests --json` failed: run it by hand to see why")?;
    if count_guests(&guests)? == 0 {
        return become_lab(&["demo".into()]);
    }
    eprintln!("This host has guests: their packets, for ten seconds.");
    shell::run(setup::as_root(&kvmtrace)?.arg("guests"))?;
    let mut verdict = setup::as_root(&kvmtrace)?;
    match shell::status(verdict.args(["verdict", "-d", "10s"]))?.code() {
        // 1 is no failure of the demo: it means that a fault was found.
        Some(0 | 1) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn count_guests(json: &str) -> Result<usize> {
    let value: serde_json::Value = serde_json::from_str(json).context("`kvmtrace guests --json` is no JSON")?;
    value["guests"].as_array().map(Vec::len).context("`kvmtrace guests --json` has no list of guests")
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), |path| shell::root().join(path))
}

fn host_triple() -> Result<String> {
    let version = shell::output(shell::command("rustc").arg("-vV")).context("can't run rustc -vV")?;
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc -vV names no host")
}

/// Becomes the command: its exit status is the task's, and signals reach it and nobody else.
fn become_command(command: &mut Command) -> Result<ExitCode> {
    shell::show(command);
    let error = command.exec();
    Err(error).with_context(|| format!("can't run {}", command.get_program().display()))
}
