//! What dies at a device itself: `link-down`, `no-carrier`, `tc-drop`, `xdp-drop`, `bridge-port-detached`.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::{bridge, port};
use crate::diagnose::fix::device;
use crate::diagnose::fix::port::attach;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict, Where};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::Protocol;
use crate::event::host::{Link, Qdisc};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let link = case.scene.link(drop.device()?)?;
    let what = case.dropped_share();
    let ingress = case.scene.role(link.index) == Role::Tap && case.is_from_guest();
    let point = if ingress { Point::TapIngress } else { nic_point(case, link) };
    let place = at(case.scene, link.index, point).of(drop);
    if drop.within(Site::GuestSends) && drop.because(&["DEV_READY"]) && link.up {
        return Some(port::recovered(case, link, place));
    }
    if drop.within(Site::GuestSends) && (!link.up || drop.because(&["DEV_READY"])) {
        let explanation =
            format!("{what} were sent by the guest on {}, which is administratively down on the host.", link.name);
        return Some(Judgement::dropped(Cause::LinkDown, place, explanation).fix(device::up(
            case.scene.host,
            case.scene.track.first_host(),
            link,
        )));
    }
    if drop.because(&["XDP"]) || drop.within(Site::GenericXdp) {
        return Some(xdp(case, link, place));
    }
    if drop.because(&["TC_INGRESS", "TC_EGRESS", "TC_CHAIN_NOTFOUND", "TC_RECLASSIFY_LOOP"])
        || drop.within(Site::TrafficControl)
    {
        let egress = drop.because(&["TC_EGRESS"]) || drop.within(Site::TrafficControlEgress);
        return Some(policed(case, link, &place, egress).unwrap_or_else(|| tc(link, place, &what, egress)));
    }
    if drop.because(&["OTHERHOST"]) || drop.within(Site::IpReceive) && link.master.is_none() && ingress {
        return detached(case, link, place, &what);
    }
    if drop.within(Site::FarEnd) || drop.because(&["DEV_READY", "DEV_HDR"]) {
        return Some(port::dead_link(case, link, place));
    }
    None
}

fn nic_point(case: &Case<'_>, link: &Link) -> Point {
    match case.scene.role(link.index) {
        Role::Tap | Role::Macvtap => Point::TapEgress,
        Role::Tunnel => Point::Tunnel,
        Role::Bridge => Point::HostInput,
        Role::Nic if case.is_from_guest() => Point::NicEgress,
        Role::Nic => Point::NicIngress,
    }
}

/// A generic XDP program drops.
fn xdp(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
    let mode = link.xdp.as_deref().unwrap_or("generic");
    let explanation = format!("{} were dropped by the XDP program ({mode}) on {}.", case.dropped_share(), link.name);
    Judgement::dropped(Cause::XdpDrop, place, explanation).fix(device::detach_program(link))
}

/// A policer drops what is faster than its rate: a limit that somebody set, for TCP to adapt to.
fn policed(case: &Case<'_>, link: &Link, place: &Where, egress: bool) -> Option<Judgement> {
    let own = |qdisc: &&Qdisc| qdisc.device == link.index;
    let mut policers = case.scene.host.qdiscs.iter().filter(own).flat_map(|qdisc| &qdisc.policers);
    let policer = policers.find(|policer| policer.egress == egress)?;
    let side = if egress { "egress" } else { "ingress" };
    let rate = if policer.rate > 0 { format!(" of {}", words::bit_rate(policer.rate)) } else { String::new() };
    let explanation = format!(
        "{} came faster than the rate{rate} that a policer (tc, {} filter) at the {side} of {} lets through.",
        case.dropped_share(),
        policer.filter,
        link.name
    );
    let share = case.dropped() as f64 / case.packets().max(1) as f64;
    let adapts = case.key().protocol == Protocol::Tcp && case.answered() >= 3 && share < 0.5;
    let severity = if adapts {
        Severity::Info
    } else if share < 0.1 {
        Severity::Warning
    } else {
        Severity::Error
    };
    let guest = case.device().and_then(|device| case.scene.guest_name(device)).unwrap_or_default();
    let name = quote(&link.name);
    let remove = Fix {
        command: Some(format!("tc filter del dev {name} {side}")),
        ..Fix::advice(format!("Removes the tc filters at the {side} of {}, this limit among them.", link.name))
    }
    .risk("All filters of that side go, and the limit with them; note them first (tc filter show).");
    Some(
        Judgement::dropped(Cause::RateLimited, place.clone(), explanation)
            .severity(severity)
            .evidence([format!("{}: filter {} at {side} with action police", link.name, policer.filter)])
            .fix(Fix::advice(format!(
                "If the limit is meant, nothing is to be mended. Else raise it where it is set (libvirt: virsh domiftune {} {name} shows and sets it, or <bandwidth> in its definition; Proxmox: rate= of its net device; OpenStack: its QoS policy; a tc script).",
                quote(&guest)
            )))
            .fix(remove),
    )
}

fn tc(link: &Link, place: Where, what: &str, egress: bool) -> Judgement {
    let side = if egress { "egress" } else { "ingress" };
    let explanation = format!("{what} were dropped by a tc filter at the {side} of {}.", link.name);
    let name = quote(&link.name);
    // A filter can't be written back from what tc shows; the whole of it is removed by side.
    let fix = Fix {
        command: Some(format!("tc filter del dev {name} {side}")),
        ..Fix::advice(format!(
            "Removes the tc filters at the {side} of {}; `tc filter show dev {name} {side}` lists them.",
            link.name
        ))
    }
    .risk("All filters of that side go, also those that do not drop; note them first.")
    .persist("Remove it where it is set: libvirt's <filterref>, a CNI plugin, a script.");
    Judgement::dropped(Cause::TcDrop, place, explanation).fix(fix)
}

/// The tap is a port of no bridge: the host takes the guest's frames for its own and finds that they are not.
fn detached(case: &Case<'_>, link: &Link, place: Where, what: &str) -> Option<Judgement> {
    if case.scene.role(link.index) == Role::Bridge {
        return bridge::misdirected(case, link);
    }
    if link.master.is_some() {
        return None;
    }
    if case.scene.role(link.index) == Role::Nic {
        let judgement = port::detached(case, link, Point::NicIngress);
        return Some(Judgement {
            verdict: Verdict::Dropped,
            place: Where { point: Point::NicIngress, ..place },
            ..judgement
        });
    }
    let explanation = format!(
        "{what} came in by {}, which is a port of no bridge: the host drops what is not for itself.",
        link.name
    );
    Some(
        Judgement::dropped(Cause::BridgePortDetached, place, explanation)
            .evidence([format!("{}: no master", link.name)])
            .fixes(attach(case.scene, link)),
    )
}
