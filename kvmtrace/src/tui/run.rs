//! The live view at work: the source's reader, a thread that folds events into snapshots, a thread that owns the screen.
//!
//! The three meet in two channels: events and commands in, the newest snapshot out. A screen that is frozen or slow
//! (a stalled ssh) holds nobody up: snapshots replace each other, and the trace goes on.

use super::feed::Feed;
use super::player::Player;
use super::rebase::Rebase;
use super::snapshot::{Snapshot, Status};
use super::state::State;
use super::terminal::{self, Session, Unfit};
use super::theme::Theme;
use super::update::{self, Command, Effect};
use crate::event::{Event, Timestamp};
use crate::source::{ProgramCost, Source};
use crossterm::event::{Event as Input, KeyEventKind};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// 20 frames per second at most.
const FRAME: Duration = Duration::from_millis(50);
/// Until the first snapshot.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Between two snapshots, at least.
const LOOK: Duration = Duration::from_millis(500);
/// The same while a recording plays.
const REPLAY_LOOK: Duration = Duration::from_millis(200);
/// Making snapshots may take this part of the time.
const LOOK_SHARE: u32 = 4;
/// How often it is asked what tracing costs.
const COST: Duration = Duration::from_secs(2);
/// The same while nothing happens: idle flows, however many, must not keep a processor busy.
const QUIET_SHARE: u32 = 100;
/// What the screen gets to give the terminal back after a signal.
const GRACE: Duration = Duration::from_secs(1);

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
    let theme = options.theme;
    let mut live = Live::new(options, publish);
    let finished = thread("kvmtrace-verdicts", move || async move { live.run(inbox).await })?;
    let mut screen = Screen::start(theme, snapshots, to_feed.clone())?;
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

