//! `fragments-lost`, `fragmented-by-guest`, `fragmented-by-host`, `fragmented-by-bridge`: who cuts packets up, and what
//! becomes of the pieces.

use crate::diagnose::case::{Case, Way};
use crate::diagnose::dropped::Dropped;
use crate::diagnose::fix::{device, sysctl};
use crate::diagnose::judgement::{Judgement, at, beyond};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::{Direction, FlowCounters, Place};

/// Pieces that waited in vain for the others.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let timeout = drop.because(&["FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"])
        || drop.is_unspecified()
            && drop.within(&["ip_expire", "ip6_frag_expire", "ip6frag_expire_frag_queue", "inet_frag_destroy"]);
    if !timeout {
        let memory = memory_of(drop)?;
        let early = drop.through(&["ipv4_conntrack_defrag", "nf_ct_ipv4_gather_frags", "nf_hook_slow"]);
        let point = if early { Point::NetfilterPrerouting } else { Point::HostInput };
        return Some(not_kept(case, drop, memory, point));
    }
    let device = drop.device().or(case.device())?;
    let explanation =
        format!("{} were pieces of datagrams of which other pieces never came to this host.", words::dropped(case));
    Some(
        Judgement::dropped(Cause::FragmentsLost, at(case.scene, device, Point::HostInput).of(drop), explanation)
            .fix(avoid()),
    )
}

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
fn memory_of(drop: &Dropped<'_>) -> Option<Memory> {
    let memory = match drop.function() {
        "ip_defrag" | "ip_frag_queue" => Memory { bound: "net.ipv4.ipfrag_high_thresh", used: Some("FRAG.memory") },
        "ipv6_frag_rcv" | "ip6_frag_queue" => {
            Memory { bound: "net.ipv6.ip6frag_high_thresh", used: Some("FRAG6.memory") }
        }
        _ => return None,
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
    let what = format!("{} were pieces of datagrams that this host has to put together", words::dropped(case));
    let full = bound.is_some_and(|bound| used.is_some_and(|used| used >= bound) || bound < USUAL);
    let why = if full {
        format!("and its memory for pieces that wait is full ({name} = {})", bound.unwrap_or(0))
    } else {
        format!("and it could not: its memory for pieces that wait was full ({name}), or pieces contradict each other")
    };
    let larger = bound.unwrap_or(USUAL).saturating_mul(2).max(USUAL);
    let raise = sysctl::set(host, name, &larger.to_string(), "Lets more pieces wait for the rest of their datagrams.")
        .risk("A sender of pieces alone can take that much of the kernel's memory.");
    let state =
        [bound.map(|bound| format!("{name} = {bound}")), used.map(|used| format!("in use at the end: {used} bytes"))];
    Judgement::dropped(Cause::FragmentsLost, place, format!("{what}, {why}."))
        .evidence(state.into_iter().flatten())
        .fix(raise)
        .fix(Fix::advice("Or send datagrams that fit the path's MTU, so that none has to be put together."))
}

fn avoid() -> Fix {
    Fix::advice(
        "Find out who drops fragments on the way (firewalls often do), or send datagrams that fit the path's MTU.",
    )
}

/// The receiver says that pieces are missing.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let error = case.errors.iter().find(|error| error.about.is_reassembly_timeout())?;
    let explanation = format!(
        "{} were sent in fragments, and {} never got all pieces of them (ICMP \"reassembly time exceeded\").",
        words::packets(case.packets()),
        error.about.from
    );
    let place = beyond(case.last_device().map(|device| case.scene.name(device)));
    Some(Judgement::dropped(Cause::FragmentsLost, place, explanation).verdict(Verdict::Lost).fix(avoid()))
}

