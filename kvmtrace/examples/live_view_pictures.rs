//! The README's pictures of the live view, drawn by the code that draws the terminal: `cargo xtask screenshots`.
//! The host in them is made up (`tui::fixture`).
#![allow(clippy::print_stdout, reason = "it is a program that prints")]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use kvmtrace::tui::{Palette, State, Theme, draw, fixture, update};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use std::fmt::Write as _;
use std::path::Path;

const SIZE: (u16, u16) = (110, 30);
/// Columns and rows in SVG units.
const CELL: (u32, u32) = (8, 17);
const PADDING: u32 = 12;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d7dae0";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).ok_or("which directory are the pictures for?")?;
    let healthy = || fixture::snapshot_over_time(fixture::healthy_report);
    let broken = || fixture::snapshot_over_time(fixture::mtu_report);
    let pictures = [
        ("healthy-guests", healthy(), "1jjj"),
        ("mtu-guests", broken(), "1"),
        ("mtu-flows", broken(), "2"),
        ("mtu-path", broken(), "2\n"),
        ("mtu-faults", broken(), "4"),
        ("mtu-event", broken(), "5k\n"),
    ];
    for (name, snapshot, keys) in pictures {
        let mut state = State::new(snapshot, SIZE);
        for character in keys.chars() {
            let code = if character == '\n' { KeyCode::Enter } else { KeyCode::Char(character) };
            update::key(&mut state, KeyEvent::new(code, KeyModifiers::NONE));
        }
        let mut terminal = Terminal::new(TestBackend::new(SIZE.0, SIZE.1))?;
        let frame = terminal.draw(|frame| draw(frame, &state, Theme::new(Palette::True, false)))?;
        let path = Path::new(&directory).join(format!("live-{name}.svg"));
        std::fs::write(&path, svg(frame.buffer)?)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn svg(buffer: &Buffer) -> Result<String, std::fmt::Error> {
    let (columns, rows) = (u32::from(buffer.area.width), u32::from(buffer.area.height));
    let (width, height) = (columns * CELL.0 + 2 * PADDING, rows * CELL.1 + 2 * PADDING);
    let mut out = String::new();
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">"#
    )?;
    writeln!(out, r#"<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>"#)?;
    writeln!(
        out,
        r#"<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="13" xml:space="preserve">"#
    )?;
    for (row, cells) in (0..).zip(buffer.content.chunks(usize::from(buffer.area.width))) {
        let mut column = 0;
        for run in cells.chunk_by(|a, b| a.style() == b.style()) {
            write_run(&mut out, run, column, row)?;
            column += run.len() as u32;
        }
    }
    out.push_str("</g>\n</svg>\n");
    Ok(out)
}

/// Cells of one style. Each word has its place and its length, so that every font keeps the columns.
fn write_run(out: &mut String, run: &[Cell], column: u32, row: u32) -> std::fmt::Result {
    let modifier = run[0].modifier;
    let color = if let Color::Rgb(red, green, blue) = run[0].fg {
        format!("#{red:02x}{green:02x}{blue:02x}")
    } else {
        FOREGROUND.to_owned()
    };
    let (x, y) = (PADDING + column * CELL.0, PADDING + row * CELL.1);
    let reversed = modifier.contains(Modifier::REVERSED);
    let behind = if reversed {
        Some(color.clone())
    } else if let Color::Rgb(red, green, blue) = run[0].bg {
        Some(format!("#{red:02x}{green:02x}{blue:02x}"))
    } else {
        None
    };
    if let Some(behind) = behind {
        let width = run.len() as u32 * CELL.0;
        writeln!(out, r#"<rect x="{x}" y="{y}" width="{width}" height="{}" fill="{behind}"/>"#, CELL.1)?;
    }
    let mut attributes = format!(r#" fill="{}""#, if reversed { BACKGROUND } else { &color });
    for (set, attribute) in [
        (Modifier::BOLD, r#" font-weight="bold""#),
        (Modifier::DIM, r#" opacity="0.65""#),
        (Modifier::UNDERLINED, r#" text-decoration="underline""#),
    ] {
        if modifier.contains(set) {
            attributes.push_str(attribute);
        }
    }
    let blank = |cell: &Cell| cell.symbol() == " " && !modifier.contains(Modifier::UNDERLINED);
    let kind = |cell: &Cell| (blank(cell), sides(cell.symbol()).is_some());
    let mut start = 0;
    for word in run.chunk_by(|a, b| kind(a) == kind(b)) {
        let (x, length) = (x + start * CELL.0, word.len() as u32 * CELL.0);
        if kind(&word[0]).1 {
            write_lines(
                out,
                word,
                (x, y),
                if reversed { BACKGROUND } else { &color },
                modifier.contains(Modifier::DIM),
            )?;
        } else if !blank(&word[0]) {
            let text: String = word.iter().map(Cell::symbol).collect();
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            writeln!(
                out,
                r#"<text x="{x}" y="{}" textLength="{length}" lengthAdjust="spacingAndGlyphs"{attributes}>{text}</text>"#,
                y + 13
            )?;
        }
        start += word.len() as u32;
    }
    Ok(())
}

/// The sides of the cell that a box-drawing character joins in its middle (left, right, up, down), and whether it is heavy.
fn sides(symbol: &str) -> Option<([bool; 4], bool)> {
    let (sides, heavy) = match symbol {
        "─" => ([true, true, false, false], false),
        "│" => ([false, false, true, true], false),
        "╭" => ([false, true, false, true], false),
        "╮" => ([true, false, false, true], false),
        "╰" => ([false, true, true, false], false),
        "╯" => ([true, false, true, false], false),
        "━" => ([true, true, false, false], true),
        "┃" => ([false, false, true, true], true),
        "┏" => ([false, true, false, true], true),
        "┓" => ([true, false, false, true], true),
        "┗" => ([false, true, true, false], true),
        "┛" => ([true, false, true, false], true),
        _ => return None,
    };
    Some((sides, heavy))
}

/// Box-drawing characters as lines: those of a font leave gaps between rows.
fn write_lines(out: &mut String, cells: &[Cell], (x, y): (u32, u32), color: &str, dim: bool) -> std::fmt::Result {
    let (width, height) = (f64::from(CELL.0), f64::from(CELL.1));
    let (mut path, mut heavy) = (String::new(), false);
    for (index, cell) in (0_u32..).zip(cells) {
        let Some((sides, thick)) = sides(cell.symbol()) else { continue };
        heavy |= thick;
        let (left, top) = (f64::from(x + index * CELL.0), f64::from(y));
        let (middle, half) = (left + width / 2.0, top + height / 2.0);
        let ends = [(left, half), (left + width, half), (middle, top), (middle, top + height)];
        let mut ends = ends.into_iter().zip(sides).filter_map(|(end, joined)| joined.then_some(end));
        if let (Some((from_x, from_y)), Some((to_x, to_y))) = (ends.next(), ends.next()) {
            // Straight through, or round the corner.
            write!(path, "M{from_x} {from_y}Q{middle} {half} {to_x} {to_y}")?;
        }
    }
    let stroke = if heavy { "2.4" } else { "1.2" };
    let opacity = if dim { r#" opacity="0.65""# } else { "" };
    writeln!(out, r#"<path d="{path}" fill="none" stroke="{color}" stroke-width="{stroke}"{opacity}/>"#)
}
