//! QEMU for x86-64: the machine's own; where apt can't install one, Debian's, unpacked under the target directory.
//!
//! apt can't where a package that is here is newer than the archive's QEMU fits (qemu-utils from backports): it would have to
//! remove it, and nothing of ours removes a package.

use crate::{product, setup, unpacked};
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Where its firmware lies.
const FIRMWARE: &[&str] = &["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// Where it is unpacked.
fn directory() -> PathBuf {
    product::target_directory().join("qemu")
}

/// Installs or unpacks it where there is none.
pub(super) fn ensure() -> Result<()> {
    let is_unpacked = || directory().join("root/usr/bin").join(PROGRAM).is_file();
    if setup::find(PROGRAM).is_some() || is_unpacked() {
        return Ok(());
    }
    let Err(error) = setup::apt(&[PACKAGE]) else { return Ok(()) };
    eprintln!("xtask: {error:#}; unpacking {PACKAGE} under {} instead", directory().display());
    unpacked::fetch(&[PACKAGE], &directory())?;
    if is_unpacked() { Ok(()) } else { bail!("{PACKAGE} has no {PROGRAM}") }
}

/// A command that runs it as root.
pub(super) fn command() -> Result<Command> {
    if setup::find(PROGRAM).is_some() {
        return setup::as_root(PROGRAM);
    }
    let root = directory().join("root");
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    // What sudo would take from its environment is given behind it.
    let mut command = setup::as_root("env")?;
    let variable = |name: &str, value: PathBuf| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    command.arg(variable("LD_LIBRARY_PATH", libraries.clone()));
    command.arg(variable("QEMU_MODULE_DIR", libraries.join("qemu")));
    command.arg(root.join("usr/bin").join(PROGRAM));
    for firmware in FIRMWARE {
        command.arg("-L").arg(root.join(firmware));
    }
    Ok(command)
}
