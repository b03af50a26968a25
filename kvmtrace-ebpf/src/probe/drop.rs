//! `kfree_skb`: every packet that the kernel drops in the traced namespace.

use crate::error::Error;
use crate::flow::Size;
use crate::probe::tc::is_milestone;
use crate::skb::SocketBuffer;
use crate::{emit, filter, flow, gate, packet};
use aya_ebpf::Global;
use aya_ebpf::programs::BtfTracePointContext;
use kvmtrace_common::event::{Layer, NO_REASON, RecordFacts, RecordKind};
use kvmtrace_common::flow::DropKey;
use kvmtrace_common::parse;

#[unsafe(no_mangle)]
static HAS_REASON: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static EVERY_DROP: Global<u32> = Global::new(0);

/// One dropped packet.
#[inline(always)]
pub(crate) fn packet(context: &BtfTracePointContext) -> Result<(), Error> {
    if !gate::is_open() {
        return Ok(());
    }
    let skb = SocketBuffer::new(context.arg::<*const u8>(0));
    let Some(ifindex) = skb.traced_device() else { return Ok(()) };
    let location: u64 = context.arg(1);
    let reason = if HAS_REASON.load() == 1 { context.arg::<u32>(2) } else { NO_REASON };
    let facts = skb.facts();
    let start = facts.network - facts.ethernet;
    let whole = facts.length.wrapping_add(facts.ethernet);
    let (workspace, available) = packet::from_memory(facts.head.wrapping_add(u64::from(start)), whole)?;
    // Masked where the compiler can't see that it is small already: the verifier of 6.1 sees it by the mask alone.
    let offset = core::hint::black_box(facts.ethernet as usize) & 0x1f;
    let parsed = &mut workspace.parsed;
    parse::network(&workspace.header, available as usize, offset, facts.ether_type, facts.vlan, parsed);
    if facts.ethernet != 0 {
        parse::behind_ethernet(&workspace.header, available as usize, parsed);
    }
    flow::join_fragments(parsed);
    parsed.key.ifindex = ifindex;
    parsed.key.cpu = flow::this_cpu();
    if !filter::wants(&parsed.key, &workspace.header, facts.ethernet != 0) {
        return Ok(());
    }
    let (gso_size, gso_segments) = facts.gso();
    let size = Size::new(facts.length, 0, &parsed.facts, u32::from(gso_size), u32::from(gso_segments));
    let key = DropKey { flow: parsed.key, location, reason, _pad: 0 };
    let count = flow::count_drop(&key, &size, facts.input_ifindex)?;
    if EVERY_DROP.load() == 0 && !is_milestone(count, size.packets) {
        return Ok(());
    }
    let mut record = RecordFacts {
        time_ns: 0,
        location,
        count,
        flow: parsed.key,
        kind: RecordKind::DROP,
        reason,
        stack_bytes: 0,
        length: whole,
        input_ifindex: facts.input_ifindex,
        gso_size,
        segments: size.packets as u16,
        ether_type: facts.ether_type,
        header_length: available as u16,
        layer: if facts.ethernet == 0 { Layer::NETWORK } else { Layer::ETHERNET },
        packet_type: facts.packet_type,
        _pad: [0; 2],
    };
    emit::drop(context, &mut record, &workspace.header)
}
