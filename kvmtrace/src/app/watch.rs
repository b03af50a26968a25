//! `kvmtrace watch`: lines as things happen.

use super::color::colored;
use super::outcome::Outcome;
use super::session::{End, Extras, Session};
use crate::cli::{Cli, Watch};
use crate::diagnose::watch::{Notice, Options, Watcher};
use crate::event::Timestamp;
use crate::pipeline::Pipeline;
use crate::sink::style::Style;
use crate::sink::watch::{Zone, json, text};
use crate::source::Source as _;
use std::io::{StdoutLock, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where no event comes for this long, sums that wait are given.
const IDLE: Duration = Duration::from_millis(300);

pub(super) async fn watch(cli: &Cli, options: &Watch) -> anyhow::Result<Outcome> {
    let paths = options.path || options.min_latency.is_some();
    let extras = Extras { every_packet: paths, every_drop: paths, rules: options.rules, ..Extras::default() };
    let mut session = Session::start(&options.scope, End::new(None, options.duration), extras).await?;
    let mut pipeline = Pipeline::default();
    let min_latency = options.min_latency.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut watcher = Watcher::new(Options { rate: options.rate, paths, min_latency });
    let mut lines = Lines::new(cli, options);
    while lines.left > 0 {
        let notices = match tokio::time::timeout(IDLE, session.source.next()).await {
            Ok(next) => {
                let Some(event) = next? else { break };
                tracing::trace!(?event);
                pipeline.take(&event);
                if pipeline.is_asked(&event) {
                    watcher.step(&event, pipeline.track())
                } else {
                    watcher.idle(event.time, pipeline.track())
                }
            }
            Err(_) => watcher.idle(now(), pipeline.track()),
        };
        lines.write(&notices, &pipeline)?;
    }
    lines.write(&watcher.finish(pipeline.track()), &pipeline)?;
    Ok(Outcome::Clean)
}

#[expect(clippy::disallowed_methods, reason = "the commands read the clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Writes lines, as many as are wanted.
struct Lines {
    left: usize,
    json: bool,
    style: Style,
    zone: Option<Zone>,
    out: StdoutLock<'static>,
}

impl Lines {
    fn new(cli: &Cli, options: &Watch) -> Self {
        let style = Style { color: colored(cli, &std::io::stdout()) };
        let left = options.count.unwrap_or(usize::MAX);
        Self { left, json: options.json, style, zone: None, out: std::io::stdout().lock() }
    }

    fn write(&mut self, notices: &[Notice], pipeline: &Pipeline) -> anyhow::Result<()> {
        for notice in notices.iter().take(self.left) {
            self.left -= 1;
            let zone = self.zone.get_or_insert_with(|| zone(pipeline.track().host().timezone.as_deref()));
            if self.json {
                json(notice, zone, &mut self.out)?;
            } else {
                text(notice, zone, self.style, &mut self.out)?;
            }
        }
        // A line is there when it happens, also in a pipe.
        self.out.flush()?;
        Ok(())
    }
}

/// The host's time zone, whose name is letters, digits, `/`, `_`, `+`, `-` and `:`.
fn zone(name: Option<&str>) -> Zone {
    Zone::new(name.unwrap_or("UTC"), |name| std::fs::read(Path::new("/usr/share/zoneinfo").join(name)).ok())
}

#[cfg(test)]
mod tests;
