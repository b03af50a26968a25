//! Quick grace periods while many hooks are attached or detached.
//!
//! Each hook that comes or goes waits for an RCU grace period with the RTNL lock held (`tcx_entry_sync` in
//! include/net/tcx.h): some 14 ms, so that a thousand taps would take 40 s. With `/sys/kernel/rcu_expedited` at 1 it takes
//! 10 µs, at the price of interrupts to all CPUs, so it must come back to what it was, however kvmtrace ends.
//!
//! So a process of its own sets it when it is asked to, and sets it back when it is asked to or the pipe from its parent is
//! closed: also when the parent is killed. Several of them share the setting by locks on files under [`DIRECTORY`], which the kernel releases with their
//! holder: the first notes what it was, the last brings it back. Should one of these processes be killed itself, the
//! note stays, and the next kvmtrace that comes by brings it back.

use crate::kernel::privilege;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The name that this process calls itself by to become the one that holds the setting.
const NAME: &str = "kvmtrace-grace-periods";
const SETTING: &str = "/sys/kernel/rcu_expedited";
const DIRECTORY: &str = "/run/kvmtrace";

/// From so many devices on, grace periods are made quick: fewer are attached in a quarter of a second anyway.
const MANY: usize = 10;

/// Grace periods, quick while they are held so.
#[derive(Debug, Default)]
pub(super) struct GracePeriods {
    holder: Option<Holder>,
    held: bool,
}

impl GracePeriods {
    /// Starts the holder: before this process can start no other.
    pub(super) fn prepare(&mut self) {
        if self.holder.is_none() {
            match Holder::start() {
                Ok(holder) => self.holder = Some(holder),
                Err(error) => tracing::debug!(%error, "grace periods stay slow"),
            }
        }
    }

    /// Makes them quick, as so many devices come or go, until [`Self::release`]. Where that can't be, attaching is slow.
    pub(super) fn hold(&mut self, devices: usize) {
        if self.held || devices < MANY {
            return;
        }
        self.prepare();
        match self.holder.as_mut().map(|holder| holder.order(HOLD)) {
            Some(Ok(())) => self.held = true,
            Some(Err(error)) => tracing::debug!(%error, "grace periods stay slow"),
            None => {}
        }
    }

    /// Makes them what they were.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.held)
            && let Some(Err(error)) = self.holder.as_mut().map(|holder| holder.order(RELEASE))
        {
            tracing::warn!(%error, "/sys/kernel/rcu_expedited stays 1; `kvmtrace clean` brings it back");
        }
    }
}

/// The process that holds the setting, when it is asked to. It is started before the tracer gives up starting programs, and
/// ends with this value.
#[derive(Debug)]
struct Holder {
    process: Child,
    /// Closed to end it.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
}

/// The setting is to be held.
const HOLD: u8 = b'+';
/// It is to be as it was.
const RELEASE: u8 = b'-';
/// Done.
const DONE: u8 = b'1';
/// It can't be: no root, or a read-only /sys.
const FAILED: u8 = b'0';

impl Holder {
    /// Starts it; nothing is changed yet.
    fn start() -> io::Result<Self> {
        // Not ended by Ctrl-C, which is for the whole group of processes.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { process, orders, answers })
    }

    fn order(&mut self, order: u8) -> io::Result<()> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        orders.write_all(&[order])?;
        orders.flush()?;
        let mut answer = [FAILED];
        self.answers.read_exact(&mut answer)?;
        if answer == [DONE] { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.process.wait() {
            tracing::debug!(%error, "waiting for the process that holds grace periods short");
        }
    }
}

