//! kvmtrace from outside: what a person types, what a script reads, what is left behind.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Output, wait_until};
use kvmtrace_tests::lab::traffic::Traffic;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

/// The product and a lab with two guests; none where the lab can't be.
fn setup(subject: &str) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    let product = Product::find().unwrap();
    let options = Options { guests: 2, ..Options::default() };
    Some((product, Lab::drawn(&options, Seed::choose().unwrap(), subject).unwrap()))
}

/// Asserts the contract of "could not run": exit 2, nothing on standard output, one line that names the thing.
#[track_caller]
fn refused(output: &Output, names: &str) {
    assert_eq!(output.code(), 2, "{output:?}");
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(names), "{names} is not named: {}", output.stderr);
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {}", output.stderr);
}

fn ping(lab: &Lab, from: &str, to: &str) {
    let traffic = Traffic::ping(from, to);
    let facts = lab.send(&traffic, true).unwrap();
    assert!(traffic.works(&facts), "{facts}");
}

fn texts<'a>(values: &'a Value, key: &str) -> Vec<&'a str> {
    values.as_array().unwrap().iter().filter_map(|value| value[key].as_str()).collect()
}

/// The BPF programs and links that a process holds, as `prog_id` and `link_id` with their numbers.
fn held(pid: u32) -> BTreeSet<(String, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let ids = |text: String| {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let ids = fields.filter(|(key, _)| ["prog_id", "link_id"].contains(key));
        ids.map(|(key, id)| (key.to_owned(), id.trim().parse().unwrap())).collect::<Vec<_>>()
    };
    texts.flat_map(ids).collect()
}

/// Whether the kernel still has one of them.
fn any_exists(ids: &BTreeSet<(String, u64)>) -> bool {
    let exists = |(key, id): &(String, u64)| {
        let mut command = Command::new("bpftool");
        command.args([key.trim_end_matches("_id"), "show", "id", &id.to_string()]);
        process::run(&mut command, LIMIT).unwrap().status.success()
    };
    ids.iter().any(exists)
}

#[test]
fn without_privilege_it_names_the_missing_capabilities() {
    let Some((product, lab)) = setup("privilege") else { return };
    // Nobody can't enter the build directory: give it a copy that everybody can run.
    let directory = std::env::temp_dir().join(format!("kvmtrace-cli-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = directory.join("kvmtrace");
    fs::copy(product.path(), &binary).unwrap();
    let mut command = lab.host.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args(["verdict", "--json", "-d", "1"]);
    let output = process::run(&mut command, LIMIT);
    fs::remove_dir_all(&directory).unwrap();
    let output = output.unwrap();
    for capability in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
        refused(&output, capability);
    }
}

#[test]
fn what_does_not_exist_or_does_not_parse_is_one_clear_line() {
    let Some((product, lab)) = setup("mistakes") else { return };
    let run = |arguments: &[&str]| product.run(&lab.host, arguments).unwrap();
    refused(&run(&["verdict", "-i", "nosuch0", "-d", "1"]), "nosuch0");
    refused(&run(&["verdict", "-g", "no-such-guest", "-d", "1"]), "no-such-guest");
    refused(&run(&["verdict", "-d", "1", "--ready-file", "/nosuch/directory/ready"]), "/nosuch/directory/ready");
    refused(&run(&["verdict", "-d", "1", "host", "10.0.0.1", "andd", "port", "53"]), "andd");
    assert_eq!(run(&["verdict", "-d", "soon"]).code(), 2);
    assert_eq!(run(&["verdictt"]).code(), 2);
}

#[test]
fn a_guest_of_another_network_namespace_is_told_where_it_is() {
    let Some((product, lab)) = setup("elsewhere") else { return };
    let guest = lab.plan.guests[1].name.as_str();
    let output = product.run(&lab.lan, &["verdict", "-d", "1", "-g", guest]).unwrap();
    refused(&output, guest);
    let way = output.stderr.split('`').nth(1).unwrap_or_else(|| panic!("no command: {}", output.stderr));
    // What it says is typed, from where it was said.
    let mut command = lab.lan.command("sh");
    let line = format!("exec {way} \"$0\" guests --json");
    let output = process::run(command.args(["-c", &line]).arg(product.path()), LIMIT).unwrap();
    let guests: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(texts(&guests["guests"], "name").contains(&guest), "{line}: {guests}");
    // Who looks for no one in particular hears of all of them.
    let output = product.run(&lab.lan, &["guests"]).unwrap();
    let near = format!("ip netns exec {} kvmtrace guests", lab.host.name());
    let line = output.stdout.lines().find(|line| line.contains(&near));
    assert!(line.is_some_and(|line| line.contains(guest)), "{}", output.stdout);
}

#[test]
fn every_ending_signal_gives_the_whole_report_and_removes_the_ready_file() {
    let Some((product, lab)) = setup("signals") else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
        let ready = tracing.ready.clone();
        let held = held(tracing.process.pid());
        assert!(any_exists(&held), "nothing is loaded");
        ping(&lab, "guest1", "lan");
        let output = tracing.interrupt(signal).unwrap();
        let verdict = Verdict::of(&output).unwrap();
        assert!(!ready.exists(), "{signal}: the ready file is still there");
        assert!(wait_until(Duration::from_secs(5), || !any_exists(&held)), "{signal}: something is still loaded");
        let address = lab.plan.guests[0].port.addresses.v4.to_string();
        assert!(texts(&verdict.json["flows"], "source").contains(&address.as_str()), "{signal}: no flow of the ping");
        assert_eq!(verdict.code, 0, "{signal}");
    }
}

