//! A process that holds a tap, and what it says about its guest.

use super::command_line::{self, CommandLine, Hypervisor};
use super::managers;
use crate::event::MacAddress;
use crate::event::host::Link;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;

/// Bytes read of a command line; QEMU's are some ten thousand.
const MOST_BYTES: u64 = 1 << 18;
/// Characters kept of a name.
const MOST_CHARACTERS: usize = 128;
/// Threads of one process that are looked at.
const MOST_THREADS: usize = 1024;

/// Read once, judged often.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    program: String,
    hypervisor: Option<Hypervisor>,
    command_line: CommandLine,
    /// By a signal or a debugger: it reads nothing.
    pub(super) stopped: bool,
    /// Time on a CPU of all of its threads, in nanoseconds.
    pub(super) worked_ns: u64,
}

/// Who the guest of a process is.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) manager: Option<&'static str>,
    /// The guest's MAC addresses by interface, as the manager has written them down.
    pub(super) macs: BTreeMap<String, MacAddress>,
    /// The manager's description of the running guest names the interfaces that it has.
    pub(super) is_described: bool,
    /// Interfaces whose link the manager holds down.
    pub(super) links_down: BTreeSet<String>,
    /// The manager has paused the guest.
    pub(super) paused: bool,
}

impl Process {
    /// `None` when it has ended.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let directory = format!("/proc/{pid}");
        let mut bytes = Vec::new();
        File::open(format!("{directory}/cmdline")).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        let arguments: Vec<_> = bytes
            .strip_suffix(b"\0")
            .unwrap_or(&bytes)
            .split(|&byte| byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        let program = fs::read(format!("{directory}/comm")).ok()?;
        let mut process = Self::new(pid, String::from_utf8_lossy(&program).trim_end(), &arguments);
        if process.hypervisor.is_none()
            && let Ok(executable) = fs::read_link(format!("{directory}/exe"))
        {
            process.hypervisor = Hypervisor::of(&executable.to_string_lossy());
        }
        let state = fs::read_to_string(format!("{directory}/stat")).unwrap_or_default();
        process.stopped = is_stopped(&state);
        process.worked_ns = worked_ns(&directory);
        Some(process)
    }

    pub(super) fn new(pid: u32, program: &str, arguments: &[String]) -> Self {
        let invoked = arguments.first().map_or("", String::as_str);
        Self {
            pid,
            program: program.to_owned(),
            hypervisor: Hypervisor::of(invoked).or_else(|| Hypervisor::of(program)),
            command_line: command_line::parse(arguments),
            stopped: false,
            worked_ns: 0,
        }
    }

    /// Which of several holders of a tap is the guest: a hypervisor, else what names a guest, else the oldest.
    pub(super) fn rank(&self) -> (bool, bool, u32) {
        (self.hypervisor.is_none(), self.command_line.name.is_none(), self.pid)
    }

    /// It runs one machine, to which all of its taps belong.
    pub(super) fn is_guest(&self) -> bool {
        self.hypervisor.is_some() || self.command_line.name.is_some()
    }

    /// Its command line has a card on this device by name: not one that libvirt has plugged in.
    pub(super) fn names(&self, link: &Link) -> bool {
        self.command_line.cards.iter().any(|card| card.interface.as_deref() == Some(&link.name))
    }

    /// The guest's identity, `links` being its interfaces.
    pub(super) fn identity(&self, links: &[&Link]) -> Identity {
        let line = &self.command_line;
        let mut identity = Identity {
            name: line.name.clone(),
            uuid: line.uuid.clone(),
            manager: self.hypervisor.map(Hypervisor::name),
            ..Identity::default()
        };
        if self.hypervisor.is_none() && identity.name.is_none() {
            identity.name = Some(self.program.clone());
        }
        self.ask_managers(&mut identity, links);
        identity.name = identity.name.as_deref().and_then(clean);
        identity.uuid = identity.uuid.filter(|uuid| is_uuid(uuid)).map(|uuid| uuid.to_ascii_lowercase());
        identity
    }

    fn ask_managers(&self, identity: &mut Identity, links: &[&Link]) {
        let line = &self.command_line;
        let domain = line.name.as_deref().and_then(managers::libvirt_domain);
        // The file of another guest that had the name before says nothing of this process.
        let domain = domain.filter(|domain| domain.pid == Some(self.pid));
        let from_interface = links.iter().find_map(|link| managers::from_interface(&link.name));
        if domain.is_some() || line.libvirt {
            identity.manager = Some("libvirt");
        }
        if let Some(domain) = domain {
            identity.uuid = domain.uuid.or(identity.uuid.take());
            identity.is_described = true;
            identity.macs = domain.macs;
            identity.links_down = domain.links_down;
            identity.paused = domain.paused;
            if let Some(name) = domain.nova_name {
                identity.name = Some(name);
                identity.manager = Some("openstack");
            }
        }
        if let Some(manager) = from_interface {
            identity.manager = Some(manager);
        }
        let proxmox_id = line.proxmox.or_else(|| links.iter().find_map(|link| managers::proxmox_id(&link.name)));
        if let Some(id) = proxmox_id.filter(|_| line.proxmox.is_some() || from_interface == Some("proxmox")) {
            identity.manager = Some("proxmox");
            if let Some(guest) = managers::proxmox_guest(id) {
                identity.name = guest.name.or(identity.name.take());
                identity.macs = guest.macs;
            }
        }
    }

    /// The guest's MAC address at `link`, by the command line. `links` are all of its interfaces.
    pub(super) fn mac(&self, link: &Link, descriptors: &[u32], links: &[&Link]) -> Option<MacAddress> {
        let cards = &self.command_line.cards;
        let named = cards.iter().find(|card| card.interface.as_deref() == Some(&link.name));
        let passed = || cards.iter().find(|card| card.descriptors.iter().any(|number| descriptors.contains(number)));
        // `-netdev tap` alone lets the kernel choose the name: with one of each there is no doubt.
        let only = || cards.first().filter(|_| cards.len() == 1 && links.len() == 1);
        named.or_else(passed).or_else(only)?.mac
    }
}

/// A name that is safe to show: no control characters, nothing that turns or hides text, not endless.
pub(super) fn clean(name: &str) -> Option<String> {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let name: String =
        name.trim().chars().take(MOST_CHARACTERS).map(|c| if hides(c) { '\u{fffd}' } else { c }).collect();
    (!name.is_empty()).then_some(name)
}

/// Time on a CPU of all threads (`proc_pid_schedstat` in fs/proc/base.c); 0 where the kernel keeps no such times.
fn worked_ns(directory: &str) -> u64 {
    let Ok(threads) = fs::read_dir(format!("{directory}/task")) else { return 0 };
    let times = threads.flatten().take(MOST_THREADS).filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    times.fold(0, u64::saturating_add)
}

/// Whether `/proc/PID/stat` tells of a stopped process. Its name, in parentheses, may hold anything.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

fn is_uuid(text: &str) -> bool {
    let dash = |place| matches!(place, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(i, byte)| if dash(i) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_is_told_by_its_state_whatever_its_name() {
        assert!(is_stopped("4711 (qemu-kvm) T 1 4711 4711 0"));
        assert!(is_stopped("4711 (a) S) b) t 1"));
        assert!(!is_stopped("4711 (T) S 1 4711"));
        assert!(!is_stopped(""));
    }
}
