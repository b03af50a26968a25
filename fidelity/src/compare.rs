//! What the model expected of a packet against what the kernel did with it.

use crate::frame::Likeness;
use crate::sites::{self, Kind};
use crate::wires::{Place, Sighting};
use kvmtrace::event::{HostState, IfIndex};
use kvmtrace::forward::packet::{Fragment, Network, Packet};
use kvmtrace::forward::step::{Arrival, Hook, Outcome, Stage, Step, Stop, Walk};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// A packet's end in the kernel.
#[derive(Clone, Debug)]
pub struct Death {
    /// The function that freed it.
    pub function: Option<String>,
    /// `skb->dev`.
    pub device: Option<IfIndex>,
    /// Why, as the kernel names it.
    pub reason: Option<String>,
    /// What called the function, innermost first.
    pub stack: Vec<String>,
    /// What died was the packet, an error about it or an answer to it.
    pub likeness: Likeness,
}

/// All that was seen of a packet.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What came out somewhere.
    pub sightings: Vec<Sighting>,
    /// Where it, or a copy, died.
    pub deaths: Vec<Death>,
    /// The stack refused it before it was under way.
    pub refused: Option<Errno>,
    /// Its ARP request or solicitation was answered.
    pub answered: bool,
}

/// What comparing a packet has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel did what the walk says.
    Agree,
    /// The walk says that it can't know, and what it does say holds.
    Unknown,
    /// The walk is wrong: how.
    Contradiction(String),
}

/// What the walk expects.
#[derive(Debug, Default)]
struct Expected<'w> {
    /// Places that the packet surely reaches, with its last form.
    arrivals: Vec<(Place, &'w Packet)>,
    /// Places that it may reach.
    possible: BTreeSet<Place>,
    /// Where it surely ends.
    stops: Vec<(End<'w>, &'w Stop)>,
    /// Where it may end.
    possible_stops: Vec<End<'w>>,
    /// Some stage can't be known.
    doubtful: bool,
    /// A copy is passed over by whom it reaches.
    ignored: bool,
}

/// A step at which a copy ends.
#[derive(Clone, Debug)]
struct End<'w> {
    step: &'w Step,
    /// The devices that the copy has been at.
    devices: BTreeSet<IfIndex>,
}

/// Compares.
pub fn judge(host: &HostState, packet: &Packet, walk: &Walk, seen: &Seen) -> Verdict {
    let expected = expect(host, packet, walk);
    let mut faults = Vec::new();
    arrivals(&expected, seen, &mut faults);
    deaths(packet, &expected, seen, &mut faults);
    match faults.first() {
        Some(_) => Verdict::Contradiction(faults.join("; ")),
        None if expected.doubtful => Verdict::Unknown,
        None => Verdict::Agree,
    }
}

fn expect<'w>(host: &HostState, packet: &'w Packet, walk: &'w Walk) -> Expected<'w> {
    let mut expected = Expected::default();
    for (index, step) in walk.steps.iter().enumerate() {
        let way = walk.way(index);
        let doubt = way.iter().any(|step| matches!(step.outcome, Outcome::Unknown(_)));
        expected.doubtful |= doubt;
        let unresolved = way.iter().any(|step| asks(host, step));
        let devices = way.iter().filter_map(|step| step.device);
        // br_netfilter gives the frame to the bridge before its rules are asked (`setup_pre_routing`).
        let masters = devices.clone().filter_map(|device| host.link(device)?.master);
        let end = || End { step, devices: devices.clone().chain(masters.clone()).collect() };
        let last = way
            .iter()
            .rev()
            .find_map(|step| if let Outcome::Becomes(packet) = &step.outcome { Some(&**packet) } else { None });
        let last = last.unwrap_or(packet);
        match &step.outcome {
            Outcome::Arrives(arrival) => match place(host, step, *arrival) {
                // The stack waits for the rest of a datagram.
                Some(Place::Host) if packet.ip().is_some_and(|ip| ip.fragment != Fragment::Whole) => {
                    expected.possible.insert(Place::Host);
                }
                Some(place) if doubt || unresolved => {
                    expected.possible.insert(place);
                }
                Some(place) => expected.arrivals.push((place, last)),
                None => {
                    // A socket of the host's may listen to the group; a raw one hears what the stack does not answer.
                    if step.stage == Stage::Local {
                        expected.possible.insert(Place::Host);
                    }
                    expected.ignored = true;
                    expected.possible_stops.push(end());
                }
            },
            Outcome::Stops(_) if doubt || unresolved => expected.possible_stops.push(end()),
            Outcome::Stops(stop) => expected.stops.push((end(), stop)),
            Outcome::Unknown(_) => expected.possible_stops.push(end()),
            Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches => {}
        }
        // Whether somebody answers for the next hop is not this host's to know.
        if asks(host, step) {
            expected.possible_stops.push(end());
        }
    }
    expected
}