/// Shows a recording until the operator has seen enough.
pub async fn run_replay(source: &mut impl Source, theme: Theme) -> Result<(), Error> {
    terminal::check()?;
    let mut events = Vec::new();
    while let Some(event) = source.next().await.map_err(Error::Read)? {
        events.push(event);
    }
    let mut player = Player::new(events);
    let (to_player, inbox) = mpsc::channel(64);
    let (publish, snapshots) = watch::channel(Arc::new(player.snapshot()));
    thread("kvmtrace-player", move || play(player, inbox, publish))?;
    Screen::start(theme, snapshots, to_player)?.end().await
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

/// Makes the snapshots of a running trace.
struct Live {
    feed: Feed,
    options: Options,
    publish: watch::Sender<Arc<Snapshot>>,
    /// Old snapshots die here, where it costs no frame, rather than on the screen's thread.
    old: VecDeque<Arc<Snapshot>>,
    /// When the newest event came, by both clocks.
    clock: Option<(Timestamp, Instant)>,
    recording: Option<Rebase>,
    status: Status,
    processor: (Instant, Duration),
    programs: Option<ProgramCost>,
}

impl Live {
    fn new(options: Options, publish: watch::Sender<Arc<Snapshot>>) -> Self {
        let processor = (Instant::now(), (options.processor_time)());
        Self {
            feed: Feed::default(),
            options,
            publish,
            old: VecDeque::new(),
            clock: None,
            recording: None,
            status: Status::default(),
            processor,
            programs: None,
        }
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Message>) {
        // The first look comes soon: what was said before the screen was there is the host and its guests.
        let mut next = Instant::now() + FIRST_LOOK;
        // When to look again if something happens; while nothing does, only the clock in the header moves.
        let mut if_busy = next;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(next) => {
                    let before = Instant::now();
                    self.look();
                    let took = before.elapsed();
                    if_busy = Instant::now() + (took * LOOK_SHARE).max(LOOK);
                    next = Instant::now() + (took * QUIET_SHARE).max(LOOK);
                }
                message = inbox.recv() => match message {
                    Some(Message::Event(event)) => {
                        self.event(&event);
                        next = next.min(if_busy);
                    }
                    Some(Message::Command(command)) => {
                        self.command(command);
                        next = Instant::now();
                    }
                    Some(Message::Cost(cost)) => self.cost(cost),
                    Some(Message::Trouble(text)) => self.status.trouble = Some(text),
                    None => break,
                },
            }
            if self.publish.is_closed() {
                break;
            }
        }
        self.end_recording();
    }

    /// The trace's own time, which goes on while nothing happens.
    fn now(&self) -> Timestamp {
        let (time, seen) = self.clock.unwrap_or((Timestamp::default(), Instant::now()));
        Timestamp(time.0.saturating_add(u64::try_from(seen.elapsed().as_nanos()).unwrap_or(u64::MAX)))
    }

    fn event(&mut self, event: &Event) {
        if event.time >= self.now() || self.clock.is_none() {
            self.clock = Some((event.time, Instant::now()));
        }
        self.feed.step(event);
        if let (Some(rebase), Some(recorder)) = (&self.recording, &mut self.options.recorder)
            && let Some(event) = rebase.apply(event)
            && let Err(error) = recorder.write(&event)
        {
            self.status.trouble = Some(format!("recording: {error:#}"));
            self.end_recording();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Reset => self.feed.reset(self.now()),
            Command::Record if self.recording.is_some() => self.end_recording(),
            Command::Record => self.begin_recording(),
            Command::Pause | Command::Speed(_) | Command::Seek(_) | Command::SeekTo(_) | Command::Fault(_) => {}
        }
    }

    fn begin_recording(&mut self) {
        let now = self.now();
        let Some(recorder) = &mut self.options.recorder else { return };
        match recorder.begin(&self.feed.latest().preamble(now)) {
            Ok(name) => {
                self.recording = Some(Rebase::new(self.feed.latest(), now));
                self.status.recording = Some(name);
                self.status.trouble = None;
            }
            Err(error) => self.status.trouble = Some(format!("recording: {error:#}")),
        }
    }

    fn end_recording(&mut self) {
        if self.recording.take().is_some()
            && let Some(recorder) = &mut self.options.recorder
            && let Err(error) = recorder.end()
        {
            self.status.trouble = Some(format!("recording: {error:#}"));
        }
        self.status.recording = None;
    }

    fn look(&mut self) {
        self.measure_cost();
        let snapshot = Arc::new(self.feed.snapshot(self.now(), self.status.clone()));
        self.old.push_back(Arc::clone(&snapshot));
        if self.old.len() > 3 {
            self.old.pop_front();
        }
        // Nobody looks any more: run() sees that.
        let _gone = self.publish.send(snapshot);
    }

    fn measure_cost(&mut self) {
        let (since, used) = self.processor;
        let elapsed = since.elapsed();
        if elapsed < COST {
            return;
        }
        let now_used = (self.options.processor_time)();
        let share = now_used.saturating_sub(used).as_micros() * 1_000 / elapsed.as_micros().max(1);
        self.status.cost.cpu_per_mille = u32::try_from(share).ok();
        self.processor = (Instant::now(), now_used);
    }

    /// Time per packet since the last look; what it was stays while there are no packets.
    fn cost(&mut self, cost: Option<ProgramCost>) {
        let before = std::mem::replace(&mut self.programs, cost);
        if cost.is_none() {
            self.status.cost.nanoseconds_per_packet = None;
        }
        if let Some((before, cost)) = before.zip(cost)
            && let packets = cost.packets.saturating_sub(before.packets)
            && let Some(time) = cost.nanoseconds.saturating_sub(before.nanoseconds).checked_div(packets)
        {
            self.status.cost.nanoseconds_per_packet = Some(time);
        }
    }
}

