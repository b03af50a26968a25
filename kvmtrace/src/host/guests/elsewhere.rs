//! Guests whose taps are in other network namespaces of this kernel, as of containers that run virtual machines: they
//! are not judged from here, but an operator who looks for one is told where to look.

use super::open_taps;
use super::process::Process;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Another network namespace, by what leads into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OtherNamespace {
    /// `ip netns` knows it by this name.
    Named(String),
    /// This process is in it.
    Process(u32),
}

/// The names of the guests in each other network namespace.
pub fn find() -> BTreeMap<OtherNamespace, BTreeSet<String>> {
    let names = named_namespaces(Path::new("/run/netns"));
    let mut first = BTreeMap::new();
    let mut found = BTreeMap::<OtherNamespace, BTreeSet<String>>::new();
    for (pid, namespace) in open_taps::in_other_namespaces() {
        let Some(process) = Process::read(pid).filter(Process::is_guest) else { continue };
        // A process that was handed its tap from another namespace does not lead there.
        if open_taps::namespace_of_process(pid) == Some(namespace) {
            first.entry(namespace).or_insert(pid);
        }
        let by_process = || first.get(&namespace).copied().map(OtherNamespace::Process);
        let Some(way) = names.get(&namespace).cloned().map(OtherNamespace::Named).or_else(by_process) else { continue };
        found.entry(way).or_default().extend(process.identity(&[]).name);
    }
    found
}

/// The namespaces that `ip netns` knows.
fn named_namespaces(directory: &Path) -> BTreeMap<open_taps::Namespace, String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((open_taps::namespace_of(entry.path())?, name))
    });
    named.collect()
}
