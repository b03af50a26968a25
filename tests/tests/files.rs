//! Files that kvmtrace writes and reads: whatever becomes of them, what it says is true.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Output};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);
/// A recording of the repository.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/schema-2.kvmtrace");

fn lab(name: &str) -> Option<(Lab, Product)> {
    if !can_test(name).unwrap() {
        return None;
    }
    let lab = Lab::fixed(&format!("ktf{}{name}", std::process::id()), &Options::default()).unwrap();
    Some((lab, Product::find().unwrap()))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn kvmtrace(arguments: &[&str]) -> Output {
    process::run(Command::new(Product::find().unwrap().path()).args(arguments), LIMIT).unwrap()
}

/// Exit 2, nothing on standard output, one line that names the thing and says this of it.
#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    assert_eq!(output.code(), 2, "{output:?}");
    assert_eq!(output.stdout, "");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {}", output.stderr);
    for word in says {
        assert!(output.stderr.contains(word), "{word:?} is not said: {}", output.stderr);
    }
}

fn ping(lab: &Lab) {
    let target = lab.plan.lan.addresses.v4;
    lab.guests[0].namespace.run(&format!("ping -n -q -c3 -i0.2 -W1 {target}")).unwrap();
}

/// Packets of the guests' pings.
fn echoes(verdict: &Verdict) -> u64 {
    let flows = verdict.items().filter(|flow| flow["protocol"] == "icmp" && flow["direction"] == "from-guest");
    flows.filter_map(|flow| flow["packets"].as_u64()).sum()
}

/// A directory as /tmp is.
fn shared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    directory
}

#[test]
fn what_is_no_recording_is_called_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(RECORDING).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let empty = file("empty", b"");
    let tiny = file("tiny", &whole[..10]);
    let prelude = file("prelude", &whole[..16]);
    let header = file("header", &whole[..600]);
    let text = file("text", b"it is something else altogether");
    for command in [&["report"][..], &["report", "--json"], &["export", "--to", "json", "-o", "-"]] {
        let run = |path: &Path| {
            let (verb, rest) = command.split_first().unwrap();
            kvmtrace(&[&[*verb, path.to_str().unwrap()], rest].concat())
        };
        refused(&run(&empty), &[path(&empty), "is empty"]);
        refused(&run(&tiny), &[path(&tiny), "ends after 10 bytes"]);
        refused(&run(&prelude), &[path(&prelude), "ends after 16 bytes"]);
        refused(&run(&header), &[path(&header), "no event in it that could be judged"]);
        refused(&run(&text), &[path(&text), "is not a recording"]);
        refused(&run(Path::new("/dev/null")), &["/dev/null is a pipe or device"]);
        refused(&run(directory.path()), &["is a directory"]);
        refused(&run(&directory.path().join("absent")), &["absent", "No such file"]);
    }
    let mut report = Command::new(Product::find().unwrap().path());
    refused(&process::run(report.args(["report", "-"]), LIMIT).unwrap(), &["standard input is empty"]);
}

