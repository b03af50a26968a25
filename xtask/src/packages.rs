//! Firewalls for the lab's hosts: Debian's packages of ufw, firewalld, libvirt and Docker, unpacked under the target directory
//! and installed nowhere. The lab lays them over a host's own files, so nothing of them is ever enabled on this machine.

use crate::{shell, unpacked};
use anyhow::Result;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What scenarios run; some names are not known to each release.
const PACKAGES: &[&str] = &[
    "dnsmasq-base",
    "docker.io",
    "firewalld",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-config-nwfilter",
    "libvirt-daemon-driver-network",
    "ufw",
];

/// Where they are unpacked.
pub(crate) fn root(target: &Path) -> PathBuf {
    target.join("packages/root")
}

/// What the lab is asked for may run them: all scenarios, or one whose host has files of its own.
pub(crate) fn are_wanted(lab: &[OsString]) -> bool {
    let has_own_files = |name: &OsString| {
        let file = shell::root().join("tests/scenarios").join(name).with_extension("toml");
        std::fs::read_to_string(file).is_ok_and(|text| text.contains("own-files = true"))
    };
    lab.first().is_some_and(|command| command == "matrix") || lab.iter().any(has_own_files)
}

/// Fetches them if they are not there yet. Where they can't be had that is told, and the scenarios that need them are
/// skipped.
pub(crate) fn ensure(target: &Path) {
    if !root(target).is_dir()
        && let Err(error) = fetch(&target.join("packages"))
    {
        eprintln!("xtask: no firewalls for the lab ({error:#}): the scenarios that need them are skipped");
    }
}

fn fetch(directory: &Path) -> Result<()> {
    eprintln!("xtask: fetching ufw, firewalld, libvirt and Docker for the lab, once");
    unpacked::fetch(PACKAGES, directory)
}
