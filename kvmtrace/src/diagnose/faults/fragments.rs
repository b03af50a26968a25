//! `fragments-lost`: pieces that wait for others which never come, or that find no room to wait.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::beyond;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};

/// Memory for pieces that wait for the rest of their datagrams: its bound, and what tells how much of it is in use.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    bound: &'static str,
    used: Option<&'static str>,
}

/// Conntrack's own, for IPv6.
pub const CONNTRACK_IPV6: Memory = Memory { bound: "net.netfilter.nf_conntrack_frag6_high_thresh", used: None };

/// Where a datagram gets no place any more, its pieces are freed without a reason: `ip_defrag` (`ip_find`) and
/// `ipv6_frag_rcv` (`fq_find`). Pieces that contradict each other die in the same functions (`ip_frag_queue`).
pub(in crate::diagnose) fn memory_of(drop: &Dropped<'_>) -> Option<Memory> {
    let memory = if drop.within(Site::FragmentsIpv4) {
        Memory { bound: "net.ipv4.ipfrag_high_thresh", used: Some("FRAG.memory") }
    } else if drop.within(Site::FragmentsIpv6) {
        Memory { bound: "net.ipv6.ip6frag_high_thresh", used: Some("FRAG6.memory") }
    } else {
        return None;
    };
    drop.is_unspecified().then_some(memory)
}

/// The kernel's own bound, in bytes (`IPFRAG_HIGH_THRESH`).
const USUAL: u64 = 4 << 20;

/// Pieces that this host could not keep until the datagram was whole.
pub fn not_kept(case: &Case<'_>, drop: &Dropped<'_>, memory: Memory, point: Point) -> Judgement {
    let host = case.scene.host;
    let bound: Option<u64> = host.sysctl(memory.bound).and_then(|value| value.parse().ok());
    let used = memory.used.and_then(|name| host.counters.get(name).copied());
    let name = memory.bound;
    let device = drop.device().or(case.device());
    let mut place = beyond(device.map(|device| case.scene.name(device))).of(drop);
    place.point = point;
    let what = format!("{} were pieces of datagrams that this host has to put together", case.dropped_share());
    let full = bound.is_some_and(|bound| used.is_some_and(|used| used >= bound) || bound < USUAL);
    let why = if full {
        format!("and its memory for pieces that wait is full ({name} = {})", bound.unwrap_or(0))
    } else {
        format!("and it could not: its memory for pieces that wait was full ({name}), or pieces contradict each other")
    };
    let avoid = Fix::advice("Or send datagrams that fit the path's MTU, so that none has to be put together.");
    let state =
        [bound.map(|bound| format!("{name} = {bound}")), used.map(|used| format!("in use at the end: {used} bytes"))];
    let judgement = Judgement::dropped(Cause::FragmentsLost, place, format!("{what}, {why}."))
        .evidence(state.into_iter().flatten());
    // Whoever sends pieces that overlap would make its cure a larger bound for all.
    if !full {
        return judgement.fix(Fix::advice(format!(
            "Look at the counters (nstat -az IpReasm*): where IpReasmOverlaps grows, the sender's pieces overlap and no setting of this host helps; where the memory in use (FRAG in /proc/net/sockstat) comes near {name}, raise that."
        ))).fix(avoid);
    }
    let larger = bound.unwrap_or(USUAL).saturating_mul(2).max(USUAL);
    let raise = sysctl::set(host, name, &larger.to_string(), "Lets more pieces wait for the rest of their datagrams.")
        .risk("A sender of pieces alone can take that much of the kernel's memory.");
    judgement.fix(raise).fix(avoid)
}

pub(in crate::diagnose) fn avoid() -> Fix {
    Fix::advice(
        "Find out who drops fragments on the way (firewalls often do), or send datagrams that fit the path's MTU.",
    )
}
