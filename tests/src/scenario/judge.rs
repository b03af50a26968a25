//! Whether kvmtrace said what a scenario expects.

use super::{Cure, Expect, OneOrMore, Scenario};
use crate::lab::traffic::fill;
use crate::product::Verdict;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// What was told, and the cure that was proposed.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// The cause.
    pub cause: String,
    /// `device point`.
    pub place: String,
    /// Direction, verdict and severity of each thing that is expected.
    pub told: Vec<String>,
    /// The first proposed cure of each thing that is expected.
    pub cures: Vec<Proposed>,
}

/// A proposed cure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// The command, where it lies on this host.
    pub command: Option<String>,
    /// Its undo.
    pub undo: Option<String>,
    /// What is said about it.
    pub advice: String,
}

/// Judges a verdict; an error says what is wrong and what was said.
pub(super) fn judge(
    scenario: &Scenario,
    verdict: &Verdict,
    placeholders: &BTreeMap<String, String>,
) -> Result<Judgement> {
    let result =
        if scenario.is_healthy() { healthy(scenario, verdict) } else { faulty(scenario, verdict, placeholders) };
    result.with_context(|| format!("kvmtrace said:\n{}", shown(verdict)))
}

fn is_alarm(item: &Value) -> bool {
    matches!(item["severity"].as_str(), Some("warning" | "error"))
}

fn healthy(scenario: &Scenario, verdict: &Verdict) -> Result<Judgement> {
    ensure!(!verdict.items().any(is_alarm), "a false alarm on a healthy host");
    let flows = verdict.json["flows"].as_array().map_or(0, Vec::len);
    ensure!(flows > 0, "no flow was seen");
    let delivered = |flow: &&Value| flow["verdict"] == "delivered";
    ensure!(
        verdict.json["flows"].as_array().into_iter().flatten().any(|flow| delivered(&flow)),
        "no flow counts as delivered"
    );
    for wanted in &scenario.both_ends {
        let is_told = |flow: &Value| {
            let text = |key: &str| flow[key].as_str().unwrap_or_default();
            let other = |end: &str| flow["translated"][end].as_str().is_some_and(|other| other != text(end));
            *wanted == format!("{} {}", text("protocol"), text("direction")) && other("source") && other("destination")
        };
        let flows = verdict.json["flows"].as_array();
        ensure!(
            flows.into_iter().flatten().any(|flow| delivered(&flow) && is_told(flow)),
            "no flow `{wanted}` is told with both ends translated"
        );
    }
    ensure!(verdict.code == 0, "exit {} in place of 0", verdict.code);
    Ok(Judgement { cause: "healthy".into(), ..Judgement::default() })
}

fn faulty(scenario: &Scenario, verdict: &Verdict, placeholders: &BTreeMap<String, String>) -> Result<Judgement> {
    let expected = scenario.expect.list();
    let mut told = Vec::new();
    for expect in expected {
        told.push(told_as(expect, verdict, placeholders)?);
    }
    let allowed = |item: &&Value| {
        expected
            .iter()
            .flat_map(|expect| expect.cause.list().iter().chain(&expect.also))
            .any(|cause| item["cause"] == *cause)
    };
    if let Some(item) = verdict.items().filter(|item| is_alarm(item)).find(|item| !allowed(item)) {
        bail!("a consequence or nothing was told as a cause of its own: {} ({})", item["cause"], item["explanation"]);
    }
    let alarm = verdict.items().any(is_alarm);
    ensure!(verdict.code == i32::from(alarm), "exit {} does not fit", verdict.code);
    let item = *told.first().context("nothing is expected")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (mut cures, mut words) = (Vec::new(), Vec::new());
    for item in &told {
        let fixes = item["fixes"].as_array().map_or(&[][..], Vec::as_slice);
        let proposed = cure(scenario, fixes, placeholders)?.map(|fix| Proposed {
            command: text(&fix["command"]),
            undo: text(&fix["undo"]),
            advice: text(&fix["why"]).unwrap_or_default(),
        });
        words.push(["direction", "verdict", "severity"].map(|key| text(&item[key]).unwrap_or_default()).join(" "));
        // A request and its answers suffer from one fault.
        cures.extend(proposed.filter(|proposed| !cures.contains(proposed)));
    }
    Ok(Judgement {
        cause: text(&item["cause"]).unwrap_or_default(),
        place: ["device", "point"].map(|key| text(&item["where"][key]).unwrap_or_default()).join(" "),
        told: words,
        cures,
    })
}

