//! Colours and marks. A state always has a word or a mark too: colour only helps.
//!
//! The palette is Okabe and Ito's, which the common colour blindnesses tell apart; on a 16-colour terminal its nearest
//! relatives; with `NO_COLOR` none at all. Backgrounds are left to the terminal.

use crate::diagnose::report::{FlowReport, Severity, Verdict};
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// How many colours the terminal is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// None: bold, underlined and reversed text only.
    Plain,
    /// The sixteen that every colour terminal has.
    Sixteen,
    /// True colours for a dark background.
    Dark,
    /// True colours for a light background.
    Light,
}

/// What the screen may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    palette: Palette,
    ascii: bool,
}

/// What a colour is for.
#[derive(Clone, Copy)]
enum Role {
    Error,
    Warning,
    Info,
    Good,
    Accent,
}

#[allow(clippy::unused_self, reason = "all styles are asked of a theme")]
impl Theme {
    /// A theme of just these.
    pub fn new(palette: Palette, ascii: bool) -> Self {
        Self { palette, ascii }
    }

    /// What the environment asks for: `NO_COLOR`, `COLORTERM`, `COLORFGBG`, `TERM`, and the locale for other characters
    /// than ASCII.
    pub fn detect(variable: impl Fn(&str) -> Option<String>, color: bool) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        let ascii = !(locale.contains("utf-8") || locale.contains("utf8"));
        let rich = set("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit");
        // "15;0" is white on black; rxvt and its like tell the background last.
        let light = set("COLORFGBG")
            .and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok())
            .is_some_and(|background| background == 7 || background > 8);
        let palette = match (color && set("NO_COLOR").is_none(), rich, light) {
            (false, _, _) => Palette::Plain,
            (true, false, _) => Palette::Sixteen,
            (true, true, false) => Palette::Dark,
            (true, true, true) => Palette::Light,
        };
        Self { palette, ascii }
    }

    #[allow(clippy::match_same_arms, reason = "a table of colours")]
    fn color(self, role: Role) -> Style {
        let color = match (self.palette, role) {
            (Palette::Plain, _) => return Style::new(),
            (Palette::Sixteen, Role::Error) => Color::Red,
            (Palette::Sixteen, Role::Warning) => Color::Yellow,
            (Palette::Sixteen, Role::Info) => Color::Blue,
            (Palette::Sixteen, Role::Good) => Color::Green,
            (Palette::Sixteen, Role::Accent) => Color::Cyan,
            (Palette::Dark, Role::Error) => Color::Rgb(0xff, 0x6e, 0x3a),
            (Palette::Dark, Role::Warning) => Color::Rgb(0xf0, 0xc0, 0x42),
            (Palette::Dark, Role::Info) => Color::Rgb(0x56, 0xb4, 0xe9),
            (Palette::Dark, Role::Good) => Color::Rgb(0x1f, 0xc5, 0x93),
            (Palette::Dark, Role::Accent) => Color::Rgb(0x7c, 0xc7, 0xff),
            (Palette::Light, Role::Error) => Color::Rgb(0xb8, 0x3a, 0x00),
            (Palette::Light, Role::Warning) => Color::Rgb(0x8a, 0x5a, 0x00),
            (Palette::Light, Role::Info) => Color::Rgb(0x00, 0x5a, 0x9c),
            (Palette::Light, Role::Good) => Color::Rgb(0x00, 0x6b, 0x4f),
            (Palette::Light, Role::Accent) => Color::Rgb(0x00, 0x5a, 0x9c),
        };
        Style::new().fg(color)
    }

    /// How something of this gravity is written.
    pub(super) fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Ok => self.color(Role::Good),
            Severity::Info => self.color(Role::Info),
            Severity::Warning => self.color(Role::Warning).add_modifier(Modifier::BOLD),
            Severity::Error => self.color(Role::Error).add_modifier(Modifier::BOLD),
        }
    }

    /// Titles and keys.
    pub(super) fn accent(self) -> Style {
        self.color(Role::Accent).add_modifier(Modifier::BOLD)
    }

    /// Column headings.
    pub(super) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// What matters less.
    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Sparklines.
    pub(super) fn graph(self) -> Style {
        self.color(Role::Info)
    }

    /// The row under the cursor.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// On a terminal that knows ASCII only, replaces what it could not show.
    pub(super) fn finish(self, buffer: &mut Buffer) {
        if !self.ascii {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let plain = ascii(cell.symbol());
                cell.set_symbol(plain);
            }
        }
    }
}

/// The nearest that ASCII has.
#[allow(clippy::match_same_arms, reason = "a table of characters")]
fn ascii(symbol: &str) -> &'static str {
    match symbol {
        "─" | "━" | "–" => "-",
        "│" | "┃" => "|",
        "╭" | "╮" | "╰" | "╯" | "┏" | "┓" | "┗" | "┛" | "┌" | "┐" | "└" | "┘" | "├" | "┤" => {
            "+"
        }
        "▶" | "→" | "▸" => ">",
        "◀" | "←" => "<",
        "▲" | "↑" => "^",
        "▼" | "↓" => "v",
        "✗" => "x",
        "✓" => "+",
        "●" => "*",
        "…" => "~",
        "µ" => "u",
        "·" => ".",
        "▁" => "_",
        "▂" => ".",
        "▃" => ":",
        "▄" => "-",
        "▅" => "=",
        "▆" => "+",
        "▇" => "*",
        "█" => "#",
        _ => "?",
    }
}

/// The mark of a gravity; it tells the same as the colour.
pub(super) fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "✓",
        Severity::Info => "i",
        Severity::Warning => "!",
        Severity::Error => "✗",
    }
}

/// The word for a verdict.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Fragmented => "fragmented",
        Verdict::Unanswered => "unanswered",
        Verdict::Refused => "refused",
        Verdict::Lost => "lost",
        Verdict::Dropped => "dropped",
    }
}

/// What is wrong with a flow in one word: its cause, or its verdict when all is well.
pub(super) fn cause_or_verdict(flow: &FlowReport) -> &'static str {
    flow.cause.map_or_else(|| verdict(flow.verdict), crate::diagnose::report::Cause::id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Theme {
        Theme::detect(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()), true)
    }

    #[test]
    fn the_environment_chooses_the_palette() {
        assert_eq!(detect(&[("LANG", "C.UTF-8")]), Theme::new(Palette::Sixteen, false));
        assert_eq!(detect(&[("LANG", "en_GB.UTF-8"), ("COLORTERM", "truecolor")]), Theme::new(Palette::Dark, false));
        assert_eq!(
            detect(&[("LANG", "de_DE.utf8"), ("COLORTERM", "24bit"), ("COLORFGBG", "0;15")]),
            Theme::new(Palette::Light, false)
        );
        assert_eq!(
            detect(&[("LC_ALL", "C"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1")]),
            Theme::new(Palette::Plain, true)
        );
        assert_eq!(detect(&[("LANG", "C.UTF-8"), ("NO_COLOR", "")]).palette, Palette::Sixteen);
    }

    #[test]
    fn without_colour_severities_still_differ_by_their_marks() {
        let marks = [Severity::Ok, Severity::Info, Severity::Warning, Severity::Error].map(mark);
        let plain = marks.map(|symbol| if symbol.is_ascii() { symbol } else { ascii(symbol) });
        for (index, symbol) in plain.iter().enumerate() {
            assert!(!plain[index + 1..].contains(symbol), "{symbol} stands for two severities");
        }
    }
}
