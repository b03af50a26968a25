//! The terminal: taken over, and given back whatever happens.

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::style::Print;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{Command as _, cursor, execute};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The screen is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Another program has the terminal.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Another program has the terminal; its keys are not ours.
pub(super) fn left() -> bool {
    LEFT.load(Ordering::SeqCst)
}

/// Why there can be no screen.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Input or output goes elsewhere.
    #[error("the live view needs a terminal, and {0} is none; `kvmtrace watch` prints lines instead")]
    NotATerminal(&'static str),
    /// `TERM=dumb`
    #[error(
        "the live view needs a terminal that can move its cursor, and TERM is {0:?}; `kvmtrace watch` prints lines instead"
    )]
    Dumb(String),
}

/// Standard input and output are a terminal that can show a screen.
pub fn check() -> Result<(), Unfit> {
    if !io::stdin().is_terminal() {
        return Err(Unfit::NotATerminal("standard input"));
    }
    if !io::stdout().is_terminal() {
        return Err(Unfit::NotATerminal("standard output"));
    }
    let term = std::env::var("TERM").unwrap_or_default();
    if matches!(term.as_str(), "" | "dumb") { Err(Unfit::Dumb(term)) } else { Ok(()) }
}

/// The terminal while it is ours; dropping it gives it back.
pub(super) struct Session {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Session {
    /// Takes the terminal over.
    pub(super) fn enter() -> io::Result<Self> {
        restore_on_panic();
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, io::stdout())));
        terminal.map(|terminal| Self { terminal }).inspect_err(|_| restore())
    }

    /// To draw on.
    pub(super) fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<BufWriter<Stdout>>> {
        &mut self.terminal
    }

    /// Puts a text on the operator's clipboard, where the terminal allows it.
    pub(super) fn copy(&mut self, text: &str) -> io::Result<()> {
        let sequence = clipboard(text, is_tmux(), inside("STY"));
        execute!(self.terminal.backend_mut(), Print(sequence))
    }

    /// Gives the terminal to another program while `work` waits for its end.
    pub(super) fn leave<T>(&mut self, work: impl FnOnce() -> T) -> io::Result<T> {
        // First the keyboard: a read that is under way takes a millisecond.
        LEFT.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        restore();
        let result = work();
        let taken = take().and_then(|()| self.terminal.clear());
        LEFT.store(false, Ordering::SeqCst);
        taken.map(|()| result)
    }

    /// Gives the terminal to the shell until the operator comes back.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        restore();
    }
}

fn inside(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The terminal is one of tmux's.
pub(super) fn is_tmux() -> bool {
    inside("TMUX")
}

/// The sequence that puts a text on the clipboard (OSC 52).
///
/// tmux takes one from its programs only with `set-clipboard on`, and lets one through to the terminal around it only
/// with `allow-passthrough`: it gets both, and ignores what it is not set up for. GNU screen knows only the latter.
fn clipboard(text: &str, tmux: bool, screen: bool) -> String {
    let mut plain = String::new();
    // Writing to a String can't fail.
    let _infallible = CopyToClipboard::to_clipboard_from(text).write_ansi(&mut plain);
    if tmux {
        let doubled = plain.replace('\u{1b}', "\u{1b}\u{1b}");
        return format!("{plain}\u{1b}Ptmux;{doubled}\u{1b}\\");
    }
    if screen {
        // The end of the inner sequence would end the outer one: a bell ends it too.
        let inner = plain.trim_end_matches("\u{1b}\\").trim_end_matches('\u{7}');
        return format!("\u{1b}P{inner}\u{7}\u{1b}\\");
    }
    plain
}

fn take() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    let taken = enable_raw_mode().and_then(|()| {
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture, EnableBracketedPaste, cursor::Hide)
    });
    taken.inspect_err(|_| restore())
}

/// Gives the terminal back, once. Errors have nobody to hear them: the terminal may be gone.
pub(super) fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _gone =
            execute!(io::stdout(), DisableBracketedPaste, DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _gone = disable_raw_mode();
        let _gone = io::stdout().flush();
    }
}

/// A panic's message belongs on a terminal that can show it.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// The screen is still ours: a panic elsewhere gives it back, and nothing may be drawn over what it says.
pub(super) fn taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Waits until something was typed; false when nobody is at the other end of the terminal any more.
pub(super) fn wait() -> bool {
    look(PollTimeout::NONE)
}

/// Nobody is at the other end of the terminal any more.
pub(super) fn gone() -> bool {
    !look(PollTimeout::ZERO)
}

fn look(timeout: PollTimeout) -> bool {
    let stdin = io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut descriptors, timeout);
    let dead = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let hung_up = descriptors[0].revents().is_some_and(|events| events.intersects(dead));
    !hung_up && matches!(polled, Ok(_) | Err(nix::errno::Errno::EINTR))
}

#[cfg(test)]
mod tests {
    use super::clipboard;

    #[test]
    fn the_clipboard_is_reached_through_tmux_and_screen_too() {
        // "ip link" in base64.
        assert_eq!(clipboard("ip link", false, false), "\u{1b}]52;c;aXAgbGluaw==\u{1b}\\");
        assert_eq!(
            clipboard("ip link", true, false),
            "\u{1b}]52;c;aXAgbGluaw==\u{1b}\\\u{1b}Ptmux;\u{1b}\u{1b}]52;c;aXAgbGluaw==\u{1b}\u{1b}\\\u{1b}\\"
        );
        assert_eq!(clipboard("ip link", false, true), "\u{1b}P\u{1b}]52;c;aXAgbGluaw==\u{7}\u{1b}\\");
    }
}
