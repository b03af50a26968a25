//! `kvmtrace explain` from outside: its answer is what the host then does, and the fix that it proposes changes both.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::Product;
use serde_json::Value;

/// A lab with two guests whose addresses the host has seen, and kvmtrace; none where the lab can't be.
fn setup(topology: Topology, subject: &str) -> Result<Option<(Lab, Product)>> {
    if !can_test(subject)? {
        return Ok(None);
    }
    let options = Options { topology, guests: 2, ..Options::default() };
    let lab = Lab::drawn(&options, Seed::choose()?, subject)?;
    // The host learns a guest's address from what it says to the host.
    for guest in &lab.plan.guests {
        lab.host.run(&format!("ping -n -q -c1 -W2 {}", guest.port.addresses.v4)).ok();
    }
    Ok(Some((lab, Product::find()?)))
}

/// The answer and the exit status. The JSON keeps its schema.
fn explain(lab: &Lab, product: &Product, arguments: &[&str]) -> Result<(Value, i32)> {
    let guest = lab.plan.guests[0].name.as_str();
    let output = product.run(&lab.host, &[&["explain", guest], arguments, &["--json"]].concat())?;
    let json: Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("no JSON: {} {}", output.stdout, output.stderr))?;
    let schema = serde_json::from_str(include_str!("../../docs/explain.schema.json"))?;
    let errors: Vec<String> =
        jsonschema::draft202012::new(&schema)?.iter_errors(&json).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "the JSON breaks docs/explain.schema.json: {errors:#?}");
    Ok((json, output.code()))
}

/// The steps of the copy that matters.
fn way(json: &Value) -> Vec<&Value> {
    let index = |index: &Value| index.as_u64().and_then(|index| json["steps"].get(usize::try_from(index).ok()?));
    json["way"].as_array().into_iter().flatten().filter_map(index).collect()
}

fn decisions(json: &Value) -> Vec<String> {
    let texts = way(json).into_iter().flat_map(|step| step["decisions"].as_array().into_iter().flatten());
    texts.filter_map(|decision| decision["text"].as_str().map(str::to_owned)).collect()
}

/// The guest's ping arrives and is answered.
fn pings(lab: &Lab, address: &str) -> bool {
    lab.guests[0].namespace.check(&format!("ping -n -q -c1 -W1 {address}")).is_ok()
}

#[test]
fn on_a_healthy_bridge_it_names_each_device_and_the_answers_way_back() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Bridge, "explain-bridge")? else { return Ok(()) };
    let other = &lab.plan.guests[1];
    let address = other.port.addresses.v4.to_string();
    let (json, code) = explain(&lab, &product, &["to", &address])?;
    let devices: Vec<&str> = way(&json).iter().filter_map(|step| step["device"].as_str()).collect();
    let has = |device: &str| devices.contains(&device);
    assert!(has(&lab.plan.guests[0].tap) && has(&lab.plan.bridge) && has(&other.tap), "{devices:?}");
    assert_eq!((json["result"]["outcome"].as_str(), code), (Some("delivered"), 0), "{:#}", json["result"]);
    assert_eq!(json["reply"]["outcome"], "delivered", "{:#}", json["reply"]);
    assert!(pings(&lab, &address));
    let (json, code) = explain(&lab, &product, &["to", &lab.plan.lan.addresses.v4.to_string(), "tcp", "443"])?;
    assert_eq!((json["result"]["outcome"].as_str(), code), (Some("leaves"), 0), "{:#}", json["result"]);
    Ok(())
}

