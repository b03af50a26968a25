//! How long the live view takes for a frame, for a key and for a snapshot, with 100,000 flows: `cargo xtask bench` runs
//! this with optimisation. It fails when a frame does not fit into 16 ms.
#![allow(clippy::print_stdout, reason = "it is a program that prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use kvmtrace::tui::{Palette, State, Status, Theme, draw, fixture, update};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const FLOWS: u32 = 100_000;
/// How often each is done.
const RUNS: usize = 30;
const FRAME: Duration = Duration::from_millis(16);

/// Median and maximum.
fn summary(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn main() -> ExitCode {
    let build = Instant::now();
    let snapshot = fixture::snapshot(fixture::many_report(FLOWS), Status::default());
    println!("{FLOWS} flows; a report and its snapshot (beside the screen): {:.1?}", build.elapsed());
    let mut terminal = match Terminal::new(TestBackend::new(200, 60)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    let mut state = State::new(snapshot, (200, 60));
    let theme = Theme::new(Palette::True, false);
    let mut fits = true;
    // What an operator does with a long list: look, scroll, jump, sort, filter.
    for (what, keys) in [
        ("guests", "1"),
        ("flows", "2"),
        ("scrolling", "j"),
        ("to the last", "Gg"),
        ("sorting", "s"),
        ("filtering", "/198.\n\u{1b}"),
        ("faults", "4"),
        ("events", "5"),
        ("path", "2\n"),
    ] {
        let mut times = Vec::new();
        for character in std::iter::repeat_n(keys, RUNS).flat_map(str::chars) {
            let code = match character {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                character => KeyCode::Char(character),
            };
            let start = Instant::now();
            update::key(&mut state, KeyEvent::new(code, KeyModifiers::NONE));
            fits &= terminal.draw(|frame| draw(frame, &state, theme)).is_ok();
            times.push(start.elapsed());
        }
        let (median, longest) = summary(times);
        println!("{what:<12} key and frame: median {median:>8.1?}, longest {longest:>8.1?}");
        fits &= median < FRAME;
    }
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
