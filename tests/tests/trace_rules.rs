//! `--trace-rules` from outside: the ruleset is the same afterwards however it ends, a flood stays bounded, and what can't
//! be traced is said.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::wait_until;
use kvmtrace_tests::lab::traffic::Traffic;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Tracing, Verdict};
use nix::sys::signal::Signal;
use std::time::Duration;

const RULES: &str = "add table inet fw; add chain inet fw a; add rule inet fw a counter drop; \
    add chain inet fw c { type filter hook forward priority 0; policy drop; }; add rule inet fw c ip protocol icmp jump a; \
    add table bridge fw; add chain bridge fw c { type filter hook forward priority 0; }; add rule bridge fw c accept; \
    add table arp fw; add chain arp fw c { type filter hook output priority 0; }";

/// A routed lab with rules of an operator; none where there can be no lab.
fn setup(subject: &str) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    let options = Options { topology: Topology::Routed, ..Options::default() };
    let lab = Lab::drawn(&options, Seed::choose().unwrap(), subject).unwrap();
    lab.host.check(&format!("nft '{RULES}'")).unwrap();
    Some((Product::find().unwrap(), lab))
}

/// The ruleset with handles, without what traffic counts.
fn rules(lab: &Lab) -> String {
    lab.host.check("nft -a -s list ruleset").unwrap()
}

fn own_tables(lab: &Lab) -> usize {
    rules(lab).lines().filter(|line| line.starts_with("table ") && line.contains(" kvmtrace-")).count()
}

fn start(product: &Product, lab: &Lab, command: &str, more: &[&str]) -> Tracing {
    product.start(lab, &[&[command, "--trace-rules"], more].concat()).unwrap()
}

fn ping(lab: &Lab) {
    lab.send(&Traffic::ping("guest1", "lan"), true).unwrap();
}

#[test]
fn the_ruleset_is_the_same_bytes_after_every_ending_of_every_command() {
    let Some((product, lab)) = setup("trace-rules-endings") else { return };
    let before = rules(&lab);
    let recording = lab.directory().join("rules.kvmtrace");
    let file = recording.to_str().unwrap();
    let commands: [(&str, &[&str]); 3] =
        [("verdict", &["--json"]), ("watch", &[]), ("record", &["-o", file, "--force"])];
    for (command, more) in commands {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let tracing = start(&product, &lab, command, more);
            assert_eq!(own_tables(&lab), 3, "{command}");
            ping(&lab);
            tracing.interrupt(signal).unwrap();
            assert_eq!(rules(&lab), before, "{command} {signal}");
        }
    }
    let run = product.run(&lab.host, &["verdict", "--trace-rules", "--json", "-d", "1"]).unwrap();
    assert_eq!(rules(&lab), before);
    assert_eq!(Verdict::of(&run).unwrap().json["lost"]["rule_messages"], 0);
}

#[test]
fn neither_the_tables_nor_the_command_outlive_a_killed_trace() {
    let Some((product, lab)) = setup("trace-rules-child") else { return };
    let before = rules(&lab);
    let mut tracing = start(&product, &lab, "verdict", &["--cmd", "exec sleep 20.0625"]);
    assert_eq!(own_tables(&lab), 3);
    tracing.process.signal(Signal::SIGKILL).unwrap();
    assert!(wait_until(Duration::from_secs(5), || !tracing.process.is_running()));
    assert!(wait_until(Duration::from_secs(5), || rules(&lab) == before), "{}", rules(&lab));
    let runs = || lab.host.check("pgrep -f '^sleep 20.0625$'").is_ok();
    assert!(wait_until(Duration::from_secs(5), || !runs()), "the command still runs");
}

