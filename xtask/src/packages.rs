//! What the lab's hosts run and this machine does not: Debian's packages of ufw, firewalld, libvirt, Docker, Open vSwitch and the
//! tools of `WireGuard` and IPVS, unpacked under the target directory and installed nowhere. The lab lays them over a host's own
//! files, so nothing of them is ever enabled on this machine.

use crate::{shell, unpacked};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What scenarios run; some names are not known to each release.
const PACKAGES: &[&str] = &[
    "dnsmasq-base",
    "docker.io",
    "firewalld",
    "ipvsadm",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-config-nwfilter",
    "libvirt-daemon-driver-network",
    "openvswitch-common",
    "openvswitch-switch",
    "ufw",
    "wireguard-tools",
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

/// Fetches them if they are not there yet, all of those that are wanted now. Where they can't be had that is told, and the
/// scenarios that need them are skipped.
pub(crate) fn ensure(target: &Path) {
    let (directory, wanted) = (target.join("packages"), PACKAGES.join("\n"));
    let list = directory.join("list");
    if root(target).is_dir() && std::fs::read_to_string(&list).is_ok_and(|had| had == wanted) {
        return;
    }
    let fetched = fetch(&directory).and_then(|()| std::fs::write(&list, wanted).context("can't note what was fetched"));
    if let Err(error) = fetched {
        eprintln!("xtask: no packages for the lab ({error:#}): the scenarios that need them are skipped");
    }
}

fn fetch(directory: &Path) -> Result<()> {
    eprintln!(
        "xtask: fetching ufw, firewalld, libvirt, Docker, Open vSwitch and the tools of WireGuard and IPVS for the lab, once"
    );
    unpacked::fetch(PACKAGES, directory)
}
