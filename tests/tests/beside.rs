//! Other programs on the hooks that kvmtrace uses.

#![allow(clippy::print_stdout, reason = "a skip is printed")]
#![allow(clippy::disallowed_methods, reason = "the test waits for a trace to notice")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;

/// A hook that was taken away is back within this time.
const NOTICED: Duration = Duration::from_millis(2_500);

/// The ids of the links to a device that a process holds (`bpf_link_show_fdinfo`).
fn links(process: u32, device: u32) -> Result<Vec<String>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if value("link_type:") == Some("tcx") && value("ifindex:") == Some(&device.to_string()) {
            links.extend(value("link_id:").map(ToOwned::to_owned));
        }
    }
    Ok(links)
}

#[test]
fn a_hook_that_is_taken_away_is_attached_again_and_reported() -> Result<()> {
    if !can_test("hooks")? {
        return Ok(());
    }
    if !Command::new("bpftool").arg("version").output().is_ok_and(|output| output.status.success()) {
        println!("SKIP: needs bpftool");
        return Ok(());
    }
    let lab = Lab::drawn(&Options::default(), Seed::choose()?, "hooks")?;
    let guest = &lab.guests[0];
    let tap = guest.plan.tap.as_str();
    let index: u32 = lab.host.check(&format!("cat /sys/class/net/{tap}/ifindex"))?.trim().parse()?;
    let tracing = Product::find()?.start(&lab, &["verdict", "--json"])?;
    let ours = links(tracing.process.pid(), index)?;
    if ours.is_empty() {
        println!("SKIP: no tcx links here");
        return Ok(());
    }
    for id in &ours {
        let detached = Command::new("bpftool").args(["link", "detach", "id", id]).output()?;
        ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    }
    std::thread::sleep(NOTICED);
    let target = lab.plan.lan.addresses.v4;
    guest.namespace.check(&format!("ping -nq -c5 -i0.2 -W2 {target}"))?;
    let report = Verdict::of(&tracing.interrupt(Signal::SIGINT)?)?.json;
    let degraded = report["degraded"].as_array().into_iter().flatten();
    let noticed = degraded.filter_map(|degraded| degraded["why"].as_str()).any(|why| why.contains("took away"));
    ensure!(noticed, "{:#}", report["degraded"]);
    let flows = report["flows"].as_array().into_iter().flatten();
    let source = guest.plan.port.addresses.v4.to_string();
    let ping = flows.into_iter().find(|flow| flow["protocol"] == "icmp" && flow["source"] == source.as_str());
    let hops = ping.context("the guest's ping is not seen")?["path"].clone();
    let at_tap = hops.as_array().into_iter().flatten().find(|hop| hop["device"] == tap);
    ensure!(at_tap.is_some_and(|hop| hop["packets"] == 5), "{hops:#}");
    Ok(())
}
