//! Which processes hold a tap or macvtap of this network namespace open.
//!
//! A name in `/proc/PID/fdinfo` says nothing about the namespace of the device, and the process's own namespace may be
//! another (a relay between namespaces, a manager that handed the descriptor over). So the open file itself is asked,
//! through a copy of the descriptor; where that is not allowed, the process's namespace has to do.

use crate::event::IfIndex;
use crate::event::host::LinkKind;
use crate::event::{HostState, host::Link};
use nix::libc;
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Descriptors looked at in each process: far more than a hypervisor has, and a bound to what a process can cost.
const MOST_DESCRIPTORS: usize = 16_384;

/// An open descriptor of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpenTap {
    /// Which interface.
    pub(super) device: IfIndex,
    /// Held by which process.
    pub(super) pid: u32,
    /// As which descriptor number there.
    pub(super) descriptor: u32,
}

/// All open descriptors of taps and macvtaps in this namespace, ordered, and whether a process does not show its own.
pub(super) fn find(state: &HostState) -> (Vec<OpenTap>, bool) {
    let Some(namespace) = namespace_of("/proc/thread-self/ns/net") else { return (Vec::new(), false) };
    let majors = tap_majors(&fs::read_to_string("/proc/devices").unwrap_or_default());
    let mut found = Vec::new();
    let mut hidden = false;
    for pid in numbers(Path::new("/proc")) {
        // A process may end at any moment, and then has no descriptors.
        let descriptors = Path::new("/proc").join(pid.to_string()).join("fd");
        hidden = hidden || is_hidden(&descriptors);
        for descriptor in numbers(&descriptors).take(MOST_DESCRIPTORS) {
            let open = Open { pid, descriptor };
            if let Some(device) = open.device(state, namespace, &majors) {
                found.push(OpenTap { device, pid, descriptor });
            }
        }
    }
    found.sort_unstable();
    (found, hidden)
}

/// The directory is not for us (`proc_fd_permission`), or nothing in it is (`ptrace_may_access`).
fn is_hidden(descriptors: &Path) -> bool {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    match fs::read_dir(descriptors) {
        Ok(mut entries) => entries
            .next()
            .and_then(Result::ok)
            .is_some_and(|entry| fs::read_link(entry.path()).as_ref().err().is_some_and(refused)),
        Err(error) => refused(&error),
    }
}

/// Processes that hold taps of other network namespaces open, and those namespaces, ordered. Macvtaps don't tell theirs.
pub(super) fn in_other_namespaces() -> BTreeSet<(u32, Namespace)> {
    let Some(here) = namespace_of("/proc/thread-self/ns/net") else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for pid in numbers(Path::new("/proc")) {
        for descriptor in numbers(&Path::new("/proc").join(pid.to_string()).join("fd")).take(MOST_DESCRIPTORS) {
            let namespace = Open { pid, descriptor }.tun_namespace();
            found.extend(namespace.filter(|&namespace| namespace != here).map(|namespace| (pid, namespace)));
        }
    }
    found
}

/// The entries of a directory that are numbers.
fn numbers(directory: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A namespace is known by its file's device and inode number.
pub(super) type Namespace = (u64, u64);

pub(super) fn namespace_of_process(pid: u32) -> Option<Namespace> {
    namespace_of(format!("/proc/{pid}/ns/net"))
}

pub(super) fn namespace_of(path: impl AsRef<Path>) -> Option<Namespace> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Major numbers of macvtap and ipvtap devices in `/proc/devices`.
fn tap_majors(devices: &str) -> Vec<u32> {
    let tap_major = |line: &str| {
        let (major, name) = line.trim().split_once(' ')?;
        matches!(name, "macvtap" | "ipvtap").then(|| major.parse().ok()).flatten()
    };
    devices.lines().filter_map(tap_major).collect()
}

/// A descriptor of another process.
struct Open {
    pid: u32,
    descriptor: u32,
}

/// What the path of an open file lets hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hope {
    Tun,
    /// `/dev/tap7` is the character device of the macvtap with index 7.
    Macvtap(u32),
}

impl Hope {
    fn of(target: &str) -> Option<Self> {
        let path = target.strip_suffix(" (deleted)").unwrap_or(target);
        match path.rsplit_once('/')?.1 {
            "tun" => Some(Self::Tun),
            file => file.strip_prefix("tap")?.parse().ok().map(Self::Macvtap),
        }
    }
}

impl Open {
    fn path(&self, kind: &str) -> std::path::PathBuf {
        format!("/proc/{}/{kind}/{}", self.pid, self.descriptor).into()
    }

    fn device(&self, state: &HostState, here: Namespace, majors: &[u32]) -> Option<IfIndex> {
        // Reading the link first is cheap and, unlike asking the file, can't hang on a dead server's file.
        let target = fs::read_link(self.path("fd")).ok()?;
        match Hope::of(target.to_str()?)? {
            Hope::Tun => self.tun(state, here),
            Hope::Macvtap(number) => self.macvtap(state, here, majors, number),
        }
        .map(|link| link.index)
    }