#[test]
fn a_killed_run_leaves_no_program_behind() {
    let Some((product, lab)) = setup("killed") else { return };
    let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
    let held = held(tracing.process.pid());
    assert!(held.iter().any(|(key, _)| key == "prog_id"), "no program");
    assert!(any_exists(&held));
    let filters = hooks(&lab);
    tracing.process.signal(Signal::SIGKILL).unwrap();
    tracing.process.finish(LIMIT).unwrap();
    if filters > 0 {
        // Before 6.6 the hooks are filters, which outlive their process.
        assert_eq!(hooks(&lab), filters);
        assert_eq!(product.run(&lab.host, &["clean"]).unwrap().code(), 0);
    }
    assert_eq!(hooks(&lab), 0);
    // The kernel frees programs a moment after their last reference.
    assert!(wait_until(Duration::from_secs(5), || !any_exists(&held)), "a program outlived its process");
}

#[test]
fn the_next_run_removes_what_a_killed_one_has_left() {
    let Some((product, lab)) = setup("next") else { return };
    let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
    let filters = hooks(&lab);
    tracing.process.signal(Signal::SIGKILL).unwrap();
    tracing.process.finish(LIMIT).unwrap();
    let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
    assert_eq!(hooks(&lab), filters, "twice, or not at all");
    ping(&lab, "guest1", "lan");
    let verdict = Verdict::of(&tracing.interrupt(Signal::SIGINT).unwrap()).unwrap();
    assert_eq!(hooks(&lab), 0);
    let echo = verdict.items().find(|item| item["protocol"] == "icmp" && item["direction"] == "from-guest").unwrap();
    assert_eq!(echo["path"][0]["packets"], echo["packets"], "counted twice: {echo}");
}

