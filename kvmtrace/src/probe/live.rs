//! The live source: one task that owns the programs, reads ring and counters, keeps the host's state current and
//! attaches to guests that start while it traces.

use super::counters::Reader;
use super::hooks::{Hooks, Seen, taken_away};
use super::inject::{InjectError, Injector};
use super::kernel_log::KernelLog;
use super::limits::raise_file_limit;
use super::loader::{Attached, Frames, ProbeError, Programs, Settings, clean};
use super::plan::Plan;
use super::ring::{self, Ring};
use super::rule_trace::{self, RuleTrace, Watched};
use crate::event::{Degraded, Event, EventKind, HostState, IfIndex, Started, Timestamp, decode};
use crate::host::path::{Scope, devices_to_trace};
use crate::host::{self, Changes, HostError};
use crate::kernel::Kernel;
use crate::kernel::version::{LIVE_FRAMES, TCX};
use crate::source::{ProgramCost, Source};
use anyhow::Context as _;
use aya::maps::RingBuf;
use kvmtrace_common::names;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// How often the counters are read.
const POLL: Duration = Duration::from_millis(500);
/// Records taken from the ring before others get their turn.
const RING_BATCH: usize = 4_096;
/// The gate's limit that no device's index reaches (they are positive `int`s).
const EVERYTHING: u32 = u32::MAX;
/// Packets in flight when the end is called: how long their last hops get.
const GRACE: Duration = Duration::from_millis(50);

/// Tells a source to end in order.
pub type Stop = watch::Receiver<bool>;

/// Traces the running kernel.
#[derive(Debug)]
pub struct Live {
    kernel: Kernel,
    scope: Scope,
    programs: Programs,
    log: Option<KernelLog>,
    ring: AsyncFd<Ring>,
    /// The last turn did not empty the ring.
    ring_left: bool,
    /// When to look into a ring whose records wake nobody.
    ring_ticks: Option<Interval>,
    counters: Reader,
    attached: BTreeMap<IfIndex, (String, Attached)>,
    hooks: Hooks,
    changes: Changes,
    rules: Option<RuleTrace>,
    host: HostState,
    /// The host is being looked at since then, beside the trace: a router's full table takes seconds.
    look: Option<(Instant, JoinHandle<Result<HostState, HostError>>)>,
    /// The last look, whole.
    last_look: Option<JoinHandle<Result<HostState, HostError>>>,
    ticks: Interval,
    stop: Stop,
    state: State,
    /// When counting ended.
    end: Option<Timestamp>,
    queue: VecDeque<Event>,
    injectors: BTreeMap<IfIndex, Injector>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The end was called.
    Ending,
    Ended,
}

/// What happened while waiting.
enum Woken {
    Stop,
    Tick,
    Change,
    Look(Box<Result<HostState, HostError>>),
    Ring,
    Rules,
}

