//! Everything that must hold before a change is taken: the checks first, all of them, then the tests.

use crate::setup::{self, Need};
use crate::{ebpf, fuzz, kernels, layers, product, shell};
use anyhow::{Context as _, Result, bail};

/// How long the fuzzers run, all together.
const FUZZ_SECONDS: u32 = 60;

/// Runs all checks, then the fuzzer and what is tried on other kernels, then all tests. What fails does not hide what the
/// rest says; the test runner has the last word.
pub(crate) fn all() -> Result<()> {
    let checks = checks();
    let kernels = product::build_for_tests().and_then(|()| kernels::check());
    if let Err(error) = &kernels {
        eprintln!("xtask: kernels: {error:#}");
    }
    let fuzzing = fuzz::run(FUZZ_SECONDS);
    if let Err(error) = &fuzzing {
        eprintln!("xtask: fuzzer: {error:#}");
    }
    let checks = checks.and(kernels).and(fuzzing);
    let tests = product::test_command(&[]).and_then(|mut command| shell::run(&mut command));
    if let (Err(error), Err(_)) = (&checks, &tests) {
        eprintln!("xtask: {error:#}");
    }
    tests.and(checks)
}

/// A check: its name, and what it does.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: &[Check] = &[
    ("format", || shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
    ("layers", layers::check),
    ("lints", || {
        shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    }),
    ("lints of the BPF programs", ebpf_lints),
    ("documentation", || {
        let mut doc = shell::cargo();
        shell::run(doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings"))
    }),
    ("dependencies", dependencies),
];

/// All checks but the tests.
pub(crate) fn checks() -> Result<()> {
    setup::ensure(Need::Build)?;
    ebpf::build()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = check() {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("these checks failed: {}", failed.join(", "));
    }
    eprintln!("xtask: all checks passed");
    Ok(())
}

/// The BPF crate by itself, as it is compiled for the kernel. Debian packages no clippy for that compiler, so its own
/// lints are what there is; clippy sees the same code in the workspace, compiled for the host.
fn ebpf_lints() -> Result<()> {
    let toolchain = ebpf::toolchain()?;
    let subcommand = if ebpf::has_clippy(&toolchain) { "clippy" } else { "check" };
    let mut command = ebpf::cargo(&toolchain, subcommand);
    command.arg("--bins");
    shell::show(&command);
    // Warnings of a crate that did not change are told again, so reading them is enough; a flag would build it all anew.
    let output = command.output().with_context(|| format!("can't run {}", command.get_program().display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    eprint!("{told}");
    if !output.status.success() || told.lines().any(|line| line.starts_with("warning")) {
        bail!("cargo {subcommand} has something to say about the BPF programs");
    }
    Ok(())
}

/// Licences, advisories and banned crates, where cargo-deny is installed: building it would take longer than all tests.
fn dependencies() -> Result<()> {
    if setup::find("cargo-deny").is_none() {
        eprintln!("xtask: skipped: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}
