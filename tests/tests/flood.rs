//! A guest that opens flows as fast as it can: what is lost is told, memory is bounded, and the other guests are judged
//! right all the same.

#![allow(clippy::print_stdout, reason = "a skip is told, and so is what the flood has cost")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, wait_until};
use kvmtrace_tests::lab::{Lab, can_test, lab_binary};
use kvmtrace_tests::product::{Product, Verdict};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

/// Flows of the flood; the kernel's side has room for 65,536 entries, and each flow has one at each of two devices.
const FLOWS: u32 = 300_000;
/// Packets of the guest that does no harm.
const PINGS: u64 = 200;
const LIMIT: Duration = Duration::from_mins(1);
/// Most memory that kvmtrace may have used, in kB.
const MEMORY: u64 = 512 << 10;

/// A number of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())
}

/// Nanoseconds of CPU time.
fn cpu(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(total)
}

#[test]
fn a_flood_of_flows_is_bounded_told_and_harms_nobody_else() -> Result<()> {
    if !can_test("flood")? {
        return Ok(());
    }
    let seed = Seed::choose()?;
    let lab = Lab::drawn(&Options { guests: 2, ..Options::default() }, seed, "flood")
        .with_context(|| format!("seed {seed}"))?;
    let product = Product::find()?;
    let target = lab.plan.lan.addresses.v4;
    let (bad, good) = (&lab.guests[0], &lab.guests[1]);
    let reached = || good.namespace.run(&format!("ping -nqc1 -W1 {target}")).is_ok_and(|ping| ping.status.success());
    ensure!(wait_until(Duration::from_secs(20), reached), "the guest does not reach the LAN");

    let arrived = || -> Result<u64> {
        let path = format!("cat /sys/class/net/{}/statistics/rx_packets", bad.plan.tap);
        Ok(lab.host.check(&path)?.trim().parse()?)
    };
    let tracing = product.start(&lab, &["verdict", "--json"])?;
    let pid = tracing.process.pid();
    let good_ping = good.namespace.background(&format!("ping -nq -c{PINGS} -i0.05 -W5 {target}"))?;
    let before = arrived()?;
    let mut flood = bad.namespace.command(lab_binary()?);
    flood.args(["program", "flow-flood", "--device", &bad.plan.port.device, "--to", &lab.plan.lan.mac]);
    process::check(flood.args(["--count", &FLOWS.to_string()]), LIMIT)?;
    let pinged = good_ping.finish(LIMIT)?;
    ensure!(pinged.stdout.contains(&format!("{PINGS} received")), "the other guest: {}", pinged.stdout);
    let arrived = arrived()? - before;
    let (memory, cpu) = (status(pid, "VmHWM")?, cpu(pid)?);
    let report = Verdict::of(&tracing.interrupt(Signal::SIGINT)?)?;
    let lost = &report.json["lost"];
    println!("{arrived} packets: {memory} kB, {} ms of CPU, {lost}", cpu / 1_000_000);
    ensure!(memory < MEMORY, "kvmtrace has used {memory} kB");

    // Each packet is in a flow that is told, or among what is said to be lost.
    let flows = || report.json["flows"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let told: u64 =
        flows().filter(|flow| flow["device"] == bad.plan.tap.as_str()).map(|flow| number(&flow["packets"])).sum();
    let lost = ["flows_evicted", "map_full", "ring_events"].iter().map(|what| number(&lost[what])).sum::<u64>();
    ensure!(told + lost >= arrived, "{arrived} packets arrived, {told} are told and {lost} lost");

    let source = good.plan.port.addresses.v4.to_string();
    let flow = flows()
        .find(|flow| flow["protocol"] == "icmp" && flow["source"] == source.as_str())
        .context("the other guest's flow is not told")?;
    ensure!(flow["verdict"] == "delivered", "{flow:#}");
    ensure!(flow["complete"] == (lost == 0), "a verdict beside losses is complete: {flow:#}");
    let hops: Vec<u64> = flow["path"].as_array().into_iter().flatten().map(|hop| number(&hop["packets"])).collect();
    // Each CPU counts by itself: where the flow comes to another one while the map is full, its packets there are among
    // those that are said to be lost.
    let fewest = if lost == 0 { PINGS } else { PINGS / 2 };
    ensure!(hops.len() == 2 && hops.iter().all(|packets| (fewest..=PINGS).contains(packets)), "{flow:#}");
    Ok(())
}

/// Flows of one wave: at two devices their entries fill three quarters of the kernel's map, and two waves more than all of it.
const WAVE: u32 = 30_000;
/// So slowly that the relay before the tap loses next to none.
const RATE: &str = "6000";

/// Sends flows of these numbers, a packet each.
fn wave(lab: &Lab, first: u32, count: u32) -> Result<()> {
    let guest = &lab.guests[0];
    let mut flood = guest.namespace.command(lab_binary()?);
    flood.args(["program", "flow-flood", "--device", &guest.plan.port.device, "--to", &lab.plan.lan.mac]);
    flood.args(["--count", &count.to_string(), "--first", &first.to_string(), "--rate", RATE]);
    process::check(&mut flood, LIMIT)?;
    Ok(())
}

#[test]
fn flows_that_rest_make_room_for_new_ones() -> Result<()> {
    if !can_test("waves of flows")? {
        return Ok(());
    }
    let seed = Seed::choose()?;
    let lab = Lab::drawn(&Options::default(), seed, "waves").with_context(|| format!("seed {seed}"))?;
    let tracing = Product::find()?.start(&lab, &["verdict", "--json"])?;
    for number in 0..2 {
        wave(&lab, number * WAVE, WAVE)?;
        // Two looks at the counters: by then all of them rest.
        std::thread::sleep(Duration::from_secs(2));
    }
    let report = Verdict::of(&tracing.interrupt(Signal::SIGINT)?)?;
    let flows = report.json["flows"].as_array().map_or(0, Vec::len);
    ensure!(flows > WAVE as usize * 19 / 10, "{flows} of {} flows are told", 2 * WAVE);
    let lost = &report.json["lost"];
    ensure!(["flows_evicted", "map_full"].iter().all(|what| lost[what] == 0), "{lost}");
    Ok(())
}

/// More than the hot table has places for on four CPUs.
const HOT: u32 = 5_000;

#[test]
fn a_flow_that_lost_its_place_while_it_rested_counts_on() -> Result<()> {
    if !can_test("flows that rest")? {
        return Ok(());
    }
    let seed = Seed::choose()?;
    let lab = Lab::drawn(&Options::default(), seed, "rest").with_context(|| format!("seed {seed}"))?;
    let tap = format!("cat /sys/class/net/{}/statistics/rx_packets", lab.guests[0].plan.tap);
    let tracing = Product::find()?.start(&lab, &["verdict", "--json"])?;
    let before: u64 = lab.host.check(&tap)?.trim().parse()?;
    wave(&lab, 0, HOT)?;
    // The places of flows that have rested for ten seconds are taken from them.
    std::thread::sleep(Duration::from_secs(13));
    wave(&lab, 0, HOT)?;
    let arrived = lab.host.check(&tap)?.trim().parse::<u64>()? - before;
    let report = Verdict::of(&tracing.interrupt(Signal::SIGINT)?)?;
    let flows = || report.json["flows"].as_array().into_iter().flatten().filter(|flow| flow["destination_port"] == 9);
    let packets: u64 = flows().filter_map(|flow| flow["packets"].as_u64()).sum();
    // The guest's kernel may have said a word of its own meanwhile.
    ensure!(packets.abs_diff(arrived) <= 8, "{arrived} packets arrived, {packets} are told");
    let twice = flows().filter(|flow| flow["packets"] == 2).count();
    ensure!(twice > HOT as usize * 9 / 10, "{twice} of {HOT} flows were seen twice");
    let uneven = flows().filter(|flow| {
        let hops = flow["path"].as_array().into_iter().flatten();
        hops.clone().count() != 2 || hops.into_iter().any(|hop| hop["packets"] != flow["packets"])
    });
    ensure!(uneven.count() == 0, "a flow's hops differ");
    Ok(())
}
