//! Two hosts, each with a bridge, a guest and a kvmtrace of its own; their recordings as one report.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Background};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Tracing, Verdict};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// Two labs whose LANs are one: the guest of the second has a third address, in the first one's network.
struct Hosts {
    labs: [Lab; 2],
    product: Product,
    target: String,
}

const NAMES: [&str; 2] = ["kvm1", "kvm2"];

impl Hosts {
    fn link() -> Result<Self> {
        let seed = Seed::choose()?;
        let lab = |name: &str| Lab::drawn(&Options::default(), seed, name).with_context(|| format!("seed {seed}"));
        let labs = [lab("join-one")?, lab("join-two")?];
        let [one, two] = &labs;
        one.lan.ip(&[format!("link add trunk type veth peer name trunk netns {}", two.lan.name())])?;
        for lab in &labs {
            let device = &lab.plan.lan.device;
            lab.lan.ip(&[
                "link add switch type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
                format!("link set {device} master switch"),
                "link set trunk up master switch".to_owned(),
                "link set switch up".to_owned(),
            ])?;
        }
        let target = one.plan.guest_net.host(99).v4.to_string();
        two.guests[0].namespace.ip(&[format!("addr add {target}/24 dev {}", two.guests[0].plan.port.device)])?;
        let hosts = Self { labs, product: Product::find()?, target };
        ensure!(process::wait_until(LIMIT, || hosts.ping(1).unwrap_or(false)), "the guests do not reach each other");
        Ok(hosts)
    }

    /// The first host's guest asks the second's; tells whether an answer came.
    fn ping(&self, count: u32) -> Result<bool> {
        let line = format!("ping -n -q -c{count} -i0.2 -W1 {}", self.target);
        Ok(self.labs[0].guests[0].namespace.run(&line)?.status.success())
    }

    /// Records on both hosts while the guests talk; what is told of both recordings together.
    fn report(&self) -> Result<Verdict> {
        let files = self.labs.each_ref().map(|lab| lab.directory().join("trace.kvmtrace"));
        let mut tracing = Vec::new();
        for ((lab, name), file) in self.labs.iter().zip(NAMES).zip(&files) {
            tracing.push(self.record(lab, name, file)?);
        }
        self.ping(5)?;
        for tracing in tracing {
            let output = tracing.interrupt(Signal::SIGINT)?;
            ensure!(output.code() == 0, "record: {}", output.stderr);
        }
        let output = process::run(Command::new(self.product.path()).args(["report", "--json"]).args(&files), LIMIT)?;
        Verdict::of(&output)
    }

    /// kvmtrace on a host that has a name of its own.
    fn record(&self, lab: &Lab, name: &str, file: &PathBuf) -> Result<Tracing> {
        let ready = lab.directory().join("ready");
        let mut command = lab.host.command("unshare");
        command.args(["--uts", "sh", "-c", r#"hostname "$0" && exec "$@""#, name]).arg(self.product.path());
        command.args(["record", "--force", "-o"]).arg(file).arg("--ready-file").arg(&ready);
        let process = Background::start(&mut command)?;
        ensure!(process::wait_until(LIMIT, || ready.exists()), "kvmtrace on {name} did not get ready");
        Ok(Tracing { process, ready })
    }

    /// The flow of requests in a report.
    fn requests<'a>(&self, report: &'a Verdict) -> Result<&'a serde_json::Value> {
        let source = self.labs[0].guests[0].plan.port.addresses.v4.to_string();
        let mut flows = report.json["flows"].as_array().into_iter().flatten().filter(|flow| {
            flow["protocol"] == "icmp"
                && flow["source"] == source.as_str()
                && flow["destination"] == self.target.as_str()
        });
        let flow = flows.next().with_context(|| format!("no such flow: {:#}", report.json))?;
        ensure!(flows.next().is_none(), "the flow is told twice: {:#}", report.json);
        Ok(flow)
    }
}

#[test]
fn a_conversation_of_two_hosts_is_one_path_and_its_fault_is_named_where_it_is() -> Result<()> {
    if !can_test("join")? {
        return Ok(());
    }
    let hosts = Hosts::link()?;
    let [one, two] = &hosts.labs;
    let device = |name: &str, device: &str| format!("{name}/{device}");
    let all = [
        device(NAMES[0], &one.plan.guests[0].tap),
        device(NAMES[0], &one.plan.uplink.device),
        device(NAMES[1], &two.plan.uplink.device),
        device(NAMES[1], &two.plan.guests[0].tap),
    ];

    let report = hosts.report()?;
    let flow = hosts.requests(&report)?;
    let path: Vec<_> = flow["path"].as_array().into_iter().flatten().filter_map(|hop| hop["device"].as_str()).collect();
    assert_eq!(path, all, "{flow:#}");
    assert_eq!((&flow["verdict"], &flow["packets"]), (&"delivered".into(), &5.into()), "{flow:#}");
    assert_eq!(flow["direction"], "guest-to-guest", "{flow:#}");
    // Between the hosts there is one wire, whatever their clocks say.
    let between = flow["path"][2]["latency_ns"]["p50"].as_u64().context("no latency between the hosts")?;
    assert!(between < 100_000_000, "{between} ns");

    two.host.nft(
        "table bridge t { chain f { type filter hook forward priority 0; ether type ip ip protocol icmp drop; }; }",
    )?;
    let report = hosts.report()?;
    let flow = hosts.requests(&report)?;
    assert_eq!(report.code, 1);
    assert_eq!((&flow["verdict"], &flow["cause"]), (&"dropped".into(), &"netfilter-bridge".into()), "{flow:#}");
    let place = flow["where"]["device"].as_str().unwrap_or_default();
    assert!(place.starts_with("kvm2/"), "{flow:#}");
    assert!(flow["fixes"][0]["why"].as_str().unwrap_or_default().starts_with("on kvm2: "), "{flow:#}");
    assert_eq!(flow["fixes"][0]["host"], "kvm2", "{flow:#}");
    let files = hosts.labs.each_ref().map(|lab| lab.directory().join("trace.kvmtrace"));
    let text = process::run(Command::new(hosts.product.path()).arg("report").args(&files), LIMIT)?.stdout;
    assert!(text.contains("  on     kvm2\n  fix    "), "{text}");
    Ok(())
}
