//! Firewalls for the lab's hosts: Debian's packages of ufw, firewalld, libvirt and Docker, unpacked under the target directory
//! and installed nowhere. The lab lays them over a host's own files, so nothing of them is ever enabled on this machine.

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
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

/// Where they are, fetched if they are not there yet; none, told, where they can't be had. Scenarios that need them are
/// then skipped.
pub(crate) fn ensure(target: &Path) -> Option<PathBuf> {
    let root = target.join("packages/root");
    if root.is_dir() {
        return Some(root);
    }
    match fetch(&target.join("packages")) {
        Ok(()) => Some(root),
        Err(error) => {
            eprintln!("xtask: no firewalls for the lab ({error:#}): the scenarios that need them are skipped");
            None
        }
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
        shell::run(Command::new("apt-get").args(["download", "-q"]).args(&missing).current_dir(&draft))
            .context("is there a network?")?;
    }
    for entry in std::fs::read_dir(&draft)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
        }
    }
    // Where `/lib` is a link into `/usr`, an overlay of `/usr` has to hold what the package has in `/lib`.
    for top in ["lib", "bin", "sbin"] {
        let (from, to) = (root.join(top), root.join("usr").join(top));
        if from.is_dir() {
            std::fs::create_dir_all(&to)?;
            shell::run(Command::new("cp").arg("--archive").arg(from.join(".")).arg(&to))?;
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
