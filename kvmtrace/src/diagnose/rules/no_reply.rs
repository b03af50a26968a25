//! `no-reply`: the packets went their way in order and nothing came back; and what vanished on this host unexplained.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::faults::dhcp;
use crate::diagnose::faults::router::advertises;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::Protocol;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let count = words::packets(case.packets());
    let to = case.key().destination;
    let way = case.way();
    if case.left() == 0 && !matches!(way, Way::Group | Way::Unknown | Way::Host) {
        // A stray request or two to a neighbour that came or moved meanwhile is no fault of this host.
        if case.is_neighbour_traffic() || case.packets() < 3 {
            return None;
        }
        let (last, _) = case.hops.last()?;
        let name = case.scene.name(last.device);
        // What is answered has left, in a form that is not joined to it: by Open vSwitch, or inside IPsec or another tunnel.
        if (switched(case).is_some() || matches!(way, Way::Routed | Way::Uplink)) && case.answered() > 0 {
            return None;
        }
        let explanation = format!("{count} came as far as {name} and never left this host, yet no drop was seen.");
        return Some(
            Judgement::dropped(Cause::Unclassified, at(case.scene, last.device, Point::BridgeForward), explanation)
                .verdict(Verdict::Lost)
                .severity(if case.is_passing() { Severity::Info } else { Severity::Warning })
                .fix(Fix::advice(format!("Look at the drop counters of {name} and of the devices behind it (ip -s -s link; ethtool -S); an XDP program or the hardware may drop unseen."))),
        );
    }
    let stray = case.is_neighbour_traffic() && case.packets() < 3;
    if stray || !case.expects_answer() {
        return None;
    }
    let severity = match (case.key().protocol, case.key().destination_port) {
        (Protocol::Udp, Some(53)) => Severity::Warning,
        (Protocol::Udp, _) => Severity::Info,
        _ => Severity::Warning,
    };
    let (place, explanation, fix) = match way {
        Way::Guest(device) if is_gateway(case, device) && dhcp::serves(case.scene, device) => {
            let guest = case.scene.guest_name(device).unwrap_or_else(|| "a guest".to_owned());
            let explanation = format!(
                "{count} to {to} went to {guest} on {}, which answered the sender's request for a lease (DHCP) and is its gateway now, and forwards nothing.",
                case.scene.name(device)
            );
            return Some(
                Judgement::dropped(Cause::RogueDhcpServer, at(case.scene, device, Point::Guest), explanation)
                    .verdict(Verdict::Unanswered)
                    .severity(Severity::Warning)
                    .fix(Fix::advice(format!(
                        "Stop the DHCP server in {guest}, unless it is meant to serve this network; then let the other guests ask for a new lease. libvirt: <filterref filter='no-dhcp-server'/> keeps a guest from answering; Proxmox: its firewall does."
                    ))),
            );
        }
        Way::Guest(device) if is_gateway(case, device) && advertises(case.scene, device) => {
            let guest = case.scene.guest_name(device).unwrap_or_else(|| "a guest".to_owned());
            let explanation = format!(
                "{count} to {to} went to {guest} on {}, which advertises itself as a router, and forwards nothing.",
                case.scene.name(device)
            );
            return Some(
                Judgement::dropped(Cause::RogueRouter, at(case.scene, device, Point::Guest), explanation)
                    .verdict(Verdict::Unanswered)
                    .severity(Severity::Warning)
                    .fix(Fix::advice(format!(
                        "Stop what advertises in {guest}, unless it is meant to be the router of this network: see kvmtrace's other flow of {guest}, to ff02::1."
                    ))),
            );
        }
        Way::Guest(device) => {
            let guest = case.scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
            (
                at(case.scene, device, Point::Guest),
                format!("{count} to {to} reached {guest} on {}, which did not answer.", case.scene.name(device)),
                format!("Look inside {guest}: is {to} configured and up there, does its firewall let this in, does its route back lead here?"),
            )
        }
        Way::Host => (
            at(case.scene, case.hops.last()?.0.device, Point::HostInput),
            format!("{count} to this host ({to}) arrived, and it did not answer."),
            "Check that the service runs and answers on this address (ss -lntu), and for ICMP that net.ipv4.icmp_echo_ignore_all is 0.".to_owned(),
        ),
        Way::Uplink | Way::Routed | Way::Group | Way::Unknown if switched(case).is_some() => {
            let device = switched(case)?;
            (
                at(case.scene, device, Point::BridgeForward),
                format!("{count} to {to} came to {}, a port of Open vSwitch, which decides there; nothing came back.", case.scene.name(device)),
                format!("Ask the switch what it does with them: ovs-appctl ofproto/trace BRIDGE in_port={}; ovs-vsctl show lists its ports and tags.", case.scene.name(device)),
            )
        }
        Way::Uplink | Way::Routed | Way::Group | Way::Unknown => {
            let out = case.last_device().map(|device| case.scene.name(device));
            let by = out.as_ref().map(|out| format!(" by {out}")).unwrap_or_default();
            (
                beyond(out),
                format!("{count} to {to} left this host in order{by}, and nothing came back: the fault lies beyond it."),
                format!("Trace on: is {to} up, is its way back to {} known there, does a firewall on the way drop? (mtr, a capture on the next router, kvmtrace on the next host)", case.group.translated.map_or(case.key().source, |key| key.source)),
            )
        }
    };
    Some(
        Judgement::dropped(Cause::NoReply, place, explanation)
            .verdict(Verdict::Unanswered)
            .severity(severity)
            .fix(Fix::advice(fix)),
    )
}

