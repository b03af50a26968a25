//! What kvmtrace can do while it traces, and what it says where it may do less.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::{self, Background, Output, wait_until};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);
/// What the README asks for.
const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];

/// A bridge whose firewall drops pings.
fn setup(subject: &str) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    let options = Options { topology: Topology::Bridge, ..Options::default() };
    let lab = Lab::fixed(&format!("ktp{}{subject}", std::process::id()), &options).unwrap();
    Some((Product::find().unwrap(), lab))
}

fn drop_pings(lab: &Lab) {
    lab.host
        .nft("table bridge fw { chain c { type filter hook forward priority 0; ip protocol icmp counter drop; }; }")
        .unwrap();
}

fn ping(lab: &Lab) {
    let target = lab.plan.lan.addresses.v4;
    lab.guests[0].namespace.run(&format!("ping -n -q -c3 -i0.2 -W1 {target}")).unwrap();
}

/// The fields of /proc/PID/status for each thread of a process.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let fields = |path: PathBuf| {
        let text = fs::read_to_string(path.join("status")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once(":\t"))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|thread| fields(thread.path())).collect()
}

fn mask(fields: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&fields[set], 16).unwrap()
}

/// The children of a process by the name that they go by.
fn helpers(pid: u32) -> BTreeMap<String, u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let name =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().split('\0').next().unwrap().to_owned();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).map(|pid| (name(pid), pid)).collect()
}

