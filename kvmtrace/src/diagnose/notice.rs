//! What an onlooker should hear of at once: one line of `kvmtrace watch`.

use super::flows::attribute;
use super::report::{Cause, FlowDirection, Point, Where};
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::gather::gather;
use crate::diagnose::flows::group::Group;
use crate::diagnose::rules;
use crate::event::{Direction, DropSite, Event, EventKind, FlowKey, PacketCause, Place, Timestamp, UnlistedPlace};
use crate::track::Track;
use serde::Serialize;

/// What a [`Notice`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// Packets were dropped.
    Drop,
    /// Packets travel in fragments.
    Fragment,
    /// An ICMP error.
    IcmpError,
    /// A flow has changed its source MAC address.
    MacChanged,
}

/// One line of `kvmtrace watch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// When.
    #[serde(serialize_with = "super::report::rfc_3339")]
    pub time: Timestamp,
    /// What.
    pub kind: NoticeKind,
    /// Whose packet, if a guest's.
    pub guest: Option<String>,
    /// The flow in words.
    pub flow: String,
    /// How many packets so far; told at 1, 2, 4, 8, …
    pub count: u64,
    /// Why, if a rule knows.
    pub cause: Option<Cause>,
    /// Where.
    #[serde(rename = "where")]
    pub place: Option<Where>,
    /// In plain words.
    pub text: String,
}

/// Drops that were counted without their flows.
fn unlisted_drops(time: Timestamp, track: &Track, site: &DropSite, packets: u64) -> Option<Notice> {
    let scene = Scene::of_host(track);
    let guest = site.device.and_then(|device| scene.guest_name(device));
    if guest.is_none() && !scene.wants_all() {
        return None;
    }
    let device = site.device.map(|device| scene.name(device));
    let function = site.function.as_deref().unwrap_or("an unknown function");
    let at = device.as_deref().map(|name| format!(" at {name}")).unwrap_or_default();
    Some(Notice {
        time,
        kind: NoticeKind::Drop,
        guest,
        flow: "more flows than could be listed".to_owned(),
        count: packets,
        cause: None,
        place: site.device.map(|place| Where {
            device,
            point: Point::of(&scene, Place { device: place, direction: Direction::Ingress }),
            function: site.function.clone(),
            reason: site.reason.clone(),
        }),
        text: format!("{packets} packets were dropped in {function}{at}; their flows are too many to be listed"),
    })
}

/// What an event is worth telling; `track` has already taken it in.
pub fn notice(event: &Event, track: &Track) -> Option<Notice> {
    match &event.kind {
        EventKind::Packet(record) => match &record.cause {
            PacketCause::Dropped { site, .. } => dropped(event.time, track, record.flow, record.count, site),
            PacketCause::IcmpError => {
                let scene = Scene::of_host(track);
                let place = record.place?;
                let text = format!("ICMP error {} at {}", record.flow, scene.name(place.device));
                Some(plain(event.time, NoticeKind::IcmpError, &scene, record.flow, record.count, text, place))
            }
            PacketCause::MacChanged => {
                let scene = Scene::of_host(track);
                let place = record.place?;
                let (mac, _) = crate::diagnose::facts::dropped::macs(record)?;
                let text = format!("another MAC address, {mac}, sends {} at {}", record.flow, scene.name(place.device));
                Some(plain(event.time, NoticeKind::MacChanged, &scene, record.flow, record.count, text, place))
            }
            PacketCause::First | PacketCause::Wanted => None,
        },
        EventKind::Flow(sample) if sample.counters.fragments > 0 && sample.counters.packets.is_power_of_two() => {
            let scene = Scene::of_host(track);
            let name = scene.name(sample.place.device);
            let text = format!("{} fragments of {} at {name}", sample.counters.fragments, sample.flow);
            let count = u64::from(sample.counters.fragments);
            Some(plain(event.time, NoticeKind::Fragment, &scene, sample.flow, count, text, sample.place))
        }
        EventKind::Unlisted(unlisted) => {
            let UnlistedPlace::Drop(site) = &unlisted.place else { return None };
            unlisted_drops(event.time, track, site, unlisted.packets)
        }
        EventKind::Started(_)
        | EventKind::Host(_)
        | EventKind::Flow(_)
        | EventKind::Drop(_)
        | EventKind::RuleDrop(_)
        | EventKind::Loss(_)
        | EventKind::Degraded(_)
        | EventKind::Command(_)
        | EventKind::Ended => None,
    }
}

fn plain(
    time: Timestamp,
    kind: NoticeKind,
    scene: &Scene<'_>,
    flow: FlowKey,
    count: u64,
    text: String,
    place: crate::event::Place,
) -> Notice {
    let device = scene.guest_by_address(flow.source).or_else(|| scene.guest_by_address(flow.destination));
    Notice {
        time,
        kind,
        guest: device.and_then(|device| scene.guest_name(device)),
        flow: flow.to_string(),
        count,
        cause: None,
        place: Some(Where {
            device: Some(scene.name(place.device)),
            point: Point::of(scene, place),
            function: None,
            reason: None,
        }),
        text,
    }
}

fn dropped(time: Timestamp, track: &Track, key: FlowKey, count: u64, site: &crate::event::DropSite) -> Option<Notice> {
    let scene = Scene::of_host(track);
    let flow = track.get(&key)?;
    let (direction, device, peer) = match attribute::whose(&scene, flow) {
        Some((direction, device, peer)) => (direction, Some(device), peer),
        None if scene.wants_all() => (FlowDirection::Host, None, None),
        None => return None,
    };
    let group = Group { main: flow, others: Vec::new(), translated: None, past: None, direction, device, peer };
    let layer2 = Layer2::default();
    let mut case = gather(&scene, &layer2, &group, Vec::new());
    case.drops.retain(|drop| drop.site == site);
    if case.drops.is_empty() {
        return None;
    }
    let judgement = rules::judge(&mut case)?;
    Some(Notice {
        time,
        kind: NoticeKind::Drop,
        guest: device.and_then(|device| scene.guest_name(device)),
        flow: key.to_string(),
        count,
        cause: Some(judgement.cause),
        place: Some(judgement.place),
        text: judgement.explanation,
    })
}
