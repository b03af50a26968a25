//! What the other tasks need on this machine: found when it is here, installed when it is not.
//!
//! Every task calls [`ensure`] for what it needs, so nobody has to run `cargo xtask setup` first; when nothing is
//! missing that takes milliseconds. apt never removes a package (`--no-remove`).

use crate::{ebpf, shell};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a task is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile kvmtrace and its BPF programs.
    Build,
    /// Play with the lab: build it and make networks with faults.
    Lab,
    /// Run the tests.
    Test,
    /// Run another kernel in QEMU.
    Vm,
}

/// Programs that the lab uses, and the Debian package of each.
pub(crate) const LAB_PROGRAMS: &[(&str, &str)] = &[
    ("conntrack", "conntrack"),
    ("ebtables", "ebtables"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("sysctl", "procps"),
    ("tcpdump", "tcpdump"),
];

/// What only tests use: other tools' opinion of what kvmtrace attaches and writes, and a terminal for it.
const TEST_PROGRAMS: &[(&str, &str)] = &[("bpftool", "bpftool"), ("tmux", "tmux"), ("tshark", "tshark")];

/// What runs another kernel, beside QEMU.
const VM_PROGRAMS: &[(&str, &str)] =
    &[("busybox", "busybox-static"), ("modprobe", "kmod"), ("xz", "xz-utils"), ("zstd", "zstd")];

/// A rustc that has `core` for BPF.
const RUSTC_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
/// What bpf-linker is built with; its LLVM must be at least as new as rustc's.
const LLVM: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGES: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"];
const BPF_LINKER: &str = "0.13.0";
const NEXTEST: &str = "0.9.143";

/// Installs what is missing for `need`.
pub(crate) fn ensure(need: Need) -> Result<()> {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() && need != Need::Build {
        bail!("this kernel has no BTF (/sys/kernel/btf/vmlinux): kvmtrace can be built here, but not run");
    }
    if need == Need::Vm {
        return programs(VM_PROGRAMS);
    }
    bpf_compiler()?;
    bpf_linker()?;
    if need == Need::Build {
        return Ok(());
    }
    programs(LAB_PROGRAMS)?;
    if need == Need::Test {
        programs(TEST_PROGRAMS)?;
    }
    if need == Need::Test && find("cargo-nextest").is_none() {
        // Optimising the test runner would take longer than it could ever save.
        let arguments = ["--debug", "--no-default-features", "--features", "default-no-update"];
        cargo_install("cargo-nextest", NEXTEST, &arguments, &[("CARGO_PROFILE_DEV_DEBUG", "0")])?;
    }
    Ok(())
}

/// Installs the packages of the programs that are missing.
fn programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing = wanted.iter().filter(|(program, _)| find(program).is_none());
    let packages: BTreeSet<_> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() { Ok(()) } else { apt(&packages.into_iter().collect::<Vec<_>>()) }
}

/// A Python with pyarrow and `DuckDB`, which read back what `export --to parquet` writes, in a virtual environment under the target
/// directory; `None`, told, where there can't be one. The test that needs it is then skipped.
pub(crate) fn pyarrow(target: &Path) -> Option<PathBuf> {
    let directory = target.join("pyarrow");
    let python = directory.join("bin/python");
    let works =
        |python: &Path| shell::output(shell::command(python).args(["-c", "import duckdb, pyarrow.parquet"])).is_some();
    if works(&python) {
        return Some(python);
    }
    let has_venv = shell::output(shell::command("python3").args(["-c", "import ensurepip"])).is_some();
    if !has_venv && let Err(error) = apt(&["python3-venv"]) {
        eprintln!("xtask: no python3-venv ({error:#})");
    }
    let mut environment = shell::command("python3");
    environment.args(["-m", "venv"]).arg(&directory);
    let mut install = shell::command(&python);
    install.args(["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20", "duckdb", "pyarrow"]);
    let installed = shell::run(&mut environment).and_then(|()| shell::run(&mut install));
    if let Err(error) = installed {
        eprintln!("xtask: no pyarrow ({error:#}): the test that reads parquet back is skipped");
        return None;
    }
    works(&python).then_some(python)
}

/// A program in `PATH`, in cargo's own directory, or in the directories that only root's `PATH` has.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed: Vec<_> = std::env::split_paths(&path).collect();
    let more = [cargo_home().join("bin"), PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    listed.into_iter().chain(more).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// A command that runs as root: through sudo where this process is not.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(shell::command(program));
    }
    let Some(sudo) = find("sudo") else {
        bail!("{} needs root: run this as root, or install sudo", program.as_ref().display());
    };
    let mut command = shell::command(sudo);
    command.arg("--preserve-env").arg(program);
    Ok(command)
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// Debian's way first; where that is not possible, rustup's.
fn bpf_compiler() -> Result<()> {
    if std::env::var_os("KVMTRACE_BPF_RUSTC").is_some() || ebpf::toolchain().is_ok() {
        return ebpf::toolchain().map(|_| ());
    }
    let Err(by_apt) = apt(RUSTC_PACKAGES) else { return ebpf::toolchain().map(|_| ()) };
    eprintln!("xtask: no rustc for BPF from apt ({by_apt:#}); trying rustup");
    let mut rustup = shell::command("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    shell::run(&mut rustup).context("no rustc for BPF: neither apt nor rustup could install one")?;
    ebpf::toolchain().map(|_| ())
}

fn bpf_linker() -> Result<()> {
    if find("bpf-linker").is_some() {
        return Ok(());
    }
    let advice = "or install bpf-linker yourself: https://github.com/aya-rs/bpf-linker#installation";
    if !Path::new(LLVM).join("include/llvm-c").is_dir() {
        apt(LLVM_PACKAGES).with_context(|| format!("bpf-linker is missing and so is LLVM 22 to build it; {advice}"))?;
    }
    // Without LLVM_PREFIX the build finds llvm-config but not libLLVM.so, and fails to link.
    cargo_install(
        "bpf-linker",
        BPF_LINKER,
        &["--no-default-features", "--features", "llvm-22"],
        &[("LLVM_PREFIX", LLVM)],
    )
}

fn cargo_install(name: &str, version: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("xtask: {name} is missing: building it, once per machine");
    let mut command = shell::cargo();
    command.args(["install", name, "--version", version, "--locked"]).args(arguments);
    shell::run(command.envs(environment.iter().copied()))
        .with_context(|| format!("can't install {name}: is there a network?"))
}

/// Installs Debian packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("missing: {list} (Debian's names), and there is no apt-get to install them with");
    }
    eprintln!("xtask: missing: {list}");
    let known = |packages: &[&str]| {
        shell::output(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages)).is_some()
    };
    let mut updated = false;
    if !known(packages) {
        update()?;
        updated = true;
        if !known(packages) {
            bail!("apt knows no {list}");
        }
    }
    let mut result = install(packages);
    if result.is_err() && !updated {
        // The lists are older than the archive: what they name is gone from it.
        update()?;
        result = install(packages);
    }
    result.with_context(|| format!("can't install {list}: is there a network?"))
}

fn update() -> Result<()> {
    shell::run(as_root("apt-get")?.args(["update", "-q"])).context("can't read the package lists: is there a network?")
}

fn install(packages: &[&str]) -> Result<()> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"]);
    shell::run(command.args(["--no-install-recommends", "--no-remove"]).args(packages))
}