/// A flow that arrives, in pieces.
pub fn judge_delivered(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let (entry, at_entry) = case.entry()?;
    let exit = case.hops.iter().find(|(place, counters)| counters.fragments > 0 && *place != entry);
    if at_entry.fragments > 0 && entry.direction == Direction::Egress && !case.is_from_guest() {
        return Some(by_this_host(case, entry, at_entry));
    }
    if at_entry.fragments > 0 {
        let name = scene.name(entry.device);
        let who = if case.is_from_guest() { "The guest" } else { "The sender" };
        let per = at_entry.fragments / at_entry.fragmented.max(1);
        let explanation = format!(
            "{who} sends {} in fragments, {per} each, of up to {} bytes (seen at {name}).",
            datagrams(at_entry.fragmented),
            at_entry.largest
        );
        let place = if case.is_from_guest() {
            at(scene, entry.device, Point::TapIngress)
        } else {
            at(scene, entry.device, Point::NicIngress)
        };
        return Some(
            Judgement::dropped(Cause::FragmentedByGuest, place, explanation)
                .verdict(Verdict::Fragmented)
                .severity(Severity::Info)
                .fix(Fix::advice(
                    "Nothing is lost; datagrams that fit the MTU of the sender's interface would not be cut up.",
                )),
        );
    }
    let (place, counters) = exit?;
    let link = scene.link(place.device)?;
    let routed = matches!(case.way(), Way::Routed)
        || case.hops.iter().any(|(place, _)| {
            place.direction == Direction::Ingress
                && matches!(scene.role(place.device), crate::diagnose::scene::Role::Bridge)
        });
    let (cause, who, point) = if routed || !case.is_from_guest() && scene.bridge_of(entry.device).is_none() {
        (Cause::FragmentedByHost, "This host", Point::Routing)
    } else {
        (Cause::FragmentedByBridge, "The bridge (br_netfilter)", Point::BridgeEgress)
    };
    let whole = at_entry.largest;
    let explanation = format!(
        "{who} cuts packets of up to {whole} bytes into fragments for {} (MTU {}): {} became {} fragments.",
        link.name,
        link.mtu,
        datagrams(counters.fragmented),
        counters.fragments
    );
    let port = case.device().and_then(|device| scene.link(device));
    let why = format!("Packets of {whole} bytes then pass {} whole.", link.name);
    let raise = device::mtu_before(scene.host, link, port, whole.max(link.mtu), why);
    Some(
        Judgement::dropped(cause, at(scene, link.index, point), explanation)
            .verdict(Verdict::Fragmented)
            .severity(Severity::Warning)
            .fix(raise)
            .fix(Fix::advice(format!(
                "Or let the guest send packets of at most {} bytes: set the MTU of its interface.",
                link.mtu
            ))),
    )
}

/// Its datagrams are this host's own. That is as it should be, unless the device is narrower than what the guest hangs on.
fn by_this_host(case: &Case<'_>, entry: Place, counters: &FlowCounters) -> Judgement {
    let scene = case.scene;
    let name = scene.name(entry.device);
    let link = scene.link(entry.device);
    let limit = link.map(|link| format!(" (MTU {})", link.mtu)).unwrap_or_default();
    let explanation = format!(
        "This host sends {} in fragments, {} each, of up to {} bytes by {name}{limit}.",
        datagrams(counters.fragmented),
        counters.fragments / counters.fragmented.max(1),
        counters.largest
    );
    let judgement =
        Judgement::dropped(Cause::FragmentedByHost, at(scene, entry.device, Point::HostOutput), explanation)
            .verdict(Verdict::Fragmented);
    let port = case.device().and_then(|device| scene.link(device));
    match link.zip(port).filter(|(link, port)| link.mtu < port.mtu) {
        Some((link, port)) => judgement.severity(Severity::Warning).fix(device::mtu(
            link,
            port.mtu,
            format!("{} then carries what {} does.", link.name, port.name),
        )),
        None => judgement
            .severity(Severity::Info)
            .fix(Fix::advice("Nothing is lost; datagrams that fit the MTU would not be cut up.")),
    }
}

fn datagrams(count: u32) -> String {
    format!("{count} {}", if count == 1 { "datagram" } else { "datagrams" })
}
