//! `kvmtrace watch` over real traffic: lines that add up, what ICMP errors quote, the ways of packets.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use anyhow::{Context as _, Result};
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::Product;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

/// A lab, and kvmtrace; `None`, told, without root.
fn lab(name: &str) -> Result<Option<(Lab, Product)>> {
    if !can_test(name)? {
        return Ok(None);
    }
    let lab = Lab::fixed(&format!("ktw{}{name}", std::process::id()), &Options::default())?;
    Ok(Some((lab, Product::find()?)))
}

/// The lines that `watch` prints while something happens; each is as the published schema says.
fn watched(
    lab: &Lab,
    product: &Product,
    arguments: &[&str],
    happens: impl FnOnce() -> Result<()>,
) -> Result<Vec<Value>> {
    let tracing = product.start(lab, &[&["watch", "--json"], arguments].concat())?;
    happens()?;
    let output = tracing.interrupt(Signal::SIGINT)?;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""));
    let schema = serde_json::from_str(include_str!("../../docs/watch.schema.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    let lines = output.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    for line in &lines {
        let errors: Vec<_> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line:#}: {errors:?}");
    }
    Ok(lines)
}

fn sums(lines: &[Value], kind: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in lines.iter().filter(|line| line["kind"] == kind) {
        *sums.entry(line["flow_id"].as_str().unwrap_or_default().to_owned()).or_default() +=
            line["packets"].as_u64().unwrap_or_default();
    }
    sums
}

#[test]
fn lines_add_up_to_what_the_host_counted_and_bear_the_ids_of_the_verdicts() -> Result<()> {
    let Some((lab, product)) = lab("sums")? else { return Ok(()) };
    lab.host.nft(
        "table bridge t { chain f { type filter hook forward priority 0; icmp type echo-request counter drop; }; }",
    )?;
    let target = lab.plan.lan.addresses.v4;
    for rate in ["1", "1000"] {
        let mut report = Value::Null;
        let lines = watched(&lab, &product, &["--rate", rate], || {
            let verdict = product.start(&lab, &["verdict", "--json"])?;
            let pings = format!("ping -n -q -c80 -i0.02 {target} & ping -n -q -c20 -i0.05 {target}; wait");
            lab.guests[0].namespace.run(&pings)?;
            report = serde_json::from_str(&verdict.interrupt(Signal::SIGINT)?.stdout)?;
            Ok(())
        })?;
        let flows = report["flows"].as_array().into_iter().flatten();
        let expected: BTreeMap<String, u64> = flows
            .filter_map(|flow| {
                Some((flow["id"].as_str()?.to_owned(), flow["dropped"].as_u64().filter(|count| *count > 0)?))
            })
            .collect();
        assert_eq!(expected.values().sum::<u64>(), 100, "{expected:?}");
        assert_eq!(sums(&lines, "drop"), expected, "rate {rate}");
        assert_eq!(sums(&lines, "total"), expected, "rate {rate}");
    }
    let ruleset: Value = serde_json::from_str(&lab.host.check("nft -j list chain bridge t f")?)?;
    let counted = ruleset["nftables"].as_array().into_iter().flatten().find_map(|item| {
        item["rule"]["expr"].as_array()?.iter().find_map(|expression| expression["counter"]["packets"].as_u64())
    });
    assert_eq!(counted, Some(200), "the host's own counter");
    Ok(())
}

#[test]
fn an_icmp_error_is_one_line_with_its_type_its_code_and_the_flow_that_it_quotes() -> Result<()> {
    let Some((lab, product)) = lab("error")? else { return Ok(()) };
    let target = lab.plan.lan.addresses.v4;
    let lines = watched(&lab, &product, &[], || {
        lab.guests[0].namespace.run(&format!("bash -c 'echo x >/dev/udp/{target}/9'"))?;
        std::thread::sleep(std::time::Duration::from_millis(700));
        Ok(())
    })?;
    let errors: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "icmp-error").collect();
    assert_eq!(errors.len(), 1, "{lines:#?}");
    let icmp = &errors[0]["icmp"];
    assert_eq!((&icmp["type"], &icmp["code"], &icmp["quoted"]["destination_port"]), (&3.into(), &3.into(), &9.into()));
    assert_eq!((&icmp["quoted"]["protocol"], &errors[0]["packets"]), (&"udp".into(), &1.into()), "{icmp:#}");
    assert!(errors[0]["text"].as_str().unwrap().contains("type 3 code 3 (port unreachable) about udp"), "{errors:#?}");
    Ok(())
}

#[test]
fn the_way_of_a_packet_leads_from_the_tap_to_the_uplink_or_to_where_it_died() -> Result<()> {
    let Some((lab, product)) = lab("path")? else { return Ok(()) };
    let target = lab.plan.lan.addresses.v4;
    let (tap, uplink) = (lab.plan.guests[0].tap.as_str(), lab.plan.uplink.device.as_str());
    let ping = || lab.guests[0].namespace.run(&format!("ping -n -q -c5 -i0.2 -W1 {target}")).map(drop);
    // Whatever else is on the wire then knows its way.
    ping()?;
    let requests = |lines: Vec<Value>| -> Vec<Value> {
        let is_request = |line: &Value| line["kind"] == "path" && line["destination"] == target.to_string().as_str();
        lines.into_iter().filter(|line| is_request(line) && line["protocol"] == "icmp").collect()
    };
    let ways = requests(watched(&lab, &product, &["--path", "--rate", "1000"], ping)?);
    assert_eq!(ways.len(), 5, "{ways:#?}");
    for way in &ways {
        let path = way["path"].as_array().context("no path")?;
        let ends = [path.first(), path.last()].map(|hop| hop.map(|hop| (&hop["device"], &hop["direction"])));
        assert_eq!(ends, [Some((&tap.into(), &"ingress".into())), Some((&uplink.into(), &"egress".into()))], "{way:#}");
        let (latency, last) = (way["latency_ns"].as_u64().context("no latency")?, &path[path.len() - 1]);
        assert!(latency > 0 && last["latency_ns"]["max"].as_u64().is_some_and(|step| step <= latency), "{way:#}");
    }
    assert!(requests(watched(&lab, &product, &["--min-latency", "1s"], ping)?).is_empty(), "none took a second");
    lab.host
        .nft("table bridge t { chain f { type filter hook forward priority 0; icmp type echo-request drop; }; }")?;
    let ways = requests(watched(&lab, &product, &["--path", "--rate", "1000"], ping)?);
    assert_eq!(ways.len(), 5, "{ways:#?}");
    for way in ways {
        assert_eq!(way["path"][0]["device"], tap, "{way:#}");
        assert!(
            way["where"]["function"].is_string() && way["text"].as_str().unwrap().contains("dropped in"),
            "{way:#}"
        );
    }
    Ok(())
}
