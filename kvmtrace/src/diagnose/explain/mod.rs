//! `kvmtrace explain`: one walk as a report: the way step by step, the answer's way back, and the result with its cause and fixes.

mod leg;
pub mod report;

pub use leg::{cause, clause};
pub use report::Explanation;

use crate::diagnose::check;
use crate::diagnose::facts::cause_of_stop::point_of_step;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::stop::fixes_of_stop;
use crate::diagnose::report::{EndReport, Finding, Fix, Host, Severity, Where};
use crate::event::host::FdbEntry;
use crate::event::{Degraded, HostState};
use crate::forward::Entry;
use crate::forward::asked::{Asked, Goal, STAND_IN};
use crate::forward::packet::Packet;
use crate::forward::reading::{self, End, Reading};
use crate::forward::step::{Arrival, Outcome, Stage, Walk};
use crate::forward::words;
use crate::track::Track;
use leg::leg;
use report::{GuestEnd, NextHopReport, Note, Owner, PacketReport, ResultReport, SCHEMA};

/// Walks: gives the walk of a packet from an entry.
pub type Walker<'w> = dyn Fn(&HostState, &Packet, Entry) -> Walk + 'w;

/// Explains what the host of a trace would do with a packet.
pub fn explain(track: &Track, asked: &Asked, walk: &Walker<'_>) -> Explanation {
    let host = track.host();
    let first = asked.first.as_ref().filter(|_| matches!(asked.entry, Entry::Guest(_))).map(|request| {
        let request = &request.packet;
        let goal = asked.next_hop.map_or(Goal::Beyond, |hop| hop.owner);
        (request, walk(host, request, asked.entry), goal)
    });
    let first = first.as_ref().map(|(request, walk, goal)| (Reading::new(walk, request, *goal), walk));
    // The answer to that request teaches the bridge where an unknown next hop is.
    let learned = first.as_ref().and_then(|(reading, _)| learned(host, asked, reading));
    let host = learned.as_ref().unwrap_or(host);
    let walked = walk(host, &asked.packet, asked.entry);
    let way = Reading::new(&walked, &asked.packet, asked.goal);
    let answer = reading::reply(&way).map(|(entry, packet)| {
        let walked = walk(host, &packet, entry);
        (walked, packet)
    });
    let goal = reading::reply_goal(asked.entry);
    let answer = answer.as_ref().map(|(walked, packet)| (Reading::new(walked, packet, goal), walked));
    let leg = |(reading, walk): &(Reading<'_>, &Walk), shown: bool| leg(host, reading, walk, shown);
    let legs = [first.as_ref().map(|(reading, _)| reading), Some(&way), answer.as_ref().map(|(reading, _)| reading)];
    let (decisive, text) = decisive(host, asked, legs);
    let result = result(host, decisive, &text);
    let findings = check::findings(track);
    let fixes = fixes(track, decisive, &result, &findings);
    let notes = notes(host, asked, &legs, &result, findings);
    Explanation {
        schema: SCHEMA,
        host: Host {
            name: host.name.clone(),
            kernel: host.kernel.clone(),
            kvmtrace: env!("CARGO_PKG_VERSION").to_owned(),
        },
        guest: GuestEnd {
            name: asked.guest.clone(),
            device: host.link_name(asked.interface),
            mac: host
                .guest_of(asked.interface)
                .and_then(|guest| guest.interfaces.iter().find(|interface| interface.device == asked.interface)?.mac),
        },
        packet: PacketReport::new(&asked.packet),
        next_hop: asked.next_hop.map(|hop| NextHopReport {
            address: hop.address,
            mac: hop.mac,
            owner: match hop.owner {
                Goal::Guest(_) => Owner::Guest,
                Goal::Host => Owner::Host,
                Goal::Beyond => Owner::Beyond,
            },
            guest: match hop.owner {
                Goal::Guest(device) => host.guest_of(device).map(|guest| guest.name.clone()),
                Goal::Host | Goal::Beyond => None,
            },
        }),
        first: first.as_ref().map(|first| leg(first, true)),
        leg: leg(&(way.clone(), &walked), false),
        reply: answer.as_ref().map(|answer| leg(answer, true)),
        result,
        notes,
        fixes,
        degraded: host.missing.iter().map(|(what, why)| Degraded { what: what.clone(), why: why.clone() }).collect(),
    }
}

/// The host as it is once an unknown next hop has answered: its MAC address is learned behind the uplink that the request left by.
fn learned(host: &HostState, asked: &Asked, request: &Reading<'_>) -> Option<HostState> {
    let Some(Outcome::Arrives(Arrival::Uplink(_) | Arrival::Namespace(_))) = request.last().map(|step| &step.outcome)
    else {
        return None;
    };
    if asked.packet.destination_mac != Some(STAND_IN) {
        return None;
    }
    let step = request.steps().map(|(_, step)| step).rfind(|step| step.stage == Stage::BridgeEgress)?;
    let port = host.link(step.device?)?;
    let bridge = host.link(port.master?)?;
    let filters = matches!(&bridge.kind, crate::event::host::LinkKind::Bridge(state) if state.vlan_filtering);
    let own = host.link(asked.interface).and_then(|link| link.port.as_ref());
    let vlan = own.and_then(|port| port.vlans.iter().find(|vlan| vlan.pvid)).map(|vlan| vlan.id);
    let mut learned = host.clone();
    learned.forwarding.push(FdbEntry {
        mac: STAND_IN,
        device: port.index,
        bridge: Some(bridge.index),
        vlan: vlan.filter(|_| filters),
        permanent: false,
        fixed: false,
        sticky: false,
        remote: None,
    });
    Some(learned)
}

/// The leg that decides, which is the first that does not get through, and the result in words.
fn decisive<'r, 'w>(
    host: &HostState,
    asked: &Asked,
    [first, way, answer]: [Option<&'r Reading<'w>>; 3],
) -> (Option<&'r Reading<'w>>, String) {
    let fails = |reading: &&Reading<'_>| matches!(reading.end(), End::Stops | End::Unknown);
    if let Some(first) = first.filter(|first| first.end() == End::Stops) {
        let v6 = asked.packet.ip().is_some_and(|ip| ip.source.is_ipv6());
        let request = if v6 { "neighbour solicitation" } else { "ARP request" };
        return (Some(first), format!("{} sends nothing: its {request} {}", asked.guest, clause(host, first)));
    }
    let own = way.map(|way| clause(host, way)).unwrap_or_default();
    match (way.filter(fails), answer) {
        (None, Some(answer)) if fails(&answer) => {
            (Some(answer), format!("{own}, but its answer {}", clause(host, answer)))
        }
        (None, Some(_)) if way.is_some_and(|way| way.end() == End::Leaves) => {
            (way, format!("{own}, and this host lets its answer back in"))
        }
        (None, Some(_)) => (way, format!("{own}, and its answer arrives")),
        (_, _) => (way, own),
    }
}

/// The fixes of the stop: those of a finding about the same thing at the same device, else those of the stop itself.
fn fixes(track: &Track, decisive: Option<&Reading<'_>>, result: &ResultReport, findings: &[Finding]) -> Vec<Fix> {
    let Some((index, step)) = decisive.and_then(|reading| reading.way.last().copied().zip(reading.last())) else {
        return Vec::new();
    };
    let (Outcome::Stops(stop), Some(reading)) = (&step.outcome, decisive) else { return Vec::new() };
    let scene = Scene::of_host(track);
    let device = |place: Option<&Where>| place.and_then(|place| place.device.clone());
    let same = |finding: &&Finding| {
        Some(finding.cause) == result.cause && device(finding.place.as_ref()) == device(result.place.as_ref())
    };
    let found = findings.iter().find(same).map(|finding| finding.fixes.clone()).unwrap_or_default();
    if found.iter().any(|fix| fix.command.is_some()) {
        return found;
    }
    fixes_of_stop(&scene, step, stop, reading.packet_before(index), reading.is_bridged(index))
}

/// Findings about devices of the way that do not stop this packet.
fn notes(
    host: &HostState,
    asked: &Asked,
    legs: &[Option<&Reading<'_>>],
    result: &ResultReport,
    findings: Vec<Finding>,
) -> Vec<Note> {
    let devices: Vec<String> = legs
        .iter()
        .flatten()
        .flat_map(|reading| reading::devices(reading))
        .map(|device| host.link_name(device))
        .collect();
    findings
        .into_iter()
        .filter(|finding| finding.severity >= Severity::Warning && Some(finding.cause) != result.cause)
        .filter(|finding| finding.guest.as_ref().is_none_or(|guest| *guest == asked.guest))
        .filter_map(|finding| {
            let device = finding.place.and_then(|place| place.device);
            let near = device.as_ref().is_some_and(|device| devices.contains(device));
            near.then_some(Note { cause: finding.cause, device, explanation: finding.explanation })
        })
        .collect()
}

fn result(host: &HostState, decisive: Option<&Reading<'_>>, explanation: &str) -> ResultReport {
    let explanation = format!("{explanation}.");
    let Some(reading) = decisive else {
        return ResultReport { outcome: EndReport::Unknown, cause: None, place: None, explanation };
    };
    let end = reading.end();
    let last = match end {
        End::Unknown => reading.doubt(),
        End::Delivered | End::Leaves | End::Stops => None,
    };
    let last = last.or_else(|| reading.way.last().copied().zip(reading.last()));
    let fails = matches!(end, End::Stops | End::Unknown);
    let place = last.filter(|_| fails).map(|(_, step)| Where {
        device: step.device.map(|device| host.link_name(device)),
        point: point_of_step(host, step),
        function: {
            let v6 = reading.packet().ip().is_some_and(|ip| ip.destination.is_ipv6());
            words::functions(step, v6).last().map(|function| (*function).to_owned())
        },
        reason: None,
    });
    ResultReport {
        outcome: end.into(),
        cause: last.and_then(|(index, step)| cause(host, reading, index, step)),
        place,
        explanation,
    }
}
