//! `metrics`: a trace without an end, asked for its numbers over HTTP.
//!
//! One task owns the trace. It judges when somebody asks, hands out a copy of the text, and goes on: how fast a client
//! reads is the server's concern. Judging costs time in which the ring is not read, so it never takes more than a share
//! of it, however often somebody asks and however many flows a guest opens.

mod process;

use super::outcome::Outcome;
use super::session::{End, Extras, Session};
use crate::cli::{self, Cli};
use crate::event::Timestamp;
use crate::kernel::clock::Clock;
use crate::pipeline::Pipeline;
use crate::sink::metrics::Meters;
use crate::sink::metrics::server::{Request, Server};
use crate::source::Source as _;
use anyhow::Context as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A text is handed out again until it is so old.
const FRESH: Duration = Duration::from_secs(1);
/// Judging takes at most one part in so many of the time.
const SHARE: u32 = 5;
/// How often it is judged though nobody asks: drops are counted before their flows are forgotten.
const UNASKED: Duration = Duration::from_secs(15);
/// Flows that have rested for so long are forgotten.
const REST_NS: u64 = 120_000_000_000;

/// `kvmtrace metrics`
pub(super) async fn metrics(cli: &Cli, command: &cli::Metrics) -> anyhow::Result<Outcome> {
    let listening = || format!("listening at {}", command.listen);
    // Before anything is attached: a port below 1024 needs a privilege that is given up then.
    let server = Server::bind(command.listen).await.with_context(listening)?;
    let address = server.address().with_context(listening)?;
    let session = Session::start(&command.scope, End::Signal, Extras::default()).await?;
    if !cli.common.quiet {
        drop(writeln!(std::io::stderr(), "kvmtrace: metrics at http://{address}/metrics"));
        if !address.ip().is_loopback() {
            tracing::warn!("whoever reaches {address} can read the names of guests and devices");
        }
    }
    let (ask, mut asked) = mpsc::channel(1);
    let server = tokio::spawn(server.serve(ask));
    let result = serve(session, &mut asked).await;
    server.abort();
    result.map(|()| Outcome::Clean)
}

async fn serve(mut session: Session, asked: &mut mpsc::Receiver<Request>) -> anyhow::Result<()> {
    let mut state = State::new(Clock::read());
    let mut unasked = interval(UNASKED);
    unasked.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            event = session.source.next() => {
                let Some(event) = event? else { return Ok(()) };
                tracing::trace!(?event);
                state.meters.take(&event, state.pipeline.track());
                state.pipeline.take(&event);
                // A busy trace always has an event ready: others get their turn now and then.
                state.events += 1;
                if state.events.is_multiple_of(TURN) {
                    if let Ok(request) = asked.try_recv() {
                        state.answer(request, state.current);
                    }
                    tokio::task::yield_now().await;
                }
            }
            // No event is left here.
            Some(request) = asked.recv() => {
                state.current = state.clock.now();
                state.answer(request, state.current);
            }
            _ = unasked.tick() => {
                state.current = state.clock.now();
                drop(state.text(state.current));
            }
        }
    }
}

/// Events between two looks at who asks.
const TURN: u64 = 1_024;

struct State {
    clock: Clock,
    pipeline: Pipeline,
    meters: Meters,
    events: u64,
    /// Up to then everything has been taken in: judging takes time in which nothing is read.
    current: Timestamp,
    text: Option<(Instant, Duration, Arc<str>)>,
}

impl State {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            pipeline: Pipeline::default(),
            meters: Meters::default(),
            events: 0,
            current: Timestamp::default(),
            text: None,
        }
    }

    fn answer(&mut self, request: Request, now: Timestamp) {
        // A client that has gone meanwhile needs no answer.
        drop(request.send(self.text(now)));
    }

    /// The numbers as they are now, or were a little while ago.
    fn text(&mut self, now: Timestamp) -> Arc<str> {
        let begun = Instant::now();
        if let Some((made, took, text)) = &self.text
            && begun.duration_since(*made) < FRESH.max(*took * SHARE)
        {
            return Arc::clone(text);
        }
        self.meters.judge(now, &self.pipeline.report(), self.pipeline.track());
        self.pipeline.forget(Timestamp(now.0.saturating_sub(REST_NS)));
        let text: Arc<str> = Arc::from(self.meters.text() + &process::process().text());
        let made = Instant::now();
        self.text = Some((made, made.duration_since(begun), Arc::clone(&text)));
        text
    }
}
