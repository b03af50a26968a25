//! `kvmtrace metrics` from outside: what a Prometheus gets, and what it costs when others ask badly.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::float_cmp, reason = "counts of packets are whole numbers")]

use anyhow::{Context as _, Result, bail, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::wait_until;
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::Product;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PORT: u16 = 9985;

/// A lab in which the host drops the guest's datagrams, and kvmtrace; none, told, without root.
fn setup(subject: &str) -> Result<Option<(Lab, Product)>> {
    if !can_test(subject)? {
        return Ok(None);
    }
    let lab = Lab::drawn(&Options::default(), Seed::choose()?, subject)?;
    lab.host.nft(
        "table bridge t { chain f { type filter hook forward priority 0; ether type ip meta l4proto udp drop; }; }",
    )?;
    Ok(Some((lab, Product::find()?)))
}

/// What the host's own client gets.
fn scrape(lab: &Lab) -> Result<BTreeMap<String, f64>> {
    read(&lab.host.check(&format!("curl -sS --fail --max-time 20 http://127.0.0.1:{PORT}/metrics"))?)
}

/// The samples of a text that keeps the format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn read(text: &str) -> Result<BTreeMap<String, f64>> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    ensure!(text.ends_with('\n'), "the last line has no end");
    let (mut families, mut samples, mut family) = (BTreeSet::new(), BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            ensure!(families.insert(name.to_owned()), "{name} twice");
            ensure!(!help.is_empty(), "{line}");
            name.clone_into(&mut family);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            ensure!(name == family && is_name(name), "{line}");
            ensure!(matches!((kind, name.ends_with("_total")), ("counter", true) | ("gauge", false)), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let labels = name.strip_prefix(family.as_str()).with_context(|| line.to_owned())?;
            let mut rest = labels;
            if let Some(inner) = labels.strip_prefix('{') {
                rest = inner;
                while let Some((label, after)) = rest.split_once("=\"") {
                    ensure!(is_name(label), "{line}");
                    let end = end_of_value(after).with_context(|| line.to_owned())?;
                    rest = after[end + 1..].trim_start_matches(',');
                }
                ensure!(rest == "}", "{line}");
            } else {
                ensure!(rest.is_empty(), "{line}");
            }
            ensure!(samples.insert(name.to_owned(), value.parse()?).is_none(), "{name} twice");
        }
    }
    Ok(samples)
}

/// Where the quote is that ends a label's value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(at)
    })
}

/// The only sample of a family with all these labels.
fn value(samples: &BTreeMap<String, f64>, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let fits = |name: &str| {
        name.split('{').next() == Some(family)
            && labels.iter().all(|(label, text)| name.contains(&format!("{label}=\"{text}\"")))
    };
    let found: Vec<_> = samples.iter().filter(|(name, _)| fits(name)).collect();
    // Those of what has not happened are 0.
    match found.as_slice() {
        [] => bail!("{family} {labels:?}: none of {samples:#?}"),
        found => Ok(found.iter().map(|(_, value)| **value).sum()),
    }
}

/// Datagrams of one guest, each from another port.
fn datagrams(lab: &Lab, count: usize) -> Result<()> {
    let target = lab.plan.lan.addresses.v4;
    let line = format!("bash -c 'for i in $(seq {count}); do echo hello >/dev/udp/{target}/9000; done'");
    lab.guests[0].namespace.check(&line)?;
    Ok(())
}

