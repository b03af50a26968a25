//! `--netns`: from the namespace that the operator is in, into others.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::{self, Output};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// kvmtrace in this process's own namespace.
fn run(product: &Product, arguments: &[&str]) -> Output {
    process::run(Command::new(product.path()).args(arguments), LIMIT).unwrap()
}

fn lab(subject: &str, topology: Topology) -> Lab {
    let options = Options { topology, guests: 1, mtu: Some(1500), ..Options::default() };
    Lab::drawn(&options, Seed::choose().unwrap(), subject).unwrap()
}

fn ping(lab: &Lab) -> String {
    format!("ip netns exec {} ping -n -q -c2 -i0.2 -W1 {}", lab.guests[0].namespace.name(), lab.plan.lan.addresses.v4)
}

#[test]
fn a_namespace_is_looked_at_as_if_one_were_in_it() {
    if !can_test("one namespace").unwrap() {
        return;
    }
    let (product, lab) = (Product::find().unwrap(), lab("netns-one", Topology::Nat));
    let host = lab.host.name();
    let guest = lab.plan.guests[0].name.as_str();
    let listed = run(&product, &["guests", "--netns", host]);
    assert!(listed.stdout.contains(guest), "{listed:?}");
    // By its path it is the same, and the command runs where the operator is: there only does `ip netns` find the guest.
    let path = format!("/run/netns/{host}");
    let verdict = run(&product, &["verdict", "--json", "--netns", &path, "--cmd", &ping(&lab)]);
    let verdict = Verdict::of(&verdict).unwrap();
    assert_eq!(verdict.code, 0, "{:#}", verdict.json);
    let flows = verdict.json["flows"].as_array().unwrap();
    assert!(flows.iter().any(|flow| flow["guest"] == guest && flow["protocol"] == "icmp"), "{:#}", verdict.json);
    assert!(flows.iter().all(|flow| flow["netns"] == path.as_str()), "{:#}", verdict.json);
}

#[test]
fn a_fix_for_another_namespace_runs_from_the_operators_and_from_its_own() {
    if !can_test("a fix of another namespace").unwrap() {
        return;
    }
    let (product, lab) = (Product::find().unwrap(), lab("netns-fix", Topology::Bridge));
    let host = lab.host.name();
    let uplink = &lab.plan.uplink.device;
    let mtu = || lab.host.check(&format!("cat /sys/class/net/{uplink}/mtu")).unwrap().trim().to_owned();
    lab.host.check(&format!("ip link set dev {uplink} mtu 1300")).unwrap();
    let large = format!("{} -M do -s 1400", ping(&lab));
    let verdict = Verdict::of(&run(&product, &["verdict", "--json", "--netns", host, "--cmd", &large])).unwrap();
    let flows = verdict.json["flows"].as_array().unwrap();
    let broken = flows.iter().find(|flow| flow["cause"] == "bridge-mtu-exceeded").unwrap();
    let fix = &broken["fixes"][0];
    assert_eq!(fix["netns"], host);
    let (command, undo) = (fix["command"].as_str().unwrap(), fix["undo"].as_str().unwrap());
    let here = |line: &str| process::run(Command::new("sh").args(["-c", line]), LIMIT).unwrap();
    assert_eq!(here(command).code(), 0, "{command}");
    assert_eq!(mtu(), "1500", "{command}");
    assert_eq!(here(undo).code(), 0, "{undo}");
    assert_eq!(mtu(), "1300", "{undo}");
    lab.host.check(command).unwrap();
    assert_eq!(mtu(), "1500", "{command}");
}

#[test]
fn several_namespaces_are_traced_at_once_and_judged_together() {
    if !can_test("two namespaces").unwrap() {
        return;
    }
    let product = Product::find().unwrap();
    let labs = [lab("netns-first", Topology::Bridge), lab("netns-second", Topology::Nat)];
    let [first, second] = &labs;
    let both = format!("{}; {}", ping(first), ping(second));
    let (one, two) = (first.host.name(), second.host.name());
    let output = run(&product, &["verdict", "--json", "--netns", one, "--netns", two, "--cmd", &both]);
    let verdict = Verdict::of(&output).unwrap();
    assert_eq!(verdict.code, 0, "{:#}", verdict.json);
    let flows = verdict.json["flows"].as_array().unwrap();
    for lab in &labs {
        let source = lab.plan.guests[0].port.addresses.v4.to_string();
        let own = |flow: &&serde_json::Value| {
            flow["source"] == source.as_str() && flow["protocol"] == "icmp" && flow["netns"] == lab.host.name()
        };
        assert!(flows.iter().any(|flow| own(&flow)), "{}: {:#}", lab.host.name(), verdict.json);
    }
}

#[test]
fn what_can_not_be_looked_at_is_refused_in_one_line() {
    if !can_test("namespaces that are not there").unwrap() {
        return;
    }
    let product = Product::find().unwrap();
    for (arguments, complaint) in [
        (&["guests", "--netns", "no-such-namespace"][..], "no-such-namespace: no such network namespace"),
        (&["guests", "--netns", "one", "--netns", "other"], "only verdict takes several"),
        (&["report", "--netns", "one", "x.kvmtrace"], "looks at no host"),
    ] {
        let output = run(&product, arguments);
        assert_eq!((output.code(), output.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(output.stderr.contains(complaint) && output.stderr.trim_end().lines().count() == 1, "{output:?}");
    }
}