impl Live {
    /// The kernel that is traced.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Loads and attaches everything, then lets all of it count at one moment; when this returns, every packet is seen.
    /// `stop` ends the trace once it is true or its sender is gone.
    pub async fn start(plan: Plan, stop: Stop) -> anyhow::Result<Self> {
        raise_file_limit();
        let kernel = Kernel::read()?;
        let mut changes = Changes::open().context("listening for changes of the network")?;
        let host = host::snapshot().await.context("reading the host's network")?;
        changes.watch(&host);
        // A name that does not exist is told before anything is loaded.
        devices_to_trace(&host, &plan.scope)?;
        if kernel.version < TCX {
            // Another trace's hooks look the same as a dead one's: two at once are for newer kernels.
            clean(host.links.values().map(|link| link.name.as_str()));
        }
        let mut programs = Programs::load(&kernel, Settings::of(&plan))?;
        let ring = RingBuf::try_from(programs.take_map(names::EVENTS)?).map_err(ProbeError::load)?;
        // SAFETY: the ring owns its descriptor and keeps it open and the same until it is dropped, with the AsyncFd.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), tokio::io::Interest::READABLE) }
            .context("polling the ring buffer")?;
        let counters = Reader::new(&mut programs)?;
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut live = Self {
            kernel,
            scope: plan.scope,
            log: programs.take_log(),
            programs,
            ring,
            ring_left: false,
            ring_ticks: plan.every_packet.then(ring::ticks),
            counters,
            attached: BTreeMap::new(),
            hooks: Hooks::default(),
            changes,
            rules: None,
            host,
            look: None,
            last_look: None,
            ticks,
            stop,
            state: State::Running,
            end: None,
            queue: VecDeque::new(),
            injectors: BTreeMap::new(),
        };
        live.attach(true).await?;
        let untraced = if plan.trace_rules { live.trace_rules() } else { Vec::new() };
        live.programs.open_below(EVERYTHING)?;
        let started = plan.started.unwrap_or_else(|| Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: Vec::new(),
            guests: Vec::new(),
            all: false,
            filter: String::new(),
            followed: false,
        });
        live.tell(EventKind::Started(started));
        for degraded in [live.kernel.degraded.as_slice(), live.programs.degraded(), &untraced].concat() {
            live.tell(EventKind::Degraded(degraded));
        }
        live.tell_host();
        live.look_at_hooks(true);
        Ok(live)
    }

    /// Starts what this process can't start any more once it is confined.
    pub fn start_helpers(&mut self) {
        self.programs.grace_periods.prepare();
        if let Err(error) = host::start_lister() {
            tracing::debug!(%error, "the firewall's rules are not listed again");
        }
    }

    fn tell(&mut self, kind: EventKind) {
        self.queue.push_back(Event { time: self.kernel.clock.now(), kind });
    }

    fn tell_host(&mut self) {
        self.tell(EventKind::Host(Arc::new(self.host.clone())));
    }

    /// Attaches to all devices of the scope that are not attached yet, forgets those that are gone. At the start a device
    /// that can't be attached is an error, later it is told.
    async fn attach(&mut self, must: bool) -> anyhow::Result<()> {
        // A guest asked for by name may have ended meanwhile: then only the rest is traced.
        let wanted = match devices_to_trace(&self.host, &self.scope) {
            Ok(wanted) => wanted,
            Err(error) if must => return Err(error.into()),
            Err(_) => Vec::new(),
        };
        // A tun device may change what it is while it is down (TUNSETLINK): then it needs the other programs.
        let fits = |index: &IfIndex, attached: &Attached| {
            self.host.link(*index).is_some_and(|link| Frames::of(link) == attached.frames())
        };
        let gone: Vec<IfIndex> = self
            .attached
            .iter()
            .filter(|(index, (_, attached))| !fits(index, attached))
            .map(|(index, _)| *index)
            .collect();
        self.programs.grace_periods.hold(gone.len());
        for (_, attached) in gone.into_iter().filter_map(|index| self.attached.remove(&index)) {
            self.programs.detach(attached);
        }
        let new: Vec<(IfIndex, String, Frames)> = wanted
            .into_iter()
            .filter(|index| !self.attached.contains_key(index))
            .filter_map(|index| self.host.link(index).map(|link| (index, link.name.clone(), Frames::of(link))))
            .collect();
        // The new devices begin at one moment too, while the others go on. One that was moved here may have a low index: then
        // nobody waits.
        let later = new
            .iter()
            .map(|(index, ..)| *index)
            .min()
            .filter(|first| !must && self.attached.last_key_value().is_none_or(|(last, _)| last < first));
        if let Some(first) = later {
            self.programs.open_below(first.0)?;
        }
        self.programs.grace_periods.hold(new.len());
        let attached = self.attach_all(new, must).await;
        self.programs.grace_periods.release();
        if later.is_some() {
            self.programs.open_below(EVERYTHING)?;
        }
        attached
    }

    /// At the start others get their turn between two devices: who waits for it may give up. Later this does not wait, for
    /// [`Source::next`] may be given up at any moment, and the programs are held back meanwhile.
    async fn attach_all(&mut self, devices: Vec<(IfIndex, String, Frames)>, must: bool) -> anyhow::Result<()> {
        for (index, name, frames) in devices {
            if must {
                tokio::task::yield_now().await;
            }
            match self.programs.attach(&name, frames) {
                Ok(attached) => {
                    self.attached.insert(index, (name, attached));
                }
                Err(error) if must => return Err(error.into()),
                Err(error) => {
                    self.tell(EventKind::Degraded(Degraded { what: format!("device {name}"), why: error.to_string() }));
                }
            }
        }
        Ok(())
    }

    /// Attaches again where a hook was taken away, and reports what others have on our hooks.
    fn look_at_hooks(&mut self, all: bool) {
        let Seen { missing, others } = self.hooks.look(&self.programs, &self.attached, all);
        for degraded in others {
            self.tell(EventKind::Degraded(degraded));
        }
        for (index, hooks) in missing {
            let Some((name, attached)) = self.attached.remove(&index) else { continue };
            let frames = attached.frames();
            self.programs.detach(attached);
            let again = self.programs.attach(&name, frames);
            self.tell(EventKind::Degraded(taken_away(&name, &hooks, again.as_ref().err())));
            if let Ok(attached) = again {
                self.attached.insert(index, (name, attached));
            }
        }
    }

    /// Begins to trace rules, as far as that is possible; gives what is not.
    fn trace_rules(&mut self) -> Vec<Degraded> {
        let mut missing: Vec<Degraded> = rule_trace::unseen(&self.host.netfilter).into_iter().collect();
        match RuleTrace::start(self.kernel.version) {
            Ok(rules) => {
                self.rules = Some(rules);
                missing.extend(self.watch_rules());
            }
            Err(error) => missing.push(rule_trace::untraced(&error)),
        }
        missing
    }

    /// The rules of devices that came since are traced too.
    fn watch_rules(&mut self) -> Option<Degraded> {
        let masters: Vec<IfIndex> = self.attached.keys().filter_map(|index| self.host.link(*index)?.master).collect();
        let devices = self.attached.iter().map(|(index, (name, _))| Watched {
            index: *index,
            name,
            // What a bridge takes up has come in by one of its ports.
            ingress: !masters.contains(index),
        });
        self.rules.as_mut()?.watch(devices).err().map(|error| rule_trace::untraced(&error))
    }

    /// Opens a way for frames of our own: they enter by this device as if it had received them; by a macvtap as if its guest
    /// had sent them.
    pub fn open_entry(&mut self, device: IfIndex) -> Result<(), InjectError> {
        let gone = || InjectError::Refused { device: device.to_string(), reason: "there is no such device".to_owned() };
        let link = self.host.link(device).ok_or_else(gone)?;
        let live_frames = self.kernel.version >= LIVE_FRAMES;
        let injector = Injector::open(&mut self.programs, link, live_frames)?;
        self.injectors.insert(device, injector);
        Ok(())
    }

    /// Sends a frame by the way that [`Self::open_entry`] opened at this device.
    pub fn send(&mut self, device: IfIndex, frame: &[u8]) -> Result<(), InjectError> {
        let injector = self.injectors.get_mut(&device).ok_or_else(|| InjectError::Refused {
            device: self.host.link_name(device),
            reason: "no way in was opened".to_owned(),
        })?;
        injector.send(&mut self.programs, frame)
    }

    /// Names of the devices that are traced.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.attached.values().map(|(name, _)| name.as_str())
    }

    /// The host as it is now.
    pub fn host(&self) -> &HostState {
        &self.host
    }

    fn drain_ring(&mut self) -> usize {
        let ring = &mut self.ring.get_mut().0;
        let mut count = 0;
        while count < RING_BATCH
            && let Some(record) = ring.next()
        {
            count += 1;
            let Some(mut event) = decode::record(&record, &self.kernel) else { continue };
            if let EventKind::Packet(packet) = &mut event.kind {
                packet.count += self.counters.dropped_before(&record);
            }
            self.queue.push_back(event);
        }
        self.ring_left = count == RING_BATCH;
        count
    }

    fn drain_rules(&mut self) {
        let now = self.kernel.clock.now();
        if let Some(rules) = &mut self.rules {
            rules.drain();
            self.queue.extend(rules.news(now));
        }
    }

    fn read_counters(&mut self, now: Timestamp) {
        if let Some(log) = &mut self.log {
            log.pass_on();
        }
        let lost = self.rules.as_ref().map_or(0, RuleTrace::lost);
        self.queue.extend(self.counters.changes(now, &self.kernel, lost));
        if let Some(rules) = &mut self.rules {
            self.queue.extend(rules.changes(now));
        }
    }

    fn begin_look(&mut self) {
        let before = self.host.clone();
        self.look = Some((Instant::now(), tokio::spawn(async move { host::refresh(&before).await })));
    }

    fn take_host(&mut self, host: Result<HostState, HostError>) {
        match host {
            Ok(host) => {
                self.changes.watch(&host);
                self.host = host;
            }
            Err(error) => {
                self.tell(EventKind::Degraded(Degraded {
                    what: "the host's state".to_owned(),
                    why: error.to_string(),
                }));
            }
        }
    }

    /// Stop counting everywhere at one moment, detach, drain, last look at the host.
    async fn finish(&mut self) {
        tokio::time::sleep(GRACE).await;
        if let Err(error) = self.programs.open_below(0) {
            tracing::debug!(%error, "the programs count until each is detached");
        }
        // What was traced ends here, however long detaching takes.
        let end = *self.end.get_or_insert_with(|| self.kernel.clock.now());
        self.programs.grace_periods.hold(self.attached.len());
        for (_, attached) in std::mem::take(&mut self.attached).into_values() {
            self.programs.detach(attached);
        }
        self.programs.grace_periods.release();
        while self.drain_ring() > 0 {}
        if let Some(rules) = &mut self.rules {
            rules.end();
        }
        self.read_counters(end);
        self.rules = None;
        // Begun once, however often the waiting is given up.
        let look = self.last_look.get_or_insert_with(|| tokio::spawn(host::snapshot()));
        let host = look.await.unwrap_or_else(|error| Err(HostError::Interrupted(error)));
        self.take_host(host);
        let host = EventKind::Host(Arc::new(self.host.clone()));
        self.queue.extend([host, EventKind::Ended].map(|kind| Event { time: end, kind }));
        self.state = State::Ended;
    }
}