#[test]
fn a_rule_that_drops_is_named_with_its_text_and_its_fix_lets_the_packet_through() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Routed, "explain-nft")? else { return Ok(()) };
    let lan = lab.plan.lan.addresses.v4.to_string();
    lab.host.check(&format!(
        "nft 'add table inet fw; add chain inet fw c {{ type filter hook forward priority 0; }}; add rule inet fw c ip daddr {lan} icmp type echo-request drop'"
    ))?;
    let (json, code) = explain(&lab, &product, &["to", &lan])?;
    assert_eq!((json["result"]["cause"].as_str(), code), (Some("netfilter-forward"), 1), "{:#}", json["result"]);
    let rule = format!("nft inet fw c: ip daddr {lan} icmp type echo-request drop");
    assert!(decisions(&json).contains(&rule), "{:#?}", decisions(&json));
    assert!(!pings(&lab, &lan));
    let fix = &json["fixes"][0];
    lab.host.check(fix["command"].as_str().context("no fix")?)?;
    let (mended, code) = explain(&lab, &product, &["to", &lan])?;
    assert_eq!((mended["result"]["outcome"].as_str(), code), (Some("leaves"), 0), "{:#}", mended["result"]);
    assert!(pings(&lab, &lan));
    lab.host.check(fix["undo"].as_str().context("no undo")?)?;
    assert_eq!(explain(&lab, &product, &["to", &lan])?.1, 1);
    // Another protocol passes the rule.
    assert_eq!(explain(&lab, &product, &["to", &lan, "tcp", "443"])?.1, 0);
    Ok(())
}

#[test]
fn a_missing_route_is_where_the_packet_stops() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Routed, "explain-route")? else { return Ok(()) };
    let target = lab.plan.spare_net.host(9).v4.to_string();
    let (json, code) = explain(&lab, &product, &["to", &target, "udp", "53"])?;
    let result = &json["result"];
    assert_eq!((result["cause"].as_str(), code), (Some("no-route"), 1), "{result:#}");
    assert_eq!(result["where"]["device"], lab.plan.bridge, "{result:#}");
    let uplink = &lab.plan.uplink.device;
    lab.host.check(&format!("ip route add {target}/32 dev {uplink}"))?;
    let (json, code) = explain(&lab, &product, &["to", &target, "udp", "53"])?;
    assert_eq!((json["result"]["outcome"].as_str(), code), (Some("leaves"), 0), "{:#}", json["result"]);
    assert!(decisions(&json).iter().any(|text| text.starts_with(&target)), "{:#?}", decisions(&json));
    Ok(())
}

#[test]
fn a_translated_packet_leaves_as_the_hosts_and_its_answer_comes_back_to_the_guest() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Nat, "explain-nat")? else { return Ok(()) };
    let lan = lab.plan.lan.addresses.v4.to_string();
    let own = lab.plan.uplink.addresses.v4.to_string();
    let (json, code) = explain(&lab, &product, &["to", &lan, "tcp", "443"])?;
    assert_eq!((json["result"]["outcome"].as_str(), code), (Some("leaves"), 0), "{:#}", json["result"]);
    let translated = way(&json).into_iter().find(|step| step["packet"]["source"] == own.as_str());
    let rules = translated.context("nothing is translated")?["decisions"].to_string();
    assert!(rules.contains("masquerade"), "{rules}");
    assert_eq!(json["reply"]["outcome"], "delivered", "{:#}", json["reply"]);
    assert_eq!(json["reply"]["packet"]["destination"], own.as_str());
    Ok(())
}

#[test]
fn a_question_that_can_not_be_asked_is_one_line_that_says_what_to_give() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Bridge, "explain-usage")? else { return Ok(()) };
    let guest = lab.plan.guests[0].name.as_str();
    let cases = [
        (vec!["explain", "nobody", "to", "host"], "nobody"),
        (vec!["explain", guest], "name a target"),
        (vec!["explain", guest, "host"], "say `to`"),
        (vec!["explain", guest, "to", "host", "tcp"], "tcp needs a port"),
        (vec!["explain", guest, "to", "host", "--size", "9"], "--size 9"),
        (vec!["explain", guest, "to", "192.0.2.1"], "--via"),
        (vec!["explain", guest, "to", "no-such-name.invalid"], "no-such-name.invalid"),
    ];
    for (arguments, told) in cases {
        let output = product.run(&lab.host, &arguments)?;
        assert_eq!((output.code(), output.stdout.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "{}", output.stderr);
        assert!(output.stderr.contains(told), "{arguments:?}: {}", output.stderr);
    }
    Ok(())
}
