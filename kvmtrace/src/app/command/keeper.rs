//! The keeper of a command: a process of its own that starts the command of `--cmd` and ends all of it.
//!
//! It is started by kvmtrace with a pipe for its input. It gives up kvmtrace's privileges where sudo says who asked, starts
//! the shell in a process group of its own, and writes `started` (or why not), then `ended STATUS`. When its input ends,
//! because the trace is over or kvmtrace was killed, every process that has come of the command is ended: by SIGINT, which
//! programs such as ping sum up at, by SIGTERM, and by SIGKILL. Processes that have left the group become the keeper's
//! children (`PR_SET_CHILD_SUBREAPER`), so it finds those too.

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, User};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The name that this process calls itself by to become the keeper.
pub(super) const NAME: &str = "kvmtrace-command";
/// What each signal is given to work.
const LADDER: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_millis(300)),
    (Signal::SIGTERM, Duration::from_millis(500)),
    (Signal::SIGKILL, Duration::from_secs(1)),
];
/// How often it is looked for processes that are new.
const PAUSE: Duration = Duration::from_millis(20);

/// This process was started to keep a command.
pub fn is_keeper() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Keeps the command: the last argument. What comes before it are namespaces to enter, as files.
pub fn keep() -> io::Result<()> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let command = arguments.pop().unwrap_or_default();
    let shell = match prepared(&arguments, &command).and_then(|mut shell| shell.spawn()) {
        Ok(shell) => Pid::from_raw(i32::try_from(shell.id()).unwrap_or(i32::MAX)),
        Err(error) => return say(&format!("failed {error}")),
    };
    say("started")?;
    let news = listen(shell);
    loop {
        match news.recv() {
            // kvmtrace may be gone: then there is nobody to tell, and the input ends as well.
            Ok(News::Ended(status)) => drop(say(&format!("ended {status}"))),
            Ok(News::Closed) => break end(shell, &news),
            // Nothing is left to end; the group's number may be somebody else's soon.
            Ok(News::Alone) | Err(_) => break,
        }
    }
    Ok(())
}

enum News {
    /// The shell has ended, as shells have it: 128 + N for signal N.
    Ended(i32),
    /// No process is left.
    Alone,
    /// kvmtrace wants it to end.
    Closed,
}

/// A thread that waits for the input's end, and one that waits for processes.
fn listen(shell: Pid) -> Receiver<News> {
    let (sender, news) = channel();
    let input: Sender<News> = sender.clone();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // An error is as good as an end.
        drop(io::stdin().lock().read_to_end(&mut rest));
        drop(input.send(News::Closed));
    });
    std::thread::spawn(move || {
        loop {
            let news = match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, status)) if pid == shell => News::Ended(status),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => News::Ended(128 + signal as i32),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => News::Alone,
            };
            let last = matches!(news, News::Alone);
            if sender.send(news).is_err() || last {
                return;
            }
        }
    });
    news
}

/// Ends every process that has come of the command.
fn end(shell: Pid, news: &Receiver<News>) {
    for (signal, patience) in LADDER {
        let mut told = Vec::new();
        for _ in 0..=patience.as_millis() / PAUSE.as_millis() {
            // Once each, but for those that come to light when their parents have ended.
            if told.is_empty() {
                killpg(shell, signal).ok();
            }
            for child in children().into_iter().filter(|child| !told.contains(child)).collect::<Vec<_>>() {
                kill(child, signal).ok();
                told.push(child);
            }
            match news.recv_timeout(PAUSE) {
                Ok(News::Alone) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(News::Ended(_) | News::Closed) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The keeper's own children: those of all of its threads.
fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .map(Pid::from_raw)
        .collect()
}

fn prepared(namespaces: &[OsString], command: &OsString) -> io::Result<Command> {
    prctl::set_child_subreaper(true)?;
    enter(namespaces)?;
    // Its output goes to standard error, for kvmtrace's own may be JSON.
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).process_group(0).stdin(Stdio::null()).stdout(output);
    if nix::unistd::geteuid().is_root()
        && let Some((uid, gid)) = asker()
    {
        become_user(uid, gid, &mut shell)?;
    }
    // What kvmtrace was given as an ordinary user, by its file or by setpriv(1), is not for the command.
    caps::clear(None, caps::CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, caps::CapSet::Inheritable).map_err(io::Error::other)?;
    Ok(shell)
}

/// Back to where the operator is.
fn enter(namespaces: &[OsString]) -> io::Result<()> {
    let directory = std::env::current_dir();
    let files = namespaces.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
    for file in &files {
        setns(file, CloneFlags::empty())?;
    }
    match directory {
        Ok(directory) if !files.is_empty() => std::env::set_current_dir(directory),
        _ => Ok(()),
    }
}

/// Who has run sudo(8); none where it was root.
fn asker() -> Option<(Uid, Gid)> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let uid = number("SUDO_UID").filter(|uid| *uid != 0)?;
    Some((Uid::from_raw(uid), Gid::from_raw(number("SUDO_GID")?)))
}

/// As if that user had started it. What sudo has set for root goes.
fn become_user(uid: Uid, gid: Gid, shell: &mut Command) -> io::Result<()> {
    let user = User::from_uid(uid).ok().flatten();
    match user.as_ref().and_then(|user| CString::new(user.name.as_str()).ok()) {
        Some(name) => nix::unistd::initgroups(&name, gid)?,
        None => nix::unistd::setgroups(&[gid])?,
    }
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "SUDO_HOME", "MAIL"] {
        shell.env_remove(name);
    }
    if let Some(user) = user {
        shell.env("HOME", user.dir).env("SHELL", user.shell).env("USER", &user.name).env("LOGNAME", user.name);
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line.replace('\n', " "))?;
    out.flush()
}
