//! Loading and attaching.

use super::expedite::GracePeriods;
use super::hook::Hook;
use super::kernel_log::{self, KernelLog};
use super::limits::{is_locked_down, is_out_of_files, network_namespace, out_of_files};
use super::plan::Plan;
use super::reason::reason;
use crate::event::host::Link;
use crate::event::{Degraded, IfIndex};
use crate::filter::Filter;
use crate::kernel::Kernel;
use crate::kernel::btf::BtfError;
use crate::kernel::version::TCX;
use crate::source::ProgramCost;
use aya::maps::Array;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{
    BtfTracePoint, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
};
use aya::util::online_cpus;
use aya::{Btf, Ebpf, EbpfLoader};
use kvmtrace_common::config::{HOT_SHIFT, RING_BYTES_EVERY_PACKET, global};
use kvmtrace_common::names;
use std::collections::BTreeMap;
use std::io;

/// The kernel's offsets, each with the frozen constant that it goes to.
const OFFSETS: [(&str, &str); 21] = [
    (global::SKB_DEV, "sk_buff.dev"),
    (global::SKB_SK, "sk_buff.sk"),
    (global::SKB_LEN, "sk_buff.len"),
    (global::SKB_DATA, "sk_buff.data"),
    (global::SKB_HEAD, "sk_buff.head"),
    (global::SKB_END, "sk_buff.end"),
    (global::SKB_PROTOCOL, "sk_buff.protocol"),
    (global::SKB_MAC_HEADER, "sk_buff.mac_header"),
    (global::SKB_NETWORK_HEADER, "sk_buff.network_header"),
    (global::SKB_IIF, "sk_buff.skb_iif"),
    (global::SKB_VLAN_TCI, "sk_buff.vlan_tci"),
    (global::SKB_VLAN_PROTO, "sk_buff.vlan_proto"),
    (global::SKB_PKT_TYPE, "sk_buff.pkt_type"),
    (global::DEV_IFINDEX, "net_device.ifindex"),
    (global::DEV_TYPE, "net_device.type"),
    (global::DEV_NET, "net_device.nd_net.net"),
    (global::NET_INUM, "net.ns.inum"),
    (global::SOCK_NET, "sock.__sk_common.skc_net.net"),
    (global::SOCK_FAMILY, "sock.__sk_common.skc_family"),
    (global::SHINFO_GSO_SIZE, "skb_shared_info.gso_size"),
    (global::SHINFO_GSO_SEGS, "skb_shared_info.gso_segs"),
];

/// The least that a ring buffer can have; a multiple of every page size, or the loader rounds it up.
const PAGE: u32 = 4_096;

/// The probes can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The binary holds no BPF object.
    #[error("built without BPF programs: run `cargo xtask build`")]
    NoObject,
    /// The kernel's types are not what the programs need.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object did not load.
    #[error("loading the BPF programs: {0}")]
    Load(String),
    /// The object lacks a map or a program.
    #[error("the BPF object has no {0}; it and this binary are of different versions")]
    Absent(&'static str),
    /// The network namespace has no number.
    #[error("/proc/thread-self/ns/net: {0}")]
    Namespace(#[source] nix::Error),
    /// A program could not be attached.
    #[error("attaching to {device} ({hook}): {reason}")]
    Attach {
        /// The device, or the kernel for tracepoints.
        device: String,
        /// `ingress`, `egress` or the tracepoint.
        hook: &'static str,
        /// Why.
        reason: String,
    },
}

impl ProbeError {
    pub(super) fn load(error: impl std::error::Error) -> Self {
        Self::Load(reason(&error))
    }
}

/// What differs from trace to trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    /// Which packets are wanted; all when there is none.
    pub(super) filter: Option<&'a Filter>,
    /// A record for each packet.
    pub(super) every_packet: bool,
    /// A record for each dropped packet.
    pub(super) every_drop: bool,
}

impl<'a> Settings<'a> {
    /// What a trace asks for.
    pub(super) fn of(plan: &'a Plan) -> Self {
        Self { filter: plan.filter.as_ref(), every_packet: plan.every_packet, every_drop: plan.every_drop }
    }
}

/// The filter's program as it lies in its map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct FilterProgram(kvmtrace_common::filter::Program);
// SAFETY: repr(transparent) over a repr(C) structure of integers without padding (zerocopy's derives say so).
unsafe impl aya::Pod for FilterProgram {}

/// The loaded programs. All that they attach ends with this value, also when the process is killed (tcx, links).
pub(super) struct Programs {
    ebpf: Ebpf,
    gate: Array<aya::maps::MapData, u32>,
    hot_entries: u32,
    share_salt: u64,
    tcx: bool,
    degraded: Vec<Degraded>,
    /// Their numbers.
    ids: BTreeMap<&'static str, u32>,
    /// Devices that are attached to.
    devices: usize,
    /// Quick while many devices come or go. The last field: dropped when the links are.
    pub(super) grace_periods: GracePeriods,
}

