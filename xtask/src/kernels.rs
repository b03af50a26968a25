//! The programs on other kernels: they pass the verifier, count, leave nothing behind, and the core scenarios are judged
//! right, those too that need what this machine's kernel may lack (VLAN filtering).

use crate::{product, shell, vm};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;

/// What is run on a kernel.
struct Trial {
    version: &'static str,
    /// Tests: a binary, and which of its tests.
    tests: &'static [(&'static str, &'static str)],
    scenarios: &'static [&'static str],
}

/// The oldest, without drop reasons; one with clsact, whose hooks outlive a killed run; one with tcx.
const TRIALS: &[Trial] = &[
    Trial { version: "5.10", tests: &[PROGRAMS], scenarios: &["mtu/bridge-uplink"] },
    Trial { version: "6.1", tests: &[PROGRAMS, ("cli", LEFT_BEHIND)], scenarios: SCENARIOS },
    Trial { version: "6.12", tests: &[PROGRAMS], scenarios: SCENARIOS },
];

const PROGRAMS: (&str, &str) = ("kernel_programs", "");
const LEFT_BEHIND: &str = "a_killed_run_leaves_no_program_behind the_next_run_removes_what_a_killed_one_has_left";
const SCENARIOS: &[&str] = &[
    "healthy/bridge-ipv4",
    "mtu/bridge-uplink",
    "netfilter/bridged-iptables",
    "netfilter/trace-bridge-set",
    "bridge/vlan-trunk",
    "bridge/vlan-uplink",
    "device/macvtap-gone",
    "device/multicast-source-mac-ipv6",
    "mtu/black-hole-forward",
];

/// All of it. A kernel that can't be had is told and passed over.
pub(crate) fn check() -> Result<()> {
    let binaries = test_binaries()?;
    let target = product::target_directory().join("debug");
    let quoted = |path: &PathBuf| shell::quoted(path.as_os_str());
    let mut wrong = Vec::new();
    for Trial { version, tests, scenarios } in TRIALS {
        if let Err(error) = vm::prepare(version) {
            eprintln!("xtask: SKIP Linux {version}: {error:#}");
            continue;
        }
        let mut lines = vec![format!("export KVMTRACE_BIN={}", quoted(&target.join("kvmtrace")))];
        for (name, tests) in *tests {
            let binary = binaries.iter().find(|(known, _)| known == name).map(|(_, path)| quoted(path));
            lines.push(format!("{} --test-threads 1 {tests}", binary.with_context(|| format!("no test {name}"))?));
        }
        let filters: Vec<String> = scenarios.iter().map(|name| format!("--filter {name}")).collect();
        lines.push(format!("{} matrix --jobs 1 {}", quoted(&target.join("lab")), filters.join(" ")));
        let line = lines.join(" && ");
        let mut told = attempt(version, &line);
        if let Some(why) = &told {
            // Its CPU is emulated: on a busy machine an answer can come too late.
            eprintln!("xtask: Linux {version}: {why}; once more");
            told = attempt(version, &line);
        }
        wrong.extend(told.map(|why| format!("Linux {version} ({why})")));
    }
    if !wrong.is_empty() {
        bail!("wrong on {}", wrong.join(", "));
    }
    Ok(())
}

/// What went wrong.
fn attempt(version: &str, line: &str) -> Option<String> {
    match vm::status(version, line, &vm::Clock::Ours) {
        Ok(0) => None,
        Ok(status) => Some(format!("status {status}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The test binaries of the workspace, built as the tests are.
fn test_binaries() -> Result<Vec<(String, PathBuf)>> {
    let mut build = shell::cargo();
    build.args(["test", "--workspace", "--no-run", "--quiet", "--message-format", "json"]);
    shell::show(&build);
    let output = build.stderr(std::process::Stdio::inherit()).output().context("can't run cargo")?;
    if !output.status.success() {
        bail!("the tests don't build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let binary = |line: &str| -> Option<(String, PathBuf)> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?;
        Some((name.to_owned(), PathBuf::from(message["executable"].as_str()?)))
    };
    Ok(text.lines().filter_map(binary).collect())
}
