//! Counting begins and ends at one moment on all devices: a flow that runs before, during and after a trace has the same
//! counts all along its path.

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::wait_until;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Packets under way at the switch's very moment: seen at one hook and not at the next.
const UNDER_WAY: u64 = 1;

#[test]
fn a_flow_that_runs_all_the_time_has_equal_counts_along_its_path() -> Result<()> {
    if !can_test("moment")? {
        return Ok(());
    }
    let seed = Seed::choose()?;
    // Several guests: the more devices, the longer attaching takes.
    let lab = Lab::drawn(&Options { guests: 6, ..Options::default() }, seed, "moment")
        .with_context(|| format!("seed {seed}"))?;
    let product = Product::find()?;
    let target = lab.plan.lan.addresses.v4;
    let guest = &lab.guests[0];
    let reached = || guest.namespace.run(&format!("ping -nqc1 -W1 {target}")).is_ok_and(|ping| ping.status.success());
    ensure!(wait_until(Duration::from_secs(20), reached), "the guest does not reach the LAN");
    let _ping = guest.namespace.background(&format!("ping -nq -i0.001 {target}"))?;
    for _ in 0..3 {
        let tracing = product.start(&lab, &["verdict", "--json"])?;
        std::thread::sleep(Duration::from_millis(500));
        let report = Verdict::of(&tracing.interrupt(Signal::SIGINT)?)?;
        let flow = report.json["flows"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|flow| flow["protocol"] == "icmp" && flow["destination"] == target.to_string())
            .with_context(|| format!("no flow to {target}: {:#}", report.json))?;
        let hops = flow["path"].as_array().context("a flow has a path")?;
        let counts: Vec<u64> = hops.iter().filter_map(|hop| hop["packets"].as_u64()).collect();
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        let (least, most) = least.zip(most).context("a path has hops")?;
        ensure!(hops.len() >= 2 && least > 50, "too little was seen: {flow:#}");
        ensure!(most - least <= UNDER_WAY, "counts along the path: {counts:?}\n{flow:#}");
        ensure!(flow["verdict"] == "delivered", "{flow:#}");
    }
    Ok(())
}
