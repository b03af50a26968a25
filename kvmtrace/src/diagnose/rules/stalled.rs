//! A TCP conversation that began and stands still: segments go out again and again, and nothing comes back any more. Where
//! only the first, small ones were ever answered, what is large dies beyond this host and nobody tells the sender
//! (`pmtu-black-hole`); else the far end, or the way there, went (`no-reply`).

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::event::{FlowCounters, Protocol};
use std::net::IpAddr;

/// The last answer is older than the last packet by this: two retransmissions at the least have gone unanswered (RFC 6298, the
/// kernel's `TCP_RTO_MIN` of 200 ms, doubled each time).
const STILL_NS: u64 = 1_000_000_000;
/// Packets that went out beyond the answers.
const AHEAD: u64 = 4;
/// A segment of this size is a large one: every path carries 576 bytes (RFC 1122), most tunnels 1,280.
const LARGE: u32 = 1_281;
/// Answers of a handshake and a first small exchange.
const BEGINNING: u64 = 5;
/// Segments that come again, because they are too large, have so many bytes on average; the last of several is smaller.
const REPEATED: u64 = 700;
/// Segments that a connection sends before the first acknowledgement (RFC 6928), which is all that it ever has under way
/// where each exchange is small.
const BEGINNING_WINDOW: u64 = 10;
/// A small exchange has no more bytes than this.
const SMALL: u64 = 300;
/// Where black holes are, paths still carry 1,280 bytes (RFC 8200): what is left of that behind the headers.
const SEGMENT: [(bool, u16); 2] = [(false, 1_240), (true, 1_220)];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let whole = case.key().protocol == Protocol::Tcp && case.dropped() == 0 && case.scene.sees_answers();
    if !whole || case.left() == 0 || case.answers.iter().any(|flow| !flow.drops.is_empty()) {
        return None;
    }
    let ends = |counters: &FlowCounters| counters.tcp_reset > 0 || counters.tcp_fin > 0;
    let own = || case.group.flows().flat_map(|flow| flow.places.values());
    let back = || case.answers.iter().flat_map(|flow| flow.places.values());
    let opened = own().chain(back()).any(|counters| counters.tcp_syn_ack > 0);
    let answered = case.answers.iter().map(|flow| flow.packets()).max()?;
    let last = case.answers.iter().map(|flow| flow.last).max()?;
    let is_still = case.group.main.last.0.saturating_sub(last.0) >= STILL_NS && case.packets() >= answered + AHEAD;
    if !opened || !is_still || answered == 0 || back().any(ends) {
        return None;
    }
    let largest = own().map(|counters| counters.largest).max().unwrap_or(0);
    // Segments that came again, and were large, while no more was let through than a sender begins with.
    let own_most = |value: fn(&FlowCounters) -> u64| own().map(value).max().unwrap_or(0);
    let repeated = own_most(|counters| u64::from(counters.repeated));
    let repeated_bytes = own_most(|counters| counters.repeated_bytes);
    let once = case.bytes().saturating_sub(repeated_bytes);
    let only_large = repeated >= 2
        && repeated_bytes >= repeated * REPEATED
        && once <= BEGINNING_WINDOW * u64::from(largest) + SMALL * answered;
    let is_hole = largest >= LARGE && (answered <= BEGINNING || only_large);
    let (place, whose) = match case.way() {
        Way::Guest(device) => {
            let guest = case.scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
            (at(case.scene, device, Point::Guest), guest)
        }
        Way::Host => (at(case.scene, case.hops.last()?.0.device, Point::HostInput), "this host".to_owned()),
        Way::Uplink | Way::Routed | Way::Group | Way::Unknown => {
            (beyond(case.last_device().map(|device| case.scene.name(device))), "what lies beyond this host".to_owned())
        }
    };
    let to = case.key().destination;
    let seconds = case.group.main.last.0.saturating_sub(last.0) as f64 / 1e9;
    let still = format!(
        "The conversation with {to} stands still: {} went out in order, and for {seconds:.1} s nothing came back from {whose}.",
        crate::diagnose::words::packets(case.packets())
    );
    let judgement = |cause, explanation| {
        Judgement::dropped(cause, place.clone(), explanation).verdict(Verdict::Unanswered).severity(Severity::Warning)
    };
    if !is_hole {
        let advice = format!(
            "See whether {to} still runs and is reachable, and whether a firewall on the way forgot the connection."
        );
        return Some(judgement(Cause::NoReply, still).fix(Fix::advice(advice)));
    }
    let explanation = format!(
        "{still} Only its beginning was answered, in small packets; segments of up to {largest} bytes were not: something on the way drops what is large and tells nobody."
    );
    let host = matches!(case.way(), Way::Guest(_) | Way::Host);
    Some(
        judgement(Cause::PmtuBlackHole, explanation)
            .evidence([format!("{answered} answers, the last one {seconds:.1} s before the last segment")])
            .fixes(clamp(case).filter(|_| !host))
            .fix(Fix::advice(format!(
                "Or set a smaller MTU in the guest; and find the router that can't pass {largest} bytes (kvmtrace probe --sweep --df; tracepath {to}): it, or a firewall before it, has to let \"fragmentation needed\" and \"packet too big\" out."
            ))),
    )
}

/// Both ends are offered a smaller segment size as this host forwards the beginning of a connection (`nft_exthdr_tcp_set_eval`
/// never makes it larger).
fn clamp(case: &Case<'_>) -> Option<Fix> {
    let routed = case.hops.iter().any(|(place, _)| Some(place.device) == case.bridge().map(|bridge| bridge.index))
        || matches!(case.way(), Way::Routed);
    let to = case.key().destination.ip().filter(|_| routed)?;
    let (_, size) = SEGMENT.into_iter().find(|(v6, _)| *v6 == to.is_ipv6())?;
    let word = if matches!(to, IpAddr::V4(_)) { "ip" } else { "ip6" };
    let table = format!("{word} kvmtrace_mss_{}", to.to_string().replace([':', '.'], "-"));
    let rule = |side: &str| {
        format!("add rule {table} forward {word} {side} {to} tcp flags syn tcp option maxseg size set {size}")
    };
    let rules = format!(
        "add table {table}; add chain {table} forward {{ type filter hook forward priority -150; }}; {}; {}",
        rule("daddr"),
        rule("saddr")
    );
    let fix = Fix::run(
        format!("nft {}", quote(&rules)),
        format!("nft delete table {table}"),
        format!("New connections with {to} agree on segments of {size} bytes at most, which pass."),
    );
    Some(
        fix.risk(format!("Transfers with {to} take some more packets; datagrams (QUIC, IPsec) are not helped."))
            .persist("Put the rules into /etc/nftables.conf."),
    )
}