#[test]
fn while_it_traces_it_keeps_what_tracing_needs_and_starts_nothing() {
    let Some((product, lab)) = setup("kept") else { return };
    for arguments in [&["verdict", "--json"][..], &["watch"], &["metrics", "--listen", "127.0.0.1:0"]] {
        let tracing = product.start(&lab, arguments).unwrap();
        let pid = tracing.process.pid();
        let confined = || threads(pid).iter().all(|thread| thread.get("Seccomp").is_some_and(|mode| mode == "2"));
        assert!(wait_until(Duration::from_secs(5), confined), "{arguments:?}: no filter");
        for thread in threads(pid) {
            // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYSLOG, CAP_PERFMON, CAP_BPF.
            let kept = [1, 2, 12, 19, 34, 38, 39].iter().fold(0, |mask, bit| mask | 1_u64 << bit);
            assert_eq!((mask(&thread, "CapEff"), mask(&thread, "CapPrm")), (kept, kept), "{arguments:?}");
            for set in ["CapBnd", "CapInh", "CapAmb"] {
                assert_eq!(mask(&thread, set), 0, "{arguments:?}: {set}");
            }
            assert_eq!(thread["NoNewPrivs"], "1", "{arguments:?}");
        }
        // They have no name for a moment while they start.
        let names = || helpers(pid).into_keys().collect::<Vec<_>>() == ["kvmtrace-grace-periods", "kvmtrace-rules"];
        assert!(wait_until(Duration::from_secs(5), names), "{arguments:?}: {:?}", helpers(pid));
        let helpers = helpers(pid);
        let of_tools = [1, 2, 12, 13].iter().fold(0, |mask, bit| mask | 1_u64 << bit);
        let have = |name: &str, set: &str, wanted: u64| {
            let all = || threads(helpers[name]).iter().all(|thread| mask(thread, set) == wanted);
            assert!(wait_until(Duration::from_secs(5), all), "{name}: {set} {:?}", threads(helpers[name]));
        };
        have("kvmtrace-grace-periods", "CapEff", 0);
        have("kvmtrace-rules", "CapEff", of_tools);
        have("kvmtrace-rules", "CapBnd", of_tools);
        tracing.interrupt(Signal::SIGINT).unwrap();
        let gone = || helpers.values().all(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        assert!(wait_until(Duration::from_secs(5), gone), "{arguments:?}: a helper is left");
    }
}

#[test]
fn a_rule_that_comes_while_it_traces_is_named() {
    let Some((product, lab)) = setup("rule") else { return };
    let tracing = product.start(&lab, &["verdict", "--json"]).unwrap();
    drop_pings(&lab);
    ping(&lab);
    let output = tracing.interrupt(Signal::SIGINT).unwrap();
    let verdict = Verdict::of(&output).unwrap();
    let flow = verdict.items().find(|flow| flow["cause"] == "netfilter-bridge").unwrap();
    assert!(flow["explanation"].as_str().unwrap().contains("bridge fw c"), "{flow}");
    assert_eq!(verdict.json["degraded"], serde_json::json!([]), "{output:?}");
}

/// Runs kvmtrace as nobody with these capabilities while a guest pings in vain.
fn with(product: &Product, lab: &Lab, capabilities: &[&str], arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (binary, ready) = (directory.path().join("kvmtrace"), directory.path().join("ready"));
    fs::copy(product.path(), &binary).unwrap();
    let list = capabilities.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
    let mut command = lab.host.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args([format!("--inh-caps={list}"), format!("--ambient-caps={list}"), format!("--bounding-set={list}")]);
    command.arg(&binary).args(arguments).arg("--ready-file").arg(&ready);
    let mut tracing = Background::start(&mut command).unwrap();
    wait_until(LIMIT, || ready.exists() || !tracing.is_running());
    if ready.exists() {
        ping(lab);
        std::thread::sleep(Duration::from_millis(400));
        tracing.signal(Signal::SIGINT).unwrap();
    }
    tracing.finish(LIMIT).unwrap()
}

#[test]
fn the_list_of_the_readme_is_enough_and_what_is_less_is_said() {
    let Some((product, lab)) = setup("list") else { return };
    drop_pings(&lab);
    let arguments = ["verdict", "--json"];
    let output = with(&product, &lab, &NEEDED, &arguments);
    let verdict = Verdict::of(&output).unwrap();
    assert_eq!(verdict.code, 1, "{output:?}");
    let flow = verdict.items().find(|flow| flow["protocol"] == "icmp").unwrap();
    // The rule is found though nobody says in which function it was.
    assert_eq!((flow["cause"].as_str(), flow["dropped"].as_u64()), (Some("netfilter-bridge"), Some(3)), "{flow}");
    let missing: Vec<&str> =
        verdict.json["degraded"].as_array().unwrap().iter().filter_map(|degraded| degraded["what"].as_str()).collect();
    assert!(missing.contains(&"processes of guests"), "{missing:?}");
    assert_eq!(flow["where"]["function"].is_null(), missing.contains(&"function names"), "{flow}");
    assert!(!verdict.json.to_string().contains("guest-gone"), "nobody could see whether it is");
    assert!(!output.stdout.contains("0xffff"), "an address of the kernel's");

    let all = [&NEEDED[..], &["sys_ptrace", "dac_read_search", "syslog"]].concat();
    let verdict = Verdict::of(&with(&product, &lab, &all, &arguments)).unwrap();
    assert_eq!(verdict.json["degraded"], serde_json::json!([]));
    let flow = verdict.items().find(|flow| flow["protocol"] == "icmp").unwrap();
    assert_eq!((flow["guest"].as_str(), flow["where"]["function"].as_str()), (Some("web1"), Some("nft_do_chain")));

    for missing in NEEDED {
        let rest: Vec<&str> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        let output = with(&product, &lab, &rest, &arguments);
        assert_eq!((output.code(), output.stdout.as_str()), (2, ""), "{output:?}");
        let name = format!("CAP_{} missing", missing.to_uppercase());
        assert!(output.stderr.contains(&name) && output.stderr.trim_end().lines().count() == 1, "{output:?}");
    }
}

#[test]
fn a_guest_that_can_not_be_seen_is_neither_up_nor_down() {
    let Some((product, lab)) = setup("up") else { return };
    let scrape = "for i in $(seq 50); do curl -s http://127.0.0.1:9997/metrics > \"$0\" && break; sleep 0.1; done";
    let text = |capabilities: &[&str]| {
        let told = lab.directory().join("told");
        let mut shell = lab.host.command("sh");
        shell.args(["-c", &format!("sleep 3; {scrape}")]).arg(&told);
        let reading = Background::start(&mut shell).unwrap();
        let list = capabilities.iter().fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = directory.path().join("kvmtrace");
        fs::copy(product.path(), &binary).unwrap();
        let mut command = lab.host.command("timeout");
        command.args(["-s", "INT", "8", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args([
            format!("--inh-caps={list}"),
            format!("--ambient-caps={list}"),
            format!("--bounding-set={list}"),
        ]);
        command.arg(&binary).args(["metrics", "--listen", "127.0.0.1:9997"]);
        process::run(&mut command, LIMIT).unwrap();
        reading.finish(LIMIT).unwrap();
        fs::read_to_string(told).unwrap()
    };
    let hidden = text(&NEEDED);
    assert!(hidden.contains("kvmtrace_guests 1") && !hidden.contains("kvmtrace_guest_up{"), "{hidden}");
    assert!(hidden.contains("what=\"processes of guests\""), "{hidden}");
    let seen = text(&[&NEEDED[..], &["sys_ptrace", "dac_read_search"]].concat());
    assert!(seen.contains("kvmtrace_guest_up{guest=\"web1\""), "{seen}");
}
