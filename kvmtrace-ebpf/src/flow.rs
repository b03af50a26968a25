//! The counters: one entry per flow and observation point, one per flow and drop site.
//!
//! The CPU is part of every key, so an entry has one writer: tc programs run with bottom halves off, and the kernel
//! does not run a tracepoint's program inside itself on one CPU (`__bpf_trace_run`). Plain additions are exact.

use crate::error::Error;
use crate::packet::Workspace;
use crate::share;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use kvmtrace_common::config::{
    DROP_ENTRIES, DROP_OVERFLOW_ENTRIES, FLOW_ENTRIES, FRAGMENT_ENTRIES, HOT_SHIFT, OVERFLOW_ENTRIES,
};
use kvmtrace_common::event::{DropPlace, Header, OverflowCounters, overflow_key};
use kvmtrace_common::flow::{DropCounters, DropKey, FlowCounters, FlowFlags, FlowKey, HotFlow, KeyWords, hot_index};
use kvmtrace_common::parse::{Facts, Parsed, tcp_flag};
use kvmtrace_common::share::Shared;

/// The flows that came first, each at the one place that its key gives. A search in [`FLOWS`] takes longer than all else
/// that is done for a packet; a look here is a multiplication and a comparison. The loader makes room for each CPU.
#[map]
static HOT: Array<HotFlow> = Array::with_max_entries(1 << HOT_SHIFT, BPF_F_MMAPABLE);
/// All other flows.
#[map]
static FLOWS: HashMap<FlowKey, FlowCounters> = HashMap::with_max_entries(FLOW_ENTRIES, 0);
#[map]
static DROPS: HashMap<DropKey, DropCounters> = HashMap::with_max_entries(DROP_ENTRIES, 0);
#[map]
static OVERFLOW: HashMap<u64, OverflowCounters> = HashMap::with_max_entries(OVERFLOW_ENTRIES, 0);
#[map]
static DROP_OVERFLOW: HashMap<DropPlace, OverflowCounters> = HashMap::with_max_entries(DROP_OVERFLOW_ENTRIES, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u32> = LruHashMap::with_max_entries(FRAGMENT_ENTRIES, 0);

/// A datagram that travels in fragments.
#[repr(C)]
#[derive(Clone, Copy)]
struct FragmentKey {
    source: [u8; 16],
    destination: [u8; 16],
    id: u32,
    protocol: u32,
}

/// The CPU that runs this program.
#[inline(always)]
pub(crate) fn this_cpu() -> u16 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() as u16 }
}

/// What one packet adds to the counters.
pub(crate) struct Size {
    /// Packets on the wire.
    pub(crate) packets: u64,
    /// Bytes on the wire, all headers of all segments included.
    pub(crate) bytes: u64,
    /// Length at layer 3 of the largest of them.
    pub(crate) largest: u32,
    /// Bytes behind the layer-4 header, once, of all of them together.
    pub(crate) payload: u32,
    /// It is a GSO frame.
    pub(crate) gso: bool,
}

impl Size {
    /// Of a packet of `length` bytes, `headers` of which every segment repeats and `link` of which are layer 2.
    #[inline(always)]
    pub(crate) fn new(length: u32, link: u32, facts: &Facts, gso_size: u32, gso_segments: u32) -> Self {
        if gso_size == 0 {
            let largest = if facts.network_length == 0 { length.saturating_sub(link) } else { facts.network_length };
            let payload = largest.saturating_sub(facts.header_length);
            return Self { packets: 1, bytes: u64::from(length), largest, payload, gso: false };
        }
        let headers = link + facts.header_length;
        // A tap leaves gso_segs at 0 (virtio_net_hdr_to_skb, SKB_GSO_DODGY): count as tcp_gso_segment will.
        let payload = length.saturating_sub(headers);
        let segments = if gso_segments == 0 { payload.wrapping_add(gso_size - 1) / gso_size } else { gso_segments };
        let segments = if segments == 0 { 1 } else { segments };
        let bytes = u64::from(length) + u64::from(segments - 1) * u64::from(headers);
        Self { packets: u64::from(segments), bytes, largest: facts.header_length + gso_size, payload, gso: true }
    }
}

/// What counting a packet told.
pub(crate) struct Counted {
    /// Packets of the flow at this point so far; with GSO the step is larger than one.
    pub(crate) packets: u64,
    /// It is the flow's first here; when.
    pub(crate) first: Option<u64>,
    /// It bears another source MAC address than the first, and is the first to do so.
    pub(crate) mac_changed: bool,
}

/// The place of a flow in the hot table; another flow may have it.
#[inline(always)]
fn hot(words: &KeyWords, cpu: u16) -> Option<&'static mut HotFlow> {
    let entry = HOT.get_ptr_mut(hot_index(words, cpu))?;
    // SAFETY: a valid pointer into the map, which lives as long as the program, and this CPU is the entry's only writer
    // but for the reader in user space, who clears an entry whose flow has rested for long.
    Some(unsafe { &mut *entry })
}