/// The next hop's MAC address has to be asked for first.
fn asks(host: &HostState, step: &Step) -> bool {
    let ethernet = step.device.and_then(|device| host.link(device)).is_some_and(|link| link.mac.is_some());
    let blank = matches!(&step.outcome, Outcome::Becomes(packet) if packet.destination_mac.is_none());
    step.stage == Stage::Neighbour && ethernet && blank
}

/// Where an arrival shows; none where it does not.
fn place(host: &HostState, step: &Step, arrival: Arrival) -> Option<Place> {
    match arrival {
        Arrival::Guest(device) => Some(Place::Guest(host.link_name(device))),
        Arrival::Uplink(device) | Arrival::Namespace(device) => Some(Place::Wire(host.link_name(device))),
        Arrival::Host | Arrival::Answered => Some(Place::Host),
        // Another guest's unicast in a flood is in this guest's ring all the same.
        Arrival::Ignored if step.stage == Stage::Guest => Some(Place::Guest(host.link_name(step.device?))),
        Arrival::Ignored => None,
    }
}

fn arrivals(expected: &Expected<'_>, seen: &Seen, faults: &mut Vec<String>) {
    let mut here: Vec<(&Place, Option<&Sighting>)> = Vec::new();
    for sighting in &seen.sightings {
        match sighting.about() {
            Some((_, Likeness::Packet)) => here.push((&sighting.place, Some(sighting))),
            // The host has taken in what it answers.
            Some((_, Likeness::Answer)) => here.push((&Place::Host, None)),
            Some((_, Likeness::Error)) | None => {}
        }
    }
    if seen.answered {
        here.push((&Place::Host, None));
    }
    let refused_locally = seen
        .deaths
        .iter()
        .any(|death| death.likeness == Likeness::Packet && is_local(death.function.as_deref(), &death.stack));
    for (place, packet) in &expected.arrivals {
        let found: Vec<_> = here.iter().filter(|(at, _)| *at == place).collect();
        if found.is_empty() && !(*place == Place::Host && refused_locally) {
            faults.push(format!("expected at {}, not seen there", name(place)));
            continue;
        }
        let wrong: Vec<String> =
            found.iter().filter_map(|(_, sighting)| sighting.map(|sighting| difference(packet, sighting))).collect();
        // A packet that reaches a place by several ways may do so in several forms.
        let forms = expected.arrivals.iter().filter(|(other, _)| other == place).count();
        if forms == 1
            && !wrong.is_empty()
            && let Some(first) = wrong.iter().find(|text| !text.is_empty())
        {
            faults.push(format!("at {}: {first}", name(place)));
        }
    }
    for (place, _) in &here {
        let known =
            expected.arrivals.iter().any(|(expected, _)| expected == *place) || expected.possible.contains(*place);
        // What can't be known may have sent the packet elsewhere.
        if !known && !expected.doubtful {
            let fault = format!("seen at {}, not expected there", name(place));
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
}

fn is_local(function: Option<&str>, stack: &[String]) -> bool {
    sites::kinds(function, stack)
        .is_some_and(|kinds| kinds.contains(&Kind::Local) || kinds.contains(&Kind::NeighbourAnswer))
}

/// Places as faults name them.
fn name(place: &Place) -> String {
    match place {
        Place::Guest(tap) => format!("the guest of {tap}"),
        Place::Wire(device) => format!("the far end of {device}"),
        Place::Host => "the host".to_owned(),
    }
}

/// How a frame differs from what the walk made of the packet; empty if not at all.
fn difference(packet: &Packet, sighting: &Sighting) -> String {
    let mut text = String::new();
    let mut differs = |what: &str, expected: String, seen: String| {
        if expected != seen {
            text.write_fmt(format_args!("{what} {seen} instead of {expected} ")).ok();
        }
    };
    if let Some((source, destination)) = sighting.macs {
        let mac = |mac: [u8; 6]| kvmtrace::event::MacAddress(mac).to_string();
        if let Some(expected) = packet.source_mac {
            differs("source MAC address", expected.to_string(), mac(source));
        }
        if let Some(expected) = packet.destination_mac {
            differs("destination MAC address", expected.to_string(), mac(destination));
        }
        differs("tags", format!("{:?}", packet.tags), format!("{:?}", sighting.tags));
    }
    let (Network::Ip(ip), Some((source, destination, ttl))) = (&packet.network, ends(sighting)) else {
        return text.trim_end().to_owned();
    };
    differs("source", ip.source.to_string(), source.to_string());
    differs("destination", ip.destination.to_string(), destination.to_string());
    if let Some(expected) = ip.time_to_live {
        differs("TTL", expected.to_string(), ttl.to_string());
    }
    if let Some((from, to)) = ip.transport.ports()
        && let Some((seen_from, seen_to)) = ports(sighting)
        && ip.fragment != Fragment::Later
    {
        if let Some(from) = from {
            differs("source port", from.to_string(), seen_from.to_string());
        }
        if let Some(to) = to {
            differs("destination port", to.to_string(), seen_to.to_string());
        }
    }
    text.trim_end().to_owned()
}

/// Source, destination and TTL of an IP packet.
fn ends(sighting: &Sighting) -> Option<(IpAddr, IpAddr, u8)> {
    let bytes = &sighting.bytes;
    match sighting.ether_type {
        0x0800 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
            Some((address(12)?, address(16)?, *bytes.get(8)?))
        }
        0x86dd => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
            Some((address(8)?, address(24)?, *bytes.get(7)?))
        }
        _ => None,
    }
}