impl Source for Live {
    // Cancel-safe: what a step has begun is noted in `state` before it waits, and begun again by the next call.
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            match self.state {
                State::Ended => return Ok(None),
                State::Ending => self.finish().await,
                State::Running => match self.wait().await? {
                    Woken::Stop => self.state = State::Ending,
                    Woken::Change => self.begin_look(),
                    Woken::Look(host) => {
                        if let Some((begin, _)) = self.look.take() {
                            self.changes.rest_after(begin.elapsed());
                        }
                        self.take_host(*host);
                        self.attach(false).await?;
                        if let Some(degraded) = self.watch_rules() {
                            self.tell(EventKind::Degraded(degraded));
                        }
                        self.tell_host();
                    }
                    Woken::Tick => {
                        self.drain_rules();
                        self.drain_ring();
                        self.look_at_hooks(false);
                        if self.counters.is_due(Instant::now()) {
                            self.read_counters(self.kernel.clock.now());
                        }
                    }
                    // The trace is told before the drop: so are its rules.
                    Woken::Ring => {
                        self.drain_rules();
                        self.drain_ring();
                    }
                    Woken::Rules => self.drain_rules(),
                },
            }
        }
    }

    fn cost(&self) -> Option<ProgramCost> {
        self.programs.cost()
    }
}