/// The same flow. Written out, or the compiler would make a call of it, and that a loop over bytes.
#[inline(always)]
fn is_of(entry: &HotFlow, words: &KeyWords) -> bool {
    let [a, b, c, d, e, f] = entry.key.words();
    let [g, h, i, j, k, l] = *words;
    (a ^ g) | (b ^ h) | (c ^ i) | (d ^ j) | (e ^ k) | (f ^ l) == 0
}

/// Adds a packet to its flow if that is known and the packet is like those before it.
#[inline(always)]
pub(crate) fn count_known(words: &KeyWords, cpu: u16, facts: &Facts, size: &Size, source_mac: [u8; 6]) -> bool {
    let counters = match hot(words, cpu) {
        Some(entry) if is_of(entry, words) => &mut entry.counters,
        _ => match FLOWS.get_ptr_mut(&FlowKey::from_words(*words)) {
            // SAFETY: the map gave a valid pointer, and this CPU is the entry's only writer.
            Some(counters) => unsafe { &mut *counters },
            None => return false,
        },
    };
    if counters.source_mac != source_mac {
        return false;
    }
    add(counters, facts, size, source_mac);
    true
}

/// Adds one packet to its flow at its observation point. `input`: the device that it came in by; `ethernet`: its header
/// begins with the MAC addresses.
#[inline(always)]
pub(crate) fn count(workspace: &mut Workspace, size: &Size, input: u32, ethernet: bool) -> Result<Counted, Error> {
    let Workspace { header, parsed, counters } = workspace;
    let [destination_mac, source_mac] = if ethernet { macs(header) } else { [[0; 6]; 2] };
    let words = parsed.key.words();
    let mut hot = hot(&words, parsed.key.cpu);
    if let Some(entry) = &mut hot
        && is_of(entry, &words)
    {
        return Ok(add(&mut entry.counters, &parsed.facts, size, source_mac));
    }
    if let Some(entry) = FLOWS.get_ptr_mut(&parsed.key) {
        // SAFETY: the map gave a valid pointer, and this CPU is the entry's only writer.
        return Ok(add(unsafe { &mut *entry }, &parsed.facts, size, source_mac));
    }
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    *counters = FlowCounters::default();
    counters.first_ns = now;
    counters.time_to_live = parsed.facts.time_to_live;
    counters.destination_mac = destination_mac;
    counters.source_mac = source_mac;
    counters.input_ifindex = input;
    counters.sequence = parsed.facts.tcp_sequence;
    let counted = Counted { first: Some(now), ..add(counters, &parsed.facts, size, source_mac) };
    if let Some(entry) = hot
        && entry.counters.packets == 0
    {
        entry.counters = FlowCounters { packets: 0, ..*counters };
        entry.key = parsed.key;
        // Last, and not sooner: to the reader the entry is free until then.
        // SAFETY: a reference is valid for writing.
        unsafe { (&raw mut entry.counters.packets).write_volatile(counters.packets) };
        return Ok(counted);
    }
    if let Some(charge) = share::room(Shared::FLOWS, FLOW_ENTRIES, &words, input)
        && FLOWS.insert(&parsed.key, counters, u64::from(BPF_NOEXIST)).is_ok()
    {
        charge.enter();
        return Ok(counted);
    }
    overflow(&parsed.key, size);
    Err(Error::FlowMapFull)
}

/// Destination and source of the Ethernet header.
#[inline(always)]
fn macs(header: &Header) -> [[u8; 6]; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header.bytes;
    [[a, b, c, d, e, f], [g, h, i, j, k, l]]
}

#[inline(always)]
fn add(entry: &mut FlowCounters, facts: &Facts, size: &Size, source_mac: [u8; 6]) -> Counted {
    entry.packets += size.packets;
    entry.bytes += size.bytes;
    if entry.largest < size.largest {
        entry.largest = size.largest;
    }
    if facts.fragment == 1 {
        entry.fragments += 1;
        if facts.later_fragment == 0 {
            entry.fragmented += 1;
        }
    }
    if size.gso {
        entry.gso += 1;
    }
    if facts.tcp_flags != 0 && size.payload != 0 {
        add_segment(entry, facts.tcp_sequence, size);
    }
    if facts.tcp_flags & (tcp_flag::SYN | tcp_flag::RST | tcp_flag::FIN) != 0 {
        entry.tcp_syn += u32::from(facts.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN);
        entry.tcp_syn_ack += u32::from(facts.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) > tcp_flag::ACK);
        entry.tcp_reset += u32::from(facts.tcp_flags & tcp_flag::RST != 0);
        entry.tcp_fin += u32::from(facts.tcp_flags & tcp_flag::FIN != 0);
        if facts.tcp_flags & tcp_flag::SYN != 0 {
            entry.sequence = facts.tcp_sequence.wrapping_add(1);
        }
    }
    let known = entry.flags;
    let mut flags = known | if facts.dont_fragment == 1 { FlowFlags::DONT_FRAGMENT } else { FlowFlags::MAY_FRAGMENT };
    if facts.malformed == 1 {
        flags |= FlowFlags::MALFORMED;
    }
    let mac_changed = known & FlowFlags::SOURCE_MAC_CHANGED == 0 && entry.source_mac != source_mac;
    if mac_changed {
        flags |= FlowFlags::SOURCE_MAC_CHANGED;
    }
    entry.flags = flags;
    Counted { packets: entry.packets, first: None, mac_changed }
}

