//! A guest that opens flows as fast as it can: what is lost is told, memory is bounded, and the other guests are judged
//! right all the same.

#![allow(clippy::print_stdout, reason = "a skip is told, and so is what the flood has cost")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Output, wait_until};
use kvmtrace_tests::lab::{Lab, can_test, lab_binary};
use kvmtrace_tests::product::{Product, Tracing, Verdict};
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

/// A guest whose scan is dropped, and packets of another guest that are dropped after it.
struct Scan {
    lab: Lab,
    product: Product,
}

/// Dropped flows of the scan; the kernel's side has room for 16,384.
const SCAN: u32 = 60_000;
/// So slowly that the relay before the tap loses few of them.
const SCAN_RATE: &str = "12000";
/// Packets of the other guest.
const LATE: u64 = 10;

impl Scan {
    fn set(name: &str) -> Result<Option<Self>> {
        if !can_test(name)? {
            return Ok(None);
        }
        let lab = Lab::drawn(&Options { guests: 2, ..Options::default() }, Seed::choose()?, name)?;
        let (lan, good) = (&lab.plan.lan, &lab.guests[1]);
        let reached = || {
            let ping = good.namespace.run(&format!("ping -nqc1 -W1 {}", lan.addresses.v4));
            ping.is_ok_and(|ping| ping.status.success())
        };
        ensure!(wait_until(Duration::from_secs(20), reached), "the guest does not reach the LAN");
        lab.host.nft(
            "table bridge t { counter scan {}; chain f { type filter hook forward priority 0; \
             ether type ip meta l4proto udp udp dport 9 counter name scan drop; \
             ether type ip icmp type echo-request drop; }; }",
        )?;
        Ok(Some(Self { product: Product::find()?, lab }))
    }

    /// The scan of one guest, then the pings of the other.
    fn run(&self, flows: u32) -> Result<()> {
        let Self { lab, .. } = self;
        let (bad, good) = (&lab.guests[0], &lab.guests[1]);
        let mut flood = bad.namespace.command(lab_binary()?);
        flood.args(["program", "flow-flood", "--device", &bad.plan.port.device, "--to", &lab.plan.lan.mac]);
        process::check(flood.args(["--count", &flows.to_string(), "--rate", SCAN_RATE]), LIMIT * 3)?;
        let target = lab.plan.lan.addresses.v4;
        good.namespace.run(&format!("ping -nq -c{LATE} -i0.1 -W1 {target}"))?;
        Ok(())
    }

    /// Packets that the rule has dropped, by its own counter.
    fn ruled(&self) -> Result<u64> {
        let text = self.lab.host.check("nft -j list counter bridge t scan")?;
        let json: Value = serde_json::from_str(&text)?;
        let counters = json["nftables"].as_array().into_iter().flatten();
        counters.into_iter().find_map(|item| item["counter"]["packets"].as_u64()).context("no counter")
    }

    /// The other guest's drops are all reported, and so is each packet of the scan: in a flow, or at its drop site.
    fn judge(&self, json: &Value) -> Result<()> {
        let good = self.lab.guests[1].plan.port.addresses.v4.to_string();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let flows = || json["flows"].as_array().into_iter().flatten();
        let late = flows().find(|flow| flow["source"] == good.as_str() && flow["protocol"] == "icmp");
        let late = late.context("the other guest's pings are not reported")?;
        ensure!(late["verdict"] == "dropped" && number(&late["dropped"]) == LATE, "{late:#}");
        ensure!(late["cause"] == "netfilter-bridge", "{late:#}");
        let listed: u64 =
            flows().filter(|flow| flow["destination_port"] == 9).map(|flow| number(&flow["dropped"])).sum();
        let sites = json["lost_at"].as_array().into_iter().flatten().filter(|at| at["direction"].is_null());
        let unlisted: u64 = sites.map(|at| number(&at["packets"])).sum();
        let ruled = self.ruled()?;
        ensure!(ruled > u64::from(SCAN) / 2, "only {ruled} of the scan arrived");
        println!("{ruled} packets were dropped: {listed} in flows, {unlisted} at their sites; {}", json["lost"]);
        ensure!(listed + unlisted == ruled, "{ruled} were dropped, {listed} are in flows and {unlisted} at sites");
        Ok(())
    }
}

/// Ends a run. Many flows take a while to be judged and printed where the build is not optimized.
fn end(tracing: Tracing, signal: Signal) -> Result<Output> {
    std::thread::sleep(Duration::from_millis(500));
    tracing.process.signal(signal)?;
    tracing.process.finish(LIMIT * 4)
}

