//! A real terminal: tmux runs a program in it, presses keys, and reads back what stands on the screen.

#![expect(clippy::print_stdout, reason = "the screens that were seen are for the person who reads the test's output")]

use crate::lab::process::wait_until;
use anyhow::{Result, bail, ensure};
use std::cell::RefCell;
use std::process::Command;
use std::time::Duration;

/// Attaching, a first look, a first verdict, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A terminal of 80 columns and 24 rows.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
    screens: RefCell<Vec<String>>,
}

impl Terminal {
    /// Runs a shell line in a new terminal.
    pub fn run(name: &str, line: &str) -> Result<Self> {
        let socket = format!("kvmtrace-{name}-{}", std::process::id());
        let terminal = Self { socket, screens: RefCell::default() };
        // The shell stays when the program has ended, so that one sees what it leaves behind.
        let modes = "stty -a | tr ' ;' '\\n\\n' | grep -x -e icanon -e echo";
        let line = format!("{line}; echo \"ended with $?\"; {modes}; exec sleep 1000");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &line])?;
        // So that what is copied can be read back.
        terminal.tmux(&["set-option", "-g", "set-clipboard", "on"])?;
        Ok(terminal)
    }

    /// Asks tmux for something.
    pub fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        let output = command.args(["-L", &self.socket]).args(arguments).env("LC_ALL", "C.UTF-8").output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {}", error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Presses keys.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// What stands on the screen.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with its colours.
    pub fn coloured(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// What stands on the screen when no frame is under way: tmux may be asked between two parts of one.
    fn settled(&self) -> Result<String> {
        let mut before = self.screen()?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(40));
            let screen = self.screen()?;
            if screen == before {
                break;
            }
            before = screen;
        }
        Ok(before)
    }

    /// Waits until all of these stand on the screen.
    pub fn sees(&self, what: &[&str]) -> Result<String> {
        let missing = || {
            let screen = self.screen().unwrap_or_default();
            what.iter().find(|text| !screen.contains(**text)).copied()
        };
        wait_until(PATIENCE, || missing().is_none());
        let screen = self.settled()?;
        if let Some(text) = what.iter().find(|text| !screen.contains(**text)) {
            bail!("{text:?} does not come up on the screen:\n{screen}");
        }
        self.screens.borrow_mut().push(screen.clone());
        Ok(screen)
    }

    /// Waits until the program has ended with this status, and makes sure that the terminal is as it was: no screen of its
    /// own, a cursor, no mouse, a keyboard that echoes lines.
    pub fn is_given_back(&self, status: u8) -> Result<String> {
        let screen = self.sees(&[&format!("ended with {status}\n"), "icanon\necho"])?;
        let modes = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"])?;
        ensure!(modes.trim() == "0 1 0", "alternate screen, cursor, mouse: {modes}\n{screen}");
        Ok(screen)
    }

    /// What was seen so far, for the record.
    pub fn print(&self) {
        for screen in self.screens.borrow().iter() {
            println!("{}\n{}", "=".repeat(80), screen.trim_end());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.tmux(&["kill-server"]));
    }
}