#[test]
fn nobody_else_can_flush_the_tables_and_two_traces_do_not_disturb_each_other() {
    let Some((product, lab)) = setup("trace-rules-two") else { return };
    let before = rules(&lab);
    let first = start(&product, &lab, "verdict", &["--json"]);
    let second = product.run(&lab.host, &["verdict", "--trace-rules", "--json", "-d", "1"]).unwrap();
    let degraded = Verdict::of(&second).unwrap().json["degraded"].clone();
    assert_eq!(degraded.as_array().map(Vec::len), Some(0), "{degraded:#}");
    assert_eq!(own_tables(&lab), 3, "the first one's are still there");
    lab.host.check("nft flush ruleset").unwrap();
    assert_eq!(own_tables(&lab), 3);
    lab.host.check(&format!("nft '{RULES}'")).unwrap();
    ping(&lab);
    let verdict = Verdict::of(&first.interrupt(Signal::SIGINT).unwrap()).unwrap();
    let traced = |item: &serde_json::Value| item["evidence"].to_string().contains("nft's trace");
    assert!(verdict.items().any(traced), "{:#}", verdict.json["flows"]);
    let names = |rules: &str| rules.lines().filter(|line| line.starts_with("table")).count();
    assert_eq!(names(&rules(&lab)), names(&before));
}

#[test]
fn a_guest_that_starts_while_it_traces_is_traced_too() {
    let Some((product, mut lab)) = setup("trace-rules-late") else { return };
    lab.guest_mut("guest1").unwrap().kill();
    let tracing = start(&product, &lab, "verdict", &["--json"]);
    lab.guest_mut("guest1").unwrap().start().unwrap();
    let taps = lab.placeholders().unwrap()["tap1"].clone();
    let hooked = || rules(&lab).contains(&format!("device \"{taps}\""));
    assert!(wait_until(Duration::from_secs(10), hooked), "{}", rules(&lab));
    tracing.interrupt(Signal::SIGINT).unwrap();
}

#[test]
fn a_flood_of_new_flows_is_sampled_and_the_rule_of_another_flow_is_still_found() {
    let Some((product, lab)) = setup("trace-rules-flood") else { return };
    let lan = lab.placeholders().unwrap()["lan.ip"].clone();
    let tracing = start(&product, &lab, "verdict", &["--json"]);
    // A new flow with every packet.
    let flood = format!(
        "python3 -c 'import socket\nfor port in range(1, 10001): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b\"x\", (\"{lan}\", port))'"
    );
    // It begins before the flood: of a flooding guest's own flows those beyond its share are counted, not listed.
    let pings = lab.guests[0].namespace.background(&format!("ping -c10 -i0.2 -W1 {lan}")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let flood = lab.guests[0].namespace.background(&flood).unwrap();
    pings.finish(Duration::from_secs(20)).unwrap();
    flood.finish(Duration::from_secs(20)).unwrap();
    let verdict = Verdict::of(&tracing.interrupt(Signal::SIGINT).unwrap()).unwrap();
    let ping = verdict.items().find(|item| item["protocol"] == "icmp" && item["cause"] == "netfilter-forward").unwrap();
    assert!(ping["evidence"].to_string().contains("in nft inet fw a handle"), "{ping:#}");
    let flows = verdict.json["totals"]["flows"].as_u64().unwrap();
    let traced = verdict.items().filter(|item| item["evidence"].to_string().contains("nft's trace")).count();
    assert!(flows > 5_000, "no flood: {flows}");
    assert!(traced > 100, "only {traced} flows were traced");
    // The seconds that it took, and a second before and after: so often the sets were emptied.
    let most = 1_024.0 * (2.0 + verdict.json["window"]["seconds"].as_f64().unwrap());
    assert!((traced as f64) < most, "{traced} of {flows} flows were traced, more than {most}");
}

#[test]
fn rules_of_iptables_legacy_are_said_to_be_out_of_sight() {
    let Some((product, lab)) = setup("trace-rules-legacy") else { return };
    if lab.host.check("iptables-legacy -A FORWARD -j DROP").is_err() {
        eprintln!("SKIP: no iptables-legacy");
        return;
    }
    let before = lab.host.check("iptables-legacy-save").unwrap();
    let told = product.run(&lab.host, &["verdict", "--trace-rules", "--json", "-d", "1"]).unwrap();
    let verdict = Verdict::of(&told).unwrap();
    let why = verdict.json["degraded"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("iptables-legacy tables (ip filter)"), "{:#}", verdict.json["degraded"]);
    let plain = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(plain(&lab.host.check("iptables-legacy-save").unwrap()), plain(&before));
}
