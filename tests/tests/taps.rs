//! A host of a thousand taps: attached to and detached from in seconds, and what makes that quick leaves no trace.

#![allow(clippy::print_stdout, reason = "a skip is printed, and so are the measurements")]
#![allow(clippy::disallowed_methods, reason = "the test measures how long attaching takes")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::can_test;
use kvmtrace_tests::lab::netns::Namespace;
use kvmtrace_tests::lab::process::{self, Background, wait_until};
use kvmtrace_tests::product::Product;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TAPS: usize = 1_000;
const BRIDGES: usize = 50;
const LIMIT: Duration = Duration::from_mins(1);
/// How long attaching, or detaching, may take. A build without optimization, on a machine that does much else, is bounded by
/// the limit alone.
const QUICK: Duration = if cfg!(debug_assertions) { LIMIT } else { Duration::from_secs(5) };
const SETTING: &str = "/sys/kernel/rcu_expedited";

/// So many taps, of all bridges in turn.
fn host(name: &str, taps: usize) -> Result<Option<Namespace>> {
    if !can_test(name)? {
        return Ok(None);
    }
    let host = Namespace::create(&format!("ktt{}{name}", std::process::id()))?;
    let bridges = (0..BRIDGES).map(|number| format!("link add br{number} up type bridge"));
    let added = (0..taps).map(|number| format!("tuntap add dev tap{number} mode tap"));
    let ports = (0..taps).map(|number| format!("link set tap{number} up master br{}", number % BRIDGES));
    host.ip(&bridges.chain(added).chain(ports).collect::<Vec<_>>())?;
    Ok(Some(host))
}

fn setting() -> Result<String> {
    Ok(std::fs::read_to_string(SETTING)?.trim().to_owned())
}

/// The setting is what it was; others on this machine may change it for a moment.
fn is_as_before(before: &str) -> bool {
    wait_until(Duration::from_secs(10), || setting().is_ok_and(|now| now == before))
}

fn ready_file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kvmtrace-{name}-{}", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}

/// Starts a trace of everything.
fn start(host: &Namespace, ready: &std::path::Path) -> Result<Background> {
    let mut command = Product::find()?.command(host, &["verdict", "--all", "--json", "-q", "--ready-file"]);
    Background::start(command.arg(ready))
}

/// One after the other on one host: to build and to remove it holds up all others.
#[test]
fn a_thousand_taps_are_attached_and_detached_in_seconds() -> Result<()> {
    let Some(host) = host("many", TAPS)? else { return Ok(()) };
    measure(&host)?;
    end_while_attaching(&host)
}

fn measure(host: &Namespace) -> Result<()> {
    let before = setting()?;
    let ready = ready_file("many");
    let begun = Instant::now();
    let mut tracing = start(host, &ready)?;
    ensure!(wait_until(LIMIT, || ready.exists() || !tracing.is_running()) && ready.exists(), "it did not get ready");
    let attached = begun.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    tracing.signal(Signal::SIGINT)?;
    let output = tracing.finish(LIMIT)?;
    let detached = begun.elapsed();
    println!("{TAPS} taps: attached in {attached:.1?}, detached and judged in {detached:.1?}");
    ensure!(output.code() < 2, "{}", output.stderr);
    ensure!(attached < QUICK && detached < QUICK, "attached in {attached:.1?}, detached in {detached:.1?}");
    ensure!(is_as_before(&before), "{SETTING} is {}, was {before}", setting()?);
    // The window is what was traced: from the moment at which all was attached until counting ended.
    let report: serde_json::Value = serde_json::from_str(&output.stdout)?;
    let seconds = report["window"]["seconds"].as_f64().context("no window")?;
    let traced = (Duration::from_secs(1) + detached + Duration::from_millis(500)).as_secs_f64();
    ensure!((0.9..traced).contains(&seconds), "the window has {seconds} s of at most {traced} s");
    Ok(())
}

/// However it ends meanwhile, grace periods are as they were.
fn end_while_attaching(host: &Namespace) -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let before = setting()?;
        let ready = ready_file("kill");
        let mut tracing = start(host, &ready)?;
        let attaching = wait_until(LIMIT, || setting().is_ok_and(|now| now == "1") || !tracing.is_running());
        ensure!(attaching && !ready.exists(), "it was not caught while it attached");
        tracing.signal(signal)?;
        let output = tracing.finish(LIMIT)?;
        ensure!(is_as_before(&before), "after {signal}: {SETTING} is {}, was {before}", setting()?);
        if signal == Signal::SIGINT {
            ensure!(output.code() == 2, "exit {}", output.code());
            ensure!(output.stderr.contains("interrupted before everything was attached"), "{}", output.stderr);
        }
    }
    Ok(())
}

#[test]
fn the_end_of_open_files_is_reported_by_name() -> Result<()> {
    let Some(host) = host("files", 100)? else { return Ok(()) };
    let binary = Product::find()?;
    // The soft limit is raised by kvmtrace itself.
    let run = |limit: &str| {
        let line = format!("ulimit {limit}; exec {} verdict --all -d 1s -q", binary.path().display());
        process::run(&mut host.shell(&line), LIMIT)
    };
    let output = run("-Sn 100")?;
    ensure!(output.code() < 2, "{}", output.stderr);
    let output = run("-n 100")?;
    ensure!(output.code() == 2, "exit {}", output.code());
    ensure!(output.stderr.contains("100 open files (RLIMIT_NOFILE)"), "{}", output.stderr);
    Ok(())
}