/// Where the packets of a device begin: there is a pair of programs for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// At an Ethernet header.
    Ethernet,
    /// At layer 3.
    Raw,
}

impl Frames {
    /// Those of a device.
    pub(super) fn of(link: &Link) -> Self {
        if link.ethernet { Self::Ethernet } else { Self::Raw }
    }

    /// The programs for ingress and egress.
    fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Ethernet => [names::TC_INGRESS, names::TC_EGRESS],
            Self::Raw => [names::TC_INGRESS_RAW, names::TC_EGRESS_RAW],
        }
    }
}

/// Both hooks of one device.
pub(super) struct Attached {
    frames: Frames,
    ingress: SchedClassifierLinkId,
    egress: SchedClassifierLinkId,
}

impl Attached {
    /// What its programs take its packets for.
    pub(super) fn frames(&self) -> Frames {
        self.frames
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attached")
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("tcx", &self.tcx).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads them and attaches to the drop tracepoint.
    pub(super) fn load(kernel: &Kernel, settings: Settings<'_>) -> Result<Self, ProbeError> {
        let object = object().ok_or(ProbeError::NoObject)?;
        let offsets = OFFSETS
            .iter()
            .map(|(name, path)| Ok((*name, kernel.btf.offset(path)?)))
            .collect::<Result<Vec<(&str, u32)>, BtfError>>()?;
        // Its signature tells what the tracepoint has, whatever the version says (5.10: 2, 6.1: 3, 6.12: 4 arguments).
        let has_reason = u32::from(kernel.btf.tracepoint_arguments("kfree_skb").is_some_and(|count| count > 2));
        let netns = network_namespace().map_err(ProbeError::Namespace)?;
        let every_packet = u32::from(settings.every_packet);
        // Packets that are kept one by one are those that were asked for; counted is all by which their flows are judged.
        let program = |filter: &Filter| -> (kvmtrace_common::filter::Program, u32) {
            if settings.every_packet {
                return (*filter.program(), filter.length());
            }
            let (program, length) = filter.following();
            (*program, length)
        };
        let filter = settings.filter.map(program);
        let filter_length = filter.map_or(0, |(_, length)| length);
        let mut loader = EbpfLoader::new();
        for (name, offset) in &offsets {
            loader.override_global(name, offset, true);
        }
        loader.override_global(global::NETNS_INUM, &netns, true);
        loader.override_global(global::HAS_REASON, &has_reason, true);
        loader.override_global(global::EVERY_PACKET, &every_packet, true);
        let every_drop = u32::from(settings.every_drop);
        loader.override_global(global::EVERY_DROP, &every_drop, true);
        loader.override_global(global::FILTER_LENGTH, &filter_length, true);
        // No guest may choose addresses that share an account with another guest's.
        let share_salt = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0_u8);
        loader.override_global(global::SHARE_SALT, &share_salt, true);
        if settings.every_packet {
            loader.map_max_entries(names::EVENTS, RING_BYTES_EVERY_PACKET);
        }
        let log_level = kernel_log::level();
        loader.override_global(aya_log::LEVEL, &log_level, true);
        if log_level == 0 {
            // The map is made though nothing writes to it: as small as can be.
            loader.map_max_entries(names::LOG, PAGE);
        }
        // A place for each CPU up to the last that is online; one that comes later counts in the map.
        let cpus = online_cpus().map_err(|(_, error)| ProbeError::load(error))?.into_iter().max().unwrap_or(0) + 1;
        let hot_entries = cpus << HOT_SHIFT;
        loader.map_max_entries(names::HOT, hot_entries);
        let mut ebpf = loader.load(object).map_err(ProbeError::load)?;
        let gate = ebpf.take_map(names::GATE).ok_or(ProbeError::Absent(names::GATE))?;
        let gate = Array::try_from(gate).map_err(ProbeError::load)?;
        if let Some((program, _)) = filter {
            let map = ebpf.map_mut(names::FILTER).ok_or(ProbeError::Absent(names::FILTER))?;
            let mut map: Array<_, FilterProgram> = Array::try_from(map).map_err(ProbeError::load)?;
            map.set(0, FilterProgram(program), 0).map_err(ProbeError::load)?;
        }
        for name in Frames::Ethernet.programs() {
            classifier(&mut ebpf, name)?.load().map_err(ProbeError::load)?;
        }
        let mut programs = Self {
            ebpf,
            gate,
            hot_entries,
            share_salt,
            tcx: kernel.version >= TCX,
            degraded: Vec::new(),
            ids: BTreeMap::new(),
            devices: 0,
            grace_periods: GracePeriods::default(),
        };
        match programs.attach_drop() {
            Ok(()) => {}
            // A locked kernel lets no program read its memory, and a dropped packet's headers are found no other way. What
            // passes the hooks is counted all the same.
            Err(error) if is_locked_down() => programs.degraded.push(Degraded {
                what: "drops".to_owned(),
                why: format!("the kernel is locked down (confidentiality), so packets are counted but their drops not told; {error}"),
            }),
            Err(error) => return Err(error),
        }
        Ok(programs)
    }

