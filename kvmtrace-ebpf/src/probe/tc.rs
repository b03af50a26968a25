//! tc hooks: every packet of a device is counted, exceptions are told.

use crate::error::Error;
use crate::flow::Size;
use crate::{emit, filter, flow, packet};
use aya_ebpf::Global;
use aya_ebpf::programs::TcContext;
use kvmtrace_common::event::{Layer, NO_REASON, RecordFacts, RecordKind};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse;

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
    let (workspace, available) = packet::from_tc(context)?;
    let skb = context.skb.skb;
    // SAFETY: the context's own members; the verifier turns these into loads from the socket buffer.
    let (ifindex, input_ifindex, vlan_present, vlan_tci, gso_size, gso_segments, packet_type, protocol) = unsafe {
        (
            (*skb).ifindex,
            (*skb).ingress_ifindex,
            (*skb).vlan_present,
            (*skb).vlan_tci,
            (*skb).gso_size,
            (*skb).gso_segs,
            (*skb).pkt_type,
            (*skb).protocol,
        )
    };
    let vlan = if vlan_present == 0 { NO_VLAN } else { (vlan_tci & 0x0fff) as u16 };
    parse::ethernet(&workspace.header, available as usize, vlan, &mut workspace.parsed);
    let parsed = &mut workspace.parsed;
    flow::join_fragments(parsed);
    parsed.key.ifindex = ifindex;
    parsed.key.cpu = flow::this_cpu();
    parsed.key.direction = direction;
    if !filter::wants(&parsed.key, &workspace.header, true) {
        return Ok(());
    }
    let length = context.len();
    let size = Size::new(length, parsed.network_offset, parsed, gso_size, gso_segments);
    let counted = flow::count(workspace, &size)?;
    let parsed = &workspace.parsed;
    let kind = if EVERY_PACKET.load() == 1 {
        RecordKind::PACKET
    } else if parsed.icmp_error == 1 && is_milestone(counted.packets, size.packets) {
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
    emit::packet(
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
            header_length: available as u16,
            layer: Layer::ETHERNET,
            packet_type: packet_type as u8,
            _pad: [0; 2],
        },
        &workspace.header,
    )
}
