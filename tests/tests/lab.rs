//! The lab itself: nothing is left behind, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Background, wait_until};
use kvmtrace_tests::lab::{Lab, can_test, lab_binary, state};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

fn namespaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn a_panic_takes_the_lab_down() {
    if !can_test("a_panic_takes_the_lab_down").unwrap() {
        return;
    }
    let mut seen = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::drawn(&Options::default(), Seed(1), "panic").unwrap();
        seen = Some((lab.plan.lab.clone(), lab.guests[0].pid().unwrap(), lab.directory()));
        assert_eq!(namespaces(&lab.plan.lab).len(), 3);
        panic!("as planned");
    }));
    assert!(panicked.is_err());
    let (name, relay, directory) = seen.unwrap();
    assert_eq!(namespaces(&name), [""; 0]);
    assert!(!fs::exists(format!("/proc/{relay}")).unwrap(), "the relay lives on");
    assert!(!directory.exists());
}

#[test]
fn what_a_killed_owner_leaves_is_swept() {
    if !can_test("what_a_killed_owner_leaves_is_swept").unwrap() {
        return;
    }
    let mut keeper = Command::new(lab_binary().unwrap());
    let keeper = Background::start(keeper.args(["keep", "routed", "--guests", "1"])).unwrap();
    let find = || state::list().into_iter().find(|record| record.owner == keeper.pid() && record.topic.is_some());
    assert!(wait_until(Duration::from_secs(20), || find().is_some()), "the lab did not come up");
    let record = find().unwrap();
    keeper.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(keeper);
    assert_eq!(namespaces(&format!("{}-", record.name)).len(), 3, "a killed owner cleans nothing up");
    // The sweep of another test, or of this one.
    assert!(wait_until(Duration::from_secs(10), || {
        state::sweep();
        namespaces(&format!("{}-", record.name)).is_empty()
    }));
    assert!(!record.directory().exists());
}

#[test]
fn frames_of_64_kilobytes_cross_the_taps() {
    if !can_test("frames_of_64_kilobytes_cross_the_taps").unwrap() {
        return;
    }
    let lab = Lab::drawn(&Options { mtu: Some(1500), ..Options::default() }, Seed::choose().unwrap(), "gso").unwrap();
    let tap = &lab.plan.guests[0].tap;
    let dump = format!("timeout 5 tcpdump -nni {tap} -c 1 'tcp and greater 20000'");
    let mut command = lab.host.shell(&dump);
    let capture = std::thread::spawn(move || process::run(&mut command, Duration::from_secs(10)));
    std::thread::sleep(Duration::from_millis(500));
    let traffic: kvmtrace_tests::lab::traffic::Traffic =
        serde_json::from_str(r#"{"kind": "tcp", "from": "guest1", "to": "lan", "size": 20000000}"#).unwrap();
    let facts = lab.send(&traffic, true).unwrap();
    assert!(traffic.works(&facts), "{facts}");
    let seen = capture.join().unwrap().unwrap();
    assert!(seen.status.success(), "no large frame on {tap}: {}", seen.stderr);
}

#[test]
fn a_reader_who_has_read_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(lab_binary().unwrap()).arg("scenarios").stdout(writer).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{}: {error}", output.status);
}
