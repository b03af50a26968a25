//! `route-mtu-exceeded` and `pmtu-black-hole`: a routed packet that must not be fragmented is too big for its egress.
//!
//! `ip_forward` and `ip6_forward` drop it (`PKT_TOO_BIG`) and tell the sender the MTU. Where that message is dropped in
//! turn, the sender goes on sending what never arrives.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::firewall;
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::event::Direction;
use crate::event::host::{Link, Route};
use crate::track::IcmpError;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let told = case.errors.iter().find(|error| error.about.is_too_big());
    // IP_INHDR and others share ip_forward: without a reason, only a packet larger than some egress counts.
    if !(drop.because(&["PKT_TOO_BIG"]) && drop.within(Site::ForwardLength)
        || drop.is_unspecified() && drop.within(Site::ForwardLength) && told.is_some())
    {
        return None;
    }
    let route = narrow_route(case, told.and_then(|error| error.mtu));
    let egress = route.and_then(|route| case.scene.link(route.device?));
    let egress = egress.or_else(|| self::egress(case, drop, told.and_then(|error| error.mtu)));
    let mtu = told.and_then(|error| error.mtu).or(egress.map(|link| link.mtu));
    let size = drop.totals.largest;
    let name = match (route, egress) {
        (Some(route), Some(link)) => format!("the route to {} by {}", route.destination, link.name),
        (_, Some(link)) => link.name.clone(),
        _ => "the route".to_owned(),
    };
    let limit = mtu.map(|mtu| format!(" (MTU {mtu})")).unwrap_or_default();
    let place = match egress {
        Some(link) => at(case.scene, link.index, Point::Routing),
        None => at(case.scene, drop.device()?, Point::Routing),
    };
    let widen = |link: &Link| {
        let port = case.device().and_then(|device| case.scene.link(device));
        let why = format!("Lets packets of {size} bytes pass {}.", link.name);
        device::mtu_before(case.scene.host, link, port, size.max(1500), why)
    };
    let free = route.zip(egress).and_then(|(route, link)| Some(device::route_mtu(route, &link.name, route.mtu?)));
    let raise: Vec<Fix> = free.into_iter().chain(egress.filter(|link| link.mtu < size).map(widen)).collect();
    if told.is_some_and(|error| error.dropped) {
        let explanation = format!(
            "{} were too big ({size} bytes) for {name}{limit}, and the ICMP message that would tell the sender was dropped on this host: a path-MTU black hole.",
            case.dropped_share()
        );
        let open = message_fixes(case, told.copied());
        return Some(
            Judgement::dropped(Cause::PmtuBlackHole, place.of(drop), explanation)
                .evidence([format!("the message \"packet too big\"{limit} to the sender was dropped")])
                .fixes(open)
                .fixes(raise)
                .fix(Fix::advice(
                    "Or clamp the MSS of forwarded TCP to the path's MTU (nft: tcp option maxseg size set rt mtu).",
                )),
        );
    }
    let adapts = case.left() > 0;
    let explanation = format!(
        "{} were too big ({size} bytes) for {name}{limit} and must not be fragmented; this host told the sender so{}.",
        case.dropped_share(),
        if adapts { ", and the sender adapted" } else { "" }
    );
    Some(
        Judgement::dropped(Cause::RouteMtuExceeded, place.of(drop), explanation)
            .severity(if adapts { Severity::Info } else { Severity::Warning })
            .fixes(raise)
            .fix(Fix::advice(format!(
                "Or send packets of at most {} bytes: set the guest's MTU, or let it heed path-MTU discovery.",
                mtu.unwrap_or(1280)
            ))),
    )
}

/// The rule that dropped the message.
fn message_fixes(case: &Case<'_>, error: Option<&IcmpError>) -> Vec<Fix> {
    let Some(flow) = error.and_then(|error| case.scene.track.get(&error.flow)) else { return Vec::new() };
    let heaviest = flow.drops.iter().max_by_key(|(_, totals)| totals.packets);
    heaviest
        .map_or_else(Vec::new, |(site, totals)| firewall::fixes_for(case, &Dropped { flow, site, totals }, &flow.key))
}

/// The route, where its own MTU is what the sender was told (`ip_dst_mtu_maybe_forward` prefers it to the device's).
fn narrow_route<'a>(case: &Case<'a>, told: Option<u32>) -> Option<&'a Route> {
    let route = routes::route_to(case.scene, case.key().destination.ip()?)?;
    let link = case.scene.link(route.device?)?;
    (route.mtu? < link.mtu && told.is_none_or(|told| Some(told) == route.mtu)).then_some(route)
}

/// The device that it should have left by: where smaller packets of it left, else the route's, else the one with that
/// MTU.
fn egress<'a>(case: &Case<'a>, drop: &Dropped<'_>, mtu: Option<u32>) -> Option<&'a Link> {
    let scene = case.scene;
    let left = case
        .hops
        .iter()
        .rev()
        .find(|(place, _)| place.direction == Direction::Egress && Some(place.device) != case.group.device);
    let by_route = || case.routing().unicast().and_then(|route| route.device);
    let link = |index| scene.link(index);
    left.and_then(|(place, _)| link(place.device))
        .or_else(|| by_route().and_then(link))
        .filter(|link| mtu.is_none_or(|mtu| link.mtu <= mtu))
        .or_else(|| scene.host.links.values().find(|link| Some(link.mtu) == mtu))
        .or_else(|| drop.device().and_then(link))
}
