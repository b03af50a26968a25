//! Did it help? The same traffic is looked at again; where none comes, a probe is sent as the guest would.

use super::observe::{Seen, observe, trace};
use crate::cli::Fix as Options;
use crate::diagnose::report::{FlowDirection, FlowReport, Incident, Report, Severity};
use anyhow::Context as _;
use std::process::Stdio;
use std::time::Duration;

/// How long a probe may take.
pub(super) const PROBE: Duration = Duration::from_secs(30);

/// What a fix did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The traffic passes.
    Helped(String),
    /// It does not, or nobody can say.
    Useless(String),
    /// Something else fails now.
    Harmful(String),
}

/// Looks at the host after a fix was applied.
pub(super) async fn effect(options: &Options, seen: &Seen, incident: &Incident) -> anyhow::Result<Effect> {
    // Without flows a trace can't show whether it is gone.
    if incident.flows.is_empty() {
        let now = observe(&Options { check: true, ..options.clone() }).await?;
        let is_there = |other: &&Incident| other.id == incident.id;
        return Ok(if now.checked.incidents.iter().any(|other| is_there(&other)) {
            Effect::Useless("it did not help: the configuration still has the fault".to_owned())
        } else {
            Effect::Helped("it helped: the configuration has this fault no more".to_owned())
        });
    }
    let before = seen.report_of(incident);
    let after = trace(options).await?;
    match compare(before, &after, incident) {
        Some(effect) => Ok(effect),
        None => probe(before, incident).await,
    }
}

/// None where the traffic of the incident was not seen again.
fn compare(before: &Report, after: &Report, incident: &Incident) -> Option<Effect> {
    let suffered: Vec<&FlowReport> = before.flows.iter().filter(|flow| incident.flows.contains(&flow.id)).collect();
    let again: Vec<&FlowReport> =
        after.flows.iter().filter(|flow| suffered.iter().any(|other| is_same(flow, other))).collect();
    let failing = again.iter().filter(|flow| flow.severity >= Severity::Warning).count();
    if failing > 0 {
        return Some(Effect::Useless(format!("it did not help: {failing} of {} flows fail still", again.len())));
    }
    let was_there = |id: &str| before.incidents.iter().any(|known| known.id == id);
    if let Some(new) = after.incidents.iter().find(|new| new.severity == Severity::Error && !was_there(&new.id)) {
        let flows = new.flows.len();
        return Some(Effect::Harmful(format!("with it there is another fault: {} ({flows} flows)", new.cause.id())));
    }
    match again.len() {
        0 => None,
        all => Some(Effect::Helped(format!("it helped: {all} of its flows were seen again, and all pass"))),
    }
}

/// The same conversation; a new try has a source port of its own.
fn is_same(flow: &FlowReport, other: &FlowReport) -> bool {
    let of = |flow: &FlowReport| {
        let from_service = flow.source_port < flow.destination_port;
        let port = if from_service { flow.source_port } else { flow.destination_port };
        (flow.protocol.clone(), flow.source.clone(), flow.destination.clone(), from_service, port)
    };
    of(flow) == of(other)
}

/// Sends what the worst flow sent.
async fn probe(before: &Report, incident: &Incident) -> anyhow::Result<Effect> {
    let unseen = || {
        Effect::Useless(
            "nobody sent such traffic again, and it can't be probed: whether it helps is not known".to_owned(),
        )
    };
    let mut flows = before.flows.iter().filter(|flow| incident.flows.contains(&flow.id));
    let Some(words) = flows.find_map(probe_words) else { return Ok(unseen()) };
    let child = tokio::process::Command::new("/proc/self/exe")
        .args(["probe", "--json", "--yes", "--quiet"])
        .args(&words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PROBE, child).await.context("the probe takes too long")?.context("sending a probe")?;
    let Ok(said) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return Ok(unseen()) };
    let outcome = said["probe"]["outcome"].as_str().unwrap_or_default();
    let fails_so = said["incidents"].as_array().into_iter().flatten().any(|other| other["id"] == *incident.id);
    Ok(match outcome {
        "answered" | "delivered" | "refused" | "unanswered" if !fails_so => {
            Effect::Helped(format!("it helped: a probe got through ({outcome})"))
        }
        "" => unseen(),
        _ => Effect::Useless(format!("it did not help: a probe was {outcome}")),
    })
}

/// The words of `kvmtrace probe` for a flow; none for what it can't send.
fn probe_words(flow: &FlowReport) -> Option<Vec<String>> {
    let device = flow.device.clone()?;
    let (guest, peer) = match flow.direction {
        FlowDirection::FromGuest | FlowDirection::GuestToGuest => {
            (vec![device, "to".to_owned(), flow.destination.clone()], None)
        }
        FlowDirection::ToGuest => (vec![device], Some(flow.source.clone())),
        FlowDirection::Host => return None,
    };
    let what = match (flow.protocol.as_str(), flow.destination_port) {
        ("tcp" | "udp", Some(port)) => vec![flow.protocol.clone(), port.to_string()],
        ("icmp" | "icmpv6", _) if flow.icmp_id.is_some() => vec!["icmp".to_owned()],
        (_, _) => return None,
    };
    let from = peer.into_iter().flat_map(|peer| ["--from".to_owned(), peer]);
    Some(guest.into_iter().chain(what).chain(from).collect())
}
