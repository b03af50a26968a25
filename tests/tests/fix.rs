//! `kvmtrace fix`, from outside: a fix that helps is kept, any other is undone, however the run ends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::{Output, wait_until};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::Product;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A bridge that drops its guests' pings.
fn broken(subject: &str) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    let options = Options { topology: Topology::Bridge, guests: 1, ..Options::default() };
    let lab = Lab::drawn(&options, Seed::choose().unwrap(), subject).unwrap();
    lab.host
        .nft("table bridge fw { chain c { type filter hook forward priority 0; ip protocol icmp counter drop; }; }")
        .unwrap();
    Some((Product::find().unwrap(), lab))
}

/// A command on the host by which the guest pings.
fn ping(lab: &Lab) -> String {
    let guest = lab.namespace("guest1").unwrap().name().to_owned();
    format!("ip netns exec {guest} ping -c 2 -i 0.2 -W 1 {}", lab.plan.lan.addresses.v4)
}

fn passes(lab: &Lab) -> bool {
    lab.host.run(&ping(lab)).unwrap().code() == 0
}

fn rules(lab: &Lab) -> String {
    let rules = lab.host.check("nft list ruleset").unwrap();
    // Counters count.
    rules.lines().map(|line| line.split(" counter ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn fix(product: &Product, lab: &Lab, traffic: &str, more: &[&str]) -> Output {
    product.run(&lab.host, &[&["fix", "1", "--cmd", traffic], more].concat()).unwrap()
}

/// A run whose questions nobody answers.
fn unanswered(product: &Product, lab: &Lab, within: &str) -> Child {
    let traffic = ping(lab);
    let arguments = ["fix", "1", "--yes", "--confirm-within", within, "--cmd", &traffic];
    let mut command = product.command(&lab.host, &arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn is_applied(lab: &Lab) -> bool {
    rules(lab).contains("accept comment") || lab.host.check("nft list ruleset").unwrap().contains("kvmtrace:")
}

#[test]
fn what_helps_is_kept_and_can_be_taken_back() {
    let Some((product, lab)) = broken("fix-keep") else { return };
    assert!(!passes(&lab));
    let output = fix(&product, &lab, &ping(&lab), &["--yes"]);
    assert_eq!(output.code(), 0, "{output:?}");
    assert!(passes(&lab), "{output:?}");
    let number = output.stdout.split("--undo ").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    let list = product.run(&lab.host, &["fix", "--list"]).unwrap();
    assert!(list.stdout.contains("kept  netfilter-bridge"), "{list:?}");
    let back = product.run(&lab.host, &["fix", "--undo", number]).unwrap();
    assert_eq!(back.code(), 0, "{back:?}");
    assert!(!passes(&lab) && !is_applied(&lab));
    let again = product.run(&lab.host, &["fix", "--undo", number]).unwrap();
    assert_eq!(again.code(), 2, "{again:?}");
}

#[test]
fn what_does_not_help_is_undone() {
    let Some((product, lab)) = broken("fix-useless") else { return };
    // Somebody puts another rule before ours each time.
    let traffic = format!("nft insert rule bridge fw c ip protocol icmp counter drop; {}", ping(&lab));
    let output = fix(&product, &lab, &traffic, &["--yes"]);
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(output.stdout.contains("did not help") && output.stdout.contains("undone"), "{output:?}");
    assert!(!is_applied(&lab), "{}", rules(&lab));
}

#[test]
fn a_dry_run_changes_nothing() {
    let Some((product, lab)) = broken("fix-dry") else { return };
    let before = rules(&lab);
    let output = fix(&product, &lab, &ping(&lab), &["--dry-run"]);
    assert_eq!(output.code(), 0, "{output:?}");
    assert!(output.stdout.contains("fix    nft ") && output.stdout.contains("undo   "), "{output:?}");
    assert_eq!(rules(&lab), before);
}

#[test]
fn without_an_answer_it_is_undone() {
    let Some((product, lab)) = broken("fix-silent") else { return };
    let mut child = unanswered(&product, &lab, "2s");
    assert!(wait_until(Duration::from_mins(1), || is_applied(&lab)));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!is_applied(&lab), "{}", rules(&lab));
}

#[test]
fn killed_by_force_it_is_undone_and_no_other_begins_meanwhile() {
    let Some((product, lab)) = broken("fix-killed") else { return };
    let mut child = unanswered(&product, &lab, "100s");
    assert!(wait_until(Duration::from_mins(1), || is_applied(&lab)));
    let second = fix(&product, &lab, "true", &["--yes"]);
    assert_eq!(second.code(), 2, "{second:?}");
    assert!(second.stderr.contains("another fix"), "{second:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait_until(Duration::from_secs(20), || !is_applied(&lab)), "{}", rules(&lab));
    let list = product.run(&lab.host, &["fix", "--list"]).unwrap();
    assert!(list.stdout.lines().any(|line| line.contains("undone  netfilter-bridge")), "{list:?}");
}