/// The first fix, which must lie where the scenario says.
fn cure<'a>(
    scenario: &Scenario,
    fixes: &'a [Value],
    placeholders: &BTreeMap<String, String>,
) -> Result<Option<&'a Value>> {
    let first = fixes.first();
    let proposed = fixes.iter().find(|fix| !fix["command"].is_null()).map(|fix| &fix["command"]);
    match scenario.cure {
        Cure::Host | Cure::HostOnce => {
            let first = first.context("no word about the cure")?;
            ensure!(!first["command"].is_null(), "the first fix has no command: {}", first["why"]);
            let undone = scenario.cure == Cure::Host;
            ensure!(first["undo"].is_null() != undone, "the undo of {} is {}", first["command"], first["undo"]);
            ensure!(undone || !first["risk"].is_null(), "no undo of {}, and no word of that", first["command"]);
        }
        Cure::Elsewhere | Cure::HostAdvised => {
            let advised = scenario.cure == Cure::HostAdvised;
            ensure!(advised || proposed.is_none(), "the cure lies elsewhere, but this is proposed: {proposed:?}");
            let command = fixes.iter().find(|fix| !fix["command"].is_null());
            ensure!(
                !advised || command.is_some_and(|fix| !fix["undo"].is_null()),
                "no command with an undo is proposed"
            );
            ensure!(first.is_some_and(|first| first["command"].is_null()), "a command comes before the advice");
            let why = first.context("no word about the cure")?["why"].as_str().unwrap_or_default();
            for word in &scenario.advice {
                let word = fill(word, placeholders)?;
                ensure!(why.contains(&word), "the advice should name {word}: {why}");
            }
            if advised {
                return Ok(command);
            }
        }
        Cure::Nothing => ensure!(proposed.is_none(), "nothing is broken, but this is proposed: {proposed:?}"),
    }
    Ok(first)
}

/// The flow or finding that says what is expected.
fn told_as<'a>(expect: &Expect, verdict: &'a Verdict, placeholders: &BTreeMap<String, String>) -> Result<&'a Value> {
    let filled = |choices: &OneOrMore<String>| {
        choices.list().iter().map(|text| fill(text, placeholders)).collect::<Result<Vec<_>>>()
    };
    let causes = expect.cause.list();
    let severities =
        expect.severity.as_ref().map_or_else(|| vec!["warning".into(), "error".into()], |s| s.list().to_vec());
    let mut left: Vec<&Value> =
        verdict.items().filter(|item| causes.iter().any(|cause| item["cause"] == *cause)).collect();
    ensure!(!left.is_empty(), "nothing has the cause {}", causes.join(" or "));
    // Each wish narrows the candidates; the first that leaves none is the mistake.
    let mut wishes: Vec<(&str, &[&str], Vec<String>)> = Vec::new();
    let mut wish = |name, path, wanted: &Option<OneOrMore<String>>| -> Result<()> {
        if let Some(wanted) = wanted {
            wishes.push((name, path, filled(wanted)?));
        }
        Ok(())
    };
    wish("protocol", &["protocol"], &expect.protocol)?;
    wish("direction", &["direction"], &expect.direction)?;
    wish("device", &["where", "device"], &expect.device)?;
    wish("point", &["where", "point"], &expect.point)?;
    wish("verdict", &["verdict"], &expect.verdict)?;
    if let Some(guest) = &expect.guest {
        wishes.push(("guest", &["guest"], vec![fill(guest, placeholders)?]));
    }
    wishes.push(("severity", &["severity"], severities));
    for (name, path, allowed) in wishes {
        let value = |item: &Value| path.iter().fold(item.clone(), |value, key| value[*key].clone());
        let told: Vec<String> = left.iter().map(|item| value(item).to_string()).collect();
        // A finding has neither direction nor verdict: those wishes are about flows.
        left.retain(|item| value(item).as_str().is_some_and(|value| allowed.iter().any(|a| a == value)));
        ensure!(!left.is_empty(), "{name} should be {}, is {}", allowed.join(" or "), told.join(", "));
    }
    if let Some(address) = &expect.translated {
        let address = fill(address, placeholders)?;
        let told: Vec<String> = left.iter().map(|item| item["translated"].to_string()).collect();
        left.retain(|item| ["source", "destination"].iter().any(|end| item["translated"][*end] == *address));
        ensure!(!left.is_empty(), "translated should hold {address}, is {}", told.join(", "));
    }
    if let Some(words) = &expect.evidence {
        let words = fill(words, placeholders)?;
        let lines = |item: &Value| item["evidence"].as_array().cloned().unwrap_or_default();
        let told: Vec<Value> = left.iter().flat_map(|item| lines(item)).collect();
        left.retain(|item| lines(item).iter().any(|line| line.as_str().is_some_and(|line| line.contains(&words))));
        ensure!(!left.is_empty(), "the evidence should hold `{words}`, is {told:?}");
    }
    left.first().copied().context("nothing is left")
}

/// The report in few lines, for the message of a failure.
fn shown(verdict: &Verdict) -> String {
    let mut lines: Vec<String> = Vec::new();
    for finding in verdict.json["findings"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  finding {} {} {} where={} count={} {}",
            finding["severity"],
            finding["cause"],
            finding["guest"],
            finding["where"],
            finding["count"],
            finding["explanation"]
        ));
        let fixes = finding["fixes"].as_array().into_iter().flatten();
        lines.extend(fixes.map(|fix| format!("    fix {} undo {}", fix["command"], fix["undo"])));
    }
    for flow in verdict.json["flows"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  flow {} {} {}→{} {} {} cause={} packets={} dropped={} where={} {}",
            flow["guest"],
            flow["direction"],
            flow["source"],
            flow["destination"],
            flow["protocol"],
            flow["verdict"],
            flow["cause"],
            flow["packets"],
            flow["dropped"],
            flow["where"],
            flow["explanation"],
        ));
        let fixes = flow["fixes"].as_array().into_iter().flatten();
        lines.extend(fixes.map(|fix| format!("    fix {} undo {} ({})", fix["command"], fix["undo"], fix["why"])));
    }
    for key in ["degraded", "lost", "totals", "guests"] {
        lines.push(format!("  {key} {}", verdict.json[key]));
    }
    lines.truncate(60);
    lines.join("\n")
}
