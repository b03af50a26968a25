//! Colours and marks. A state always has a word or a mark too: colour only helps.
//!
//! The palette is Okabe and Ito's, which the common colour blindnesses tell apart; on a terminal with 256 or 16 colours
//! its nearest relatives; with `NO_COLOR` none at all. The background is left to the terminal; only the row under the
//! cursor is tinted where the terminal has a tint, and reversed where it has none.

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
    /// The 256 of xterm.
    Indexed,
    /// Any.
    True,
}

/// What the screen may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    palette: Palette,
    light: bool,
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

impl Role {
    /// On a dark and on a light background, of 16 colours, of 256 and of all.
    fn colors(self) -> [(Color, Color); 3] {
        let rgb = |color: u32| {
            let [_, red, green, blue] = color.to_be_bytes();
            Color::Rgb(red, green, blue)
        };
        let (sixteen, indexed, all) = match self {
            Self::Error => ((Color::LightRed, Color::Red), (209, 130), (0xff_6e3a, 0xa8_3200)),
            // Yellow can't be read on white.
            Self::Warning => ((Color::LightYellow, Color::Magenta), (221, 94), (0xf0_c042, 0x78_4e00)),
            Self::Info => ((Color::Cyan, Color::Blue), (74, 25), (0x56_b4e9, 0x00_5a9c)),
            Self::Good => ((Color::LightGreen, Color::Green), (42, 23), (0x1f_c593, 0x00_6b4f)),
            Self::Accent => ((Color::LightCyan, Color::Blue), (117, 25), (0x7c_c7ff, 0x00_5a9c)),
        };
        let indexed = (Color::Indexed(indexed.0), Color::Indexed(indexed.1));
        [sixteen, indexed, (rgb(all.0), rgb(all.1))]
    }
}

/// Terminals that show all colours without saying so in `COLORTERM`.
const RICH: [&str; 6] = ["direct", "kitty", "alacritty", "foot", "wezterm", "ghostty"];

#[allow(clippy::unused_self, reason = "all styles are asked of a theme")]
impl Theme {
    /// A theme of just these, for a dark background.
    pub fn new(palette: Palette, ascii: bool) -> Self {
        Self { palette, light: false, ascii }
    }

    /// The same for a light background.
    #[must_use]
    pub fn on_light(self) -> Self {
        Self { light: true, ..self }
    }

    /// What the environment asks for: `NO_COLOR`, `COLORTERM`, `COLORFGBG`, `TERM`, and the locale for other characters
    /// than ASCII.
    pub fn detect(variable: impl Fn(&str) -> Option<String>, color: bool) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        let ascii = !(locale.contains("utf-8") || locale.contains("utf8"));
        let term = set("TERM").unwrap_or_default();
        let rich = set("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit")
            || RICH.iter().any(|name| term.contains(name));
        // "15;0" is white on black; rxvt and its like tell the background last.
        let light = set("COLORFGBG")
            .and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok())
            .is_some_and(|background| background == 7 || background > 8);
        let monochrome = ["vt1", "vt2", "vt3"].iter().any(|name| term.starts_with(name)) || term.ends_with("-mono");
        let palette = match (color && set("NO_COLOR").is_none() && !monochrome, rich) {
            (false, _) => Palette::Plain,
            (true, true) => Palette::True,
            (true, false) if term.contains("256color") => Palette::Indexed,
            (true, false) => Palette::Sixteen,
        };
        Self { palette, light, ascii }
    }

    fn shade(self, (dark, light): (Color, Color)) -> Color {
        if self.light { light } else { dark }
    }

    fn color(self, role: Role) -> Style {
        let [sixteen, indexed, all] = role.colors();
        match self.palette {
            Palette::Plain => Style::new(),
            Palette::Sixteen => Style::new().fg(self.shade(sixteen)),
            Palette::Indexed => Style::new().fg(self.shade(indexed)),
            Palette::True => Style::new().fg(self.shade(all)),
        }
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

    /// The heading of the column that rows are sorted by.
    pub(super) fn sorted(self) -> Style {
        self.color(Role::Accent).add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
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
        let tint = match self.palette {
            Palette::Plain | Palette::Sixteen => return Style::new().add_modifier(Modifier::REVERSED),
            Palette::Indexed => (Color::Indexed(237), Color::Indexed(253)),
            Palette::True => (Color::Rgb(0x2b, 0x33, 0x40), Color::Rgb(0xd9, 0xe3, 0xee)),
        };
        Style::new().bg(self.shade(tint)).add_modifier(Modifier::BOLD)
    }

    /// A cell of the row under the cursor: reversed text in many colours would be a patchwork.
    pub(super) fn in_selected(self, style: Style) -> Style {
        match self.palette {
            Palette::Plain | Palette::Sixteen => Style { fg: None, bg: None, ..style },
            Palette::Indexed | Palette::True => style,
        }
    }

    /// A word that must be seen: what is frozen, what plays, which screen is shown.
    pub(super) fn badge(self) -> Style {
        self.color(Role::Accent).add_modifier(Modifier::REVERSED | Modifier::BOLD)
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
        "│" | "┃" | "╷" => "|",
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
        let utf8 = ("LANG", "en_GB.UTF-8");
        for (variables, theme) in [
            (&[utf8][..], Theme::new(Palette::Sixteen, false)),
            (&[utf8, ("TERM", "xterm-16color")], Theme::new(Palette::Sixteen, false)),
            (&[utf8, ("TERM", "tmux-256color")], Theme::new(Palette::Indexed, false)),
            (&[utf8, ("TERM", "xterm-kitty")], Theme::new(Palette::True, false)),
            (&[utf8, ("TERM", "vt220")], Theme::new(Palette::Plain, false)),
            (&[utf8, ("COLORTERM", "truecolor")], Theme::new(Palette::True, false)),
            (&[utf8, ("COLORTERM", "24bit"), ("COLORFGBG", "0;15")], Theme::new(Palette::True, false).on_light()),
            (&[("LANG", "de_DE.utf8"), ("COLORFGBG", "0;default;15")], Theme::new(Palette::Sixteen, false).on_light()),
            (&[("LC_ALL", "C"), utf8, ("NO_COLOR", "1")], Theme::new(Palette::Plain, true)),
            (&[utf8, ("NO_COLOR", "")], Theme::new(Palette::Sixteen, false)),
        ] {
            assert_eq!(detect(variables), theme, "{variables:?}");
        }
    }

    /// Luminance as WCAG has it, of the colours that are told by their parts.
    fn luminance(color: Color) -> f64 {
        let Color::Rgb(red, green, blue) = color else { panic!("{color:?}") };
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    #[test]
    fn every_colour_can_be_read_on_its_background_and_under_the_cursor() {
        for theme in [Theme::new(Palette::True, false), Theme::new(Palette::True, false).on_light()] {
            let plain = if theme.light { Color::Rgb(255, 255, 255) } else { Color::Rgb(0, 0, 0) };
            for role in [Role::Error, Role::Warning, Role::Info, Role::Good, Role::Accent] {
                for background in [plain, theme.selected().bg.unwrap()] {
                    let (a, b) = (luminance(theme.color(role).fg.unwrap()), luminance(background));
                    let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                    assert!(contrast >= 4.5, "{contrast:.1} on {background:?}, light: {}", theme.light);
                }
            }
        }
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
