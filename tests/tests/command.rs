//! `--cmd`: what runs beside a trace, by whose rights, and what is left of it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Background, wait_until};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(4);

fn setup(subject: &str) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    Some((Product::find().unwrap(), Lab::drawn(&Options::default(), Seed::choose().unwrap(), subject).unwrap()))
}

/// Processes whose command line holds this word.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).split('\0').any(|argument| argument == word)).count()
}

/// A command that leaves a child in its group, one in a session of its own, and one that ignores what asks it to end. Each is
/// known by the time that it sleeps for.
fn family(sleep: &str) -> String {
    format!("sleep {sleep} & setsid sleep {sleep} & (trap '' INT TERM; sleep {sleep}; sleep {sleep}) & sleep {sleep}")
}

fn start(product: &Product, lab: &Lab, arguments: &[&str]) -> (Background, PathBuf) {
    let ready = lab.directory().join("ready");
    let mut command = product.command(&lab.host, arguments);
    let process = Background::start(command.arg("--ready-file").arg(&ready)).unwrap();
    (process, ready)
}

#[test]
fn all_of_a_command_ends_with_the_trace_however_that_ends() {
    let Some((product, lab)) = setup("cmd-end") else { return };
    let signals = [Some(Signal::SIGINT), Some(Signal::SIGTERM), Some(Signal::SIGKILL), None];
    for (number, signal) in signals.into_iter().enumerate() {
        let sleep = format!("77{}.{number}", std::process::id());
        let command = family(&sleep);
        let duration = if signal.is_none() { "2" } else { "60" };
        let (tracing, _) = start(&product, &lab, &["verdict", "--json", "-d", duration, "--cmd", &command]);
        assert!(wait_until(LIMIT, || running(&sleep) == 4), "{signal:?}: {} run", running(&sleep));
        if let Some(signal) = signal {
            tracing.signal(signal).unwrap();
        }
        let output = tracing.finish(LIMIT).unwrap();
        if signal == Some(Signal::SIGKILL) {
            // Nobody could wait for it.
            assert!(wait_until(SOON, || running(&sleep) == 0), "{signal:?}: {} still run", running(&sleep));
            continue;
        }
        assert_eq!(running(&sleep), 0, "{signal:?}: something still runs");
        let verdict = Verdict::of(&output).unwrap();
        assert!(verdict.code < 2, "{output:?}");
        assert!(verdict.json["command_status"].is_null(), "it did not end by itself: {output:?}");
    }
}

#[test]
fn what_a_command_leaves_behind_ends_too() {
    let Some((product, lab)) = setup("cmd-left") else { return };
    let sleep = format!("78{}", std::process::id());
    let command = format!("sleep {sleep} & setsid sleep {sleep} & sleep 0.3; exit 7");
    let output = product.run(&lab.host, &["verdict", "--json", "--cmd", &command]).unwrap();
    assert_eq!(Verdict::of(&output).unwrap().json["command_status"], 7);
    assert_eq!(running(&sleep), 0);
    let text = product.run(&lab.host, &["verdict", "--cmd", "kill -9 $$"]).unwrap();
    assert!(text.stdout.contains("the command ended with status 137"), "{text:?}");
}

#[test]
fn a_command_that_can_not_be_run_is_status_2() {
    let Some((product, lab)) = setup("cmd-none") else { return };
    let file = lab.directory().join("trace.kvmtrace");
    for arguments in [&["verdict", "--json"][..], &["record", "-o", file.to_str().unwrap()]] {
        for command in ["/no/such/program --at all", "/etc/passwd"] {
            let output = product.run(&lab.host, &[arguments, &["--cmd", command]].concat()).unwrap();
            assert_eq!(output.code(), 2, "{output:?}");
            let last = output.stderr.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("kvmtrace: --cmd: the shell could not run the command (its status is 12"),
                "{last}"
            );
            fs::remove_file(&file).ok();
        }
    }
    let output = product.run(&lab.host, &["verdict", "--json", "--cmd", "/no/such/program"]).unwrap();
    assert_eq!(Verdict::of(&output).unwrap().json["command_status"], 127);
}

#[test]
fn a_command_runs_as_who_asked_by_sudo() {
    let Some((product, lab)) = setup("cmd-sudo") else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let file = directory.path().join("said");
    let sleep = format!("79{}", std::process::id());
    let script = format!(
        "{{ id -u; id -g; id -G; echo \"home $HOME sudo $SUDO_UID\"; grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status; }} > {}; \
         sleep {sleep} & sleep 60",
        file.display()
    );
    let mut command = product.command(&lab.host, &["verdict", "--json", "-d", "2", "--cmd", &script]);
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").env("SUDO_USER", "nobody").env("HOME", "/root");
    let output = process::run(&mut command, LIMIT).unwrap();
    assert!(Verdict::of(&output).unwrap().code < 2);
    let said = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["65534", "65534", "65534"], "{said}");
    assert!(lines[3].ends_with(" sudo ") && !lines[3].contains("/root"), "{said}");
    assert_eq!(lines.len(), 8, "{said}");
    assert!(lines[4..].iter().all(|line| line.ends_with("\t0000000000000000")), "{said}");
    assert_eq!(running(&sleep), 0, "another user's process was not ended");
}

#[test]
fn a_command_of_root_stays_root() {
    let Some((product, lab)) = setup("cmd-root") else { return };
    let file = lab.directory().join("said");
    let script = format!("id -u > {}", Path::display(&file));
    let output = product.run(&lab.host, &["verdict", "--json", "--cmd", &script]).unwrap();
    assert_eq!(Verdict::of(&output).unwrap().json["command_status"], 0);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "0");
}
