//! Debian's packages, unpacked into a directory and installed nowhere.

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;

/// Fetches those of these packages that the archive has, with what they need and this machine lacks, and unpacks them
/// into `directory`/root. What this machine has stays as it is, also where apt would remove something to install them.
pub(crate) fn fetch(packages: &[&str], directory: &Path) -> Result<()> {
    let wanted = known(packages)?;
    let mut plan = Command::new("apt-get");
    plan.args(["install", "--simulate", "-q", "--no-install-recommends"]).args(&wanted);
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
    let kept = directory.join("root");
    if kept.is_dir() {
        std::fs::remove_dir_all(&kept).context("the packages of before can't be removed")?;
    }
    std::fs::rename(&root, kept).context("the unpacked packages can't be moved")?;
    std::fs::remove_dir_all(&draft).ok();
    Ok(())
}

/// Those of the packages that this machine's archive has.
fn known<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if setup::find("apt-get").is_none() {
        bail!("they are fetched as Debian's packages, and there is no apt-get");
    }
    let is_known = |package: &&&str| {
        shell::output(Command::new("apt-cache").args(["show", "--no-all-versions"]).arg(package)).is_some()
    };
    let known: Vec<&str> = packages.iter().filter(is_known).copied().collect();
    if known.is_empty() {
        bail!("apt knows none of {}: run apt-get update", packages.join(", "));
    }
    Ok(known)
}
