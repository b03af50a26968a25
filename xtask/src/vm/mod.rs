//! Other kernels: a command runs as root under a Debian kernel in QEMU, over this machine's own files.
//!
//! The machine is emulated (no /dev/kvm is needed), has one CPU and sees the file system read-only below a throw-away
//! overlay: everything that is installed and built here is there, and nothing that is written there stays. It starts in
//! four to six seconds.
//!
//! Where what runs has deadlines of its own, its time can be counted in instructions ([`Clock::Instructions`]): then it
//! is the same however busy this machine is, and waiting takes none of ours.

mod archive;
mod initramfs;
mod kernel;
mod near;
mod qemu;

use crate::setup::{self, Need};
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// Memory of the machine, in MiB.
const MEMORY: &str = "2048";

/// What a machine's time is.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// This machine's.
    Ours,
    /// Two nanoseconds for each instruction; while it waits, time leaps to what comes next. So that it does not leap
    /// while a file is read by 9p, these binaries and what the lab runs are in the machine's memory.
    Instructions(Vec<PathBuf>),
}

/// Runs a command line under a kernel; its output is ours, and so is its exit status.
pub(crate) fn run(version: &str, command: &[OsString]) -> Result<ExitCode> {
    if command.is_empty() {
        bail!("no command: `cargo xtask vm {version} -- uname -r`");
    }
    let line = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Ok(ExitCode::from(status(version, &line, &Clock::Ours)?))
}

/// Runs a line for the shell under a kernel; gives its exit status.
pub(crate) fn status(version: &str, line: &str, clock: &Clock) -> Result<u8> {
    ensure()?;
    let kernel = kernel::find(&cache()?, version)?;
    boot(&kernel, line, clock, Stdio::inherit()).map(|(status, _)| status)
}

/// Runs a line for the shell under a kernel, beside other machines; gives its exit status and what it says.
pub(crate) fn told(version: &str, line: &str, clock: &Clock) -> Result<(u8, String)> {
    boot(&kernel::find(&cache()?, version)?, line, clock, Stdio::piped())
}

/// Fetches a kernel, so that what goes wrong then is no fault of what runs on it.
pub(crate) fn prepare(version: &str) -> Result<()> {
    ensure()?;
    kernel::find(&cache()?, version).map(drop)
}

/// Installs what is missing to run another kernel.
fn ensure() -> Result<()> {
    setup::ensure(Need::Vm)?;
    qemu::ensure()
}

/// What it says goes where `said` leads; where that is here, it is given.
fn boot(kernel: &kernel::Kernel, line: &str, clock: &Clock, said: Stdio) -> Result<(u8, String)> {
    let run = Run::create()?;
    let (initrd, code, console) = (run.path("initrd"), run.path("status"), run.path("console"));
    let script = format!("cd {} && {line}\n", shell::quoted(shell::root().as_os_str()));
    let (near, prelude) = match clock {
        Clock::Ours => (String::new(), ""),
        Clock::Instructions(binaries) => (near::files(binaries), near::PRELUDE),
    };
    let script = format!("{prelude}{script}");
    std::fs::write(&initrd, initramfs::build(kernel, &script, &near)?).context("writing the initramfs")?;
    #[allow(clippy::disallowed_methods, reason = "the machine has no clock of its own")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock")?.as_secs();
    let mut qemu = qemu::command()?;
    // Several emulated CPUs at once race with a kernel that patches its own code: one thread for all.
    qemu.args([
        "-accel",
        "tcg,thread=single,tb-size=512",
        "-cpu",
        "max,la57=off",
        "-M",
        "q35",
        "-smp",
        "1",
        "-m",
        MEMORY,
    ])
    .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
    // Its console, what the command says, how it ended.
    .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
    .args(["-serial", &format!("file:{}", code.display())])
    .arg("-kernel")
    .arg(&kernel.image)
    .arg("-initrd")
    .arg(&initrd)
    .args(["-append", &arguments(kernel, now)])
    .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"])
    .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=host"])
    // A NIC with switches that no virtual device has; nothing behind it answers.
    .args(["-netdev", "hubport,id=nic,hubid=0", "-device", "vmxnet3,netdev=nic"])
    .args(["-object", "rng-random,filename=/dev/urandom,id=random", "-device", "virtio-rng-pci,rng=random"])
    .stdin(Stdio::null())
    .stdout(said)
    .stderr(Stdio::inherit());
    if matches!(clock, Clock::Instructions(_)) {
        qemu.args(["-icount", "shift=1,sleep=off"]);
    }
    eprintln!("+ (Linux {}) {line}", kernel.release);
    let machine = qemu.spawn().context("can't run qemu-system-x86_64")?;
    let ended = machine.wait_with_output().context("waiting for qemu-system-x86_64")?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let told = std::fs::read_to_string(&code).unwrap_or_default();
    if let Ok(status) = told.trim().parse() {
        return Ok((status, said));
    }
    let console = std::fs::read_to_string(&console).unwrap_or_default();
    let mut last: Vec<String> = console.lines().rev().take(20).map(|line| format!("  {line}")).collect();
    last.reverse();
    let (release, last) = (&kernel.release, last.join("\n"));
    bail!("Linux {release} ended without a status (qemu: {}); its console:\n{last}\n{said}", ended.status)
}

/// The kernel's command line; what begins with `vm.` is for our init.
fn arguments(kernel: &kernel::Kernel, now: u64) -> String {
    format!(
        "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests vm.modules={} vm.now={now}",
        kernel.modules.display()
    )
}

/// Where kernels are kept.
fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let directory =
        base.context("neither XDG_CACHE_HOME nor HOME is set: no place for kernels")?.join("kvmtrace/kernels");
    std::fs::create_dir_all(&directory).with_context(|| format!("{}: can't be created", directory.display()))?;
    Ok(directory)
}

/// Files of one run, removed at its end.
struct Run(PathBuf);

impl Run {
    fn create() -> Result<Self> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("kvmtrace-vm-{}-{run}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("{}: can't be created", directory.display()))?;
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Nothing depends on its being gone.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The bytes that a program prints.
fn bytes_of(command: &mut std::process::Command) -> Result<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("can't run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// A file's bytes, unpacked where its name says that it is packed.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => bytes_of(shell::command("xz").arg("-dc").arg(path)),
        Some("zst") => bytes_of(shell::command("zstd").arg("-dcq").arg(path)),
        _ => std::fs::read(path).with_context(|| format!("can't read {}", path.display())),
    }
}
