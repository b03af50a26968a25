//! `xdp-drop` of a native program: it runs in the driver, before there is a socket buffer, so no hook sees the packet and no
//! drop is told (`tun_build_skb`, `veth_xdp_rcv_one`). The device's `rx_dropped` grows and nothing comes in.

use crate::diagnose::case::{Case, Way};
use crate::diagnose::fix::quote;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Finding, Fix, FlowReport, Point, Severity, Verdict, Where};
use crate::diagnose::scene::{Role, Scene};
use crate::event::host::Link;
use crate::event::{Direction, IfIndex};

/// The answers to this flow would come in by a device whose program lets nothing pass.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let device = match case.way() {
        Way::Guest(device) => device,
        Way::Uplink | Way::Routed => case.last_device()?,
        Way::Host | Way::Group | Way::Unknown => return None,
    };
    let (link, count) = swallowed(case.scene, device)?;
    Some(
        Judgement::dropped(Cause::XdpDrop, place(case.scene, link), explanation(link, count))
            .verdict(Verdict::Unanswered)
            .evidence([evidence(link, count)])
            .fix(detach(link)),
    )
}

/// Guests of whom nothing is seen at all, so that no flow tells it.
pub fn findings(scene: &Scene<'_>, flows: &[FlowReport]) -> Vec<Finding> {
    let told = |link: &Link| {
        flows.iter().any(|flow| {
            flow.cause == Some(Cause::XdpDrop)
                && flow.place.as_ref().and_then(|place| place.device.as_ref()) == Some(&link.name)
        })
    };
    let interfaces = scene.host.guests.iter().flat_map(|guest| &guest.interfaces);
    interfaces
        .filter_map(|interface| swallowed(scene, interface.device))
        .filter(|(link, _)| !told(link))
        .map(|(link, count)| Finding {
            cause: Cause::XdpDrop,
            severity: Severity::Error,
            guest: scene.guest_name(link.index),
            place: Some(place(scene, link)),
            count: Some(count),
            explanation: explanation(link, count),
            evidence: vec![evidence(link, count)],
            fixes: vec![detach(link)],
        })
        .collect()
}

/// The device, if it has a program, dropped packets during the trace and let none in; and how many it dropped.
fn swallowed<'a>(scene: &Scene<'a>, device: IfIndex) -> Option<(&'a Link, u64)> {
    let link = scene.link(device).filter(|link| link.xdp.is_some())?;
    let before = scene.track.first_host().link(device).map_or(0, |link| link.statistics.rx_dropped);
    let count = link.statistics.rx_dropped.checked_sub(before).filter(|count| *count > 0)?;
    let came_in = scene
        .track
        .flows()
        .flat_map(|flow| flow.places.keys())
        .any(|place| place.device == device && place.direction == Direction::Ingress);
    (!came_in).then_some((link, count))
}

fn place(scene: &Scene<'_>, link: &Link) -> Where {
    let point = if scene.role(link.index) == Role::Tap { Point::TapIngress } else { Point::NicIngress };
    at(scene, link.index, point)
}

fn explanation(link: &Link, count: u64) -> String {
    format!(
        "Nothing came in by {}, whose XDP program ({}) runs before any hook; the device dropped {count} packets meanwhile.",
        link.name,
        link.xdp.as_deref().unwrap_or("native")
    )
}

fn evidence(link: &Link, count: u64) -> String {
    format!("{}: XDP {}, rx_dropped +{count}", link.name, link.xdp.as_deref().unwrap_or("native"))
}

/// Takes the program off. What is gone can't be put back from here.
pub fn detach(link: &Link) -> Fix {
    let flag = match link.xdp.as_deref() {
        Some("native") => "xdpdrv",
        Some("offload") => "xdpoffload",
        _ => "xdpgeneric",
    };
    let fix = Fix::run(
        format!("ip link set dev {} {flag} off", quote(&link.name)),
        String::new(),
        "Detaches the program that drops these packets.",
    )
    .risk("Whatever else the program does (filtering, load balancing) ends. It can't be put back from here: note `bpftool net show` first.")
    .persist("Stop the service that attaches it.");
    Fix { undo: None, ..fix }
}
