//! The table of `check`: what gets through from each guest, and below it what stops where. Rows that all guests share are shown once.

use super::escape::escape;
use super::lines::{indented, plural};
use super::style::Style;
use crate::diagnose::report::{EndReport, Protocol, Report, Row, Severity, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// Columns of a line.
const WIDTH: usize = 80;
/// Lines of the table at most.
const LINES: usize = 24;
/// Reasons at most.
const REASONS: usize = 8;

/// A column: its head, and the protocols and ports that it shows.
type Column = (&'static str, &'static [(Protocol, Option<u16>)]);

/// The columns behind the target.
const COLUMNS: [Column; 6] = [
    ("ARP", &[(Protocol::Arp, None), (Protocol::Nd, None)]),
    ("ping", &[(Protocol::Icmp, None)]),
    ("22", &[(Protocol::Tcp, Some(22))]),
    ("80", &[(Protocol::Tcp, Some(80))]),
    ("443", &[(Protocol::Tcp, Some(443))]),
    ("DHCP", &[(Protocol::Dhcp, None)]),
];

/// A line of the table: a guest and a target.
#[derive(Debug)]
struct Line<'r> {
    guest: &'r str,
    target: String,
    cells: [&'static str; COLUMNS.len()],
    passes: bool,
}

/// Writes the table and the reasons. Nothing where nothing was walked.
pub(super) fn table(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    let Some(rows) = report.reachability.as_deref().filter(|rows| !rows.is_empty()) else { return Ok(()) };
    let lines = lines(rows);
    // On a large host the lines at which something stops come first.
    let few = lines.len() <= LINES;
    let shown: Vec<&Line<'_>> = lines.iter().filter(|line| few || !line.passes).take(LINES).collect();
    if !shown.is_empty() {
        write_table(&shown, style, out)?;
    }
    if shown.len() < lines.len() {
        let passing = lines.iter().filter(|line| line.passes).count();
        let text = if few || passing + shown.len() == lines.len() {
            format!("{} more, where everything gets through", plural(passing as u64, "line"))
        } else {
            format!(
                "{} more, {passing} of them where everything gets through",
                plural((lines.len() - shown.len()) as u64, "line")
            )
        };
        writeln!(out, "{}", style.dim(&text))?;
    }
    if let Some(left_out) = report.reachability_left_out.filter(|left_out| left_out.interfaces + left_out.pairs > 0) {
        let text = format!(
            "left out: {} and {}",
            plural(left_out.interfaces as u64, "interface"),
            plural(left_out.pairs as u64, "pair of guests").replace("pair of guestss", "pairs of guests")
        );
        writeln!(out, "{}", style.dim(&text))?;
    }
    reasons(report, rows, style, out)?;
    writeln!(out)
}

/// One line for each guest and target, in the order of the rows.
fn lines<'r>(rows: &'r [Row]) -> Vec<Line<'r>> {
    let mut order: Vec<(&'r str, &'r str, String)> = Vec::new();
    let mut cells: BTreeMap<(&'r str, &'r str, String), ([&'static str; COLUMNS.len()], bool)> = BTreeMap::new();
    for row in rows {
        let key = (row.guest.as_str(), row.device.as_str(), target(row));
        let entry = cells.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            (["-"; COLUMNS.len()], true)
        });
        let of = |(_, kinds): &Column| kinds.contains(&(row.protocol, row.port));
        if let Some(cell) = COLUMNS.iter().position(of).and_then(|column| entry.0.get_mut(column)) {
            *cell = match row.outcome {
                EndReport::Delivered | EndReport::Leaves => "ok",
                EndReport::Stops => "stops",
                EndReport::Unknown => "?",
            };
        }
        entry.1 &= matches!(row.outcome, EndReport::Delivered | EndReport::Leaves);
    }
    let line = |key: (&'r str, &'r str, String)| {
        let (cells, passes) = cells.get(&key).copied().unwrap_or((["-"; COLUMNS.len()], true));
        Line { guest: key.0, target: key.2, cells, passes }
    };
    order.into_iter().map(line).collect()
}

fn target(row: &Row) -> String {
    let name = match row.target_kind {
        TargetKind::Gateway => "gateway".to_owned(),
        TargetKind::Host => "this host".to_owned(),
        TargetKind::Guest => escape(&row.target),
        TargetKind::Lan => "the LAN".to_owned(),
        TargetKind::Internet => "the Internet".to_owned(),
    };
    match row.address {
        Some(address) => format!("{name} {address}"),
        None => name,
    }
}

fn write_table(lines: &[&Line<'_>], style: Style, out: &mut impl Write) -> io::Result<()> {
    let wide = |texts: &mut dyn Iterator<Item = usize>, least: usize| texts.max().unwrap_or(0).max(least);
    let guests = wide(&mut lines.iter().map(|line| escape(line.guest).width()), 5).min(20);
    let targets = wide(&mut lines.iter().map(|line| line.target.width()), 2).min(33);
    let heads: Vec<String> = COLUMNS.iter().map(|(name, _)| format!("{name:<5}")).collect();
    let head = format!("{:<guests$}  {:<targets$}  {}", "GUEST", "TO", heads.join("  "));
    writeln!(out, "{}", style.dim(head.trim_end()))?;
    let mut before = "";
    for line in lines {
        // A guest is named once.
        let guest = if line.guest == before { String::new() } else { escape(line.guest) };
        before = line.guest;
        let pad = |text: &str, columns: usize| format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())));
        let cells: Vec<String> = line
            .cells
            .iter()
            .map(|cell| {
                let text = pad(cell, 5);
                match *cell {
                    "stops" => style.severity(Severity::Info, &text),
                    "?" => style.severity(Severity::Warning, &text),
                    _ => text,
                }
            })
            .collect();
        let text = format!("{}  {}  {}", pad(&guest, guests), pad(&line.target, targets), cells.join("  "));
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// What stops, and where: each reason once, with who meets it. A finding that follows says its own.
fn reasons(report: &Report, rows: &[Row], style: Style, out: &mut impl Write) -> io::Result<()> {
    let told = |row: &Row| {
        report.findings.iter().filter(|finding| finding.severity >= Severity::Warning).any(|finding| {
            let device =
                |place: &Option<crate::diagnose::report::Where>| place.as_ref().and_then(|place| place.device.clone());
            Some(finding.cause) == row.cause && device(&finding.place) == device(&row.place)
        })
    };
    let mut reasons: Vec<(&str, EndReport, BTreeSet<String>)> = Vec::new();
    for row in rows.iter().filter(|row| matches!(row.outcome, EndReport::Stops | EndReport::Unknown) && !told(row)) {
        let who = format!("{} → {}", escape(&row.guest), target(row));
        match reasons.iter_mut().find(|(text, _, _)| *text == row.explanation) {
            Some((_, _, met)) => drop(met.insert(who)),
            None => reasons.push((&row.explanation, row.outcome, BTreeSet::from([who]))),
        }
    }
    for (text, outcome, met) in reasons.iter().take(REASONS) {
        let mark = if *outcome == EndReport::Unknown { "?" } else { "·" };
        let mut who: Vec<String> = met.iter().take(2).cloned().collect();
        if met.len() > who.len() {
            who.push(format!("{} more", met.len() - who.len()));
        }
        indented(&format!("{mark} "), &format!("{}: {text}", who.join(", ")), WIDTH, out)?;
    }
    if reasons.len() > REASONS {
        writeln!(out, "{}", style.dim(&format!("and {} more reasons; --json has all", reasons.len() - REASONS)))?;
    }
    Ok(())
}