#[test]
fn drops_are_counted_by_cause_and_never_by_flow() -> Result<()> {
    let Some((lab, product)) = setup("metrics")? else { return Ok(()) };
    let guest = &lab.plan.guests[0];
    let tracing = product.start(&lab, &["metrics", "--listen", &PORT.to_string()])?;
    let dropped = |samples: &BTreeMap<String, f64>| {
        let labels = [("guest", guest.name.as_str()), ("cause", "netfilter-bridge"), ("point", "netfilter-forward")];
        value(samples, "kvmtrace_dropped_packets_total", &labels)
    };
    let begin = scrape(&lab)?;
    for family in ["kvmtrace_packets_total", "kvmtrace_fragments_total", "kvmtrace_dropped_packets_total"] {
        assert_eq!(value(&begin, family, &[("guest", &guest.name)])?, 0.0);
    }
    assert!(value(&begin, "process_cpu_seconds_total", &[])? > 0.0);
    assert!(value(&begin, "process_resident_memory_bytes", &[])? > 1e6);
    assert!(value(&begin, "process_open_fds", &[])? > 5.0);
    assert!(
        (value(&begin, "kvmtrace_start_time_seconds", &[])? - value(&begin, "process_start_time_seconds", &[])?).abs()
            < 60.0
    );
    datagrams(&lab, 5)?;
    let mut few = BTreeMap::new();
    let counted = wait_until(Duration::from_secs(10), || {
        few = scrape(&lab).unwrap();
        dropped(&few).is_ok_and(|count| count >= 5.0)
    });
    assert!(counted, "{few:#?}");
    assert_eq!(dropped(&few)?, 5.0);
    assert_eq!(value(&few, "kvmtrace_guest_up", &[("guest", &guest.name)])?, 1.0);
    datagrams(&lab, 300)?;
    let mut many = BTreeMap::new();
    let counted = wait_until(Duration::from_secs(15), || {
        let before = std::mem::replace(&mut many, scrape(&lab).unwrap());
        for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
            assert!(many[name] >= *value, "{name} went down");
        }
        dropped(&many).is_ok_and(|count| count >= 305.0)
    });
    assert!(counted, "{many:#?}");
    assert_eq!(dropped(&many)?, 305.0);
    let tap = [("device", guest.tap.as_str()), ("direction", "ingress")];
    assert!(value(&many, "kvmtrace_packets_total", &tap)? >= 305.0);
    // ARP may have begun meanwhile: a series or two, not hundreds.
    assert!(many.len() < few.len() + 10, "{} series became {}", few.len(), many.len());
    let output = tracing.interrupt(Signal::SIGTERM)?;
    assert_eq!((output.code(), output.stdout.as_str()), (0, ""), "{}", output.stderr);
    Ok(())
}

#[test]
fn clients_that_never_finish_hold_up_neither_the_trace_nor_others_for_long() -> Result<()> {
    let Some((lab, product)) = setup("slow")? else { return Ok(()) };
    let tracing = product.start(&lab, &["metrics", "--listen", &PORT.to_string()])?;
    // Half of them say half a line and stay, half ask and do not read.
    let mut slow = Vec::new();
    for line in ["printf GET", "printf \"GET /metrics HTTP/1.1\\r\\n\\r\\n\""] {
        for _ in 0..6 {
            let client = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{PORT}; {line} >&3; sleep 60'");
            slow.push(lab.host.background(&client)?);
        }
    }
    // And somebody on this machine opens connections without end and says nothing.
    let flood = format!("bash -c 'while :; do exec {{fd}}<>/dev/tcp/127.0.0.1/{PORT}; sleep 0.02; done'");
    slow.push(lab.host.background(&flood)?);
    datagrams(&lab, 20)?;
    let mut samples = BTreeMap::new();
    let counted = wait_until(Duration::from_secs(15), || {
        samples = scrape(&lab).unwrap();
        value(&samples, "kvmtrace_dropped_packets_total", &[]).is_ok_and(|count| count == 20.0)
    });
    assert!(counted, "{samples:#?}");
    assert_eq!(value(&samples, "kvmtrace_lost_events_total", &[])?, 0.0);
    let output = tracing.interrupt(Signal::SIGINT)?;
    assert_eq!(output.code(), 0, "{}", output.stderr);
    Ok(())
}

#[test]
fn an_address_that_is_taken_is_told_in_one_line() -> Result<()> {
    let Some((lab, product)) = setup("taken")? else { return Ok(()) };
    let tracing = product.start(&lab, &["metrics", "--listen", &PORT.to_string()])?;
    let output = product.run(&lab.host, &["metrics", "--listen", &PORT.to_string()])?;
    assert_eq!((output.code(), output.stdout.as_str()), (2, ""));
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains(&format!("127.0.0.1:{PORT}")), "{}", output.stderr);
    assert_eq!(tracing.interrupt(Signal::SIGTERM)?.code(), 0);
    Ok(())
}
