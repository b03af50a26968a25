//! A scenario judged by `kvmtrace probe` alone: its own traffic proves that the fault is real, then kvmtrace sends what the
//! guest would have sent, and must find the same cause at the same place.

use super::judge::judge;
use super::{Expect, OneOrMore, Run, Scenario};
use crate::lab::Lab;
use crate::lab::process::Background;
use crate::lab::traffic::{Expected, Kind, Traffic};
use crate::product::{Product, Verdict};
use anyhow::{Context as _, Result};

/// Faults that lie in what the sender itself sends (addresses that are not its own), or in how much of it: a few packets as a
/// well-behaved guest sends them meet none of these. Nothing is sent for a guest whose process is stopped.
const OF_THE_SENDER: [&str; 10] = [
    "arp-spoofed",
    "checksum-bad",
    "guest-not-reading",
    "invalid-source-mac",
    "mac-spoofed",
    "martian-source",
    "qdisc-limit",
    "socket-buffer-full",
    "source-spoofed",
    "ttl-expired",
];

/// The one exchange of a scenario that a probe can stand for: unicast, of a guest, or to one from
/// the LAN. What the host itself sends needs no probe.
pub(super) fn subject(scenario: &Scenario) -> Option<&Traffic> {
    let of_the_sender =
        |expect: &Expect| expect.cause.list().iter().all(|cause| OF_THE_SENDER.contains(&cause.as_str()));
    if !scenario.is_healthy() && scenario.expect.list().iter().all(of_the_sender) {
        return None;
    }
    let can_stand_for = |traffic: &Traffic| {
        matches!(traffic.kind, Kind::Ping | Kind::Udp | Kind::UdpOneWay | Kind::Dns | Kind::Tcp | Kind::TcpShort)
            && (is_guest(&traffic.from) || traffic.from == "lan" && is_guest(&traffic.to))
    };
    // What still works in a broken lab is there to contrast with what does not.
    let mut suffering =
        scenario.traffic.iter().filter(|traffic| scenario.is_healthy() || traffic.after == Expected::Fails);
    let one = suffering.next().filter(|traffic| can_stand_for(traffic))?;
    suffering.next().is_none().then_some(one)
}

fn is_guest(role: &str) -> bool {
    role.starts_with("guest")
}

/// The host speaks with each guest once, as a host does that has an address on their network: then it knows their MAC addresses.
pub(super) fn acquaint(lab: &Lab) -> Result<()> {
    for guest in &lab.guests {
        lab.host.run(&format!("ping -c1 -W1 {}", guest.plan.port.addresses.of(lab.plan.options.family)))?;
    }
    Ok(())
}

/// Probes the broken lab for the exchange and judges what is said.
pub(super) fn trace(scenario: &Scenario, lab: &Lab, product: &Product) -> Result<Run> {
    let traffic = subject(scenario).context("no probe can stand for its traffic")?;
    let serve = !traffic.served_by_break;
    let server = if serve { lab.serve(traffic)? } else { None };
    let output = product.run(&lab.host, &arguments(lab, traffic)?.iter().map(String::as_str).collect::<Vec<_>>())?;
    if let Some(process) = server {
        process.signal(nix::sys::signal::Signal::SIGKILL).ok();
        Background::finish(process, std::time::Duration::from_secs(1)).ok();
    }
    let verdict = Verdict::of(&output)?;
    let judgement = judge(&as_probed(scenario), &verdict, &lab.placeholders()?)?;
    Ok(Run { judgement: Some(judgement), ..Run::default() })
}

/// The command line that stands for the exchange.
fn arguments(lab: &Lab, traffic: &Traffic) -> Result<Vec<String>> {
    let from_guest = is_guest(&traffic.from);
    let role = if from_guest { &traffic.from } else { &traffic.to };
    let guest = &lab.guest(role)?.plan;
    // The name of a guest that is gone is gone as well.
    let mut words = vec!["probe".to_owned(), guest.tap.clone()];
    let mut word = |text: &str| words.push(text.to_owned());
    if from_guest {
        word("to");
        word(&lab.destination(traffic)?.to_string());
    } else {
        word("--from");
        word(&lab.address(&traffic.from)?.to_string());
    }
    let via = if from_guest { next_hop(lab, traffic)? } else { None };
    if let Some(via) = via {
        word("--via");
        word(&via);
    }
    word("--source");
    word(&guest.port.addresses.of(lab.plan.options.family).to_string());
    let headers = match traffic.kind {
        Kind::Tcp | Kind::TcpShort => {
            word("tcp");
            word(&lab.port(traffic)?.to_string());
            if traffic.kind == Kind::Tcp {
                // Much is sent in segments as large as the sender's MTU lets them be.
                word("--size");
                word(&lab.plan.mtu.to_string());
            }
            0
        }
        Kind::Udp | Kind::UdpOneWay | Kind::Dns => {
            word("udp");
            word(&lab.port(traffic)?.to_string());
            lab.plan.options.family.headers()
        }
        Kind::Ping | Kind::Multicast | Kind::ArpStorm | Kind::Command => {
            word("icmp");
            lab.plan.options.family.headers()
        }
    };
    if let (Some(size), true) = (lab.size(traffic)?, headers > 0) {
        word("--size");
        word(&(size + headers).to_string());
    }
    if traffic.df == Some(true) {
        word("--df");
    }
    word("--json");
    Ok(words)
}

/// The guest's own next hop, which its operator knows.
fn next_hop(lab: &Lab, traffic: &Traffic) -> Result<Option<String>> {
    let target = lab.destination(traffic)?;
    let told = lab.guest(&traffic.from)?.namespace.run(&format!("ip -o route get {target}"))?;
    let mut words = told.stdout.split_whitespace().skip_while(|word| *word != "via");
    // On link it is the target itself.
    Ok((told.code() == 0).then(|| words.nth(1).map_or_else(|| target.to_string(), str::to_owned)))
}

/// The scenario with what a probe can be held to: cause and place. Verdicts and directions are those of other traffic.
fn as_probed(scenario: &Scenario) -> Scenario {
    let place = |expect: &Expect| Expect {
        cause: expect.cause.clone(),
        also: expect.also.clone(),
        device: expect.device.clone(),
        point: expect.point.clone(),
        severity: expect.severity.clone(),
        direction: None,
        verdict: None,
        guest: None,
        protocol: None,
        translated: None,
        evidence: None,
    };
    let expect = OneOrMore::More(scenario.expect.list().iter().map(place).collect());
    Scenario { expect, both_ends: Vec::new(), advice: Vec::new(), ..scenario.clone() }
}
