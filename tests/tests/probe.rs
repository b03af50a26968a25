//! `kvmtrace probe`, from outside: what it sends, what it finds with no traffic of the guest's own, what it refuses, and that
//! nothing of it is left.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::{self, Background, Output, wait_until};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::time::Duration;

/// The product and a lab; none where the lab can't be.
fn setup(subject: &str, options: &Options) -> Option<(Product, Lab)> {
    if !can_test(subject).unwrap() {
        return None;
    }
    Some((Product::find().unwrap(), Lab::drawn(options, Seed::choose().unwrap(), subject).unwrap()))
}

fn of(topology: Topology) -> Options {
    Options { topology, guests: 2, ..Options::default() }
}

/// `kvmtrace probe` of the first guest, whose addresses it is given.
fn run(product: &Product, lab: &Lab, arguments: &[&str]) -> Output {
    let guest = &lab.plan.guests[0];
    let source = guest.port.addresses.v4.to_string();
    let all = [&["probe", &guest.name, "--source", &source], arguments].concat();
    product.run(&lab.host, &all).unwrap()
}

fn probe(product: &Product, lab: &Lab, arguments: &[&str]) -> Verdict {
    Verdict::of(&run(product, lab, &[arguments, &["--json"]].concat())).unwrap()
}

fn lan(lab: &Lab) -> String {
    lab.plan.lan.addresses.v4.to_string()
}

#[track_caller]
fn refused(output: &Output, names: &str) {
    assert_eq!(output.code(), 2, "{output:?}");
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(names), "{names} is not named: {}", output.stderr);
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {}", output.stderr);
}

#[track_caller]
fn ended(verdict: &Verdict, outcome: &str, cause: Option<&str>) {
    let probe = &verdict.json["probe"];
    assert_eq!((probe["outcome"].as_str(), probe["cause"].as_str()), (Some(outcome), cause), "{:#}", verdict.json);
}

#[test]
fn a_healthy_host_answers_and_the_model_does_not_object() {
    use Topology::{Bridge, Macvtap, Nat, Routed, Vxlan};
    for topology in [Bridge, Routed, Nat, Vxlan, Macvtap] {
        healthy(topology);
    }
}

fn healthy(topology: Topology) {
    let Some((product, lab)) = setup(&format!("probe-healthy-{topology:?}"), &of(topology)) else { return };
    let verdict = probe(&product, &lab, &["to", &lan(&lab)]);
    ended(&verdict, "answered", None);
    let probe = &verdict.json["probe"];
    assert_eq!((probe["sent"].as_u64(), probe["answered"].as_u64()), (Some(3), Some(3)), "{probe:#}");
    assert_ne!(probe["expected"]["outcome"], "dropped", "{probe:#}");
    assert_eq!(verdict.code, 0);
    assert_eq!(verdict.json["flows"].as_array().map(Vec::len), Some(2), "there and back: {:#}", verdict.json);
}

#[test]
fn a_sweep_finds_the_bridges_mtu_and_who_stops_the_next() {
    let Some((product, lab)) = setup("probe-sweep", &Options { mtu: Some(4000), ..of(Topology::Bridge) }) else {
        return;
    };
    let (uplink, small) = (&lab.plan.uplink.device, lab.plan.small);
    lab.host.ip(&[format!("link set {uplink} mtu {small}")]).unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab), "--sweep", "--df"]);
    let sweep = &verdict.json["sweep"];
    // A bridge leaves room for a VLAN tag, whether the frame bears one or not (`is_skb_forwardable`).
    let largest = u64::from(small) + 4;
    assert_eq!(sweep["largest"].as_u64(), Some(largest), "{:#}", verdict.json);
    assert_eq!(sweep["next"].as_u64(), Some(largest + 1));
    assert_eq!(sweep["told"], false, "a bridge tells nobody");
    ended(&verdict, "dropped", Some("bridge-mtu-exceeded"));
    assert_eq!(verdict.json["probe"]["where"]["device"], uplink.as_str());
    assert_eq!(verdict.code, 1);
}

#[test]
fn a_sweep_over_a_router_says_that_the_sender_is_told() {
    let Some((product, lab)) = setup("probe-routed-sweep", &of(Topology::Routed)) else { return };
    let (uplink, small) = (&lab.plan.uplink.device, lab.plan.small);
    lab.host.ip(&[format!("link set {uplink} mtu {small}")]).unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab), "--sweep", "--df"]);
    let sweep = &verdict.json["sweep"];
    assert_eq!(sweep["largest"].as_u64(), Some(u64::from(small)), "{:#}", verdict.json);
    assert_eq!(sweep["told"], true, "{:#}", verdict.json);
}

