//! A host with guests and a LAN, made of network namespaces; gone when dropped.

pub mod bpf;
pub mod draw;
pub mod files;
pub mod netns;
pub mod plan;
pub mod process;
pub mod raw;
pub mod relay;
pub mod state;
pub mod tap;
mod topology;
pub mod traffic;

use anyhow::{Context as _, Result, bail, ensure};
use draw::Seed;
use netns::Namespace;
use nix::sys::signal::Signal;
use plan::{Family, GuestPlan, Options, Plan, Topology};
use process::Background;
use relay::Relay;
use state::Record;
use std::path::PathBuf;
use std::time::Duration;

/// How long a freshly built lab may take until its first ping passes.
const SETTLE: Duration = Duration::from_secs(10);

/// A guest: its namespace and the process that plays its QEMU.
#[derive(Debug)]
pub struct Guest {
    /// Its names and addresses.
    pub plan: GuestPlan,
    /// Where its programs run.
    pub namespace: Namespace,
    relay: Relay,
    process: Option<Background>,
}

impl Guest {
    /// The process id of its QEMU, as kvmtrace must find it.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// Starts it, as if powered on.
    pub fn start(&mut self) -> Result<()> {
        self.process = Some(self.relay.start(&lab_binary()?)?);
        Ok(())
    }

    /// Ends its QEMU and starts it as one that is defined with another MAC address; what runs in the guest keeps its own.
    pub fn restart_as(&mut self, mac: &str) -> Result<()> {
        self.kill();
        mac.clone_into(&mut self.relay.mac);
        self.start()
    }

    /// Ends its QEMU.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops or continues its QEMU: a stopped one reads nothing.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.process.as_ref().context("the guest does not run")?.signal(signal)
    }
}

/// A host, its guests and its LAN. Fields are dropped in this order: processes, namespaces, the record.
#[derive(Debug)]
pub struct Lab {
    /// Its names and addresses.
    pub plan: Plan,
    background: Vec<Background>,
    /// The guests.
    pub guests: Vec<Guest>,
    /// The host that kvmtrace runs on.
    pub host: Namespace,
    /// The machine behind the NIC, or the other end of the tunnel.
    pub lan: Namespace,
    record: Recorded,
}

/// Removes the record, and whatever namespace is left, when dropped.
#[derive(Debug)]
struct Recorded(Record);

impl Drop for Recorded {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Lab {
    /// Builds a lab with drawn names.
    pub fn drawn(options: &Options, seed: Seed, subject: &str) -> Result<Self> {
        let mut draw = seed.draw(subject);
        let name = format!("kt{}{}", std::process::id(), Seed::choose()?.draw(subject).hex(4));
        Self::build(Plan::drawn(&name, options, &mut draw))
    }

    /// Builds a lab with readable names.
    pub fn fixed(name: &str, options: &Options) -> Result<Self> {
        Self::build(Plan::fixed(name, options))
    }

    /// Builds a lab; returns once its guests are reached.
    pub fn build(plan: Plan) -> Result<Self> {
        require_root()?;
        state::sweep();
        let record = Recorded(Record::of(&plan.lab)?);
        record.0.save()?;
        let mut host = Namespace::create(&format!("{}-host", plan.lab))?;
        if plan.options.own_files {
            host.own_files(&record.0.directory())?;
        }
        let lan = Namespace::create(&format!("{}-lan", plan.lab))?;
        let mut guests = Vec::new();
        for (guest, number) in plan.guests.iter().zip(1..) {
            let namespace = Namespace::create(&format!("{}-guest{number}", plan.lab))?;
            let relay = Relay {
                guest: guest.name.clone(),
                mac: guest.port.mac.clone(),
                host_namespace: host.name().to_owned(),
                tap: guest.tap.clone(),
                node: None,
                guest_namespace: namespace.name().to_owned(),
                device: guest.port.device.clone(),
                ready: record.0.directory().join(format!("relay{number}")),
            };
            guests.push(Guest { plan: guest.clone(), namespace, relay, process: None });
        }
        let mut lab = Self { plan, background: Vec::new(), guests, host, lan, record };
        let namespaces =
            [("host", &lab.host), ("lan", &lab.lan)].map(|(role, ns)| (role.to_owned(), ns.name().to_owned()));
        lab.record.0.namespaces.extend(namespaces);
        for (guest, number) in lab.guests.iter().zip(1..) {
            lab.record.0.namespaces.insert(format!("guest{number}"), guest.namespace.name().to_owned());
        }
        lab.record.0.save()?;
        topology::build(&mut lab)?;
        lab.settle()?;
        Ok(lab)
    }

