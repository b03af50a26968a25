//! One line of `kvmtrace watch`, and how it is made.

use super::journeys::Journey;
use super::owner::Owner;
use super::told::Subject;
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::gather::gather;
use crate::diagnose::flows::group::Group;
use crate::diagnose::identity::icmp_id;
use crate::diagnose::report::{Cause, Hop, Latency, Point, Where, rfc_3339};
use crate::diagnose::{rules, words};
use crate::event::{Direction, DropSite, Event, EventKind, FlowKey, PacketRecord, Place, Timestamp};
use crate::track::{IcmpError, Track};
use serde::Serialize;

/// [`Notice::schema`].
const SCHEMA: &str = "kvmtrace/watch/1";

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
    /// The way of one packet.
    Path,
    /// All that a flow lost, at the end.
    Total,
}

/// One line of `kvmtrace watch`; docs/watch.schema.json describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `kvmtrace/watch/1`.
    pub schema: &'static str,
    /// When.
    #[serde(serialize_with = "rfc_3339")]
    pub time: Timestamp,
    /// What.
    pub kind: NoticeKind,
    /// The host.
    pub host: String,
    /// Whose packets, if a guest's.
    pub guest: Option<String>,
    /// The guest's interface.
    pub device: Option<String>,
    /// The id of the guest's flow, as in `verdict`; null for what is of no single flow.
    pub flow_id: Option<String>,
    /// The packets' flow in words, with the addresses that they had here.
    pub flow: String,
    /// The same as columns.
    #[serde(flatten)]
    pub ends: Ends,
    /// How many packets this line is about: none of them is in another line, but in a total.
    pub packets: u64,
    /// How many there were so far.
    pub count: u64,
    /// Why, if a rule knows.
    pub cause: Option<Cause>,
    /// Where.
    #[serde(rename = "where")]
    pub place: Option<Where>,
    /// What an ICMP error says.
    pub icmp: Option<IcmpNotice>,
    /// The places of one packet.
    pub path: Option<Vec<Hop>>,
    /// How long it was on its way, in nanoseconds.
    pub latency_ns: Option<u64>,
    /// In plain words.
    pub text: String,
}

/// The columns of a flow, null where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/watch.schema.json documents the names")]
pub struct Ends {
    pub protocol: Option<String>,
    pub source: Option<String>,
    pub source_port: Option<u16>,
    pub destination: Option<String>,
    pub destination_port: Option<u16>,
    pub vlan: Option<u16>,
    pub icmp_id: Option<u16>,
}

impl Ends {
    fn of(flow: FlowKey) -> Self {
        Self {
            protocol: Some(flow.protocol.to_string()),
            source: Some(flow.source.to_string()),
            source_port: flow.source_port,
            destination: Some(flow.destination.to_string()),
            destination_port: flow.destination_port,
            vlan: flow.vlan,
            icmp_id: icmp_id(&flow),
        }
    }
}

/// What an ICMP error says, and of which flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IcmpNotice {
    /// Type (RFC 792, RFC 4443).
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The MTU that it gives, in bytes.
    pub mtu: Option<u32>,
    /// The flow that it quotes, in words; null where its packet was cut short.
    pub about: Option<String>,
    /// The same as columns.
    pub quoted: Option<Ends>,
}

impl Notice {
    fn new(time: Timestamp, kind: NoticeKind, scene: &Scene<'_>, flow: Option<FlowKey>, owner: Option<&Owner>) -> Self {
        let device = owner.and_then(|owner| owner.device);
        Self {
            schema: SCHEMA,
            time,
            kind,
            host: scene.host.name.clone(),
            guest: device.and_then(|device| scene.guest_name(device)),
            device: device.map(|device| scene.name(device)),
            flow_id: owner.map(|owner| owner.id.clone()),
            flow: flow.map_or_else(|| "more flows than could be listed".to_owned(), |flow| flow.to_string()),
            ends: flow.map(Ends::of).unwrap_or_default(),
            packets: 0,
            count: 0,
            cause: None,
            place: None,
            icmp: None,
            path: None,
            latency_ns: None,
            text: String::new(),
        }
    }
}

