//! What `check` says to a person: the faults of the configuration, each once, and what was looked at.

use super::escape::escape;
use super::reachability;
use super::style::Style;
use super::text::{degraded, finding, plural};
use crate::diagnose::report::{Finding, Report, Severity};
use std::io::{self, Write};

/// Writes the report of the configuration.
pub fn report(report: &Report, color: bool, out: &mut impl Write) -> io::Result<()> {
    let style = Style { color };
    reachability::table(report, style, out)?;
    for group in grouped(&report.findings) {
        if let Some((first, others)) = group.split_first() {
            finding(first, others, style, out)?;
        }
    }
    degraded(report, style, out)?;
    summary(report, style, out)
}

/// What one and the same command mends is told once, however many guests it is for.
fn grouped(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    let cure = |finding: &Finding| finding.fixes.first().and_then(|fix| fix.command.clone());
    for finding in findings {
        let same = |group: &&mut Vec<&Finding>| {
            let alike = |other: &&Finding| {
                (other.cause, other.severity, &other.place) == (finding.cause, finding.severity, &finding.place)
                    && cure(other).is_some()
                    && cure(other) == cure(finding)
            };
            group.first().is_some_and(alike)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

fn summary(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    let host = escape(&report.host.name);
    let interfaces: usize = report.guests.iter().map(|guest| guest.interfaces.len()).sum();
    let looked_at = if report.guests.is_empty() {
        format!("no guest runs on {host}")
    } else {
        format!("{}, {}", plural(report.guests.len() as u64, "guest"), plural(interfaces as u64, "interface"))
    };
    let of = |severity: Severity| report.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    if errors + warnings == 0 {
        let word = style.severity(Severity::Ok, "no fault found");
        return writeln!(out, "{word} in the configuration of {host}: {looked_at}");
    }
    let counts = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| plural(count, word)).collect();
    let word = style.severity(report.severity(), &counts.join(", "));
    writeln!(out, "{word} in the configuration of {host}: {looked_at}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::report::{Cause, Fix, Label, Point, Where};

    fn found(guest: Option<&str>, command: Option<&str>) -> Finding {
        let fix = Fix { command: command.map(str::to_owned), ..Fix::advice("Because.") };
        let device = Some("eth0".to_owned());
        Finding {
            label: Label::default(),
            cause: Cause::BridgeMtuExceeded,
            severity: Severity::Warning,
            guest: guest.map(str::to_owned),
            place: Some(Where { device, point: Point::BridgeEgress, function: None, reason: None }),
            count: None,
            explanation: "Too long.".to_owned(),
            evidence: vec![format!("{}: MTU 9000", guest.unwrap_or("eth0"))],
            fixes: vec![fix],
        }
    }

    #[test]
    fn what_one_command_mends_is_told_once() {
        let same = |guest| found(Some(guest), Some("ip link set dev eth0 mtu 9000"));
        let findings = [same("web1"), found(Some("web1"), None), same("web2"), found(Some("web2"), None)];
        let groups: Vec<usize> = grouped(&findings).iter().map(Vec::len).collect();
        assert_eq!(groups, [2, 1, 1]);
        let mut out = Vec::new();
        let others = [&findings[2]];
        finding(&findings[0], &others, Style { color: false }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("bridge-mtu-exceeded  web1\n") && text.contains("  also web2  web2: MTU 9000\n"),
            "{text}"
        );
    }
}