#[test]
fn a_rule_that_drops_is_found_without_any_traffic_of_the_guest() {
    let Some((product, lab)) = setup("probe-nft", &of(Topology::Routed)) else { return };
    let rules =
        "table inet fw { chain forward { type filter hook forward priority 0; icmp type echo-request drop; }; }";
    lab.host.nft(rules).unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab)]);
    ended(&verdict, "dropped", Some("netfilter-forward"));
    assert_eq!(verdict.code, 1);
    lab.host.nft("delete table inet fw").unwrap();
    ended(&probe(&product, &lab, &["to", &lan(&lab)]), "answered", None);
}

#[test]
fn an_answer_that_dies_is_predicted() {
    let Some((product, lab)) = setup("probe-answer-drop", &of(Topology::Routed)) else { return };
    let guest = lab.plan.guests[0].port.addresses.v4;
    let rules =
        format!("chain c {{ type filter hook forward priority 0; ip daddr {guest} icmp type echo-reply drop; }};");
    lab.host.check(&format!("nft 'table ip kt_drop {{ {rules} }};'")).unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab)]);
    ended(&verdict, "dropped", Some("netfilter-forward"));
    let expected = &verdict.json["probe"]["expected"];
    assert_eq!(expected["outcome"], "dropped", "{expected:#}");
    assert!(expected["text"].as_str().unwrap().contains("answer"), "{expected:#}");
}

#[test]
fn a_masquerade_that_is_missing_is_found() {
    let Some((product, lab)) = setup("probe-nat", &of(Topology::Nat)) else { return };
    lab.host.nft("delete table inet lab_nat").unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab)]);
    ended(&verdict, "unanswered", Some("nat-missing"));
}

#[test]
fn a_port_that_is_closed_refuses_and_one_that_listens_answers() {
    let Some((product, lab)) = setup("probe-tcp", &of(Topology::Bridge)) else { return };
    let port = lab.plan.port.to_string();
    let host = lab.plan.host.addresses.v4.to_string();
    ended(&probe(&product, &lab, &["to", &host, "tcp", &port]), "refused", Some("port-closed"));
    let server = format!("python3 -m http.server --bind {host} {port}");
    let _server = lab.host.background(&server).unwrap();
    let listens = || lab.host.run("ss -lnt").is_ok_and(|output| output.stdout.contains(&format!(":{port} ")));
    assert!(wait_until(Duration::from_secs(10), listens), "the server did not come up");
    ended(&probe(&product, &lab, &["to", &host, "tcp", &port]), "answered", None);
}

#[test]
fn a_guest_that_is_paused_is_left_alone() {
    let Some((product, lab)) = setup("probe-paused", &of(Topology::Bridge)) else { return };
    let captured = capture(&lab, "arp or icmp");
    lab.guests[0].pause(true).unwrap();
    refused(&run(&product, &lab, &["to", &lan(&lab)]), "is paused");
    assert_eq!(captured(Duration::from_secs(1)), "", "something was sent");
    lab.guests[0].pause(false).unwrap();
}

#[test]
fn what_stands_in_the_way_is_the_answer_where_nothing_can_be_sent() {
    let Some((product, lab)) = setup("probe-refused", &of(Topology::Bridge)) else { return };
    let tap = &lab.plan.guests[0].tap;
    lab.host.check(&format!("ip link set dev {tap} down")).unwrap();
    let verdict = probe(&product, &lab, &["to", &lan(&lab)]);
    let incident = &verdict.json["incidents"][0];
    assert_eq!((verdict.code, incident["cause"].as_str()), (1, Some("link-down")), "{:#}", verdict.json);
    assert_eq!(verdict.json["probes"].as_array().map(Vec::len), Some(0), "{:#}", verdict.json);
    let mended = incident["fixes"][0]["command"].as_str().unwrap();
    let said = run(&product, &lab, &["to", &lan(&lab)]);
    assert!(said.stderr.contains(&format!("nothing was sent: {tap} is down")), "{said:?}");
    lab.host.check(mended).unwrap();
    ended(&probe(&product, &lab, &["to", &lan(&lab)]), "answered", None);
}