/// The line about a subject, without its counts; none for what is no loss to anybody.
pub(super) fn notice(subject: &Subject, owner: Option<&Owner>, event: &Event, scene: &Scene<'_>) -> Option<Notice> {
    let time = event.time;
    let record = if let EventKind::Packet(record) = &event.kind { Some(record.as_ref()) } else { None };
    let of_flow = |kind, flow: FlowKey| Notice::new(time, kind, scene, Some(flow), owner);
    match subject {
        Subject::Drop(flow, site) => dropped(of_flow(NoticeKind::Drop, *flow), &scene.track, *flow, owner?, site),
        Subject::Unlisted(site) => unlisted(Notice::new(time, NoticeKind::Drop, scene, None, None), scene, site),
        Subject::Error(flow) => Some(error(of_flow(NoticeKind::IcmpError, *flow), scene, *flow, record, time)),
        Subject::Mac(flow, place) => {
            let (mac, _) = crate::diagnose::facts::dropped::macs(record?)?;
            let text = format!("another MAC address, {mac}, sends {flow} at {}", scene.name(place.device));
            let place = Some(at(scene, *place));
            Some(Notice { place, text, ..of_flow(NoticeKind::MacChanged, *flow) })
        }
        Subject::Fragments(flow) => {
            let places = scene.track.get(flow).map(|flow| &flow.places);
            let most = places.and_then(|places| places.iter().max_by_key(|(_, counters)| counters.fragments));
            let place = most.map(|(place, _)| at(scene, *place));
            Some(Notice { place, ..of_flow(NoticeKind::Fragment, *flow) })
        }
    }
}

/// Words that need the counts.
pub(super) fn say(notice: &mut Notice) {
    let device = notice.place.as_ref().and_then(|place| place.device.clone());
    let at = device.map(|device| format!(" at {device}")).unwrap_or_default();
    match notice.kind {
        NoticeKind::Fragment => notice.text = format!("{}{at}", words::counted(notice.packets, "fragment")),
        NoticeKind::Drop if notice.flow_id.is_none() => {
            let function = notice.place.as_ref().and_then(|place| place.function.as_deref());
            notice.text = format!(
                "{} dropped in {}{at}; their flows are too many to be listed",
                words::packets(notice.packets),
                function.unwrap_or("an unknown function")
            );
        }
        NoticeKind::Drop => {
            let so_far =
                if notice.count > notice.packets { format!(", {} so far", notice.count) } else { String::new() };
            notice.text = format!("{} dropped{so_far}: {}", words::packets(notice.packets), notice.text);
        }
        NoticeKind::IcmpError | NoticeKind::MacChanged | NoticeKind::Path | NoticeKind::Total => {}
    }
}

fn at(scene: &Scene<'_>, place: Place) -> Where {
    Where { device: Some(scene.name(place.device)), point: Point::of(scene, place), function: None, reason: None }
}

/// Drops that were counted without their flows.
fn unlisted(notice: Notice, scene: &Scene<'_>, site: &DropSite) -> Option<Notice> {
    let guest = site.device.and_then(|device| scene.guest_name(device));
    if guest.is_none() && !scene.wants_all() {
        return None;
    }
    let device = site.device.filter(|_| guest.is_some()).map(|device| scene.name(device));
    Some(Notice { guest, device, place: site.device.map(|device| died(scene, device, site)), ..notice })
}

fn died(scene: &Scene<'_>, device: crate::event::IfIndex, site: &DropSite) -> Where {
    Where {
        function: site.function.clone(),
        reason: site.reason.clone(),
        ..at(scene, Place { device, direction: Direction::Ingress })
    }
}

fn error(notice: Notice, scene: &Scene<'_>, flow: FlowKey, record: Option<&PacketRecord>, time: Timestamp) -> Notice {
    let place = record.and_then(|record| record.place).map(|place| at(scene, place));
    let read = record.and_then(|record| IcmpError::read(record, time));
    // Of one that waited for its second to end the first of its kind is known.
    let known = scene.track.errors().find(|error| error.flow == flow);
    let error = read.as_ref().or(known);
    let (kind, code) = flow.protocol.icmp_kind().unwrap_or_default();
    let about = error.map(|error| error.about.flow);
    let mtu = error.and_then(|error| error.mtu);
    let meaning = meaning(flow, kind, code);
    let mtu_words = mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
    let quoted = about.map(|about| format!(" about {about}")).unwrap_or_default();
    let text = format!("{} type {kind} code {code}{meaning}{mtu_words}{quoted}", flow.protocol);
    let about_words = about.map(|about| about.to_string());
    let icmp = IcmpNotice { kind, code, mtu, about: about_words, quoted: about.map(Ends::of) };
    Notice { place, icmp: Some(icmp), text, ..notice }
}

/// Names of the usual ones: RFC 792, RFC 1812 section 5.2.7.1, RFC 4443.
fn meaning(flow: FlowKey, kind: u8, code: u8) -> String {
    let is_v4 = matches!(flow.protocol, crate::event::Protocol::Icmp { .. });
    let name = match (is_v4, kind, code) {
        (true, 3, 0) | (false, 1, 0) => "network unreachable",
        (true, 3, 1) | (false, 1, 3) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 4) => "fragmentation needed",
        (false, 2, _) => "packet too big",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "prohibited",
        (true, 5, _) => "redirect",
        (true, 11, 0) | (false, 3, 0) => "time to live exceeded",
        (true, 11, 1) | (false, 3, 1) => "reassembly time exceeded",
        (true, 12, _) | (false, 4, _) => "parameter problem",
        _ => return String::new(),
    };
    format!(" ({name})")
}

