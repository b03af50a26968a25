//! Fuzzing with libFuzzer and the stable compiler: its instrumentation is a pass of LLVM that any rustc can run. Only the
//! sanitizers need a nightly, and there is no unsafe code in what is fuzzed.

use crate::product::target_directory;
use crate::shell;
use anyhow::{Context as _, Result};
use std::path::Path;

/// What cargo-fuzz gives to rustc too, but for the sanitizer.
const INSTRUMENTATION: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1";
/// Seconds and megabytes that one input may take.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=1024", "-max_len=65536"];

/// What is fuzzed: recordings, and all that others have written on a host.
const TARGETS: [&str; 2] = ["recording", "mouths"];

/// Runs the fuzzers for so long altogether. Each begins with the seeds in fuzz/corpus, which it does not change; what it finds
/// stays in the target directory, and the next run goes on from there.
pub(crate) fn run(seconds: u32) -> Result<()> {
    let target = target_directory().join("fuzz");
    // With a target given, build scripts and macros are built as they are.
    let host = host()?;
    let mut build = shell::cargo();
    build.args(["build", "--manifest-path", "fuzz/Cargo.toml", "--bins", "--target", &host, "--target-dir"]);
    shell::run(build.arg(&target).env("RUSTFLAGS", INSTRUMENTATION))?;
    for name in TARGETS {
        let found = target.join("corpus").join(name);
        std::fs::create_dir_all(&found).with_context(|| format!("{} can't be created", found.display()))?;
        let mut fuzzer = shell::command(target.join(Path::new(&host)).join("debug").join(name));
        let seconds = (seconds / TARGETS.len() as u32).max(1);
        fuzzer.arg(found).arg(format!("fuzz/corpus/{name}")).arg(format!("-max_total_time={seconds}")).args(LIMITS);
        fuzzer.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", target.display()));
        shell::run(&mut fuzzer)
            .context("the file named above breaks kvmtrace; give it to the same program to see how")?;
    }
    Ok(())
}

/// The machine's triple.
fn host() -> Result<String> {
    let told = shell::output(shell::command("rustc").arg("-vV")).context("can't run rustc -vV")?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(host.to_owned())
}