#[test]
fn a_sender_on_the_lan_first_asks_for_the_guest() {
    let Some((product, lab)) = setup("probe-asks", &of(Topology::Bridge)) else { return };
    let tap = &lab.plan.guests[0].tap;
    let sender = lan(&lab);
    let from = ["--from", sender.as_str(), "icmp"];
    ended(&probe(&product, &lab, &from), "answered", None);
    // Its request is a broadcast, and the guest's port gets none any more.
    lab.host.check(&format!("bridge link set dev {tap} bcast_flood off")).unwrap();
    let verdict = probe(&product, &lab, &from);
    assert_eq!(verdict.json["probe"]["cause"], "bridge-flood-disabled", "{:#}", verdict.json);
}

#[test]
fn check_probes_what_guests_should_reach() {
    let Some((product, lab)) = setup("check-probe", &of(Topology::Nat)) else { return };
    for guest in &lab.guests {
        lab.host.check(&format!("ping -c1 -W2 {}", guest.plan.port.addresses.v4)).unwrap();
    }
    let check = || Verdict::of(&product.run(&lab.host, &["check", "--probe", "--json"]).unwrap()).unwrap();
    let healthy = check();
    let outcomes = |verdict: &Verdict| {
        let probes = verdict.json["probes"].as_array().unwrap().iter();
        probes.map(|probe| probe["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = outcomes(&healthy);
    assert!(all.len() >= 4 && all.iter().all(|outcome| outcome == "answered"), "{:#}", healthy.json);
    assert_eq!(healthy.code, 0, "{:#}", healthy.json);
    let tap = &lab.plan.guests[0].tap;
    let rules =
        format!("chain c {{ type filter hook prerouting priority 0; iifname \"{tap}\" ip protocol icmp drop; }};");
    lab.host.check(&format!("nft 'table bridge kt_drop {{ {rules} }};'")).unwrap();
    let broken = check();
    assert!(outcomes(&broken).iter().any(|outcome| outcome != "answered"), "{:#}", broken.json);
    assert_eq!(broken.code, 1, "{:#}", broken.json);
}

#[test]
fn a_guest_that_is_silent_has_the_address_that_this_host_leased() {
    let Some((product, lab)) = setup("leases", &of(Topology::Nat)) else { return };
    let guest = &lab.plan.guests[0];
    let (mac, leased) = (&guest.port.mac, guest.port.addresses.v4);
    lab.host.check("ip neigh flush all; ip -6 neigh flush all").unwrap();
    // The machine's own leases stay out of it.
    let script = format!(
        "mount -t tmpfs none /var/lib/misc && echo 0 {mac} {leased} web1 01:{mac} > /var/lib/misc/dnsmasq.leases && {} guests --json",
        product.path().display()
    );
    let told = lab.host.check(&format!("unshare -m sh -c '{script}'")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let guests = told["guests"].as_array().or(told.as_array()).unwrap();
    let found = guests.iter().find(|other| other["name"] == guest.name.as_str()).unwrap();
    assert_eq!(found["interfaces"][0]["addresses"], serde_json::json!([leased.to_string()]), "{told:#}");
}

#[test]
fn from_the_uplink_it_reaches_the_guest_which_answers() {
    let Some((product, lab)) = setup("probe-from", &of(Topology::Bridge)) else { return };
    let guest = &lab.plan.guests[0];
    lab.host.check(&format!("ping -c1 -W2 {}", lan(&lab))).unwrap();
    let verdict = probe(&product, &lab, &["--from", &lan(&lab)]);
    ended(&verdict, "answered", None);
    assert_eq!(verdict.json["probe"]["device"], lab.plan.uplink.device.as_str());
    let there = verdict.json["flows"].as_array().unwrap().iter().find(|flow| flow["direction"] == "to-guest").unwrap();
    let last = there["path"].as_array().unwrap().last().unwrap();
    assert_eq!((last["device"].as_str(), last["direction"].as_str()), (Some(guest.tap.as_str()), Some("egress")));
}

#[test]
fn a_guest_whose_request_for_its_next_hop_dies_sends_nothing() {
    let Some((product, lab)) = setup("probe-next-hop", &of(Topology::Routed)) else { return };
    let gateway = lab.plan.host.addresses.v4.to_string();
    ended(&probe(&product, &lab, &["to", &gateway]), "answered", None);
    // Echo requests to the host's own MAC address would still be answered.
    let rule = format!(
        "nft add table bridge t; nft add chain bridge t f '{{ type filter hook input priority 0; }}'; \
         nft add rule bridge t f iifname {} ether type arp drop",
        lab.plan.guests[0].tap
    );
    lab.host.check(&rule).unwrap();
    let verdict = probe(&product, &lab, &["to", &gateway]);
    ended(&verdict, "dropped", Some("netfilter-bridge"));
    assert_eq!(verdict.json["probe"]["protocol"], "arp", "{:#}", verdict.json);
}

#[test]
fn a_sender_that_the_host_never_spoke_with_is_asked_for_by_the_guest() {
    let Some((product, lab)) = setup("probe-unknown-sender", &of(Topology::Bridge)) else { return };
    let known = lab.host.run("ip neigh show").unwrap().stdout;
    assert!(!known.contains(&lab.plan.lan.mac), "the lab's host knows the LAN: {known}");
    ended(&probe(&product, &lab, &["--from", &lan(&lab)]), "answered", None);
    // The guest's request is dropped: nobody can say which MAC address a packet from there would bear.
    let rule = format!(
        "nft add table bridge t; nft add chain bridge t f '{{ type filter hook forward priority 0; }}'; \
         nft add rule bridge t f iifname {} ether type arp drop",
        lab.plan.guests[0].tap
    );
    lab.host.check(&rule).unwrap();
    ended(&probe(&product, &lab, &["--from", &lan(&lab)]), "dropped", Some("netfilter-bridge"));
}

#[test]
fn expect_decides_the_exit_status() {
    let Some((product, lab)) = setup("probe-expect", &of(Topology::Bridge)) else { return };
    let target = lan(&lab);
    assert_eq!(run(&product, &lab, &["to", &target, "--expect", "answered"]).code(), 0);
    assert_eq!(run(&product, &lab, &["to", &target, "--expect", "dropped"]).code(), 1);
    let free = lab.plan.guest_net.host(200).v4.to_string();
    assert_eq!(run(&product, &lab, &["to", &free, "--expect", "unanswered"]).code(), 0);
}

/// What arrives on the LAN, as tcpdump prints it with bytes; gives the text once asked for.
fn capture(lab: &Lab, filter: &str) -> impl FnOnce(Duration) -> String + use<> {
    let file = lab.directory().join("frames");
    let line = format!("tcpdump -Z root -Unni {} -w {} '{filter}'", lab.plan.lan.device, file.display());
    let tcpdump = lab.lan.background(&line).unwrap();
    assert!(wait_until(Duration::from_secs(10), || file.exists()), "tcpdump did not start");
    let read = lab.lan.shell(&format!("tcpdump -nnt -xx -r {}", file.display()));
    move |rest| {
        std::thread::sleep(rest);
        stop(tcpdump);
        let mut read = read;
        process::run(&mut read, Duration::from_secs(10)).unwrap().stdout
    }
}

fn stop(process: Background) {
    process.signal(Signal::SIGTERM).unwrap();
    process.finish(Duration::from_secs(10)).unwrap();
}

/// The bytes of each frame of `tcpdump -xx`.
fn frames(text: &str) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        match line.trim_start().strip_prefix("0x").filter(|_| line.starts_with('\t')) {
            Some(bytes) => {
                let digits: String = bytes.split_once(':').unwrap().1.split_whitespace().collect();
                let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
                frames.last_mut().unwrap().extend(bytes);
            }
            None => frames.push(Vec::new()),
        }
    }
    frames
}

fn mac(text: &str) -> Vec<u8> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn what_arrives_on_the_lan_is_what_was_said_byte_for_byte() {
    let Some((product, lab)) = setup("probe-bytes", &of(Topology::Bridge)) else { return };
    let guest = &lab.plan.guests[0].port;
    let captured = capture(&lab, &format!("ether src {} and (arp[6:2] == 1 or icmp[0] == 8)", guest.mac));
    let verdict = probe(&product, &lab, &["to", &lan(&lab), "-c", "2", "--size", "100"]);
    ended(&verdict, "answered", None);
    let text = captured(Duration::from_millis(300));
    let frames = frames(&text);
    let (arp, echo): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame[12..14] == [8, 6]);
    // The host did not know the LAN's machine: one request for it, and nothing else but the echo requests.
    assert_eq!((arp.len(), echo.len()), (1, 2), "{text}");
    let (own, far) = (guest.addresses.v4.octets(), lab.plan.lan.addresses.v4.octets());
    let expected = [
        &[0xff; 6][..],
        &mac(&guest.mac),
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac(&guest.mac),
        &own,
        &[0; 6],
        &far,
        b"kvmtrace probe ",
    ]
    .concat();
    assert_eq!(arp[0][..57], expected);
    for (echo, number) in echo.iter().zip(1_u8..) {
        assert_eq!(echo.len(), 114);
        let expected = [&mac(&lab.plan.lan.mac)[..], &mac(&guest.mac), &[8, 0, 0x45, 0, 0, 100]].concat();
        assert_eq!(echo[..18], expected);
        assert_eq!(echo[20..24], [0, 0, 61, 1], "no DF, TTL 61, ICMP");
        assert_eq!((&echo[26..30], &echo[30..34]), (&own[..], &far[..]));
        assert_eq!(echo[34..36], [8, 0]);
        assert_eq!(echo[38] >> 4, 0xf, "an identifier from 61440 on");
        assert_eq!(echo[40..42], [0, number]);
        assert_eq!(echo[42..57], *b"kvmtrace probe ");
        assert!(echo[65..].iter().all(|byte| *byte == 0), "{:?}", &echo[57..]);
    }
}

#[test]
fn nothing_is_left_whenever_it_is_killed() {
    let Some((product, lab)) = setup("probe-killed", &Options { mtu: Some(9000), ..of(Topology::Bridge) }) else {
        return;
    };
    let guest = lab.plan.guests[0].clone();
    let source = guest.port.addresses.v4.to_string();
    let state = || {
        let devices = lab.host.check("ls /sys/class/net").unwrap();
        let filters = devices.split_whitespace().map(|device| {
            let line = format!("tc qdisc show dev '{device}'; tc filter show dev '{device}' ingress");
            lab.host.run(&line).unwrap().stdout
        });
        format!("{devices}{}", filters.collect::<String>())
    };
    let before = state();
    let has_device = || lab.host.check("ls /sys/class/net").unwrap().contains("kvmtrace-p");
    // A frame of more than a page is handed over by a device of kvmtrace's own.
    let target = lan(&lab);
    let arguments = ["probe", &guest.name, "--source", &source, "to", &target, "--size", "8000", "--df", "-c", "100"];
    let killed = |when: &str, wait: &dyn Fn()| {
        let process = Background::start(&mut product.command(&lab.host, &arguments)).unwrap();
        wait();
        process.signal(Signal::SIGKILL).unwrap();
        process.finish(Duration::from_secs(10)).unwrap();
        let clean = || state() == before;
        assert!(wait_until(Duration::from_secs(5), clean), "killed {when}: {}\nbefore: {before}", state());
    };
    for moment in [50, 200, 500, 1_000, 1_500] {
        killed(&format!("after {moment} ms"), &|| std::thread::sleep(Duration::from_millis(moment)));
    }
    killed("with its device there", &|| {
        assert!(wait_until(Duration::from_secs(30), has_device), "there never was anything to leave");
    });
}

#[test]
fn what_can_not_be_sent_is_refused_in_one_line() {
    let Some((product, lab)) = setup("probe-refused", &of(Topology::Bridge)) else { return };
    let guest = lab.plan.guests[0].name.clone();
    let target = lan(&lab);
    let refuse = |arguments: &[&str], names: &str| {
        let all = [&["probe"], arguments].concat();
        refused(&product.run(&lab.host, &all).unwrap(), names);
    };
    refuse(&["nobody", "to", &target], "nobody: no such guest");
    refuse(&[&guest, "to", &target], "--source");
    let source = lab.plan.guests[0].port.addresses.v4.to_string();
    let given = |arguments: &[&str], names: &str| refused(&run(&product, &lab, arguments), names);
    given(&["to", "no-such-name.invalid"], "no-such-name.invalid");
    given(&["to", &target, "--size", "65536"], "65536");
    given(&["to", &target, "--size", "10"], "10");
    given(&["to", &target, "tcp"], "port");
    given(&["to", "192.0.2.7"], "--via");
    given(&["--from", "192.0.2.7"], "--via");
    given(&["to", &target, "--mac", "nonsense"], "nonsense");
    given(&[], "--yes");
    let unprivileged = format!(
        "setpriv --inh-caps=-all --bounding-set=-all {} probe '{guest}' --source {source} to {target}",
        product.path().display()
    );
    refused(&lab.host.run(&unprivileged).unwrap(), "CAP_");
}

#[test]
fn without_a_target_it_probes_what_the_guest_should_reach() {
    let Some((product, lab)) = setup("probe-usual", &of(Topology::Routed)) else { return };
    let verdict = probe(&product, &lab, &["--yes"]);
    let probes = verdict.json["probes"].as_array().unwrap();
    assert!(!probes.is_empty());
    let host = lab.plan.host.addresses.v4.to_string();
    assert!(probes.iter().any(|probe| probe["destination"] == host.as_str()), "{probes:#?}");
    assert!(probes.iter().all(|probe| probe["outcome"] == "answered"), "{probes:#?}");
}
