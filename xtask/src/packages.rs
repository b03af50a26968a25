//! Firewalls for the lab's hosts: Debian's packages of ufw, firewalld, libvirt and Docker, unpacked under the target directory
//! and installed nowhere. The lab lays them over a host's own files, so nothing of them is ever enabled on this machine.

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let wanted = known()?;
    // With what they need and this machine does not have.
    let mut plan = Command::new("apt-get");
    plan.args(["install", "--simulate", "-q", "--no-install-recommends", "--no-remove"]).args(&wanted);
    let plan = shell::output(&mut plan).context("apt can't say what they need")?;
    let missing: Vec<&str> =
        plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next()).collect();
    // Half of them is worse than none: what is complete gets its name at the end.
    let draft = directory.join("draft");
    std::fs::remove_dir_all(&draft).ok();
    let root = draft.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("can't create {}", root.display()))?;
    if !missing.is_empty() {
        // The directory is ours: the user that apt would rather be may not write there, and apt would say so.
        let mut download = Command::new("apt-get");
        download.args(["download", "-qq", "-o", "APT::Sandbox::User=root"]).args(&missing).current_dir(&draft);
        shell::output(&mut download).context("apt can't download them: is there a network?")?;
    }
    for entry in std::fs::read_dir(&draft)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            shell::output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))
                .with_context(|| format!("dpkg-deb can't unpack {}", package.display()))?;
        }
    }
    // Where `/lib` is a link into `/usr`, an overlay of `/usr` has to hold what the package has in `/lib`.
    for top in ["lib", "bin", "sbin"] {
        let (from, to) = (root.join(top), root.join("usr").join(top));
        if from.is_dir() {
            std::fs::create_dir_all(&to)?;
            shell::output(Command::new("cp").arg("--archive").arg(from.join(".")).arg(&to))
                .with_context(|| format!("{} can't be copied", from.display()))?;
        }
    }
    std::fs::rename(&root, directory.join("root")).context("the unpacked packages can't be moved")?;
    std::fs::remove_dir_all(&draft).ok();
    Ok(())
}

/// Those of the packages that this machine's archive has.
fn known() -> Result<Vec<&'static str>> {
    if setup::find("apt-get").is_none() {
        bail!("they are fetched as Debian's packages, and there is no apt-get");
    }
    let is_known = |package: &&&str| {
        shell::output(Command::new("apt-cache").args(["show", "--no-all-versions"]).arg(package)).is_some()
    };
    let known: Vec<&str> = PACKAGES.iter().filter(is_known).copied().collect();
    if known.is_empty() {
        bail!("apt knows none of {}: run apt-get update", PACKAGES.join(", "));
    }
    Ok(known)
}