/// Filters of ours on the host's devices: the hooks of kernels before 6.6.
fn hooks(lab: &Lab) -> usize {
    let script = "for device in $(ls /sys/class/net); do for side in ingress egress; do tc filter show dev $device $side; done; done";
    let told = lab.host.run(script).unwrap().stdout;
    told.lines().filter(|line| line.contains("kvmtrace_")).count()
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let Some((product, lab)) = setup("pipe") else { return };
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let mut command = product.command(&lab.host, &["verdict", "--json", "-d", "1"]);
    let status = command.stdin(Stdio::null()).stdout(File::from(writer)).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_command_is_traced_to_its_end() {
    let Some((product, lab)) = setup("command") else { return };
    let line =
        format!("ip netns exec {} ping -qc3 -i0.2 {}", lab.guests[0].namespace.name(), lab.plan.lan.addresses.v4);
    let output = product.run(&lab.host, &["verdict", "--json", "--cmd", &line]).unwrap();
    let verdict = Verdict::of(&output).unwrap();
    let guest = lab.plan.guests[0].name.as_str();
    let requests = verdict.json["flows"].as_array().unwrap().iter().find(|flow| {
        flow["guest"] == guest
            && flow["direction"] == "from-guest"
            && flow["packets"] == 3
            && flow["verdict"] == "delivered"
    });
    assert!(requests.is_some(), "no flow of three delivered pings from {guest}: {}", verdict.json["flows"]);
}

#[test]
fn the_guests_are_found_without_being_told() {
    let Some((product, lab)) = setup("guests") else { return };
    let output = product.run(&lab.host, &["guests", "--json"]).unwrap();
    assert_eq!(output.code(), 0, "{output:?}");
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    let guests = shown["guests"].as_array().unwrap();
    assert_eq!(guests.len(), 2);
    for (plan, guest) in lab.plan.guests.iter().zip(&lab.guests) {
        let shown = guests.iter().find(|shown| shown["name"] == plan.name).unwrap();
        assert_eq!(shown["pid"].as_u64(), guest.pid().map(u64::from));
        let interface = &shown["interfaces"][0];
        assert_eq!(interface["device"], plan.tap);
        assert_eq!(interface["mac"], plan.port.mac);
        assert_eq!(interface["bridge"], lab.plan.bridge);
        assert_eq!(interface["uplinks"][0], lab.plan.uplink.device);
    }
    let text = product.run(&lab.host, &["guests"]).unwrap().stdout;
    for part in [&lab.plan.guests[0].name, &lab.plan.guests[1].tap, &lab.plan.bridge, &lab.plan.uplink.device] {
        assert!(text.contains(part.as_str()), "{part} is missing: {text}");
    }
}

#[test]
fn a_guest_that_starts_during_a_trace_is_traced() {
    let Some((product, mut lab)) = setup("newcomer") else { return };
    let (tap, bridge) = (lab.plan.guests[1].tap.clone(), lab.plan.bridge.clone());
    lab.guests[1].kill();
    lab.host.check(&format!("ip link del {tap}")).unwrap();
    let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
    lab.host
        .check(&format!("ip tuntap add dev {tap} mode tap vnet_hdr && ip link set {tap} master {bridge} up"))
        .unwrap();
    lab.guests[1].start().unwrap();
    let reached = wait_until(Duration::from_secs(5), || {
        let traffic = Traffic::ping("guest2", "lan");
        traffic.works(&lab.send(&traffic, true).unwrap())
    });
    assert!(reached, "the new guest does not work");
    ping(&lab, "guest2", "lan");
    let verdict = Verdict::of(&tracing.interrupt(Signal::SIGINT).unwrap()).unwrap();
    let name = lab.plan.guests[1].name.as_str();
    assert!(texts(&verdict.json["guests"], "name").contains(&name), "the new guest is not listed");
    assert!(texts(&verdict.json["flows"], "guest").contains(&name), "the new guest has no flow");
}

#[test]
fn other_namespaces_are_none_of_its_business() {
    let (Some((product, lab)), Some((_, other))) = (setup("here"), setup("elsewhere")) else { return };
    other
        .host
        .nft("add table netdev n; add chain netdev n c { type filter hook ingress device lo priority 0; }")
        .unwrap();
    let drop = format!(
        "add table bridge n; add chain bridge n c {{ type filter hook forward priority 0; }}; \
         add rule bridge n c ip daddr {} drop",
        other.plan.lan.addresses.v4
    );
    other.host.nft(&drop).unwrap();
    let ((), verdict) = product
        .verdict(&lab, &[], || {
            let facts = other.send(&Traffic::ping("guest1", "lan"), true)?;
            assert_eq!(facts.received, 0, "the other lab's fault is not real");
            ping(&lab, "guest1", "lan");
            Ok(())
        })
        .unwrap();
    let foreign = other.plan.guests[0].name.as_str();
    assert!(!verdict.json.to_string().contains(foreign), "another namespace's guest is shown");
    assert_eq!(verdict.json["totals"]["dropped"], 0, "another namespace's drops are counted");
    assert_eq!(verdict.code, 0);
}

#[test]
fn watch_tells_drops_as_lines_of_json_and_ends_after_the_wanted_number() {
    let Some((product, lab)) = setup("watch") else { return };
    let drop = "add table bridge n; add chain bridge n c { type filter hook forward priority 0; policy drop; }";
    lab.host.nft(drop).unwrap();
    let tracing = product.start(&lab, &["watch", "--json", "-c", "3"]).unwrap();
    lab.send(&Traffic { count: Some(6), ..Traffic::ping("guest1", "lan") }, true).unwrap();
    let output = tracing.process.finish(LIMIT).unwrap();
    assert_eq!(output.code(), 0, "{output:?}");
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(output.stdout.contains(&lab.plan.guests[0].tap) || output.stdout.contains(&lab.plan.uplink.device));
}

#[test]
fn the_text_of_a_verdict_says_where_why_and_what_to_type() {
    let Some((product, lab)) = setup("text") else { return };
    lab.host.check(&format!("ip link set dev {} mtu {}", lab.plan.uplink.device, lab.plan.small)).unwrap();
    let size = lab.plan.mtu - 28;
    let (namespace, target) = (lab.guests[0].namespace.name(), lab.plan.lan.addresses.v4);
    let line = format!("ip netns exec {namespace} ping -qc3 -i0.2 -W1 -Mdo -s{size} {target} >/dev/null");
    let output = product.run(&lab.host, &["verdict", "--color", "never", "--cmd", &line]).unwrap();
    assert_eq!(output.code(), 1, "{output:?}");
    let text = output.stdout;
    let fix = format!("ip link set dev {} mtu", lab.plan.uplink.device);
    for part in [lab.plan.guests[0].name.as_str(), "bridge-mtu-exceeded", &lab.plan.small.to_string(), &fix] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains('\x1b'), "colours were switched off");
}

