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
const FRAME: Duration = Duration::from_millis(16);

/// Median and maximum of many runs.
fn measure(runs: usize, mut work: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
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
    let theme = Theme::new(Palette::Dark, false);
    let mut fits = true;
    // What an operator does with a long list: look, scroll, jump, sort, filter.
    for (what, keys) in [
        ("guests", "1"),
        ("flows", "2"),
        ("scrolling", "j"),
        ("to the last", "Gg"),
        ("sorting", "s"),
        ("filtering", "/1\n"),
        ("faults", "4"),
        ("events", "5"),
        ("path", "2\n"),
    ] {
        let (median, longest) = measure(50, || {
            for character in keys.chars() {
                let code = if character == '\n' { KeyCode::Enter } else { KeyCode::Char(character) };
                update::key(&mut state, KeyEvent::new(code, KeyModifiers::NONE));
            }
            let drawn = terminal.draw(|frame| draw(frame, &state, theme));
            fits &= drawn.is_ok();
        });
        println!("{what:<12} key and frame: median {median:>8.1?}, longest {longest:>8.1?}");
        fits &= median < FRAME;
    }
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
