//! The relay: the process that plays QEMU for one guest. It holds the host's tap as QEMU would and carries frames, with
//! their vnet header, to and from a tap in the guest's namespace. A stopped relay is a guest that does not read; a
//! killed one is a guest that is gone.

use super::process;
use super::tap::{open_macvtap, open_tap, open_tun};
use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Where the relay finds what to do; its arguments are QEMU's, for the eyes of kvmtrace.
const VARIABLE: &str = "KVMTRACE_LAB_RELAY";
/// What it is called.
const ARGV_0: &str = "qemu-system-x86_64";
/// The largest GSO frame with its headers.
const FRAME: usize = 12 + 65536 + 64;

/// What one relay joins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// The guest's name.
    pub guest: String,
    /// The guest's MAC.
    pub mac: String,
    /// The host's namespace.
    pub host_namespace: String,
    /// The host's tap.
    pub tap: String,
    /// The node to open when the tap is a macvtap.
    pub node: Option<PathBuf>,
    /// The guest's namespace.
    pub guest_namespace: String,
    /// The guest's device.
    pub device: String,
    /// Created once frames flow.
    pub ready: PathBuf,
}

impl Relay {
    /// Starts the process and waits until it carries frames.
    pub fn start(&self, lab: &Path) -> Result<process::Background> {
        std::fs::remove_file(&self.ready).ok();
        let child = self.spawn(lab)?;
        let mut relay = process::Background::adopt(child);
        if process::wait_until(Duration::from_secs(5), || self.ready.exists() || !relay.is_running())
            && relay.is_running()
        {
            return Ok(relay);
        }
        relay.signal(nix::sys::signal::Signal::SIGKILL).ok();
        let output = relay.finish(Duration::from_secs(1))?;
        anyhow::bail!("the relay of {} did not start: {}", self.guest, output.stderr.trim())
    }

    fn spawn(&self, lab: &Path) -> Result<Child> {
        let mut command = Command::new(lab);
        command.arg0(ARGV_0);
        command.arg("-name").arg(format!("guest={},debug-threads=on", self.guest));
        command.args([
            "-machine",
            "pc-q35-7.2,usb=off,dump-guest-core=off",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "1024",
        ]);
        command.args(["-smp", "2", "-no-user-config", "-nodefaults", "-display", "none"]);
        command.arg("-netdev").arg("tap,fd=30,id=hostnet0,vhost=off");
        command
            .arg("-device")
            .arg(format!("virtio-net-pci,netdev=hostnet0,id=net0,mac={},bus=pci.1,addr=0x0", self.mac));
        command.env(VARIABLE, serde_json::to_string(self)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        process::die_with_parent(&mut command).spawn().with_context(|| format!("cannot start {}", lab.display()))
    }

    /// The relay that this process was started as, if it was.
    pub fn of_this_process() -> Option<Result<Self>> {
        let text = std::env::var(VARIABLE).ok()?;
        Some(serde_json::from_str(&text).context(VARIABLE))
    }

    /// Carries frames until killed.
    pub fn run(&self) -> Result<()> {
        nix::sys::prctl::set_name(c"qemu-system-x86").context("cannot set the process name")?;
        enter(&self.guest_namespace)?;
        let guest = open_tap(&self.device)?;
        // It stays in the host's namespace, as QEMU is.
        enter(&self.host_namespace)?;
        let host = match &self.node {
            Some(node) => open_macvtap(node)?,
            None => open_tap(&self.tap)?,
        };
        let (from_guest, to_host) = (guest.try_clone()?, host.try_clone()?);
        thread::spawn(move || carry(from_guest, to_host));
        File::create(&self.ready)?;
        carry(host, guest);
        Ok(())
    }
}

/// Joins the tun device called `device` with the one of this name in another namespace, as a VPN without encryption does,
/// until killed.
pub fn join_tun_devices(device: &str, far_namespace: &str) -> Result<()> {
    let near = open_tun(device)?;
    enter(far_namespace)?;
    let far = open_tun(device)?;
    let (from_near, to_far) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || carry(from_near, to_far));
    carry(far, near);
    Ok(())
}

/// Enters a named network namespace.
fn enter(name: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("no namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {name}"))
}

fn carry(mut from: File, mut to: File) {
    let mut frame = vec![0; FRAME];
    loop {
        match from.read(&mut frame) {
            // A device that is down or full refuses the frame: it is lost, as on a wire.
            Ok(length) => drop(to.write(&frame[..length])),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADFD) => return,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
