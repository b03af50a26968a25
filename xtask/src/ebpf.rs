//! The BPF object: which compiler can make it, and with which flags.
//!
//! Two toolchains work. Debian and Ubuntu package a `rustc` with a ready-made `core` for BPF (`rustc-web`,
//! `libstd-rust-web-dev-bpf`): no nightly and no sources are needed. Everywhere else a nightly with `rust-src` builds
//! `core` itself. Either way `bpf-linker` links, and the programs have a target directory and a profile of their own.
//!
//! `kvmtrace/build.rs` embeds the object from [`object`].

use crate::{setup, shell};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "kvmtrace-ebpf";

/// A toolchain that can compile for BPF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A `rustc` whose sysroot has `core` for BPF.
    Prebuilt(PathBuf),
    /// rustup's nightly, which builds `core` from its sources.
    Nightly,
}

/// Where the object stands that `kvmtrace` embeds.
pub(crate) fn object() -> PathBuf {
    shell::root().join("target/bpf/object/kvmtrace.bpf.o")
}

/// Builds the programs and puts the object where `kvmtrace/build.rs` looks for it.
pub(crate) fn build() -> Result<PathBuf> {
    let built = build_binary(PACKAGE)?;
    let object = object();
    let bytes = std::fs::read(&built).with_context(|| format!("can't read {}", built.display()))?;
    // An unchanged object keeps its time stamp, so that nothing is built again for it.
    if std::fs::read(&object).ok().as_ref() != Some(&bytes) {
        std::fs::create_dir_all(object.parent().context("the object has no directory")?)?;
        std::fs::write(&object, bytes).with_context(|| format!("can't write {}", object.display()))?;
    }
    Ok(object)
}

/// Builds the programs that `bench` measures against.
pub(crate) fn build_bench() -> Result<PathBuf> {
    build_binary("bench-programs")
}

/// Builds one binary of the BPF crate.
fn build_binary(name: &str) -> Result<PathBuf> {
    let mut command = cargo(&toolchain()?, "build");
    shell::run(command.args(["--bin", name]))?;
    Ok(shell::root().join("target/bpf").join(TARGET).join("bpf").join(name))
}

/// `cargo SUBCOMMAND` for the BPF crate by itself.
pub(crate) fn cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut command = match toolchain {
        Toolchain::Prebuilt(rustc) => {
            let mut command = shell::cargo();
            // Lets this one crate use unstable features; ours may not.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "aya_ebpf").arg(subcommand);
            command
        }
        Toolchain::Nightly => {
            let mut command = shell::command("rustup");
            command.args(["run", "nightly", "cargo", subcommand, "-Z", "build-std=core"]);
            command.env_remove("RUSTC").env_remove("CARGO");
            command
        }
    };
    let flags = format!(
        "-C linker=bpf-linker -C linker-plugin-lto -C link-arg=--btf --cfg bpf_target_arch=\"{}\"",
        std::env::consts::ARCH
    );
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", flags);
    if let Some(path) = path_with_linker() {
        command.env("PATH", path);
    }
    command.args(["--package", PACKAGE, "--target", TARGET, "--profile", "bpf", "--target-dir", "target/bpf"]);
    command
}

/// A `PATH` that leads to bpf-linker, when the present one does not.
fn path_with_linker() -> Option<OsString> {
    let linker = setup::find("bpf-linker")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).collect();
    let home = linker.parent()?.to_path_buf();
    if directories.contains(&home) {
        return None;
    }
    std::env::join_paths(directories.into_iter().chain([home])).ok()
}

/// The first toolchain of this machine that can compile for BPF.
pub(crate) fn toolchain() -> Result<Toolchain> {
    if let Some(rustc) = std::env::var_os("KVMTRACE_BPF_RUSTC") {
        let rustc = PathBuf::from(rustc);
        if !has_core(&rustc) {
            bail!("KVMTRACE_BPF_RUSTC={}: not a rustc with lib/rustlib/{TARGET} in its sysroot", rustc.display());
        }
        return Ok(Toolchain::Prebuilt(rustc));
    }
    let packaged = PathBuf::from("/usr/bin/rustc");
    if has_core(&packaged) {
        return Ok(Toolchain::Prebuilt(packaged));
    }
    if nightly_has_sources() {
        return Ok(Toolchain::Nightly);
    }
    bail!(
        "no rustc here can compile for BPF. Run `cargo xtask setup`, or: apt-get install rustc-web \
         libstd-rust-web-dev-bpf (Debian, Ubuntu), or: rustup toolchain install nightly --component rust-src"
    )
}

/// Whether clippy can be run with it.
pub(crate) fn has_clippy(toolchain: &Toolchain) -> bool {
    match toolchain {
        Toolchain::Prebuilt(rustc) => rustc.with_file_name("clippy-driver").is_file(),
        Toolchain::Nightly => {
            shell::output(shell::command("rustup").args(["run", "nightly", "clippy-driver", "-V"])).is_some()
        }
    }
}

fn has_core(rustc: &Path) -> bool {
    rustc.is_file()
        && shell::output(shell::command(rustc).args(["--print", "sysroot"]))
            .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir())
}

fn nightly_has_sources() -> bool {
    shell::output(shell::command("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}
