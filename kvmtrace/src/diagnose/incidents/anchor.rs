//! The root of a fault, by name: flows with one cause and one anchor are one incident.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::case::Case;
use crate::diagnose::report::{Cause, Finding, Fix, FlowReport, Root, Where};

/// The anchor of a flow. No count, size or time is part of it, so that it is the same in every trace.
pub(super) fn of_flow(scene: &Scene<'_>, flow: &FlowReport, case: Option<&Case<'_>>) -> String {
    match &flow.root {
        Some(Root::Rule(rule)) => return format!("rule {rule}"),
        Some(Root::Part(part)) => return format!("part {part}"),
        None => {}
    }
    let cause = flow.cause.unwrap_or(Cause::Unclassified);
    match kind(cause) {
        Kind::Service => format!(
            "service {} {} {}",
            flow.protocol,
            flow.destination,
            flow.destination_port.map(|port| port.to_string()).unwrap_or_default()
        ),
        Kind::Address => format!("address {}", silent_address(scene, flow, case)),
        Kind::Setting => setting(&flow.fixes).unwrap_or_else(|| device(flow.place.as_ref())),
        Kind::Device => device(flow.place.as_ref()),
        Kind::Guest => format!("guest {}", flow.guest.as_deref().unwrap_or_default()),
    }
}

/// The anchor of a finding.
pub(super) fn of_finding(finding: &Finding) -> String {
    match kind(finding.cause) {
        Kind::Setting => setting(&finding.fixes).unwrap_or_else(|| device(finding.place.as_ref())),
        Kind::Guest => format!("guest {}", finding.guest.as_deref().unwrap_or_default()),
        Kind::Device => device(finding.place.as_ref()),
        // A finding names no service; the guest that it is about keeps it apart from others.
        Kind::Service | Kind::Address => {
            format!("{} {}", device(finding.place.as_ref()), finding.guest.as_deref().unwrap_or_default())
        }
    }
}

/// What distinguishes the faults of one cause.
enum Kind {
    /// By address, protocol and port.
    Service,
    /// By the address that is silent.
    Address,
    /// By the command that changes the one setting.
    Setting,
    /// By the device.
    Device,
    /// By the guest.
    Guest,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most faults, and new ones, sit at a device")]
fn kind(cause: Cause) -> Kind {
    match cause {
        Cause::PortClosed | Cause::ListenOverflow | Cause::SocketBufferFull => Kind::Service,
        Cause::NoReply | Cause::NeighbourUnresolved | Cause::AddressConflict | Cause::NeighbourStale => Kind::Address,
        Cause::ForwardingDisabled
        | Cause::RouteBlackhole
        | Cause::RouteProhibited
        | Cause::ReversePathFilter
        | Cause::MartianSource
        | Cause::Ipv6Disabled
        | Cause::IcmpIgnored
        | Cause::ConntrackFull => Kind::Setting,
        Cause::GuestPaused | Cause::FragmentedByGuest | Cause::SourceSpoofed => Kind::Guest,
        _ => Kind::Device,
    }
}

fn device(place: Option<&Where>) -> String {
    format!("device {}", place.and_then(|place| place.device.as_deref()).unwrap_or_default())
}

/// The first command is the same for all flows that the setting stops; one that lets a conversation through is not.
fn setting(fixes: &[Fix]) -> Option<String> {
    let first = fixes.iter().find(|fix| fix.command.is_some() && fix.accepts.is_none())?;
    Some(format!("setting {}", first.command.as_deref()?))
}

/// The next hop that does not answer, else the destination.
fn silent_address(scene: &Scene<'_>, flow: &FlowReport, case: Option<&Case<'_>>) -> String {
    let asked = case.and_then(|case| {
        let target = case.group.main.target.filter(|_| case.is_neighbour_traffic());
        let hop = || {
            let answer = case.routing();
            let by = case.focus.as_ref().and_then(|drop| drop.device());
            by.and_then(|device| answer.leg(device)).or(answer.unicast())?.gateway
        };
        let wants_hop = flow.cause == Some(Cause::NeighbourUnresolved) && !case.is_neighbour_traffic();
        target.or_else(|| if wants_hop { hop() } else { None })
    });
    let own = |address: &std::net::IpAddr| scene.is_host_address(*address);
    asked.filter(|address| !own(address)).map_or_else(|| flow.destination.clone(), |address| address.to_string())
}
