//! Errands of the live view: a process of its own that runs `kvmtrace probe` and `kvmtrace fix` for it.
//!
//! The live view can start no program any more, and has given up its privileges, once everything is attached. So this process is
//! started before. Its input is a pipe on which it takes one thing only: an [`Errand`], a line of JSON. It checks each field of it
//! and makes the arguments itself, so that a live view that a guest has taken over could have nothing run but a probe of a
//! device, as the operator could, and a fix that asks the operator on the terminal before it changes anything.
//!
//! 1. The live view gives the terminal back and writes the errand.
//! 2. The command runs in a process group of its own, in the terminal's foreground, so that Ctrl-C ends it alone.
//! 3. The operator presses Enter; the terminal's foreground is the live view again, which hears `done STATUS`.
//!
//! The end of the input means that the live view is gone: then the command is ended (SIGTERM, which `fix` answers with its
//! undo, then SIGKILL), and so is this process.

use crate::tui::{Errand, Packet, Runner, Target};
use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The name that this process calls itself by to run errands.
const NAME: &str = "kvmtrace-errands";
/// A line is no longer than this, in bytes.
const LONGEST: u64 = 1_024;
/// How often it is looked whether the command has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// What a command is given to end by itself: as long as an undo takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The live view's end.
pub(super) struct Errands {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Errands {
    /// Starts the process; before privileges are given up.
    pub(super) fn start() -> anyhow::Result<Self> {
        let context = "starting the process that runs probes and fixes";
        let mut child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(context)?;
        let (input, output) = (child.stdin.take().context(context)?, child.stdout.take().context(context)?);
        Ok(Self { _child: child, input, output: BufReader::new(output) })
    }
}

impl Runner for Errands {
    fn run(&mut self, errand: &Errand) -> anyhow::Result<i32> {
        let line = serde_json::to_string(errand)?;
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).context("asking for it")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).context("hearing of it")?;
        match answer.trim().split_once(' ') {
            Some(("done", status)) => status.parse().context("its status"),
            Some(("refused", why)) => bail!("{why}"),
            _ => bail!("the process that runs it is gone"),
        }
    }
}

/// This process was started to run errands.
pub fn runs_errands() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Runs errands until the input ends: the whole life of the process.
pub fn run_errands() -> io::Result<()> {
    of_the_terminal().thread_block()?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut input = BufReader::new(io::stdin());
        loop {
            let mut line = String::new();
            match (&mut input).take(LONGEST).read_line(&mut line) {
                // What is cut off is no errand, and neither is its rest.
                Ok(1..) if line.ends_with('\n') => {}
                _ => return,
            }
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    while let Ok(line) = lines.recv() {
        let answer = match arguments(&line) {
            Err(why) => format!("refused {why}"),
            Ok(arguments) => match on_terminal(&arguments, &lines) {
                Ok(status) => format!("done {status}"),
                Err(error) => format!("refused {error}"),
            },
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", answer.replace('\n', " "))?;
        out.flush()?;
    }
    Ok(())
}

/// Signals that a terminal sends: they are for the command.
fn of_the_terminal() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGTTOU, Signal::SIGTTIN] {
        signals.add(signal);
    }
    signals
}

/// The arguments of an errand; nothing that is not exactly one.
fn arguments(line: &str) -> Result<Vec<String>, &'static str> {
    let errand: Errand = serde_json::from_str(line).map_err(|_cut_or_forged| "that is no errand")?;
    match errand {
        Errand::Probe { device, source, target, packet } => {
            if !is_device(&device) {
                return Err("that is no device");
            }
            let target = match target {
                Target::Gateway => "gateway".to_owned(),
                Target::Host => "host".to_owned(),
                Target::Address(address) => address.to_string(),
            };
            let packet: Vec<String> = match packet {
                Packet::Icmp => vec!["icmp".to_owned()],
                Packet::Arp => vec!["arp".to_owned()],
                Packet::Tcp(port) => vec!["tcp".to_owned(), port.to_string()],
                Packet::Udp(port) => vec!["udp".to_owned(), port.to_string()],
            };
            let source = source.map(|source| ["--source".to_owned(), source.to_string()]).into_iter().flatten();
            let words = ["--", &device, "to", &target].map(str::to_owned);
            let words = source.chain(words).chain(packet);
            Ok(["probe", "--yes"].map(str::to_owned).into_iter().chain(words).collect())
        }
        Errand::Fix { incident } => {
            let is_id = incident.len() == 16 && incident.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if is_id { Ok(vec!["fix".to_owned(), incident]) } else { Err("that is no incident") }
        }
    }
}

/// A name that a device can have (`dev_valid_name`, net/core/dev.c), and that looks like one.
fn is_device(name: &str) -> bool {
    (1..16).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.chars().all(|character| character.is_ascii_graphic() && !matches!(character, '/' | ':'))
}

/// Runs kvmtrace in the foreground of the terminal and waits for the operator's Enter; its exit status.
fn on_terminal(arguments: &[String], lines: &Receiver<String>) -> io::Result<i32> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetpgrp(&terminal)?;
    let result = foreground(&terminal, arguments, lines);
    tcsetpgrp(&terminal, before)?;
    result
}

