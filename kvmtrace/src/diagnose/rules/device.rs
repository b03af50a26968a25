//! What dies at a device itself: `link-down`, `no-carrier`, `tc-drop`, `xdp-drop`, `bridge-port-detached`.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::{bridge, port};
use crate::diagnose::fix::device;
use crate::diagnose::fix::port::attach;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict, Where};
use crate::diagnose::shell::quote;
use crate::event::host::Link;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let link = case.scene.link(drop.device()?)?;
    let what = case.dropped_share();
    let ingress = case.scene.role(link.index) == Role::Tap && case.is_from_guest();
    let point = if ingress { Point::TapIngress } else { nic_point(case, link) };
    let place = at(case.scene, link.index, point).of(drop);
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
        return Some(tc(link, place, &what, drop.because(&["TC_EGRESS"]) || drop.within(Site::TrafficControlEgress)));
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
