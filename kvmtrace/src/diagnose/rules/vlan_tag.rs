//! `vlan-tag-mismatch`: frames reach their receiver with a VLAN tag that it does not use, or without the one that it uses.

use crate::diagnose::facts::index::{Tags, tag};
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::vlan::retag;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::{Address, Direction, IfIndex, Place};
use crate::track::Flow;
use std::net::IpAddr;

fn tags<'a>(flows: impl Iterator<Item = &'a Flow>, device: IfIndex, direction: Direction) -> Tags {
    let place = Place { device, direction };
    flows.filter(|flow| flow.places.contains_key(&place)).map(tag).collect()
}

/// Some frames, all of them other than all of those.
fn differ(tags: &Tags, others: &Tags) -> Option<(Option<u16>, Option<u16>)> {
    let pair = (*tags.first()?, *others.first()?);
    tags.is_disjoint(others).then_some(pair)
}

/// The guest is answered, and the answers come to its port with another tag than it sends with.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let own = case.scene.link(case.device()?)?;
    if !case.is_from_guest() {
        return None;
    }
    let sent = tags(case.group.flows(), own.index, Direction::Ingress);
    let back = tags(case.answers.iter().copied(), own.index, Direction::Egress);
    let (sends, gets) = differ(&sent, &back)?;
    let explanation = format!(
        "{} sent {} by the guest on {}, and what answers them comes to it {}: it takes none of that.",
        were(case.packets()),
        with(sends),
        own.name,
        with(gets)
    );
    Some(judgement(case, own, (sends, gets), explanation).verdict(Verdict::Unanswered))
}

/// Nobody answers, and the one that is asked uses another tag.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    if case.answered() > 0 {
        return judge(case);
    }
    if !case.is_neighbour_traffic() {
        return None;
    }
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let guest = case.scene.guest_by_address(Address::Ip(asked)).and_then(|device| case.scene.link(device));
    match guest {
        Some(guest) => at_guest(case, guest, asked),
        None if case.is_from_guest() => beyond(case, asked),
        None => None,
    }
}

/// A guest is asked with a tag that it never uses.
fn at_guest(case: &Case<'_>, guest: &Link, asked: IpAddr) -> Option<Judgement> {
    let came = tags(case.group.flows(), guest.index, Direction::Egress);
    let seen = case.scene.index().tags_sent(guest.index);
    let uses = seen.cloned().unwrap_or_else(|| known_to_host(case, guest, asked));
    let (gets, sends) = differ(&came, &uses)?;
    let explanation = format!(
        "{} for {asked} come to the guest on {} {}, and it sends its own frames {}: it takes none of these.",
        words::packets(case.packets()),
        guest.name,
        with(gets),
        with(sends)
    );
    Some(judgement(case, guest, (sends, gets), explanation).verdict(Verdict::Unanswered))
}

/// How this host reaches the guest: by the bridge without a tag, by a VLAN device on it with one.
fn known_to_host(case: &Case<'_>, guest: &Link, asked: IpAddr) -> Tags {
    let bridge = guest.master;
    let entries = case.scene.host.neighbours.iter().filter(|entry| entry.address == asked && entry.mac.is_some());
    let tag = |device: IfIndex| {
        let link = case.scene.link(device)?;
        if let LinkKind::Vlan { id } = link.kind {
            return (link.lower == bridge).then_some(Some(id));
        }
        let plain = matches!(&link.kind, LinkKind::Bridge(state) if !state.vlan_filtering);
        (plain && bridge == Some(device)).then_some(None)
    };
    entries.filter_map(|entry| tag(entry.device)).collect()
}

/// A guest asks for somebody who sends by the same device with another tag.
fn beyond(case: &Case<'_>, asked: IpAddr) -> Option<Judgement> {
    let theirs = case.scene.index().from(Address::Ip(asked));
    let exits = case.hops.iter().map(|(place, _)| place).filter(|place| place.direction == Direction::Egress);
    exits.map(|place| place.device).find_map(|device| {
        let went = tags(case.group.flows(), device, Direction::Egress);
        let came = tags(theirs.iter().copied().take(64), device, Direction::Ingress);
        let (sent, used) = differ(&went, &came)?;
        let link = case.scene.link(device)?;
        let explanation = format!(
            "{} left by {} {}, and {asked} sends {} there: it takes none of these.",
            words::packets(case.packets()),
            link.name,
            with(sent),
            with(used)
        );
        let point = Point::of(case.scene, Place { device, direction: Direction::Egress });
        let advice = Fix::advice(format!(
            "Give both the same VLAN: {}, or let {asked} send {}.",
            own_vlan(link, used),
            with(sent)
        ));
        let judgement = Judgement::dropped(Cause::VlanTagMismatch, at(case.scene, device, point), explanation);
        Some(judgement.verdict(Verdict::Unanswered).fix(advice))
    })
}

fn own_vlan(link: &Link, used: Option<u16>) -> String {
    match used {
        Some(vlan) => format!(
            "a VLAN device (ip link add link {0} name {0}.{vlan} type vlan id {vlan}) as the port of the guests' bridge instead of {0}, or a tag in the guest",
            link.name
        ),
        None => "no tag in the guest, or none at this host's port".to_owned(),
    }
}

/// At a guest's port: what it sends with, and what it gets.
fn judgement(case: &Case<'_>, own: &Link, (sends, gets): (Option<u16>, Option<u16>), explanation: String) -> Judgement {
    let fix = retag(case.scene.host, own, sends, gets).unwrap_or_else(|| {
        let inside = match gets {
            Some(vlan) => format!("give it a VLAN device with the id {vlan}"),
            None => "put the address on the card itself, without a VLAN".to_owned(),
        };
        Fix::advice(format!(
            "In the guest: {inside}; or let the others of its network send {}, if the guest is right.",
            with(sends)
        ))
    });
    let evidence = [format!("{}: the guest sends {}, and gets frames {}", own.name, with(sends), with(gets))];
    Judgement::dropped(Cause::VlanTagMismatch, at(case.scene, own.index, Point::TapEgress), explanation)
        .evidence(evidence)
        .fix(fix)
}

fn with(tag: Option<u16>) -> String {
    tag.map_or_else(|| "without a tag".to_owned(), |vlan| format!("with the tag {vlan}"))
}

fn were(packets: u64) -> String {
    format!("{} {}", words::packets(packets), if packets == 1 { "was" } else { "were" })
}
