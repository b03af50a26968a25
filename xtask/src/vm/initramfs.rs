//! The first root of the machine: busybox, the modules that lead to this machine's files, and the command.

use super::archive::Archive;
use super::kernel::Kernel;
use super::unpacked;
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;

const INIT: &str = include_str!("init.sh");
/// A statically linked one (Debian: busybox-static).
const BUSYBOX: &str = "/bin/busybox";
/// What is needed before this machine's own modules can be reached.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_net", "9pnet_virtio", "9p", "overlay", "virtio_rng"];

/// The archive for a kernel, a script for the shell, and the files that shall be in memory when it runs.
pub(super) fn build(kernel: &Kernel, script: &str, near: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
        archive.directory(directory);
    }
    let busybox = std::fs::read(BUSYBOX).with_context(|| format!("can't read {BUSYBOX}"))?;
    archive.file("bin/busybox", &busybox);
    let mut order = String::new();
    for path in modules(kernel)? {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = file.trim_end_matches(".xz").trim_end_matches(".zst");
        archive.file(&format!("modules/{name}"), &unpacked(&path)?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("command.sh", script.as_bytes());
    archive.file("near", near.as_bytes());
    archive.file("init", INIT.as_bytes());
    Ok(archive.finish())
}

/// Files of the modules, each after those that it needs.
fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut modprobe = shell::command("/sbin/modprobe");
        modprobe.arg("-d").arg(&kernel.root).args(["-S", &kernel.release, "--show-depends", module]);
        // A module that this kernel has built in, or that has another name there, is not missed.
        let Some(told) = shell::output(&mut modprobe) else { continue };
        for path in
            told.lines().filter_map(|line| line.trim().strip_prefix("insmod ")).map(|path| PathBuf::from(path.trim()))
        {
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        bail!("Linux {}: no modules in {}", kernel.release, kernel.root.display());
    }
    Ok(files)
}