fn dropped(notice: Notice, track: &Track, key: FlowKey, owner: &Owner, site: &DropSite) -> Option<Notice> {
    let scene = Scene::of_host(track);
    let flow = track.get(&key)?;
    let Owner { direction, device, peer, .. } = *owner;
    let group = Group {
        main: flow,
        others: Vec::new(),
        translated: None,
        past: None,
        direction,
        device,
        peer,
        impostor: false,
    };
    let layer2 = Layer2::default();
    let mut case = gather(&scene, &layer2, &group, Vec::new());
    case.drops.retain(|drop| drop.site == site);
    if case.drops.is_empty() {
        return None;
    }
    let judgement = rules::judge(&mut case)?;
    let place = Some(judgement.place);
    Some(Notice { cause: Some(judgement.cause), place, text: words::agreeing(&judgement.explanation), ..notice })
}

/// All that a flow lost, in the words of its last line.
pub(super) fn total(packets: u64, last: &Notice, track: &Track) -> Notice {
    let cause = last.cause.map(|cause| format!(", {}", cause.id())).unwrap_or_default();
    let place = last.place.as_ref().and_then(|place| place.device.as_deref());
    let at = place.map(|device| format!(" at {device}")).unwrap_or_default();
    Notice {
        time: track.end(),
        kind: NoticeKind::Total,
        packets,
        count: packets,
        text: format!("{} dropped in all{cause}{at}", words::packets(packets)),
        ..last.clone()
    }
}

/// What flows lost that have no line of their own in the end.
pub(super) fn rest(track: &Track, packets: u64, flows: u64) -> Notice {
    let scene = Scene::of_host(track);
    let of = if flows > 0 {
        format!("{} more", words::counted(flows, "flow"))
    } else {
        "flows that could not be listed".to_owned()
    };
    let notice = Notice::new(track.end(), NoticeKind::Total, &scene, None, None);
    Notice { packets, count: packets, text: format!("{} dropped in all, of {of}", words::packets(packets)), ..notice }
}

/// Packets whose ways are too many to be shown.
pub(super) fn unshown(track: &Track, now: Timestamp, packets: u64) -> Notice {
    let notice = Notice::new(now, NoticeKind::Path, &Scene::of_host(track), None, None);
    let text = format!("the ways of {} more are not shown (--rate)", words::packets(packets));
    Notice { packets, count: packets, text, ..notice }
}

/// The way of one packet.
pub(super) fn way(journey: &Journey, owner: &Owner, scene: &Scene<'_>) -> Notice {
    let mut before: Option<Timestamp> = None;
    let mut path = Vec::new();
    let mut way = Vec::new();
    for (place, time) in &journey.steps {
        let latency = before.map(|before| time.since(before).0);
        before = Some(*time);
        let device = scene.name(place.device);
        let side = if place.direction == Direction::Ingress { "in" } else { "out" };
        way.push(format!("{device} {side}{}", latency.map(|ns| format!(" +{}", micro(ns))).unwrap_or_default()));
        path.push(Hop {
            device,
            direction: place.direction,
            stage: Point::of(scene, *place),
            packets: 1,
            bytes: u64::from(journey.length),
            latency_ns: latency.map(Latency::once),
            expected: false,
        });
    }
    let latency = journey.latency();
    let end = match &journey.dropped {
        Some((site, _)) => {
            let device = site.device.map(|device| format!(" at {}", scene.name(device))).unwrap_or_default();
            format!("; dropped in {}{device}", site.function.as_deref().unwrap_or("an unknown function"))
        }
        None if path.len() > 1 => format!("; {} in all", micro(latency)),
        None => "; not seen again".to_owned(),
    };
    let place = journey.dropped.as_ref().and_then(|(site, _)| Some(died(scene, site.device?, site)));
    Notice {
        packets: 1,
        count: 1,
        place,
        latency_ns: (path.len() > 1 || journey.dropped.is_some() && !path.is_empty()).then_some(latency),
        text: format!("{}{end}", way.join(" → ")),
        path: Some(path),
        ..Notice::new(journey.last(), NoticeKind::Path, scene, Some(journey.flow), Some(owner))
    }
}

/// `38 µs`, `1.2 ms`
fn micro(nanoseconds: u64) -> String {
    if nanoseconds < 1_000_000 {
        format!("{} µs", nanoseconds / 1_000)
    } else {
        format!("{}.{} ms", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10)
    }
}