#[test]
fn a_verdict_names_what_only_the_configuration_shows_and_a_clean_check_names_the_verdict() {
    let Some((product, lab)) = setup("further") else { return };
    let clean = product.run(&lab.host, &["check", "--color", "never"]).unwrap();
    assert!(clean.stdout.contains("trace them: kvmtrace verdict"), "{}", clean.stdout);
    let verdict = || product.run(&lab.host, &["verdict", "-d", "1", "--color", "never"]).unwrap().stdout;
    assert!(!verdict().contains("kvmtrace check\n"), "nothing to see there");
    // Nobody sends anything: no packet meets the fault.
    lab.host.check(&format!("bridge link set dev {} state 0", lab.plan.guests[0].tap)).unwrap();
    let text = verdict();
    assert!(text.contains("check sees 1 further fault in the configuration: kvmtrace check\n"), "{text}");
    let check = product.run(&lab.host, &["check", "--color", "never"]).unwrap();
    assert!(!check.stdout.contains("trace them: kvmtrace verdict"), "{}", check.stdout);
}

#[test]
fn a_manual_page_tells_each_option_of_each_command() {
    let kvmtrace = |arguments: &[&str]| {
        let mut command = Command::new(Product::find().unwrap().path());
        process::run(command.args(arguments), LIMIT).unwrap()
    };
    let page = kvmtrace(&["man", "verdict"]).stdout;
    assert!(page.contains("kvmtrace verdict"), "{page}");
    for option in ["guest", "interface", "all", "cmd", "json"] {
        assert!(page.contains(&format!("\\-\\-{option}")), "no --{option} in {page}");
    }
    refused(&kvmtrace(&["man", "verdictt"]), "verdictt");
    let directory = tempfile::tempdir().unwrap();
    let written = kvmtrace(&["man", "--output", directory.path().to_str().unwrap()]);
    assert_eq!(written.code(), 0, "{}", written.stderr);
    // Each page that one names is there.
    let main = fs::read_to_string(directory.path().join("kvmtrace.1")).unwrap();
    let named: Vec<_> = main.lines().filter_map(|line| line.strip_suffix("(1)")?.strip_prefix("kvmtrace\\-")).collect();
    assert!(named.contains(&"verdict"), "{main}");
    for name in named {
        assert!(directory.path().join(format!("kvmtrace-{name}.1")).is_file(), "kvmtrace-{name}(1)");
    }
}