/// This process was started to hold the setting.
pub fn is_holder() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Does as it is told until standard input ends. What it writes to is root's, so it needs no capability.
pub fn hold() -> io::Result<()> {
    // Whatever else ends is no reason to leave the setting changed.
    SigSet::all().thread_block()?;
    privilege::drop_all().map_err(io::Error::other)?;
    let setting = Setting { value: Path::new(SETTING), directory: Path::new(DIRECTORY) };
    let mut held = None;
    let mut order = [0];
    while io::stdin().read(&mut order)? > 0 {
        let done = match (order, held.take()) {
            ([HOLD], None) => setting.hold().map(|new| held = Some(new)),
            ([HOLD], still) => {
                held = still;
                Ok(())
            }
            (_, Some(held)) => held.release(),
            (_, None) => Ok(()),
        };
        io::stdout().write_all(&[if done.is_ok() { DONE } else { FAILED }])?;
        io::stdout().flush()?;
    }
    held.map_or(Ok(()), Held::release)
}

/// Brings back what a killed holder has left.
pub fn restore() -> io::Result<()> {
    let setting = Setting { value: Path::new(SETTING), directory: Path::new(DIRECTORY) };
    if setting.note().exists() { setting.hold()?.release() } else { Ok(()) }
}

/// A file with a number, and where it is noted who changed it.
#[derive(Clone, Copy)]
struct Setting<'a> {
    value: &'a Path,
    directory: &'a Path,
}

/// A share in the setting.
struct Held<'a> {
    setting: Setting<'a>,
    users: Flock<File>,
}

impl<'a> Setting<'a> {
    fn note(self) -> std::path::PathBuf {
        self.directory.join("rcu_expedited")
    }

    fn file(self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(self.directory.join(name))
    }

    /// Nobody else comes or goes as long as this lives.
    fn gate(self) -> io::Result<Flock<File>> {
        Flock::lock(self.file("gate")?, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    fn hold(self) -> io::Result<Held<'a>> {
        let mut directory = std::fs::DirBuilder::new();
        directory.recursive(true).mode(0o700).create(self.directory)?;
        let _gate = self.gate()?;
        let users = match Flock::lock(self.file("users")?, FlockArg::LockExclusiveNonblock) {
            // The first. A note that is there already is of one that was killed: it knows what the value was.
            Ok(users) => {
                if !self.note().exists() {
                    let value = std::fs::read_to_string(self.value)?;
                    let unfinished = self.directory.join("rcu_expedited.new");
                    std::fs::write(&unfinished, value.trim())?;
                    std::fs::rename(unfinished, self.note())?;
                }
                std::fs::write(self.value, "1")?;
                users.relock(FlockArg::LockShared)?;
                users
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                Flock::lock(file, FlockArg::LockShared).map_err(|(_, error)| io::Error::from(error))?
            }
            Err((_, error)) => return Err(error.into()),
        };
        Ok(Held { setting: self, users })
    }
}

impl Held<'_> {
    fn release(self) -> io::Result<()> {
        let _gate = self.setting.gate()?;
        if self.users.relock(FlockArg::LockExclusiveNonblock).is_ok() {
            // The last.
            let value = std::fs::read_to_string(self.setting.note())?;
            std::fs::write(self.setting.value, value.trim())?;
            std::fs::remove_file(self.setting.note())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A setting of our own in an empty directory.
    fn setting(test: impl FnOnce(Setting<'_>)) {
        let directory = tempfile::tempdir().unwrap();
        let value = directory.path().join("value");
        std::fs::write(&value, "0\n").unwrap();
        test(Setting { value: &value, directory: &directory.path().join("run") });
    }

    fn value(setting: Setting<'_>) -> String {
        std::fs::read_to_string(setting.value).unwrap().trim().to_owned()
    }

    #[test]
    fn the_last_of_several_brings_the_value_back() {
        setting(|setting| {
            let first = setting.hold().unwrap();
            let second = setting.hold().unwrap();
            assert_eq!(value(setting), "1");
            first.release().unwrap();
            assert_eq!(value(setting), "1", "the other one still needs it");
            second.release().unwrap();
            assert_eq!(value(setting), "0");
            assert!(!setting.note().exists());
        });
    }

    #[test]
    fn the_next_one_brings_back_what_a_killed_holder_has_left() {
        setting(|setting| {
            // The kernel closes its files, and so frees its lock.
            drop(setting.hold().unwrap());
            assert_eq!(value(setting), "1");
            setting.hold().unwrap().release().unwrap();
            assert_eq!(value(setting), "0");
        });
    }
}