    fn tun<'a>(&self, state: &'a HostState, here: Namespace) -> Option<&'a Link> {
        // Only files of the tun driver have this line.
        let name = interface_in(&fs::read_to_string(self.path("fdinfo")).ok()?)?;
        let (name, same) = match self.copy() {
            Some(file) => (interface_name(&file)?, device_namespace(&file).or_else(|| self.process_namespace())),
            None => (name, self.process_namespace()),
        };
        let link = state.link_named(&name)?;
        (same == Some(here) && matches!(link.kind, LinkKind::Tun)).then_some(link)
    }

    fn macvtap<'a>(&self, state: &'a HostState, here: Namespace, majors: &[u32], number: u32) -> Option<&'a Link> {
        let numbered = IfIndex::from_kernel(number).and_then(|index| state.link(index));
        let link = match self.copy() {
            Some(file) => {
                let status = statx(&file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
                let is_device = FileType::from_raw_mode(status.stx_mode.into()) == FileType::CharacterDevice;
                if !is_device || !majors.contains(&status.stx_rdev_major) {
                    return None;
                }
                let name = interface_name(&file)?;
                // This driver does not tell the namespace; the same name under the same number is proof enough.
                numbered
                    .filter(|link| link.name == name)
                    .or_else(|| state.link_named(&name).filter(|_| self.process_namespace() == Some(here)))
            }
            None => numbered.filter(|_| self.process_namespace() == Some(here)),
        };
        link.filter(|link| is_macvtap(&link.kind))
    }

    /// A descriptor of our own for the same open file. Linux 5.6, and what a debugger may do.
    fn copy(&self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        pidfd_getfd(process, self.descriptor.try_into().ok()?, PidfdGetfdFlags::empty()).ok()
    }

    fn process_namespace(&self) -> Option<Namespace> {
        namespace_of_process(self.pid)
    }

    fn tun_namespace(&self) -> Option<Namespace> {
        let target = fs::read_link(self.path("fd")).ok()?;
        if Hope::of(target.to_str()?)? != Hope::Tun {
            return None;
        }
        interface_in(&fs::read_to_string(self.path("fdinfo")).ok()?)?;
        self.copy().as_ref().and_then(device_namespace).or_else(|| self.process_namespace())
    }
}

/// A macvtap or its cousin ipvtap, which has no kind of its own in the model.
pub(super) fn is_macvtap(kind: &LinkKind) -> bool {
    matches!(kind, LinkKind::Macvtap { .. }) || matches!(kind, LinkKind::Other(name) if name == "ipvtap")
}

/// The interface that `/proc/PID/fdinfo/FD` of a tun file names.
fn interface_in(fdinfo: &str) -> Option<String> {
    let name = fdinfo.lines().find_map(|line| line.strip_prefix("iff:"))?.trim();
    (!name.is_empty() && name.len() < libc::IFNAMSIZ).then(|| name.to_owned())
}

mod ioctl {
    use nix::libc;
    // <linux/if_tun.h>
    nix::ioctl_read_bad!(tun_get_iff, nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()), libc::ifreq);
    nix::ioctl_none_bad!(tun_get_dev_net_ns, nix::request_code_none!(b'T', 227));
}

/// The name of the interface that a tun or macvtap file is attached to.
fn interface_name(file: &OwnedFd) -> Option<String> {
    // SAFETY: ifreq is plain old data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most an ifreq to the pointer, which is one of our own.
    unsafe { ioctl::tun_get_iff(file.as_raw_fd(), &raw mut request) }.ok()?;
    let name = request.ifr_name.map(libc::c_char::cast_unsigned);
    Some(CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?.to_owned())
}

/// The namespace of the device that a tun file is attached to. Linux 5.2, with `CAP_NET_ADMIN` there.
fn device_namespace(file: &OwnedFd) -> Option<Namespace> {
    // SAFETY: the request takes no argument.
    let descriptor = unsafe { ioctl::tun_get_dev_net_ns(file.as_raw_fd()) }.ok()?;
    // SAFETY: the kernel made this descriptor for us just now; nobody else has it.
    let namespace = fs::File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let metadata = namespace.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::qemu("pos:\t0\nflags:\t02104002\nmnt_id:\t25\niff:\tvnet0\n", Some("vnet0"))]
    #[case::dotted("iff:\ttap0.7\n", Some("tap0.7"))]
    #[case::not_attached("pos:\t0\niff:\t\n", None)]
    #[case::another_file("pos:\t0\nflags:\t0100002\nmnt_id:\t25\n", None)]
    #[case::too_long("iff:\tabcdefghijklmnopqrst\n", None)]
    fn fdinfo_names_the_interface(#[case] text: &str, #[case] name: Option<&str>) {
        assert_eq!(interface_in(text).as_deref(), name);
    }

    #[rstest]
    #[case("/dev/net/tun", Some(Hope::Tun))]
    #[case("/dev/net/tun (deleted)", Some(Hope::Tun))]
    #[case("/dev/tap7", Some(Hope::Macvtap(7)))]
    #[case("/dev/tap", None)]
    #[case("/dev/tape0", None)]
    #[case("socket:[1234]", None)]
    #[case("anon_inode:[eventfd]", None)]
    fn paths_of_open_files_let_hope(#[case] target: &str, #[case] hope: Option<Hope>) {
        assert_eq!(Hope::of(target), hope);
    }

    #[test]
    fn the_majors_of_macvtap_are_found() {
        let devices = "Character devices:\n  1 mem\n 10 misc\n243 macvtap\n244 ipvtap\n\nBlock devices:\n  7 loop\n";
        assert_eq!(tap_majors(devices), [243, 244]);
    }
}