    /// What could not be attached, though tracing goes on without.
    pub(super) fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    fn attach_drop(&mut self) -> Result<(), ProbeError> {
        let failed = |error: &dyn std::error::Error| ProbeError::Attach {
            device: "the kernel".to_owned(),
            hook: "tp_btf/kfree_skb",
            reason: reason(error),
        };
        let btf = Btf::from_sys_fs().map_err(|error| failed(&error))?;
        let program: &mut BtfTracePoint = self
            .ebpf
            .program_mut(names::KFREE_SKB)
            .ok_or(ProbeError::Absent(names::KFREE_SKB))?
            .try_into()
            .map_err(|error: ProgramError| failed(&error))?;
        program.load("kfree_skb", &btf).map_err(|error| failed(&error))?;
        program.attach().map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Lets the programs count, all at one moment: at devices with a smaller index than this. 0 stops them.
    pub(super) fn open_below(&mut self, limit: u32) -> Result<(), ProbeError> {
        self.gate.set(0, limit, 0).map_err(ProbeError::load)
    }

    /// Entries of the hot table.
    pub(super) fn hot_entries(&self) -> u32 {
        self.hot_entries
    }

    /// What the programs mix into the accounts of the table of shares.
    pub(super) fn share_salt(&self) -> u64 {
        self.share_salt
    }

    /// Attaches to both sides of a device.
    pub(super) fn attach(&mut self, device: &str, frames: Frames) -> Result<Attached, ProbeError> {
        let [ingress, egress] = frames.programs();
        for name in [ingress, egress] {
            let program = classifier(&mut self.ebpf, name)?;
            // Most hosts have no device of the other kind: its programs are loaded when there is one.
            if program.fd().is_err() {
                program.load().map_err(ProbeError::load)?;
            }
            if !self.ids.contains_key(name) {
                let id = classifier(&mut self.ebpf, name)?.info().map_err(ProbeError::load)?.id();
                self.ids.insert(name, id);
            }
        }
        if !self.tcx {
            // Exists already: fine. It can't be had: attaching will say so.
            if let Err(error) = aya::programs::tc::qdisc_add_clsact(device) {
                tracing::debug!(device, %error, "clsact");
            }
        }
        // First on the way in: a packet is counted before another program can drop it. Last on the way out: it is counted
        // when all others have let it pass.
        let ingress = self.attach_hook(device, ingress, TcAttachType::Ingress, LinkOrder::first())?;
        let egress = self.attach_hook(device, egress, TcAttachType::Egress, LinkOrder::last())?;
        self.devices += 1;
        Ok(Attached { frames, ingress, egress })
    }

    fn attach_hook(
        &mut self,
        device: &str,
        name: &'static str,
        hook: TcAttachType,
        order: LinkOrder,
    ) -> Result<SchedClassifierLinkId, ProbeError> {
        let options = if self.tcx {
            TcAttachOptions::TcxOrder(order)
        } else {
            // Before the filters that others have: those are numbered from 49152 down, or by their owners from 1 up.
            TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() })
        };
        classifier(&mut self.ebpf, name)?.attach_with_options(device, hook, options).map_err(|error| {
            ProbeError::Attach {
                device: device.to_owned(),
                hook: if matches!(hook, TcAttachType::Ingress) { "ingress" } else { "egress" },
                reason: if is_out_of_files() { out_of_files() } else { reason(&error) },
            }
        })
    }

    /// Loads the program that lets frames of our own enter by a device.
    pub(super) fn load_enter(&mut self) -> Result<(), ProbeError> {
        match enter(&mut self.ebpf)?.load() {
            // By the first device that frames entered by.
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
            Err(error) => Err(ProbeError::load(error)),
        }
    }

    /// Lets a frame enter by a device (`bpf_test_run_xdp_live`).
    pub(super) fn enter(&mut self, device: IfIndex, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> = [0, length, 0, device.0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        let program = enter(&mut self.ebpf).map_err(io::Error::other)?;
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error)) => Err(error.io_error),
            Err(error) => Err(io::Error::other(reason(&error))),
        }
    }

    /// What comes in by `own` enters by `device`.
    pub(super) fn attach_hand_over(&mut self, own: &str, device: IfIndex) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut(names::PROBED).ok_or(ProbeError::Absent(names::PROBED))?;
        let mut map: Array<_, u32> = Array::try_from(map).map_err(ProbeError::load)?;
        map.set(0, device.0, 0).map_err(ProbeError::load)?;
        classifier(&mut self.ebpf, names::HAND_OVER)?.load().map_err(ProbeError::load)?;
        if !self.tcx {
            // Ends with the device. It can't be had: attaching will say so.
            if let Err(error) = aya::programs::tc::qdisc_add_clsact(own) {
                tracing::debug!(own, %error, "clsact");
            }
        }
        self.attach_hook(own, names::HAND_OVER, TcAttachType::Ingress, LinkOrder::first()).map(drop)
    }

    /// The program that is attached to a hook of a device; nothing where it can't be asked for (tcx is of 6.6).
    pub(super) fn id_at(&self, attached: &Attached, hook: Hook) -> Option<u32> {
        let [ingress, egress] = attached.frames.programs();
        let name = match hook {
            Hook::Ingress => ingress,
            Hook::Egress => egress,
        };
        self.ids.get(name).copied().filter(|_| self.tcx)
    }

    /// Detaches from a device; one that is gone has detached itself.
    pub(super) fn detach(&mut self, attached: Attached) {
        self.devices = self.devices.saturating_sub(1);
        for (name, link) in attached.frames.programs().into_iter().zip([attached.ingress, attached.egress]) {
            if let Ok(program) = classifier(&mut self.ebpf, name)
                && let Err(error) = program.detach(link)
            {
                tracing::debug!(%error, "detach");
            }
        }
    }

    /// What the programs have cost so far; nothing where the kernel does not count it (`kernel.bpf_stats_enabled` is 0:
    /// counting costs too, so that it is the operator's to switch on).
    ///
    /// Each packet enters by one hook and leaves by another, so the busier side of the two tells how many there were.
    pub(super) fn cost(&self) -> Option<ProgramCost> {
        let enabled = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").ok()?;
        if enabled.trim() != "1" {
            return None;
        }
        let mut cost = ProgramCost::default();
        let (mut received, mut sent) = (0, 0);
        for (name, program) in self.ebpf.programs() {
            // Not loaded, so nothing has run.
            let Ok(info) = program.info() else { continue };
            cost.nanoseconds += u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            match name {
                names::TC_INGRESS | names::TC_INGRESS_RAW => received += info.run_count(),
                names::TC_EGRESS | names::TC_EGRESS_RAW => sent += info.run_count(),
                _ => {}
            }
        }
        cost.packets = u64::max(received, sent);
        Some(cost)
    }

    /// What the programs say of themselves; nothing when nobody listens.
    pub(super) fn take_log(&mut self) -> Option<KernelLog> {
        KernelLog::open(&mut self.ebpf)
    }

    /// Takes a map out; it lives as long as the caller keeps it.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<aya::maps::Map, ProbeError> {
        self.ebpf.take_map(name).ok_or(ProbeError::Absent(name))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // The links go with the fields.
        self.grace_periods.hold(self.devices);
    }
}