/// Compares a segment with what came before it. Sequence numbers wrap (RFC 9293, 3.4). Segments of one flow that were
/// counted on several CPUs leave gaps in each count: nothing is then taken for repeated that was not.
#[inline(always)]
fn add_segment(entry: &mut FlowCounters, sequence: u32, size: &Size) {
    let known = entry.sequence.wrapping_sub(sequence);
    if known == 0 {
        entry.sequence = sequence.wrapping_add(size.payload);
    } else if known >= 1 << 31 {
        entry.missing_bytes += u64::from(known.wrapping_neg());
        entry.sequence = sequence.wrapping_add(size.payload);
    } else if known < size.payload {
        entry.repeated += 1;
        entry.repeated_bytes += u64::from(known);
        entry.sequence = sequence.wrapping_add(size.payload);
    } else {
        entry.repeated += size.packets as u32;
        entry.repeated_bytes += u64::from(size.payload);
    }
}

/// The flow has no entry: at least the device's sums stay right.
#[inline(always)]
fn overflow(key: &FlowKey, size: &Size) {
    add_overflow(&OVERFLOW, &overflow_key(key.ifindex, key.direction, key.cpu), size);
}

/// Adds to the sums of a place. Where there are more places than entries, the loss counter alone knows of the packet.
#[inline(always)]
fn add_overflow<K>(map: &HashMap<K, OverflowCounters>, place: &K, size: &Size) {
    if let Some(entry) = map.get_ptr_mut(place) {
        // SAFETY: the map gave a valid pointer, and this CPU is the entry's only writer.
        unsafe {
            (*entry).packets += size.packets;
            (*entry).bytes += size.bytes;
        }
    } else if map.insert(place, &OverflowCounters { packets: size.packets, bytes: size.bytes }, 0).is_err() {
    }
}

/// Adds one packet to a drop site; gives how many it has taken from this flow so far. `input`: the device that it came in
/// by.
#[inline(always)]
pub(crate) fn count_drop(key: &DropKey, size: &Size, input: u32) -> Result<u64, Error> {
    if let Some(entry) = DROPS.get_ptr_mut(key) {
        // SAFETY: as in add().
        return Ok(unsafe { add_drop(entry, size) });
    }
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let counters = DropCounters {
        packets: size.packets,
        bytes: size.bytes,
        first_ns: now,
        largest: size.largest,
        input_ifindex: input,
    };
    if let Some(charge) = share::room(Shared::DROPS, DROP_ENTRIES, &key.flow.words(), input)
        && DROPS.insert(key, &counters, u64::from(BPF_NOEXIST)).is_ok()
    {
        charge.enter();
        return Ok(size.packets);
    }
    let DropKey { flow: FlowKey { ifindex, cpu, .. }, location, reason, .. } = *key;
    add_overflow(&DROP_OVERFLOW, &DropPlace { location, ifindex, reason, cpu: u32::from(cpu), _pad: 0 }, size);
    Err(Error::DropMapFull)
}

/// # Safety
/// `entry` must be a pointer that the map gave.
#[inline(always)]
unsafe fn add_drop(entry: *mut DropCounters, size: &Size) -> u64 {
    // SAFETY: as in add().
    unsafe {
        (*entry).packets += size.packets;
        (*entry).bytes += size.bytes;
        if (*entry).largest < size.largest {
            (*entry).largest = size.largest;
        }
        (*entry).packets
    }
}

/// Gives a later fragment the ports of its datagram's first, so that both are one flow; remembers those of a first.
#[inline(always)]
pub(crate) fn join_fragments(parsed: &mut Parsed) {
    if parsed.facts.fragment == 0 {
        return;
    }
    let key = FragmentKey {
        source: parsed.key.source,
        destination: parsed.key.destination,
        id: parsed.facts.fragment_id,
        protocol: u32::from(parsed.key.protocol),
    };
    if parsed.facts.later_fragment == 1 {
        // SAFETY: a torn read would need the entry to be reused for another datagram at this very moment; the ports
        // would be another flow's, the counts one packet off.
        if let Some(ports) = unsafe { FRAGMENTS.get(&key) } {
            parsed.key.source_port = (*ports >> 16) as u16;
            parsed.key.destination_port = *ports as u16;
        }
        return;
    }
    let ports = u32::from(parsed.key.source_port) << 16 | u32::from(parsed.key.destination_port);
    // Without the entry the later fragments stand as a flow without ports.
    if FRAGMENTS.insert(&key, &ports, 0).is_err() {}
}
