//! The live view at work: the source's reader, a thread that folds events into snapshots, a thread that owns the screen.
//!
//! The three meet in two channels: events and commands in, the newest snapshot out. A screen that is frozen or slow
//! (a stalled ssh) holds nobody up: snapshots replace each other, and the trace goes on.

mod live;
mod screen;

use self::live::{COST, Live};
use self::screen::{Doers, GRACE, Screen};
use super::errand::Runner;
use super::feed::Feed;
use super::keep::Saver;
use super::players::Players;
use super::snapshot::Snapshot;
use super::snapshot::Status;
use super::terminal::{self, Unfit};
use super::theme::Theme;
use super::update::Command;
use crate::event::{Event, Timestamp};
use crate::selection::Selection;
use crate::source::{ProgramCost, Source};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// Between two snapshots while a recording plays, at least.
const REPLAY_LOOK: Duration = Duration::from_millis(200);
/// Making snapshots may take this part of the time.
const LOOK_SHARE: u32 = 4;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There can be no screen.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The terminal failed.
    #[error("the terminal failed")]
    Terminal(#[source] io::Error),
    /// A thread could not be started, or signals not be heard.
    #[error("could not start the live view")]
    Start(#[source] io::Error),
    /// The recording could not be read.
    #[error("could not read the recording")]
    Read(#[source] anyhow::Error),
    /// The thread that makes the snapshots died.
    #[error("the part of the live view that works out verdicts has failed")]
    Verdicts,
    /// The thread that owns the screen died.
    #[error("the part of the live view that draws has failed")]
    Drawing,
}

/// Writes recordings for the `w` key; the application knows how.
pub trait Recorder: Send {
    /// Begins a file that holds these events first; tells its name.
    fn begin(&mut self, first: &[Event]) -> anyhow::Result<String>;
    /// Writes one more.
    fn write(&mut self, event: &Event) -> anyhow::Result<()>;
    /// Ends the file.
    fn end(&mut self) -> anyhow::Result<()>;
}

/// What the live view needs beside its source.
pub struct Options {
    /// Colours and characters.
    pub theme: Theme,
    /// Writes recordings.
    pub recorder: Option<Box<dyn Recorder>>,
    /// Writes what is saved.
    pub saver: Option<Box<dyn Saver>>,
    /// Runs probes and fixes.
    pub runner: Option<Box<dyn Runner>>,
    /// Tells how long this process has used a processor.
    pub processor_time: fn() -> Duration,
}

/// To the thread that makes the snapshots.
enum Message {
    Event(Box<Event>),
    Command(Command),
    Cost(Option<ProgramCost>),
    Trouble(String),
}

/// Shows a running trace until the operator has seen enough.
pub async fn run_live(source: &mut impl Source, options: Options) -> Result<(), Error> {
    terminal::check()?;
    let (to_feed, inbox) = mpsc::channel(8_192);
    let first = Feed::default().snapshot(Timestamp::default(), Status::default());
    let (publish, snapshots) = watch::channel(Arc::new(first));
    let (theme, mut options) = (options.theme, options);
    let doers = Doers { saver: options.saver.take(), runner: options.runner.take() };
    let mut live = Live::new(options, publish);
    let finished = thread("kvmtrace-verdicts", move || async move { live.run(inbox).await })?;
    let mut screen = Screen::start(theme, snapshots, to_feed.clone(), doers)?;
    let end = screen.end();
    tokio::pin!(end);
    let mut running = true;
    let mut costs = interval(COST);
    costs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            event = source.next(), if running => {
                let message = match event {
                    Ok(Some(event)) => Message::Event(Box::new(event)),
                    Ok(None) => { running = false; Message::Trouble("the trace has ended".to_owned()) }
                    Err(error) => { running = false; Message::Trouble(format!("the trace has ended: {error:#}")) }
                };
                // The screen ends when that thread is gone; nothing else to do here.
                let _gone = to_feed.send(message).await;
            }
            _ = costs.tick(), if running => {
                let _gone = to_feed.send(Message::Cost(source.cost())).await;
            }
            result = &mut end => break result,
        }
    };
    // A recording that is being written wants its end.
    drop(to_feed);
    let _late = timeout(GRACE * 5, finished).await;
    result
}

/// Shows recordings, on one clock, until the operator has seen enough. Each is held in memory whole.
pub async fn run_replay(
    sources: &mut [impl Source],
    selection: &Selection,
    theme: Theme,
    saver: Option<Box<dyn Saver>>,
) -> Result<(), Error> {
    terminal::check()?;
    let mut recordings = Vec::new();
    for source in sources {
        let mut events = Vec::new();
        let mut passage = selection.window.passage();
        while !passage.has_ended()
            && let Some(event) = source.next().await.map_err(Error::Read)?
        {
            events.extend(passage.take(event));
        }
        recordings.push((events, selection.clone()));
    }
    let mut player = Players::new(recordings);
    let (to_player, inbox) = mpsc::channel(64);
    let (publish, snapshots) = watch::channel(Arc::new(player.snapshot()));
    thread("kvmtrace-player", move || play(player, inbox, publish))?;
    Screen::start(theme, snapshots, to_player, Doers { saver, runner: None })?.end().await
}

/// Runs a future on a thread of its own; what it comes to can be awaited.
fn thread<T, F>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> Result<oneshot::Receiver<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (finished, done) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let work = move || {
        // Who asked may have gone without waiting.
        let _gone = finished.send(runtime.block_on(make()));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::Start)?;
    Ok(done)
}

/// Plays a recording.
async fn play(mut player: Players, mut inbox: mpsc::Receiver<Message>, publish: watch::Sender<Arc<Snapshot>>) {
    let mut before = Instant::now();
    let mut next = before + REPLAY_LOOK;
    while !publish.is_closed() {
        let mut trouble = None;
        tokio::select! {
            () = sleep_until(next), if player.playing() => {}
            message = inbox.recv() => match message {
                Some(Message::Command(command)) => {
                    player.advance(before.elapsed());
                    trouble = player.command(command).map(str::to_owned);
                    before = Instant::now();
                }
                Some(Message::Event(_) | Message::Cost(_) | Message::Trouble(_)) => {}
                None => return,
            },
        }
        player.advance(before.elapsed());
        before = Instant::now();
        let mut snapshot = player.snapshot();
        snapshot.status.trouble = trouble;
        let _gone = publish.send(Arc::new(snapshot));
        next = Instant::now() + (before.elapsed() * LOOK_SHARE).max(REPLAY_LOOK);
    }
}