fn foreground(mut terminal: &File, arguments: &[String], lines: &Receiver<String>) -> io::Result<i32> {
    let shown: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--").collect();
    writeln!(terminal, "$ kvmtrace {}", shown.join(" "))?;
    let stream = || terminal.try_clone().map(Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).process_group(0).stdin(stream()?).stdout(stream()?).stderr(stream()?);
    // A child begins with the signals blocked that its parent has blocked.
    of_the_terminal().thread_unblock()?;
    let child = command.spawn();
    of_the_terminal().thread_block()?;
    let child = child?;
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    tcsetpgrp(terminal, group)?;
    // It may have read before the terminal was its own.
    killpg(group, Signal::SIGCONT).ok();
    let Some(status) = ended(group, lines)? else { return Ok(-1) };
    tcsetpgrp(terminal, getpgrp())?;
    write!(terminal, "\nEnter goes back to the live view ")?;
    enter(terminal, lines)?;
    Ok(status)
}

fn is_gone(lines: &Receiver<String>) -> bool {
    matches!(lines.try_recv(), Err(TryRecvError::Disconnected))
}

/// Waits for the command; nothing where the live view went first, and the command with it.
fn ended(group: Pid, lines: &Receiver<String>) -> io::Result<Option<i32>> {
    let mut left = None;
    loop {
        match waitpid(group, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED))? {
            WaitStatus::Exited(_, status) => return Ok(left.is_none().then_some(status)),
            WaitStatus::Signaled(_, signal, _) => return Ok(left.is_none().then_some(128 + signal as i32)),
            // There is no shell to go back to meanwhile.
            WaitStatus::Stopped(..) => killpg(group, Signal::SIGCONT)?,
            WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => {}
        }
        left = match left {
            None if is_gone(lines) => {
                killpg(group, Signal::SIGTERM).ok();
                Some(PATIENCE)
            }
            Some(Duration::ZERO) => {
                killpg(group, Signal::SIGKILL).ok();
                Some(Duration::ZERO)
            }
            left => left.map(|left: Duration| left.saturating_sub(PAUSE)),
        };
        std::thread::sleep(PAUSE);
    }
}

/// Waits for Enter, the terminal's end or the live view's.
fn enter(mut terminal: &File, lines: &Receiver<String>) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    nix::sys::termios::tcflush(terminal, nix::sys::termios::FlushArg::TCIFLUSH)?;
    while !is_gone(lines) {
        let mut descriptors = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut descriptors, PollTimeout::from(100_u8))? > 0 {
            let mut typed = [0; 256];
            // A terminal that is gone reads as an end.
            let length = terminal.read(&mut typed)?;
            if length == 0 || typed.get(..length).is_some_and(|typed| typed.contains(&b'\n')) {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_becomes_arguments_and_nothing_else_does() {
        let probe = |device: &str, target, packet| {
            let source = Some("10.0.0.7".parse().unwrap());
            serde_json::to_string(&Errand::Probe { device: device.to_owned(), source, target, packet }).unwrap()
        };
        let address = Target::Address("10.0.0.1".parse().unwrap());
        assert_eq!(
            arguments(&probe("vnet0", address, Packet::Tcp(22))).unwrap().join(" "),
            "probe --yes --source 10.0.0.7 -- vnet0 to 10.0.0.1 tcp 22"
        );
        assert_eq!(
            arguments(&probe("tap1.2", Target::Gateway, Packet::Icmp)).unwrap().join(" "),
            "probe --yes --source 10.0.0.7 -- tap1.2 to gateway icmp"
        );
        let fix = |incident: &str| serde_json::to_string(&Errand::Fix { incident: incident.to_owned() }).unwrap();
        assert_eq!(arguments(&fix("0123456789abcdef")).unwrap(), ["fix", "0123456789abcdef"]);
        for device in ["", "-g", "--cmd", "a b", "../x", "a/b", "sixteen-letters-", "x\u{1b}", "\u{202e}a", "a\n"] {
            assert!(arguments(&probe(device, address, Packet::Icmp)).is_err(), "{device:?}");
        }
        for incident in ["", "1", "--yes", "0123456789ABCDEF", "0123456789abcde;", "0123456789abcdef0"] {
            assert!(arguments(&fix(incident)).is_err(), "{incident:?}");
        }
        for forged in [
            "",
            "{}",
            "fix 0123456789abcdef",
            r#"{"fix":{"incident":"0123456789abcdef","yes":true}}"#,
            r#"{"fix":{"incident":"0123456789abcdef"},"probe":{}}"#,
            r#"{"probe":{"device":"vnet0","target":{"address":"example.org"},"packet":"icmp"}}"#,
            r#"{"probe":{"device":"vnet0","target":"gateway","packet":{"tcp":65536}}}"#,
            r#"{"run":"reboot"}"#,
        ] {
            assert!(arguments(forged).is_err(), "{forged}");
        }
    }
}