    /// Waits until every guest reaches the LAN in both families.
    fn settle(&self) -> Result<()> {
        for (guest, family) in self.guests.iter().flat_map(|guest| [(guest, Family::Ipv4), (guest, Family::Ipv6)]) {
            let target = self.plan.lan.addresses.of(family);
            let ping = format!("ping -n -q -c1 -W1 {target}");
            let answered = || guest.namespace.run(&ping).is_ok_and(|output| output.status.success());
            if !process::wait_until(SETTLE, answered) {
                bail!("the healthy lab does not work: {} does not reach {target}", guest.plan.name);
            }
        }
        Ok(())
    }

    /// The namespace that a scenario calls `host`, `lan`, `guest1`, …
    pub fn namespace(&self, role: &str) -> Result<&Namespace> {
        match role {
            "host" => Ok(&self.host),
            "lan" => Ok(&self.lan),
            _ => Ok(&self.guests[self.guest_index(role)?].namespace),
        }
    }

    /// The guest that a scenario calls `guest1`, …
    pub fn guest_mut(&mut self, role: &str) -> Result<&mut Guest> {
        let index = self.guest_index(role)?;
        Ok(&mut self.guests[index])
    }

    /// `guest1`, `guest2`, ….
    pub fn guest(&self, role: &str) -> Result<&Guest> {
        Ok(&self.guests[self.guest_index(role)?])
    }

    fn guest_index(&self, role: &str) -> Result<usize> {
        let number: usize = role
            .strip_prefix("guest")
            .and_then(|n| n.parse().ok())
            .with_context(|| format!("no such place: {role}"))?;
        ensure!((1..=self.guests.len()).contains(&number), "the lab has no {role}");
        Ok(number - 1)
    }

    /// Keeps a process until the lab ends.
    pub fn keep(&mut self, process: Background) {
        self.background.push(process);
    }

    /// A directory of the lab's own.
    pub fn directory(&self) -> PathBuf {
        self.record.0.directory()
    }

    /// The macvtap topology has no bridge.
    pub fn has_bridge(&self) -> bool {
        self.plan.options.topology != Topology::Macvtap
    }

    /// Publishes the lab to `lab list` under a topic.
    pub fn publish(&mut self, topic: &str, welcome: String) -> Result<()> {
        self.record.0.topic = Some(topic.to_owned());
        self.record.0.welcome = welcome;
        self.record.0.save()
    }
}

/// A lone namespace to try something in, recorded as a lab is, so that nothing of a killed run stays.
#[derive(Debug)]
pub struct Scratch {
    /// The namespace.
    pub namespace: Namespace,
    _record: Recorded,
}

impl Scratch {
    /// Makes one; `subject` tells it from others of this process.
    pub fn create(subject: &str) -> Result<Self> {
        let name = format!("ktq{}{}", std::process::id(), Seed::choose()?.draw(subject).hex(6));
        let record = Recorded(Record::of(&name)?);
        record.0.save()?;
        Ok(Self { namespace: Namespace::create(&format!("{name}-scratch"))?, _record: record })
    }
}

/// The lab needs root for namespaces, TAPs and routes.
pub fn require_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the lab needs root");
    Ok(())
}

/// Whether this kernel can send bridged frames through the IP chains (br_netfilter is built in, or loaded).
pub fn bridge_netfilter() -> bool {
    std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
}

/// Whether a test that needs the lab can run. That it can't is told, and is an error in CI, which runs as root.
#[expect(clippy::print_stderr, reason = "the reason of a skip is for the person who runs the tests")]
pub fn can_test(subject: &str) -> Result<bool> {
    let Err(why) = require_root() else { return Ok(true) };
    ensure!(std::env::var_os("CI").is_none(), "{subject}: {why}, and CI runs as root");
    eprintln!("SKIP {subject}: {why}");
    Ok(false)
}

/// The `lab` binary, which is also the relay and every small helper.
pub fn lab_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KVMTRACE_LAB_BIN") {
        return Ok(path.into());
    }
    beside("lab")
}

/// A binary of this workspace: the one beside this executable, or beside the directory of test executables.
pub fn beside(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell which executable this is")?;
    let found = this.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no `{name}` beside {}: build the workspace first", this.display()))
}