#[test]
fn an_output_that_is_full_is_named_and_status_2() {
    for command in
        [&["report", RECORDING][..], &["report", RECORDING, "--json"], &["guests"], &["completions", "bash"], &["man"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut kvmtrace = Command::new(Product::find().unwrap().path());
        kvmtrace.args(command).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
        let output = kvmtrace.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert_eq!(said, "kvmtrace: standard output: No space left on device (os error 28)\n", "{command:?}");
    }
}

#[test]
fn an_export_is_whole_or_not_there() {
    let directory = shared();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    for (form, size) in [("json", "8k"), ("pcapng", "4k"), ("parquet", "4k")] {
        let name = format!("out.{form}");
        // What it writes to is as small as can be: it does not fit.
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs {disk} && dd if=/dev/zero of={disk}/rest bs=1k count=3 status=none; \
             {binary} export {RECORDING} --to {form} -o {disk}/{name}; code=$?; ls -A {disk} >&2; exit $code",
            disk = path(&disk),
            binary = path(Product::find().unwrap().path()),
        );
        let mut shell = Command::new("unshare");
        let output = process::run(shell.args(["--mount", "sh", "-c", &script]), LIMIT).unwrap();
        assert_eq!(output.code(), 2, "{output:?}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert!(lines[0].contains(&name) && lines[0].contains("No space left"), "{output:?}");
        assert_eq!(lines[1..], ["rest"], "half of it is left: {output:?}");
    }
    for form in ["json", "pcapng"] {
        let output = kvmtrace(&["export", RECORDING, "--to", form, "-o", "/dev/null"]);
        assert_eq!(output.code(), 0, "{output:?}");
    }
    refused(&kvmtrace(&["export", RECORDING, "--to", "parquet", "-o", "/dev/null"]), &["parquet", "directory"]);
    refused(&kvmtrace(&["export", RECORDING, "--to", "json", "-o", "/no/such/place"]), &["/no/such/place"]);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn exports_are_for_their_owner_and_follow_no_planted_link() {
    let directory = shared();
    let victim = directory.path().join("victim");
    for form in ["json", "pcapng"] {
        let out = directory.path().join(form);
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &out).unwrap();
        refused(&kvmtrace(&["export", RECORDING, "--to", form, "-o", path(&out)]), &[path(&out), "--force"]);
        assert_eq!(kvmtrace(&["export", RECORDING, "--to", form, "-o", path(&out), "--force"]).code(), 0);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let there = fs::symlink_metadata(&out).unwrap();
        assert!(there.is_file() && there.mode() & 0o7777 == 0o600, "{there:?}");
    }
    let (elsewhere, out) = (tempfile::tempdir().unwrap(), directory.path().join("tables"));
    symlink(elsewhere.path(), &out).unwrap();
    assert_eq!(kvmtrace(&["export", RECORDING, "--to", "parquet", "-o", path(&out), "--force"]).code(), 2);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_recording_is_for_its_owner_and_follows_no_planted_link() {
    let Some((lab, product)) = lab("link") else { return };
    let directory = shared();
    let (victim, file) = (directory.path().join("victim"), directory.path().join("trace"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &file).unwrap();
    refused(&product.run(&lab.host, &["record", "-d", "1", "-o", path(&file)]).unwrap(), &[path(&file), "--force"]);
    for command in ["record", "verdict"] {
        let output = product.run(&lab.host, &[command, "-d", "1", "--force", "-o", path(&file)]).unwrap();
        assert!(output.code() < 2, "{output:?}");
        let there = fs::symlink_metadata(&file).unwrap();
        assert!(there.is_file() && there.mode() & 0o7777 == 0o600, "{there:?}");
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "something else is left");
}

#[test]
fn nothing_is_said_of_a_recording_that_was_deleted_but_that() {
    let Some((lab, product)) = lab("gone") else { return };
    let file = lab.directory().join("trace.kvmtrace");
    let tracing = product.start(&lab, &["record", "--packets", "-o", path(&file)]).unwrap();
    ping(&lab);
    fs::remove_file(&file).unwrap();
    ping(&lab);
    let output = tracing.interrupt(Signal::SIGINT).unwrap();
    refused(&output, &[path(&file), "was deleted"]);
    // With a verdict, that is given all the same.
    let tracing = product.start(&lab, &["verdict", "--json", "-o", path(&file)]).unwrap();
    ping(&lab);
    fs::remove_file(&file).unwrap();
    ping(&lab);
    let output = tracing.interrupt(Signal::SIGINT).unwrap();
    let verdict = Verdict::of(&output).unwrap();
    assert_eq!(verdict.code, 2, "{output:?}");
    assert!(verdict.stderr.contains("was deleted"), "{output:?}");
    assert_eq!(echoes(&verdict), 6, "{output:?}");
}

#[test]
fn a_disk_that_is_full_takes_no_verdict_away() {
    let Some((lab, product)) = lab("full") else { return };
    let disk = lab.directory().join("disk");
    fs::create_dir(&disk).unwrap();
    let line = format!(
        "mount -t tmpfs -o size=8k tmpfs {disk} && exec {product} verdict --json --packets -o {disk}/trace --cmd {ping:?}",
        disk = path(&disk),
        product = path(product.path()),
        ping = format!(
            "ip netns exec {} ping -n -q -i0.005 -c300 {}",
            lab.guests[0].namespace.name(),
            lab.plan.lan.addresses.v4
        ),
    );
    let output = process::run(&mut lab.host.shell(&line), LIMIT).unwrap();
    let verdict = Verdict::of(&output).unwrap();
    assert_eq!(verdict.code, 2, "{output:?}");
    assert!(verdict.stderr.contains("no space left for") && verdict.stderr.contains("/trace"), "{output:?}");
    assert_eq!(echoes(&verdict), 300, "{output:?}");
}

#[test]
fn what_goes_nowhere_is_recorded_all_the_same() {
    let Some((lab, product)) = lab("null") else { return };
    for extra in [&[][..], &["--force"]] {
        let output = product.run(&lab.host, &[&["record", "-d", "1", "-o", "/dev/null"], extra].concat()).unwrap();
        assert_eq!(output.code(), 0, "{output:?}");
        assert!(output.stderr.contains("/dev/null: "), "{output:?}");
    }
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    refused(&product.run(&lab.host, &["record", "-d", "1", "-o", "/no/such/place"]).unwrap(), &["/no/such/place"]);
    refused(&product.run(&lab.host, &["record", "-d", "1", "-o", "/tmp", "--force"]).unwrap(), &["/tmp"]);
    // A reader that goes away.
    let mut command = product.command(&lab.host, &["record", "--packets", "-d", "3", "-o", "-", "--quiet"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    ping(&lab);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
