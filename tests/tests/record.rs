//! Recordings of real traces: judged from the file as they were live, whatever happens to the file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on has failed; it prints what it counted"
)]

use anyhow::{Context as _, Result};
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Background};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::Product;
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// A lab in which the host drops what it forwards, and kvmtrace; `None`, told, without root.
fn lab(name: &str) -> Result<Option<(Lab, Product)>> {
    if !can_test(name)? {
        return Ok(None);
    }
    let lab =
        Lab::fixed(&format!("ktr{}{name}", std::process::id()), &Options { mtu: Some(1500), ..Options::default() })?;
    let rule = "nft add table bridge t; nft add chain bridge t f '{ type filter hook forward priority 0; }'; \
                nft add rule bridge t f ether type ip drop";
    lab.host.check(rule)?;
    Ok(Some((lab, Product::find()?)))
}

fn traffic(lab: &Lab) -> Result<()> {
    let target = lab.plan.lan.addresses.v4;
    lab.guests[0].namespace.run(&format!("ping -n -q -c5 -i0.2 -W1 {target}"))?;
    Ok(())
}

/// Runs kvmtrace, outside of the lab: exit code, standard output, standard error.
fn kvmtrace(product: &Product, arguments: &[&str]) -> Result<(i32, String, String)> {
    let output = process::run(Command::new(product.path()).args(arguments), LIMIT)?;
    Ok((output.code(), output.stdout, output.stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[test]
fn a_recording_is_judged_as_the_trace_was_live_and_wherever_it_is_cut() -> Result<()> {
    let Some((lab, product)) = lab("live")? else { return Ok(()) };
    let file = lab.directory().join("trace.kvmtrace");
    let mut report = String::new();
    for packets in [&[][..], &["--packets"], &["--packets", "--snaplen", "40"], &["--packets", "--snaplen", "0"]] {
        let arguments = [&["verdict", "--json", "--force", "-o", path(&file)], packets].concat();
        let tracing = product.start(&lab, &arguments)?;
        traffic(&lab)?;
        let live = tracing.interrupt(Signal::SIGINT)?;
        let told = kvmtrace(&product, &["report", "--json", path(&file)])?;
        report = live.stdout.clone();
        assert_eq!(told, (live.code(), live.stdout, String::new()), "{packets:?}");
        assert!(report.contains("netfilter-bridge"), "{packets:?}: {report}");
        let (_, lines, _) = kvmtrace(&product, &["export", path(&file), "--to", "json", "-o", "-"])?;
        let wanted = lines.lines().filter(|line| line.contains(r#""cause":"wanted""#)).count();
        assert_eq!(wanted > 0, !packets.is_empty(), "{packets:?}");
    }

    // The text too, and in the JSON there is something to judge.
    assert!(report.contains(&lab.plan.guests[0].name), "{report:.300}");
    let whole = std::fs::read(&file)?;
    let cut = lab.directory().join("cut.kvmtrace");
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..200 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = 16 + usize::try_from(state % (whole.len() as u64 - 16))?;
        std::fs::write(&cut, &whole[..at])?;
        let (code, report, complaints) = kvmtrace(&product, &["report", "--json", path(&cut)])?;
        if code == 2 {
            // Cut before the first block's end: nothing was recorded yet.
            assert!(complaints.contains("no event in it that could be judged"), "cut at {at}: {complaints}");
            assert!(report.is_empty() && at < 16_384, "cut at {at}: {complaints}");
            continue;
        }
        assert!(code == 0 || code == 1, "cut at {at}: {code} {complaints}");
        serde_json::from_str::<serde_json::Value>(&report).with_context(|| format!("cut at {at}"))?;
        assert!(complaints.contains("it has no end"), "cut at {at}: {complaints}");
    }
    Ok(())
}

#[test]
fn a_host_with_a_full_table_is_recorded_and_judged() -> Result<()> {
    let Some((lab, product)) = lab("router")? else { return Ok(()) };
    let gateway = lab.plan.lan.addresses.v4;
    let table = lab.directory().join("routes");
    let routes = (0..100_000_u32).map(|number| {
        let network = std::net::Ipv4Addr::from(0x1400_0000 + number * 256);
        format!("route add {network}/24 via {gateway}\n")
    });
    std::fs::write(&table, routes.collect::<String>())?;
    lab.host.check(&format!("ip -batch {}", path(&table)))?;
    let file = lab.directory().join("trace.kvmtrace");
    let tracing = product.start(&lab, &["verdict", "--json", "-o", path(&file)])?;
    // The table never holds still.
    lab.host.check(&format!("ip route add 19.0.0.0/24 via {gateway}"))?;
    traffic(&lab)?;
    let live = tracing.interrupt(Signal::SIGINT)?;
    let told = kvmtrace(&product, &["report", "--json", path(&file)])?;
    assert_eq!(told, (live.code(), live.stdout.clone(), String::new()));
    let report: serde_json::Value = serde_json::from_str(&live.stdout)?;
    let routes = report["degraded"].as_array().into_iter().flatten().find(|degraded| degraded["what"] == "routes");
    let why = routes.and_then(|routes| routes["why"].as_str()).unwrap_or_default();
    assert!(why.starts_with("there are 10000") && why.contains("the 10000 that tell most are kept"), "{report:#}");
    assert!(live.stdout.contains("netfilter-bridge"), "{report:#}");
    Ok(())
}

#[test]
fn what_was_flushed_survives_a_kill_and_a_full_disk() -> Result<()> {
    let Some((lab, product)) = lab("kill")? else { return Ok(()) };
    let file = lab.directory().join("killed.kvmtrace");
    let mut tracing = product.start(&lab, &["record", "--packets", "-o", path(&file)])?;
    traffic(&lab)?;
    // Flushed each second.
    std::thread::sleep(Duration::from_millis(1500));
    tracing.process.signal(Signal::SIGKILL)?;
    process::wait_until(LIMIT, || !tracing.process.is_running());
    let (_, lines, complaints) = kvmtrace(&product, &["export", path(&file), "--to", "json", "-o", "-"])?;
    let packets = lines.lines().filter(|line| line.starts_with(r#"{"event":"packet""#)).count();
    assert!(packets >= 5, "{packets} packets");
    assert!(complaints.contains("it has no end"), "{complaints}");

    let disk = lab.directory().join("disk");
    std::fs::create_dir_all(&disk)?;
    let ready = lab.directory().join("ready");
    let file = disk.join("trace.kvmtrace");
    // `ip netns exec` has mounts of its own: the small disk goes with it.
    let copy = lab.directory().join("full.kvmtrace");
    let line = format!(
        "mount -t tmpfs -o size=16k tmpfs {disk} && {product} record --packets --ready-file {ready} -o {file}; \
         code=$?; cp {file} {copy}; exit $code",
        disk = path(&disk),
        product = path(product.path()),
        ready = path(&ready),
        file = path(&file),
        copy = path(&copy),
    );
    let mut recording = Background::start(&mut lab.host.shell(&line))?;
    process::wait_until(LIMIT, || ready.exists() || !recording.is_running());
    let target = lab.plan.lan.addresses.v4;
    lab.guests[0].namespace.run(&format!("ping -n -q -i0.001 -w8 {target}"))?;
    let full = process::wait_until(Duration::from_secs(10), || !recording.is_running());
    assert!(full, "the disk was not full");
    let output = recording.finish(LIMIT)?;
    assert_eq!(output.code(), 2, "{}", output.stderr);
    assert!(output.stderr.contains("no space left for"), "{}", output.stderr);
    let (code, report, _) = kvmtrace(&product, &["report", "--json", path(&copy)])?;
    assert!(code < 2);
    serde_json::from_str::<serde_json::Value>(&report)?;
    Ok(())
}

#[test]
fn rotation_keeps_the_newest_and_together_they_are_one() -> Result<()> {
    let Some((lab, product)) = lab("rotate")? else { return Ok(()) };
    let file = lab.directory().join("trace.kvmtrace");
    let tracing = product.start(&lab, &["record", "--packets", "--rotate", "4k,3", "-o", path(&file)])?;
    for _ in 0..5 {
        traffic(&lab)?;
    }
    let output = tracing.interrupt(Signal::SIGTERM)?;
    assert_eq!(output.code(), 0, "{}", output.stderr);
    let mut files: Vec<_> = std::fs::read_dir(lab.directory())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("trace.kvmtrace")))
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        let (code, _, complaints) = kvmtrace(&product, &["report", "--json", path(file)])?;
        assert!(code < 2 && complaints.is_empty(), "{code} {complaints}");
    }
    files.reverse();
    let mut arguments = vec!["report", "--json"];
    arguments.extend(files.iter().map(|file| path(file)));
    let (code, report, complaints) = kvmtrace(&product, &arguments)?;
    assert!(code < 2 && complaints.is_empty(), "{code} {complaints}");
    assert_eq!(report.lines().count(), 1, "one report of all three");
    Ok(())
}

/// A column of numbers of a table, for the rows whose text columns are as given.
fn numbers(file: &Path, wanted: &[(&str, &str)], column: &str) -> Result<Vec<i64>> {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;
    let reader = SerializedFileReader::new(std::fs::File::open(file)?)?;
    let mut numbers = Vec::new();
    for row in reader.get_row_iter(None)? {
        let row = row?;
        let is = |(name, text): &(&str, &str)| {
            row.get_column_iter().any(|(known, field)| known == name && *field == Field::Str((*text).to_owned()))
        };
        if wanted.iter().all(is) {
            let number = row.get_column_iter().find(|(known, _)| *known == column).map(|(_, field)| field);
            numbers.extend(if let Some(Field::Long(number)) = number { Some(*number) } else { None });
        }
    }
    Ok(numbers)
}

#[test]
fn an_export_adds_up_to_what_the_hosts_own_counter_has() -> Result<()> {
    let Some((lab, product)) = lab("sums")? else { return Ok(()) };
    lab.host.check("nft flush chain bridge t f; nft add rule bridge t f icmp type echo-request counter drop")?;
    let (file, tables) = (lab.directory().join("sums.kvmtrace"), lab.directory().join("tables"));
    let tracing = product.start(&lab, &["record", "-o", path(&file)])?;
    let target = lab.plan.lan.addresses.v4;
    // Two pings of one pair, long enough for their counters to be read several times.
    lab.guests[0]
        .namespace
        .run(&format!("ping -n -q -c150 -i0.02 {target} & ping -n -q -c40 -i0.05 {target}; wait"))?;
    let output = tracing.interrupt(Signal::SIGINT)?;
    assert_eq!(output.code(), 0, "{}", output.stderr);
    let ruleset: serde_json::Value = serde_json::from_str(&lab.host.check("nft -j list chain bridge t f")?)?;
    let counter = ruleset["nftables"].as_array().into_iter().flatten().find_map(|item| {
        item["rule"]["expr"].as_array()?.iter().find_map(|expression| expression["counter"]["packets"].as_i64())
    });
    let truth = counter.context("no counter")?;
    assert!(truth >= 190, "{truth}");

    let (code, _, complaints) = kvmtrace(&product, &["export", path(&file), "--to", "parquet", "-o", path(&tables)])?;
    assert_eq!((code, complaints.as_str()), (0, ""));
    let events = tables.join("events.parquet");
    let guest = lab.plan.guests[0].name.as_str();
    let rows = numbers(&events, &[("event", "drop"), ("guest", guest)], "packets")?;
    assert!(rows.len() > 2, "the counters were read once: {rows:?}");
    assert_eq!(rows.iter().sum::<i64>(), truth, "{rows:?}");
    assert_eq!(numbers(&events, &[("cause", "dropped")], "packets")?.iter().sum::<i64>(), truth);

    // The same for each flow, under the id that it has everywhere.
    let (_, report, _) = kvmtrace(&product, &["report", "--json", path(&file)])?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let flows: Vec<_> = report["flows"].as_array().into_iter().flatten().filter(|flow| flow["dropped"] != 0).collect();
    assert_eq!(flows.len(), 2, "{flows:#?}");
    for flow in flows {
        let id = flow["id"].as_str().context("no id")?;
        let sum: i64 = numbers(&events, &[("event", "drop"), ("flow_id", id)], "packets")?.iter().sum();
        assert_eq!(Some(sum), flow["dropped"].as_i64(), "{flow:#}");
        assert_eq!(
            numbers(&tables.join("flows.parquet"), &[("id", id)], "icmp_id")?,
            [flow["icmp_id"].as_i64().unwrap()]
        );
    }
    Ok(())
}

/// How long datagrams are sent as fast as can be.
const FLAT_OUT: &str = "1500";

#[test]
fn datagrams_sent_flat_out_are_kept_or_said_to_be_missing() -> Result<()> {
    let Some((lab, product)) = lab("flat")? else { return Ok(()) };
    let target = lab.plan.lan.addresses.v4;
    lab.host.check(&format!("ping -n -q -c1 -W5 {target}"))?;
    let file = lab.directory().join("flat.kvmtrace");
    let nic = lab.plan.uplink.device.as_str();
    let sent = || -> Result<u64> {
        let packets = lab.host.check(&format!("cat /sys/class/net/{nic}/statistics/tx_packets"))?;
        Ok(packets.trim().parse()?)
    };
    let arguments = ["record", "--packets", "-i", nic, "-o", path(&file)];
    let tracing = product.start(&lab, &arguments)?;
    let before = sent()?;
    let mut flood = lab.host.command(&kvmtrace_tests::lab::beside("bench")?);
    process::check(flood.args(["send", &format!("{target}:9"), FLAT_OUT]), LIMIT)?;
    let sent = sent()? - before;
    let output = tracing.interrupt(Signal::SIGINT)?;
    let last = output.stderr.lines().last().unwrap_or_default().to_owned();
    let missing = match last.split_once("; ").map(|(_, rest)| rest) {
        Some("no packet is missing") => 0,
        Some(rest) => rest.split(' ').next().unwrap_or_default().parse::<u64>().with_context(|| last.clone())?,
        None => anyhow::bail!("the last line does not say what is missing: {last}"),
    };
    let (_, lines, _) = kvmtrace(&product, &["export", path(&file), "--to", "json", "-o", "-"])?;
    let (mut kept, mut places) = (0_u64, std::collections::BTreeSet::new());
    for line in lines.lines().filter(|line| line.contains(r#""cause":"wanted""#)) {
        let packet: serde_json::Value = serde_json::from_str(line)?;
        if packet["destination_port"] == 9 {
            kept += 1;
            places.insert(packet["device"].to_string());
        }
    }
    // Each is seen where the host's bridge sends it, and where the NIC does. The host may have said a word of its own.
    let seen = sent * places.len() as u64;
    println!("{sent} sent, {kept} kept at {places:?}, {missing} missing");
    assert!(places.len() == 2 && (kept + missing).abs_diff(seen) <= 32, "{sent} sent, {kept} kept, {missing} missing");
    // A reader that waits for its next tick while there are records keeps a thirtieth; the rest is up to the processors.
    assert!(kept > seen / 8, "{sent} sent, {kept} kept");
    Ok(())
}