impl Live {
    async fn wait(&mut self) -> anyhow::Result<Woken> {
        tokio::select! {
            biased;
            // An error means that nobody can stop it any more: the same as being stopped.
            _ = self.stop.wait_for(|stop| *stop) => Ok(Woken::Stop),
            _ = self.ticks.tick() => Ok(Woken::Tick),
            host = looked(&mut self.look) => Ok(Woken::Look(Box::new(host))),
            changed = self.changes.changed(), if self.look.is_none() => {
                changed.context("listening for changes of the network")?;
                Ok(Woken::Change)
            }
            // What is left in the ring wakes nobody. The others go first, and the signals.
            () = tokio::task::yield_now(), if self.ring_left => Ok(Woken::Ring),
            () = ring::next_look(self.ring_ticks.as_mut()) => Ok(Woken::Ring),
            ready = self.ring.readable_mut() => {
                ready.context("waiting for the ring buffer")?.clear_ready();
                Ok(Woken::Ring)
            }
            () = rule_trace::hear(self.rules.as_mut()) => Ok(Woken::Rules),
        }
    }
}

/// What the look came to; never, when there is none.
async fn looked(
    look: &mut Option<(Instant, JoinHandle<Result<HostState, HostError>>)>,
) -> Result<HostState, HostError> {
    match look {
        Some((_, look)) => look.await.unwrap_or_else(|error| Err(HostError::Interrupted(error))),
        None => std::future::pending().await,
    }
}