#[test]
fn a_scan_of_one_guest_hides_no_drop_of_another() -> Result<()> {
    let Some(scan) = Scan::set("scan")? else { return Ok(()) };
    let (lab, product) = (&scan.lab, &scan.product);
    let watch = product.start(lab, &["watch", "--json"])?;
    let metrics = product.start(lab, &["metrics", "--listen", "9985"])?;
    let recording = lab.directory().join("scan.kvmtrace");
    let file = recording.to_str().context("the directory's name is no UTF-8")?;
    let verdict = product.start(lab, &["verdict", "--json", "-o", file])?;
    let tap = &lab.guests[0].plan.tap;
    let arrived = || -> Result<u64> {
        let packets = lab.host.check(&format!("cat /sys/class/net/{tap}/statistics/rx_packets"))?;
        Ok(packets.trim().parse()?)
    };
    let before = arrived()?;
    scan.run(SCAN)?;
    let arrived = arrived()? - before;
    let name = &lab.plan.guests[1].name;
    let watched = end(watch, Signal::SIGINT)?.stdout;
    let late = watched.lines().filter(|line| line.contains(&format!("\"guest\":\"{name}\"")) && line.contains("icmp"));
    ensure!(late.count() > 0, "watch does not report the other guest's drops");
    let live = end(verdict, Signal::SIGINT)?;
    let live = Verdict::of(&live)?;
    scan.judge(&live.json)?;
    // What passed the tap is complete too.
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let flows = live.json["flows"].as_array().into_iter().flatten();
    let hops = flows.flat_map(|flow| flow["path"].as_array().into_iter().flatten());
    let hops = hops.filter(|hop| hop["device"] == tap.as_str() && hop["direction"] == "ingress");
    let listed: u64 = hops.map(|hop| number(&hop["packets"])).sum();
    let places = live.json["lost_at"].as_array().into_iter().flatten();
    let unlisted = places.filter(|at| at["device"] == tap.as_str() && at["direction"] == "ingress");
    let seen = listed + unlisted.map(|at| number(&at["packets"])).sum::<u64>();
    // The guest's kernel may have said a word of its own before and after.
    ensure!(seen.abs_diff(arrived) <= 8, "{arrived} packets came in by the tap, {seen} are reported");
    let scraped = || lab.host.check("curl -sS --fail --max-time 20 http://127.0.0.1:9985/metrics");
    let counted = wait_until(LIMIT, || {
        scraped().is_ok_and(|text| {
            text.lines().any(|line| {
                line.starts_with("kvmtrace_dropped_packets_total")
                    && line.contains(&format!("guest=\"{name}\""))
                    && line.contains("netfilter-bridge")
                    && line.ends_with(&format!(" {LATE}"))
            })
        })
    });
    ensure!(counted, "{}", scraped()?.lines().filter(|line| line.contains("dropped")).collect::<Vec<_>>().join("\n"));
    end(metrics, Signal::SIGTERM)?;
    let report = product.run(&lab.host, &["report", "--json", file])?;
    scan.judge(&Verdict::of(&report)?.json)?;
    Ok(())
}

#[test]
#[ignore = "takes minutes: cargo xtask test -- --run-ignored all -E 'test(million)'"]
fn a_million_dropped_flows_hide_no_drop_of_another_guest() -> Result<()> {
    let Some(scan) = Scan::set("million")? else { return Ok(()) };
    let verdict = scan.product.start(&scan.lab, &["verdict", "--json"])?;
    let pid = verdict.process.pid();
    scan.run(1_000_000)?;
    println!("{} kB, {} ms of CPU", status(pid, "VmHWM")?, cpu(pid)? / 1_000_000);
    scan.judge(&Verdict::of(&end(verdict, Signal::SIGINT)?)?.json)
}

/// Share of a CPU that kvmtrace may take up when nothing happens, though a flood has just filled its maps.
const AT_REST: f64 = 0.02;

#[test]
fn full_maps_cost_next_to_nothing_at_rest() -> Result<()> {
    let Some(scan) = Scan::set("rest of a scan")? else { return Ok(()) };
    let verdict = scan.product.start(&scan.lab, &["verdict", "--json"])?;
    let pid = verdict.process.pid();
    scan.run(SCAN)?;
    // By then what rests has been taken out of the maps.
    std::thread::sleep(Duration::from_secs(4));
    let before = cpu(pid)?;
    std::thread::sleep(Duration::from_secs(5));
    let share = (cpu(pid)? - before) as f64 / 5e9;
    println!("{:.1} % of a CPU at rest", share * 100.0);
    verdict.process.signal(Signal::SIGKILL)?;
    // A build without optimization is several times slower.
    let most = if cfg!(debug_assertions) { AT_REST * 4.0 } else { AT_REST };
    ensure!(share < most, "{:.1} % of a CPU at rest", share * 100.0);
    Ok(())
}