/// Plays a recording.
async fn play(mut player: Player, mut inbox: mpsc::Receiver<Message>, publish: watch::Sender<Arc<Snapshot>>) {
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

/// The screen's thread, from outside.
struct Screen {
    stop: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<Result<(), Error>>,
}

impl Screen {
    fn start(
        theme: Theme,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        commands: mpsc::Sender<Message>,
    ) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel();
        let done = thread("kvmtrace-screen", move || show(theme, snapshots, commands, stopped))?;
        Ok(Self { stop: Some(stop), done })
    }

    /// The operator quits, the terminal goes, or a signal asks to end.
    async fn end(&mut self) -> Result<(), Error> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(Error::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Start)?;
        tokio::select! {
            result = &mut self.done => return result.unwrap_or(Err(Error::Drawing)),
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
        drop(self.stop.take());
        if timeout(GRACE, &mut self.done).await.is_err() {
            // The screen hangs in a terminal that takes nothing any more.
            terminal::restore();
        }
        Ok(())
    }
}

/// Owns the terminal.
async fn show(
    theme: Theme,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    commands: mpsc::Sender<Message>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let mut session = Session::enter().map_err(Error::Terminal)?;
    let mut keyboard = keyboard()?;
    let mut resized = signal(SignalKind::window_change()).map_err(Error::Start)?;
    let first = snapshots.borrow_and_update().clone();
    let mut state = State::new(first, crossterm::terminal::size().map_err(Error::Terminal)?);
    let mut changed = true;
    let mut next_frame = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return Ok(()),
            () = sleep_until(next_frame), if changed => {
                if !terminal::taken() {
                    return Err(Error::Verdicts);
                }
                let drawn = session.terminal().draw(|frame| super::draw(frame, &state, theme));
                if let Err(error) = drawn {
                    return if terminal::gone() { Ok(()) } else { Err(Error::Terminal(error)) };
                }
                changed = false;
                next_frame = Instant::now() + FRAME;
            }
            input = keyboard.recv() => {
                // No keyboard any more: the terminal has gone.
                let Some(input) = input else { return Ok(()) };
                changed = true;
                for effect in react(&mut state, input) {
                    match effect {
                        Effect::Quit => return Ok(()),
                        Effect::Suspend => session.suspend().map_err(Error::Terminal)?,
                        Effect::Redraw => session.terminal().clear().map_err(Error::Terminal)?,
                        Effect::Copy(text) => session.copy(&text).map_err(Error::Terminal)?,
                        // A full channel means a busy trace; waiting keeps the order of keys.
                        Effect::Command(command) => drop(commands.send(Message::Command(command)).await),
                    }
                }
            }
            _ = resized.recv() => {
                update::resize(&mut state, crossterm::terminal::size().map_err(Error::Terminal)?);
                changed = true;
            }
            news = snapshots.changed() => {
                if news.is_err() {
                    return Err(Error::Verdicts);
                }
                changed |= state.show(snapshots.borrow_and_update().clone());
            }
        }
    }
}

/// Reads the keyboard on a thread of its own, which ends when the terminal does.
///
/// It needs crossterm's `use-dev-tty`: the reader that crossterm has else forgets a key that comes together with a
/// change of size, and reads on and on, without end, when the terminal has gone.
fn keyboard() -> Result<mpsc::Receiver<Input>, Error> {
    let (typed, inputs) = mpsc::channel(64);
    let work = move || {
        while terminal::wait() {
            // With no time at all it would not even look (crossterm 0.29, `use-dev-tty`).
            while let Ok(true) = crossterm::event::poll(Duration::from_millis(1)) {
                let Ok(input) = crossterm::event::read() else { return };
                if typed.blocking_send(input).is_err() || terminal::gone() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("kvmtrace-keys".to_owned()).spawn(work).map_err(Error::Start)?;
    Ok(inputs)
}

/// What was typed, clicked or pasted.
fn react(state: &mut State, input: Input) -> Vec<Effect> {
    match input {
        Input::Key(key) if key.kind != KeyEventKind::Release => return update::key(state, key),
        Input::Mouse(mouse) => return update::mouse(state, mouse),
        Input::Resize(width, height) => update::resize(state, (width, height)),
        Input::Paste(text) => update::paste(state, &text),
        Input::Key(_) | Input::FocusGained | Input::FocusLost => {}
    }
    Vec::new()
}