/// Source and destination port of a packet that is not a later fragment.
fn ports(sighting: &Sighting) -> Option<(u16, u16)> {
    let bytes = &sighting.bytes;
    let at = match sighting.ether_type {
        0x0800 => usize::from(bytes.first()? & 0x0f) * 4,
        0x86dd if bytes.get(6) == Some(&44) => 48,
        0x86dd => 40,
        _ => return None,
    };
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some((word(at)?, word(at + 2)?))
}

fn deaths(packet: &Packet, expected: &Expected<'_>, seen: &Seen, faults: &mut Vec<String>) {
    let deaths: Vec<&Death> = seen.deaths.iter().filter(|death| death.likeness == Likeness::Packet).collect();
    let stops: Vec<&End<'_>> =
        expected.stops.iter().map(|(end, _)| end).chain(expected.possible_stops.iter()).collect();
    let to_host = expected.arrivals.iter().any(|(place, _)| *place == Place::Host)
        || expected.possible.contains(&Place::Host)
        || expected.ignored;
    for death in &deaths {
        let kinds = sites::kinds(death.function.as_deref(), &death.stack);
        let explained = stops.iter().any(|end| fits(end, death)) || to_host && is_local_end(kinds);
        if !explained && !expected.doubtful {
            faults.push(format!("died at {}, where no stop is expected", site(death)));
        }
    }
    let arrives = !expected.arrivals.is_empty() || expected.ignored;
    if !arrives
        && !expected.doubtful
        && let Some((End { step, .. }, stop)) = expected.stops.first()
    {
        let shown = expected.stops.iter().any(|(end, _)| deaths.iter().any(|death| fits(end, death)));
        let refused = seen.refused.is_some_and(|errno| refuses(errno, step.stage));
        if !shown && !refused && !expected.stops.iter().any(|(end, stop)| is_silent(packet, end.step, stop)) {
            faults.push(format!("expected to stop at {:?} ({stop:?}), no drop seen there", step.stage));
        }
    }
    if let Some(errno) = seen.refused
        && !expected.doubtful
        && !stops.iter().any(|end| refuses(errno, end.step.stage))
    {
        faults.push(format!("refused with {errno}, where no stop is expected"));
    }
}

/// Whom a packet for the host, or one that it passes over, may end with.
fn is_local_end(kinds: Option<&[Kind]>) -> bool {
    kinds.is_some_and(|kinds| {
        kinds.iter().any(|kind| matches!(kind, Kind::Local | Kind::NeighbourAnswer | Kind::DeviceReceive))
    })
}

/// The copy died at the step's stage, and at one of the devices that it had come by.
fn fits(end: &End<'_>, death: &Death) -> bool {
    let kind = sites::kind(end.step.stage);
    let stage = sites::kinds(death.function.as_deref(), &death.stack).is_some_and(|kinds| kinds.contains(&kind));
    // `nf_send_unreach6` gives a packet of the host's own, which has no device yet, to the loopback device.
    let nowhere = end.devices.is_empty() || end.step.stage == Stage::Firewall(Hook::Output);
    stage && death.device.is_none_or(|device| nowhere || end.devices.contains(&device))
}

/// The errors that a stage gives to who sends.
fn refuses(errno: Errno, stage: Stage) -> bool {
    let kind = sites::kind(stage);
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other error is a stage's")]
    match errno {
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL => kind == Kind::Route,
        Errno::EPERM => matches!(kind, Kind::Firewall | Kind::Ipsec),
        Errno::EAGAIN => kind == Kind::Ipsec,
        Errno::EMSGSIZE => matches!(kind, Kind::IpForward | Kind::Route),
        Errno::ENETDOWN | Errno::ENOBUFS | Errno::EIO => {
            matches!(kind, Kind::DeviceTransmit | Kind::DeviceReceive | Kind::Route)
        }
        _ => false,
    }
}

/// Ends that the kernel does not report as a drop.
fn is_silent(packet: &Packet, step: &Step, stop: &Stop) -> bool {
    // `arp_process` consumes what it does not answer, `arp_rcv` what is another's.
    let others = matches!(stop, Stop::OtherHost | Stop::Detached);
    matches!(packet.network, Network::Arp(_)) && (others || step.stage == Stage::NeighbourAnswer)
}

fn site(death: &Death) -> String {
    let function = death.function.as_deref().unwrap_or("an unknown function");
    let callers: Vec<&str> = death.stack.iter().skip(1).take(4).map(String::as_str).collect();
    let reason = death.reason.as_deref().unwrap_or("no reason");
    format!("{function} ({reason}, under {})", callers.join(" < "))
}
