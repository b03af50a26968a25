//! Parts of a recording: `report`, `export` and `replay` with a guest, a filter, a cause, a stretch of time. A filter selects
//! among verdicts and changes none.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Output};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

struct Recorded {
    lab: Lab,
    product: Product,
    file: String,
}

/// Two guests speak with the LAN: the first guest's pings are dropped, those of the second are answered; the second begins
/// two seconds later.
fn recorded(name: &str) -> Option<Recorded> {
    if !can_test("parts of a recording").unwrap() {
        return None;
    }
    let options = Options { guests: 2, mtu: Some(1500), ..Options::default() };
    let lab = Lab::fixed(&format!("ktp{}{name}", std::process::id()), &options).unwrap();
    let source = lab.plan.guests[0].port.addresses.v4;
    let rule = format!(
        "nft add table bridge t; nft add chain bridge t f '{{ type filter hook forward priority 0; }}'; \
         nft add rule bridge t f ip saddr {source} ip protocol icmp drop"
    );
    lab.host.check(&rule).unwrap();
    let product = Product::find().unwrap();
    let file = lab.directory().join("trace.kvmtrace").to_str().unwrap().to_owned();
    let tracing = product.start(&lab, &["record", "--force", "-o", &file]).unwrap();
    let lan = lab.plan.lan.addresses.v4;
    lab.guests[0].namespace.run(&format!("ping -n -q -c3 -i0.2 -W1 {lan}")).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    lab.guests[1].namespace.check(&format!("ping -n -q -c4 -i0.2 -W1 {lan}")).unwrap();
    tracing.interrupt(Signal::SIGINT).unwrap();
    Some(Recorded { lab, product, file })
}

impl Recorded {
    fn run(&self, arguments: &[&str]) -> Output {
        process::run(Command::new(self.product.path()).args(arguments), LIMIT).unwrap()
    }

    fn report(&self, part: &[&str]) -> Verdict {
        Verdict::of(&self.run(&[&["report", "--json", &self.file], part].concat())).unwrap()
    }

    fn name(&self, guest: usize) -> &str {
        &self.lab.plan.guests[guest].name
    }
}

fn flows(verdict: &Verdict) -> &Vec<Value> {
    verdict.json["flows"].as_array().unwrap()
}

/// `PROTOCOL VERDICT CAUSE` of each echo request.
fn requests(verdict: &Verdict, source: &str) -> Vec<String> {
    let own = flows(verdict).iter().filter(|flow| flow["protocol"] == "icmp" && flow["source"] == source);
    own.map(|flow| format!("{} {}", flow["verdict"].as_str().unwrap(), flow["cause"].as_str().unwrap_or("-"))).collect()
}

#[test]
fn a_part_of_a_recording_has_the_verdicts_of_the_whole() {
    let Some(recorded) = recorded("whole") else { return };
    let [first, second] = [0, 1].map(|guest: usize| recorded.lab.plan.guests[guest].port.addresses.v4.to_string());
    let whole = recorded.report(&[]);
    assert_eq!(requests(&whole, &first), ["dropped netfilter-bridge"]);
    assert_eq!(requests(&whole, &second), ["delivered -"]);
    assert_eq!(whole.code, 1);

    let of_second = recorded.report(&["-g", recorded.name(1)]);
    assert!(flows(&of_second).iter().all(|flow| flow["guest"] == recorded.name(1)), "{:#}", of_second.json);
    assert_eq!((requests(&of_second, &second).as_slice(), of_second.code), (["delivered -".to_owned()].as_slice(), 0));
    assert_eq!(of_second.json["guests"].as_array().map(Vec::len), Some(1));
    assert_eq!(of_second.json["totals"]["dropped"], 0);
    let by_device = recorded.report(&["-i", &recorded.lab.plan.guests[1].tap]);
    assert_eq!(flows(&by_device), flows(&of_second));

    // The answers are no part of what is asked for, and the verdict knows of them all the same.
    let filtered = recorded.report(&["src", "host", &second, "and", "icmp"]);
    assert_eq!(flows(&filtered).len(), 1);
    assert_eq!(requests(&filtered, &second), ["delivered -"]);
    let mac = &recorded.lab.plan.guests[0].port.mac;
    let by_mac = recorded.report(&["ether", "src", mac, "and", "icmp"]);
    assert_eq!(requests(&by_mac, &first), ["dropped netfilter-bridge"]);
    assert_eq!(flows(&by_mac).len(), 1);

    for part in [&["--cause", "netfilter-bridge"][..], &["--verdict", "dropped"], &["--faults-only"]] {
        let part = recorded.report(part);
        assert_eq!(requests(&part, &first), ["dropped netfilter-bridge"]);
        assert!(requests(&part, &second).is_empty());
        assert_eq!(part.code, 1);
    }
    assert_eq!(flows(&recorded.report(&["--cause", "arp-storm"])).len(), 0);
}