/// Removes the hooks that a killed run has left on these devices: clsact filters carry our programs' names, tcx links
/// (6.6 and later) have died with their process. Gives the devices that had some.
pub fn clean<'a>(devices: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    devices
        .filter(|device| {
            let remove = |name, hook| aya::programs::tc::qdisc_detach_program(device, hook, name).is_ok();
            let remove_both = |frames: Frames| {
                let [ingress, egress] = frames.programs();
                let removed = remove(ingress, TcAttachType::Ingress);
                remove(egress, TcAttachType::Egress) || removed
            };
            let removed = remove_both(Frames::Ethernet);
            remove_both(Frames::Raw) || removed
        })
        .collect()
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ProbeError> {
    ebpf.program_mut(name).ok_or(ProbeError::Absent(name))?.try_into().map_err(ProbeError::load)
}

fn enter(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProbeError> {
    ebpf.program_mut(names::ENTER).ok_or(ProbeError::Absent(names::ENTER))?.try_into().map_err(ProbeError::load)
}

#[cfg(not(no_bpf))]
#[allow(clippy::unnecessary_wraps, reason = "without an object there is none")]
fn object() -> Option<&'static [u8]> {
    Some(aya::include_bytes_aligned!(env!("KVMTRACE_BPF_OBJECT")))
}

#[cfg(no_bpf)]
fn object() -> Option<&'static [u8]> {
    None
}
