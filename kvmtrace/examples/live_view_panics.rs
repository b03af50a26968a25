//! A live view in which something panics, one second after the screen has come up: what the terminal looks like then is
//! seen by the tests, in a real one. Where it panics is the argument: `reading` or `judging`.

use kvmtrace::event::{Event, Timestamp};
use kvmtrace::source::Source;
use kvmtrace::tui::{Options, Palette, Theme, fixture, run_live};
use std::time::Duration;
use tokio::time::sleep;

/// How long the screen is seen before.
const SEEN: Duration = Duration::from_secs(1);

/// One event, then nothing, or a panic.
struct Panicking {
    begun: bool,
    reading: bool,
}

impl Source for Panicking {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        if !self.begun {
            self.begun = true;
            return Ok(Some(fixture::started(Timestamp(1))));
        }
        sleep(SEEN).await;
        assert!(!self.reading, "the reader panics as planned");
        std::future::pending().await
    }
}

/// The thread that judges asks for it every two seconds.
fn panicking_clock() -> Duration {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ASKED: AtomicBool = AtomicBool::new(false);
    assert!(!ASKED.swap(true, Ordering::SeqCst), "the judge panics as planned");
    Duration::ZERO
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let reading = std::env::args().nth(1).is_some_and(|place| place == "reading");
    let processor_time: fn() -> Duration = if reading { || Duration::ZERO } else { panicking_clock };
    let options = Options {
        theme: Theme::new(Palette::Indexed, false),
        recorder: None,
        saver: None,
        runner: None,
        processor_time,
    };
    run_live(&mut Panicking { begun: false, reading }, options).await?;
    Ok(())
}