#[test]
fn a_stretch_of_time_is_judged_as_if_nothing_else_had_been_recorded() {
    let Some(recorded) = recorded("time") else { return };
    let [first, second] = [0, 1].map(|guest: usize| recorded.lab.plan.guests[guest].port.addresses.v4.to_string());
    // The first guest is done after 1.6 s at the latest, the second begins after 2.4 s at the earliest.
    let early = recorded.report(&["--until", "2"]);
    assert_eq!(requests(&early, &first), ["dropped netfilter-bridge"]);
    assert!(requests(&early, &second).is_empty(), "{:#}", early.json);
    let late = recorded.report(&["--since", "2s"]);
    assert!(requests(&late, &first).is_empty(), "{:#}", late.json);
    assert_eq!(requests(&late, &second), ["delivered -"]);
    assert_eq!(late.code, 0);
    let lines = recorded.run(&["export", &recorded.file, "--to", "json", "-o", "-", "--since", "2s"]).stdout;
    let pings = |source: &str| {
        let is_own = |line: &&str| line.contains("\"icmp\"") && line.contains(&format!("\"source\":\"{source}\""));
        lines.lines().filter(is_own).count()
    };
    assert!(pings(&second) > 0);
    assert_eq!(pings(&first), 0);
}

#[test]
fn an_export_holds_only_what_was_selected_and_standard_input_is_a_file() {
    let Some(recorded) = recorded("export") else { return };
    let [first, second] = [0, 1].map(|guest: usize| recorded.lab.plan.guests[guest].port.addresses.v4.to_string());
    let of = |address: &str| format!("\"source\":\"{address}\"");
    let export =
        |part: &[&str]| recorded.run(&[&["export", &recorded.file, "--to", "json", "-o", "-"], part].concat()).stdout;
    let (all, part) = (export(&[]), export(&["host", &second]));
    assert!(all.contains(&of(&first)) && all.contains(&of(&second)));
    assert!(!part.contains(&of(&first)) && part.contains(&of(&second)));
    assert!(part.contains("\"event\":\"ended\""), "what is of no flow stays");

    let line = "exec \"$0\" report - --json < \"$1\"";
    let mut from_input = Command::new("sh");
    from_input.args(["-c", line]).arg(recorded.product.path()).arg(&recorded.file);
    let output = process::run(&mut from_input, LIMIT).unwrap();
    assert_eq!(output.stdout, recorded.run(&["report", &recorded.file, "--json"]).stdout);
}

#[test]
fn what_can_not_be_selected_is_refused_in_one_line() {
    let Some(recorded) = recorded("no") else { return };
    for (part, complaint) in [
        (&["-g", "nobody"][..], "nobody: no guest of the recording has this name"),
        (&["--cause", "gremlins"], "gremlins: no such cause"),
        (&["--verdict", "fine"], "fine: no such verdict"),
        (&["--since", "soon"], "\"soon\" is no time"),
        (&["tpc", "port", "80"], "unknown keyword \"tpc\" (did you mean tcp?)"),
    ] {
        let output = recorded.run(&[&["report", &recorded.file], part].concat());
        assert_eq!((output.code(), output.stdout.as_str()), (2, ""), "{part:?}");
        assert!(
            output.stderr.contains(complaint) && output.stderr.trim_end().lines().count() == 1,
            "{}",
            output.stderr
        );
    }
}
