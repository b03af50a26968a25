//! tc hooks: every packet of a device is counted, exceptions are told.

use crate::error::Error;
use crate::flow::Size;
use crate::packet::Workspace;
use crate::{emit, filter, flow, gate, packet};
use aya_ebpf::Global;
use aya_ebpf::programs::TcContext;
use kvmtrace_common::event::{Layer, NO_REASON, RecordFacts, RecordKind};
use kvmtrace_common::flow::{NO_VLAN, place_word};
use kvmtrace_common::parse;
use kvmtrace_common::quick::{self, Quick};

#[unsafe(no_mangle)]
static EVERY_PACKET: Global<u32> = Global::new(0);

/// A record is made at 1, 2, 4, 8, … packets: the step from `before` to `now` passed a power of two.
#[inline(always)]
pub(crate) fn is_milestone(now: u64, step: u64) -> bool {
    // The highest bit of `now` is not that of the count before it.
    let before = now - step;
    now ^ before > before
}

/// One packet at a tc hook.
#[inline(always)]
pub(crate) fn packet(context: &TcContext, direction: u8) -> Result<(), Error> {
    let skb = context.skb.skb;
    // SAFETY: the context's own members; the verifier turns these into loads from the socket buffer.
    let (ifindex, vlan_present, vlan_tci, gso_size, gso_segments) =
        unsafe { ((*skb).ifindex, (*skb).vlan_present, (*skb).vlan_tci, (*skb).gso_size, (*skb).gso_segs) };
    if !gate::is_open_for(ifindex) {
        return Ok(());
    }
    let cpu = flow::this_cpu();
    let vlan = if vlan_present == 0 { NO_VLAN } else { (vlan_tci & 0x0fff) as u16 };
    let length = context.len();
    if EVERY_PACKET.load() == 0 && !filter::is_set() {
        let bytes = packet::InPlace::new(context);
        if let Some(Quick { mut words, facts }) = quick::parse(&bytes, vlan) {
            let [.., place] = &mut words;
            *place = place_word(ifindex, direction, cpu);
            let size = Size::new(length, facts.network_offset, &facts, gso_size, gso_segments);
            if flow::count_known(&words, cpu, &facts, &size, bytes.source_mac()) {
                return Ok(());
            }
        }
    }
    let (workspace, available) = packet::from_tc(context)?;
    parse::ethernet(&workspace.header, available as usize, vlan, &mut workspace.parsed);
    let seen = Seen { ifindex, direction, cpu, length, available, layer: Layer::ETHERNET, gso_size, gso_segments };
    count_and_tell(context, workspace, &seen)
}

/// One packet at a tc hook of a device without an Ethernet header.
#[inline(always)]
pub(crate) fn raw_packet(context: &TcContext, direction: u8) -> Result<(), Error> {
    let skb = context.skb.skb;
    // SAFETY: as above.
    let (ifindex, vlan_present, vlan_tci, protocol, gso_size, gso_segments) = unsafe {
        ((*skb).ifindex, (*skb).vlan_present, (*skb).vlan_tci, (*skb).protocol, (*skb).gso_size, (*skb).gso_segs)
    };
    if !gate::is_open_for(ifindex) {
        return Ok(());
    }
    let vlan = if vlan_present == 0 { NO_VLAN } else { (vlan_tci & 0x0fff) as u16 };
    let (workspace, available) = packet::from_tc_at_layer_3(context)?;
    let protocol = (protocol as u16).swap_bytes();
    parse::raw(&workspace.header, available as usize, protocol, vlan, &mut workspace.parsed);
    // The hook's length includes outer headers that a tunnel has left before the packet: its own header knows better.
    let (whole, own) = (context.len(), workspace.parsed.facts.network_length);
    let length = if own != 0 && own < whole { own } else { whole };
    let cpu = flow::this_cpu();
    let seen = Seen { ifindex, direction, cpu, length, available, layer: Layer::NETWORK, gso_size, gso_segments };
    count_and_tell(context, workspace, &seen)
}

/// A packet at a hook, beside what its headers say.
struct Seen {
    ifindex: u32,
    direction: u8,
    cpu: u16,
    /// Length in bytes from `layer` on.
    length: u32,
    /// How many of its bytes are in the workspace.
    available: u32,
    /// See [`Layer`].
    layer: u8,
    gso_size: u32,
    gso_segments: u32,
}

/// Counts a packet that has been parsed, and makes a record of an exception.
#[inline(always)]
fn count_and_tell(context: &TcContext, workspace: &mut Workspace, seen: &Seen) -> Result<(), Error> {
    let Seen { length, gso_size, .. } = *seen;
    let ethernet = seen.layer == Layer::ETHERNET;
    let parsed = &mut workspace.parsed;
    flow::join_fragments(parsed);
    parsed.key.ifindex = seen.ifindex;
    parsed.key.cpu = seen.cpu;
    parsed.key.direction = seen.direction;
    if !filter::wants(&parsed.key, &workspace.header, ethernet) {
        return Ok(());
    }
    let size = Size::new(length, parsed.facts.network_offset, &parsed.facts, gso_size, seen.gso_segments);
    let skb = context.skb.skb;
    // SAFETY: as above.
    let input_ifindex = unsafe { (*skb).ingress_ifindex };
    let counted = flow::count(workspace, &size, input_ifindex, ethernet)?;
    let parsed = &workspace.parsed;
    let kind = if EVERY_PACKET.load() == 1 {
        RecordKind::PACKET
    } else if parsed.facts.icmp_error == 1 && is_milestone(counted.packets, size.packets) {
        RecordKind::ICMP_ERROR
    } else if counted.mac_changed {
        RecordKind::MAC_CHANGED
    } else if let Some(now) = counted.first
        && emit::may_tell_first(now)
    {
        RecordKind::FIRST
    } else {
        return Ok(());
    };
    // SAFETY: as above.
    let (packet_type, protocol) = unsafe { ((*skb).pkt_type, (*skb).protocol) };
    emit::packet(
        EVERY_PACKET.load() == 1,
        &mut RecordFacts {
            time_ns: 0,
            location: 0,
            count: counted.packets,
            flow: parsed.key,
            kind,
            reason: NO_REASON,
            stack_bytes: 0,
            length,
            input_ifindex,
            gso_size: gso_size as u16,
            segments: size.packets as u16,
            ether_type: (protocol as u16).swap_bytes(),
            header_length: seen.available as u16,
            layer: seen.layer,
            packet_type: packet_type as u8,
            _pad: [0; 2],
        },
        &workspace.header,
    )
}