/// The last device that saw the packets, if Open vSwitch has it: what the switch did with them is not seen.
fn switched(case: &Case<'_>) -> Option<crate::event::IfIndex> {
    let device = case.hops.last()?.0.device;
    crate::topology::is_switched(case.scene.host, case.scene.link(device)?).then_some(device)
}

/// What goes to this guest is not for its own addresses: the sender takes it for its router.
fn is_gateway(case: &Case<'_>, device: crate::event::IfIndex) -> bool {
    let to = case.key().destination.ip();
    to.is_some_and(|to| !case.scene.addresses_of(device).contains(&to)) && !case.is_neighbour_traffic()
}

/// Some echo requests were answered and some were not, beyond what may be under way when the trace ends.
pub fn judge_partial(case: &Case<'_>) -> Option<Judgement> {
    // Behind NAT the same answers have two keys.
    let answered = case.answers.iter().map(|flow| flow.packets()).max().unwrap_or(0);
    let asked = case.packets();
    let missing = asked.saturating_sub(answered);
    let counts = case.key().protocol.is_echo_request() && !case.is_multicast() && case.dropped() == 0;
    if !counts || !case.scene.sees_answers() || !case.is_settled() || missing < 3 || missing * 5 < asked {
        return None;
    }
    // The answers' own flow says where they died on this host.
    if case.answers.iter().any(|flow| !flow.drops.is_empty()) {
        return None;
    }
    let to = case.key().destination;
    let (place, whose) = match case.way() {
        Way::Guest(device) => (
            at(case.scene, device, Point::Guest),
            case.scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned()),
        ),
        Way::Host => (at(case.scene, case.hops.last()?.0.device, Point::HostInput), "this host".to_owned()),
        Way::Uplink | Way::Routed | Way::Group | Way::Unknown => {
            let out = case.last_device().map(|device| case.scene.name(device));
            (beyond(out), "what lies beyond this host".to_owned())
        }
    };
    let explanation = format!(
        "{asked} echo requests to {to}, {answered} answered: {missing} got lost at {whose}, or their answers did."
    );
    Some(
        Judgement::dropped(Cause::NoReply, place, explanation)
            .verdict(Verdict::Unanswered)
            .severity(Severity::Warning)
            .fix(Fix::advice(format!(
                "Look for partial loss on the way to {to}: a rate limit, a bad link or cable, an overloaded machine (mtr shows from which hop on)."
            ))),
    )
}
