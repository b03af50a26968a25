//! The programs on other kernels: they pass the verifier, count, leave nothing behind, and the core scenarios are judged
//! right, those too that need what this machine's kernel may lack (VLAN filtering).

use crate::{packages, product, shell, vm};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is run on a kernel.
struct Trial {
    version: &'static str,
    /// Tests: a binary, and which of its tests.
    tests: &'static [(&'static str, &'static str)],
    scenarios: &'static [&'static str],
    /// Scenarios that `kvmtrace probe` alone must judge right.
    probed: &'static [&'static str],
}

impl Trial {
    /// What the machine's shell runs.
    fn line(&self, target: &Path, binaries: &BTreeMap<String, PathBuf>) -> Result<String> {
        let quoted = |path: &Path| shell::quoted(path.as_os_str());
        let mut lines = vec![format!("export KVMTRACE_BIN={}", quoted(&target.join("kvmtrace")))];
        for (name, tests) in self.tests {
            let binary = binaries.get(*name).with_context(|| format!("no test {name}"))?;
            lines.push(format!("{} --test-threads 1 {tests}", quoted(binary)));
        }
        lines.push(format!("export KVMTRACE_PACKAGES={}", quoted(&packages::root(&product::target_directory()))));
        for (option, scenarios) in [("", self.scenarios), (" --probe", self.probed)] {
            let filters: Vec<String> = scenarios.iter().map(|name| format!("--filter {name}")).collect();
            lines.push(format!("{} matrix --jobs 1{option} {}", quoted(&target.join("lab")), filters.join(" ")));
        }
        Ok(lines.join(" && "))
    }
}

/// The oldest, without drop reasons; one with clsact, whose hooks outlive a killed run; one with tcx.
const TRIALS: &[Trial] = &[
    Trial { version: "5.10", tests: &[PROGRAMS, FUNCTIONS], scenarios: OLDEST, probed: OLDEST },
    Trial { version: "6.1", tests: &[PROGRAMS, FUNCTIONS, ("cli", LEFT_BEHIND)], scenarios: SCENARIOS, probed: PROBED },
    Trial {
        version: "6.12",
        tests: &[PROGRAMS, FUNCTIONS, ("check", "machine")],
        scenarios: SYSTEMS,
        probed: PROBED_SYSTEMS,
    },
];

const PROGRAMS: (&str, &str) = ("kernel_programs", "");
const FUNCTIONS: (&str, &str) = ("kernel_functions", "");
const LEFT_BEHIND: &str = "a_killed_run_leaves_no_program_behind the_next_run_removes_what_a_killed_one_has_left";
/// Without drop reasons, and for probes without live frames.
const OLDEST: &[&str] = &["mtu/bridge-uplink", "netfilter/forward-rule"];
/// A tap and a macvtap; a bridge that filters VLANs.
const PROBED: &[&str] = &["device/macvtap-vepa", "bridge/vlan-uplink"];
const PROBED_SYSTEMS: &[&str] = &["device/macvtap-vepa", "bridge/vlan-uplink", "switch/port-down-host"];
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

/// With what forwards besides the kernel's bridge and routing, one healthy host and one fault of each; the rest is run by
/// `cargo xtask matrix --vm 6.12`.
const SYSTEMS: &[&str] = &[
    "healthy/bridge-ipv4",
    "mtu/bridge-uplink",
    "netfilter/bridged-iptables",
    "netfilter/trace-bridge-set",
    "bridge/vlan-trunk",
    "bridge/vlan-uplink",
    "device/macvtap-gone",
    "device/multicast-source-mac-ipv6",
    "mtu/black-hole-forward",
    "healthy/switch-vlan-ipv6",
    "healthy/switch-openstack",
    "switch/drop-rule",
    "healthy/wireguard-ipv4",
];

/// All of it, all kernels at once: each has one emulated CPU, and time of its own. A kernel that can't be had is told and
/// passed over.
pub(crate) fn check() -> Result<()> {
    let binaries = test_binaries()?;
    packages::ensure(&product::target_directory());
    let target = product::target_directory().join("debug");
    let mut trials = Vec::new();
    for trial in TRIALS {
        match vm::prepare(trial.version) {
            Ok(()) => trials.push((trial.version, trial.line(&target, &binaries)?)),
            Err(error) => eprintln!("xtask: SKIP Linux {}: {error:#}", trial.version),
        }
    }
    let near = [target.join("kvmtrace"), target.join("lab")].into_iter().chain(binaries.into_values()).collect();
    let clock = vm::Clock::Instructions(near);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running = trials.iter().map(|(version, line)| (version, scope.spawn(|| vm::told(version, line, &clock))));
        let running: Vec<_> = running.collect();
        let ended = running.into_iter().map(|(version, trial)| (version, trial.join()));
        ended.filter_map(|(version, told)| why_wrong(version, told.ok())).collect()
    });
    if !wrong.is_empty() {
        bail!("wrong on {}", wrong.join(", "));
    }
    Ok(())
}

/// Prints what was said; what went wrong.
fn why_wrong(version: &str, told: Option<Result<(u8, String)>>) -> Option<String> {
    match told.unwrap_or_else(|| bail!("its thread ended")) {
        Ok((status, said)) => {
            eprintln!("Linux {version}:\n{said}");
            (status != 0).then(|| format!("Linux {version} (status {status})"))
        }
        Err(error) => Some(format!("Linux {version} ({error:#})")),
    }
}

/// The test binaries that are run, built as the tests are.
fn test_binaries() -> Result<BTreeMap<String, PathBuf>> {
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
    let wanted = |name: &str| TRIALS.iter().any(|trial| trial.tests.iter().any(|(test, _)| *test == name));
    Ok(text.lines().filter_map(binary).filter(|(name, _)| wanted(name)).collect())
}
