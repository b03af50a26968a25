//! The thread that owns the terminal: it draws, hears keys, and carries out what they ask for.

use super::super::errand::{Errand, Runner};
use super::super::keep::{Form, Keep, Saver};
use super::super::snapshot::Snapshot;
use super::super::state::State;
use super::super::terminal::{self, Session};
use super::super::theme::Theme;
use super::super::update::{self, Effect};
use super::{Error, Message, thread};
use crossterm::event::{Event as Input, KeyEventKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// 20 frames per second at most.
const FRAME: Duration = Duration::from_millis(50);
/// What the screen gets to give the terminal back after a signal.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The screen's thread, from outside.
pub(super) struct Screen {
    stop: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<Result<(), Error>>,
}

impl Screen {
    pub(super) fn start(
        theme: Theme,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        commands: mpsc::Sender<Message>,
        doers: Doers,
    ) -> Result<Self, Error> {
        let (stop, stopped) = oneshot::channel();
        let done = thread("kvmtrace-screen", move || show(theme, snapshots, commands, doers, stopped))?;
        Ok(Self { stop: Some(stop), done })
    }

    /// The operator quits, the terminal goes, or a signal asks to end.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
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
    mut doers: Doers,
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
                let drawn = session.terminal().draw(|frame| super::super::draw(frame, &state, theme));
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
                        Effect::Save(keep) => state.message = save(&mut doers.saver, &state, &keep),
                        Effect::Run(errand) => {
                            run(&mut doers.runner, &mut session, &mut state, &errand)?;
                            next_frame = Instant::now();
                        }
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
                update::show_probe(&mut state);
            }
        }
    }
}

/// Those who do what the screen can't.
pub(super) struct Doers {
    pub(super) saver: Option<Box<dyn Saver>>,
    pub(super) runner: Option<Box<dyn Runner>>,
}

/// Leaves the terminal to a probe or a fix, and comes back when it has ended.
fn run(
    runner: &mut Option<Box<dyn Runner>>,
    session: &mut Session,
    state: &mut State,
    errand: &Errand,
) -> Result<(), Error> {
    let Some(runner) = runner else {
        state.message = Some("nothing can be run from here".to_owned());
        return Ok(());
    };
    let ended = session.leave(|| runner.run(errand)).map_err(Error::Terminal)?;
    update::resize(state, crossterm::terminal::size().map_err(Error::Terminal)?);
    match (ended, errand) {
        (Err(error), _) => state.message = Some(format!("not run: {error:#}")),
        // Any other status means that nothing was sent.
        (Ok(0 | 1), Errand::Probe { device, .. }) => update::await_probe(state, device),
        (Ok(_), _) => {}
    }
    Ok(())
}

/// Saves it; says where, or why not.
fn save(saver: &mut Option<Box<dyn Saver>>, state: &State, keep: &Keep) -> Option<String> {
    Some(match saver.as_mut()?.save(state.snapshot(), keep) {
        Ok(path) if keep.form == Form::Command && terminal::is_tmux() => {
            format!("saved; tmux takes it by: tmux load-buffer {}", path.display())
        }
        Ok(path) => format!("saved {}", path.display()),
        Err(error) => format!("not saved: {error:#}"),
    })
}

/// Reads the keyboard on a thread of its own, which ends when the terminal does.
///
/// It needs crossterm's `use-dev-tty`: the reader that crossterm has else forgets a key that comes together with a
/// change of size, and reads on and on, without end, when the terminal has gone.
fn keyboard() -> Result<mpsc::Receiver<Input>, Error> {
    let (typed, inputs) = mpsc::channel(64);
    let work = move || {
        while terminal::wait() {
            if terminal::left() {
                // What is typed now is for another program.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            // With no time at all it would not even look (crossterm 0.29, `use-dev-tty`).
            while !terminal::left() && matches!(crossterm::event::poll(Duration::from_millis(1)), Ok(true)) {
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
