//! A host's own files: its `/etc`, `/usr` and `/var` are layers over the machine's, with packages between that are unpacked
//! and installed nowhere; its `/run` is empty. What a firewall's daemon or a cure writes is gone with the lab, and the
//! machine sees nothing of it.

use super::netns::Namespace;
use super::process::{self, Background};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long mounting may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Arguments: where the layers go, the unpacked packages, a file that is made when all is there.
const SCRIPT: &str = r#"
set -e
layers=$1 packages=$2 ready=$3
mount --make-rslave /
mkdir -p "$layers"
mount -t tmpfs files "$layers"
for top in etc usr var; do
    mkdir "$layers/$top" "$layers/$top.work"
    below=/$top
    [ ! -d "$packages/$top" ] || below=$packages/$top:/$top
    mount -t overlay -o "lowerdir=$below,upperdir=$layers/$top,workdir=$layers/$top.work" files "/$top"
done
mkdir "$layers/run"
mount -t tmpfs files "$layers/run"
for kept in kvmtrace-lab netns; do
    mkdir "$layers/run/$kept"
    mount --rbind "/run/$kept" "$layers/run/$kept"
done
mount --rbind "$layers/run" /run
: > "$ready"
exec sleep infinity
"#;

/// The process that holds the mounts of a host's files, in its network namespace.
pub(super) fn hold(namespace: &Namespace, directory: &Path) -> Result<Background> {
    let ready = directory.join("files-ready");
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
    command.arg(directory.join("files")).arg(packages().unwrap_or_default()).arg(&ready);
    let mut keeper = Background::start(&mut command)?;
    if !process::wait_until(LIMIT, || ready.exists() || !keeper.is_running()) || !ready.exists() {
        drop(command);
        let output = keeper.finish(Duration::ZERO).context("mounting the host's files takes too long")?;
        bail!("the host's files can't be mounted: {}", output.stderr.trim());
    }
    Ok(keeper)
}

/// A command among the files, and in the network namespace, of a process.
pub(super) fn enter(keeper: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &keeper.to_string(), "--mount", "--net", "--"]);
    command
}

/// Where `cargo xtask` has unpacked the firewalls that some scenarios need; none where it could not.
pub fn packages() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KVMTRACE_PACKAGES") {
        return Some(PathBuf::from(path)).filter(|path| path.is_dir());
    }
    let this = std::env::current_exe().ok()?;
    this.ancestors().skip(1).take(4).map(|directory| directory.join("packages/root")).find(|path| path.is_dir())
}

/// The scripts that start those firewalls.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("managers")
}
