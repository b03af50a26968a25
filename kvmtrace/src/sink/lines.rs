//! Lines of text: how wide they are, how words are put into them, how a flow reads.

use super::escape::escape;
use super::style::Style;
use crate::diagnose::report::{FlowReport, Verdict};
use std::io::{self, Write};

/// Columns where nobody says how many there are, and the widest that lines are filled to.
const WIDTH: usize = 100;
const WIDEST: usize = 120;

/// How a text is shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Its colours.
    pub style: Style,
    /// Columns of the terminal.
    pub width: usize,
    /// With all details.
    pub verbose: bool,
}

impl View {
    /// For a terminal of so many columns; none for a file.
    pub fn new(color: bool, columns: Option<u16>, verbose: bool) -> Self {
        let width = columns.map_or(WIDTH, usize::from).clamp(40, WIDEST);
        Self { style: Style { color }, width, verbose }
    }
}

/// `web1  udp 10.0.0.1:4 → 10.0.0.2:5  dropped 12 of 12`
pub(super) fn flow_line(flow: &FlowReport) -> String {
    let end = |address: &str, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    let nat = flow.translated.as_ref().map(|translated| {
        format!(
            " (as {} → {})",
            end(&translated.source, translated.source_port),
            end(&translated.destination, translated.destination_port)
        )
    });
    let vlan = flow.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let guest = flow.guest.as_deref().map(|guest| format!("{}  ", escape(guest))).unwrap_or_default();
    let fate = match flow.verdict {
        Verdict::Dropped => format!("dropped {} of {}", flow.dropped, flow.packets),
        Verdict::Delivered => format!("delivered {}", flow.packets),
        Verdict::Fragmented => format!("{} packets in {} fragments", flow.packets, flow.fragments),
        Verdict::Unanswered => format!("unanswered, {} sent", flow.packets),
        Verdict::Refused => format!("refused, {} sent", flow.packets),
        Verdict::Lost => format!("lost, {} sent", flow.packets),
    };
    let probe = if flow.probe { " (probe)" } else { "" };
    format!(
        "{guest}{} {} → {}{vlan}{}  {fate}{probe}",
        escape(&flow.protocol),
        end(&flow.source, flow.source_port),
        end(&flow.destination, flow.destination_port),
        nat.unwrap_or_default()
    )
}

/// `1 flow`, `2 flows`
pub(super) fn plural(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Words in lines of at most `columns` columns; lines after the first are set in by as much as the label is wide.
pub(super) fn indented(label: &str, text: &str, columns: usize, out: &mut impl Write) -> io::Result<()> {
    wrapped(label, text, columns).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines of [`indented`].
pub(super) fn wrapped(label: &str, text: &str, columns: usize) -> Vec<String> {
    let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let indent = " ".repeat(width(label));
    let mut lines = Vec::new();
    let mut line = label.to_owned();
    let mut empty = true;
    for word in escape(text).split_whitespace() {
        if !empty && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

/// The line within the terminal's width; codes of colours take no room.
pub(super) fn clip(view: &View, text: &str) -> String {
    let (mut kept, mut columns, mut in_code) = (String::new(), 0, false);
    let whole = {
        let mut in_code = false;
        let visible = |c: &char| {
            let was = in_code || *c == '\u{1b}';
            in_code = was && *c != 'm';
            !was
        };
        text.chars().filter(visible).map(|c| unicode_width::UnicodeWidthChar::width(c).unwrap_or(0)).sum::<usize>()
    };
    if view.verbose || whole <= view.width {
        return text.to_owned();
    }
    for c in text.chars() {
        if in_code || c == '\u{1b}' {
            in_code = c != 'm';
            kept.push(c);
            continue;
        }
        columns += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if columns < view.width {
            kept.push(c);
        } else if columns - unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) < view.width {
            kept.push('…');
        }
    }
    kept
}
