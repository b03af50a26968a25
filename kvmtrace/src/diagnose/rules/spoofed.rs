//! `source-spoofed`: a guest sends as another, and what protects against that stops it: an anti-spoofing rule or the
//! reverse-path filter. Nothing on the host is to be mended, whatever the guest's packets look like.

use crate::diagnose::facts::dropped::macs;
use crate::diagnose::facts::firewall::protection::{Protection, protection};
use crate::diagnose::facts::firewall::suspects::Suspect;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{reverse_path_filter, route_text, way_back};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::facts::standing::{Owner, Standing};
use crate::diagnose::faults::firewall::culprits;
use crate::diagnose::fix::manager::{Manager, manager_of};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict, Where};
use crate::diagnose::words;
use crate::event::IfIndex;
use crate::event::host::{FdbEntry, Link};
use crate::event::is_link_local;
use std::net::IpAddr;

/// What the guest sends as, and whose that is.
struct Disguise<'a> {
    text: String,
    /// By the MAC address, whatever the IP address is.
    by_mac: bool,
    owner: Option<Owner<'a>>,
}

/// A drop of what a guest sends with a source that is not its own.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let device = case.device().filter(|_| case.is_from_guest())?;
    let scene = case.scene;
    let culprits = culprits(scene, drop, &drop.key());
    let first = culprits.as_ref().and_then(|(_, suspects)| suspects.first());
    let checks = first.and_then(|suspect| suspect.rule).and_then(protection) == Some(Protection::Source);
    if let (true, Some(first), Some((stage, suspects))) = (checks, first, culprits.as_ref())
        && let Some(judgement) =
            led_astray(case, device, first, at(scene, drop.device().unwrap_or(device), stage.point()).of(drop))
    {
        return Some(judgement.evidence(suspects.iter().take(2).map(Suspect::evidence)));
    }
    let disguise = disguise(case, device, checks)?;
    if let Some((stage, suspects)) = culprits.as_ref() {
        let manager = first.and_then(|suspect| manager_of(&scene.host.netfilter.chains, suspect.chain?, suspect.rule));
        // Who manages the addresses of its guests has a way of its own to give one more; nobody loses by that.
        let granted = matches!(manager, Some(Manager::Proxmox | Manager::Neutron | Manager::LibvirtFilter));
        let checks = checks || manager == Some(Manager::LibvirtFilter);
        if disguise.owner.is_none() && (!checks || granted) {
            return None;
        }
        let by = first.map_or_else(|| format!("the {} hook", stage.hook), Suspect::text);
        let place = at(scene, drop.device().unwrap_or(device), stage.point()).of(drop);
        let severity = if checks { Severity::Info } else { Severity::Warning };
        let evidence = suspects.iter().take(2).map(Suspect::evidence);
        return Some(spoofed(case, device, &disguise, place, &by).severity(severity).evidence(evidence));
    }
    let filtered = filtered(case, device, &disguise);
    if case.group.impostor && filtered.is_none() {
        return unstopped(case, device, &disguise).map(|judgement| judgement.verdict(Verdict::Dropped));
    }
    let input = filtered?;
    let by = format!("the reverse-path filter of {}", input.name);
    Some(spoofed(case, device, &disguise, at(scene, input.index, Point::Routing).of(drop), &by))
}

/// A rule asks for the way back (`rpfilter`, `fib`), and this host's own routes lead what is for the guest's network elsewhere:
/// the source is one of that network, and nobody else's.
fn led_astray(case: &Case<'_>, device: IfIndex, culprit: &Suspect<'_>, place: Where) -> Option<Judgement> {
    let scene = case.scene;
    let rule = culprit.rule?;
    let asks_back = rule.text.split_whitespace().any(|word| matches!(word, "rpfilter" | "fib"));
    let from = case.key().source.ip()?;
    let input = scene.bridge_of(device).or_else(|| scene.link(device))?;
    let is_own =
        input.addresses.iter().any(|network| network.contains(from)) && scene.true_owner(device, from).is_none();
    let back = way_back(scene, from, case.key().destination.ip());
    let route = back.unicast().filter(|route| route.device.is_some_and(|by| by != input.index && by != device))?;
    if !asks_back || !is_own {
        return None;
    }
    let text = route_text(scene, route);
    let explanation = format!(
        "{} from {from} came in by {}, whose network that is, but this host would answer by another way ({text}); {} drops such packets.",
        case.dropped_share(),
        input.name,
        culprit.text()
    );
    let judgement = Judgement::dropped(Cause::ReversePathFilter, place, explanation);
    Some(judgement.fix(Fix::advice(format!(
        "Correct the route {text}: what is for {from} has to lead by {}, where it is (ip route show match {from}; ip route del {text}, if nobody meant it). The rule does what it is for, and stays.",
        input.name
    ))))
}

/// The device whose reverse-path filter stopped it.
fn filtered<'a>(case: &Case<'a>, device: IfIndex, disguise: &Disguise<'_>) -> Option<&'a Link> {
    let (scene, drop) = (case.scene, case.focus.as_ref()?);
    let input = scene.link(drop.device().unwrap_or(device))?;
    let filtered = drop.because(&["IP_RPFILTER"])
        || drop.is_unspecified()
            && drop.within(Site::SourceCheck)
            && reverse_path_filter(scene.host, input) > 0
            && disguise.owner.is_some();
    filtered.then_some(input)
}

/// What a guest sends as another and nothing stops: the address or MAC address is better known to be somebody else's.
pub fn judge_unstopped(case: &Case<'_>) -> Option<Judgement> {
    let device = case.device().filter(|_| case.is_from_guest() && !case.is_neighbour_traffic())?;
    // A MAC address that comes from two ports is one finding, for both.
    let disguise = disguise(case, device, false).filter(|disguise| !disguise.by_mac || case.group.impostor)?;
    unstopped(case, device, &disguise)
}

fn unstopped(case: &Case<'_>, device: IfIndex, disguise: &Disguise<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let owner = disguise.owner.as_ref().filter(|owner| is_there(case, owner))?;
    let guest = scene.guest_name(device).unwrap_or_else(|| "The guest".to_owned());
    let explanation = format!(
        "{guest} on {} sends as {}, which belongs to {}: {}, and nothing on this host stops that.",
        scene.name(device),
        disguise.text,
        owner.text(scene),
        words::packets(case.packets())
    );
    let own = scene.interface(device).and_then(|interface| interface.mac);
    Some(
        Judgement::dropped(Cause::SourceSpoofed, at(scene, device, Point::TapIngress), explanation)
            .verdict(Verdict::Delivered)
            .severity(Severity::Warning)
            .evidence(own.map(|mac| format!("{}: the interface of {guest} has {mac}", scene.name(device))))
            .fix(Fix::advice(format!(
                "Find out in {guest} what sends as {}. To keep guests to their own addresses: libvirt's <filterref filter='clean-traffic'/>, Proxmox' \"macfilter: 1\" and \"ipfilter: 1\" under [OPTIONS] of its firewall, port security in OpenStack, security.mac_filtering and security.ipv4_filtering in Incus.",
                disguise.text
            ))),
    )
}

/// A machine beyond this host has been heard; an entry of the neighbour table alone may be left over.
fn is_there(case: &Case<'_>, owner: &Owner<'_>) -> bool {
    let Owner::Machine(mac) = owner else { return true };
    let scene = case.scene;
    let learnt = |entry: &FdbEntry| entry.mac == *mac && !entry.permanent && !entry.fixed;
    scene.index().is_heard_beyond(*mac) || scene.host.forwarding.iter().any(learnt)
}

/// The source is not the interface's own: another's, or one that the guest merely claims beside its own, or against a rule
/// that checks sources (`checked`).
fn disguise<'a>(case: &Case<'a>, device: IfIndex, checked: bool) -> Option<Disguise<'a>> {
    let scene = case.scene;
    let own_mac = scene.interface(device)?.mac?;
    // Behind the guest's own device a packet may bear this host's addresses, by routing and NAT.
    let here = case.focus.as_ref().filter(|drop| drop.device() == Some(device));
    let example = here.and_then(|drop| drop.example()).and_then(macs).map(|(source, _)| source);
    let mut places = case.group.main.places.iter();
    let entered = places.find(|(place, _)| place.device == device && scene.is_entry(**place));
    let mac = entered.map(|(_, counters)| counters.source_mac).or(example).filter(|mac| !mac.is_zero())?;
    if mac != own_mac {
        return Some(Disguise {
            text: format!("the MAC address {mac}"),
            by_mac: true,
            owner: scene.mac_owner(device, mac),
        });
    }
    let source = case.key().source.ip().filter(|source| !is_of_no_one(*source))?;
    if scene.forwards(device, source) {
        return None;
    }
    let owner = scene.true_owner(device, source);
    let known = scene.addresses_of(device).iter().any(|address| {
        *address != source
            && address.is_ipv4() == source.is_ipv4()
            && scene.standing(device, *address) > Standing::Claimed
    });
    // A rule that keeps the guest to its addresses is configuration, which comes before whatever was answered.
    let claimed = checked || known && scene.standing(device, source) == Standing::Claimed;
    (owner.is_some() || claimed).then(|| Disguise { text: source.to_string(), by_mac: false, owner })
}

/// Sources that anybody may use before it has an address, and the link-local one that follows from the MAC address.
fn is_of_no_one(source: IpAddr) -> bool {
    source.is_unspecified() || source.is_multicast() || is_link_local(source)
}

fn spoofed(case: &Case<'_>, device: IfIndex, disguise: &Disguise<'_>, place: Where, by: &str) -> Judgement {
    let scene = case.scene;
    let guest = scene.guest_name(device).unwrap_or_else(|| "The guest".to_owned());
    let whose = match &disguise.owner {
        Some(owner) => format!("which belongs to {}", owner.text(scene)),
        None => "which nothing but its own packets says to be its".to_owned(),
    };
    let explanation = format!(
        "{guest} on {} sends as {}, {whose}: {} were stopped by {by}. Policy: working as configured.",
        scene.name(device),
        disguise.text,
        case.dropped_share()
    );
    let advice = if disguise.owner.is_some() {
        format!("Find out in {guest} what sends as {}; nothing is wrong on this host.", disguise.text)
    } else {
        format!(
            "Find out in {guest} what sends as {}. If that is meant (an address of its own, a nested guest, VRRP), it has to be allowed where {guest} and its addresses are defined; anything that {guest} sends as that is believed then.",
            disguise.text
        )
    };
    let own = scene.interface(device).and_then(|interface| interface.mac);
    Judgement::dropped(Cause::SourceSpoofed, place, explanation)
        .severity(Severity::Info)
        .evidence(own.map(|mac| format!("{}: the interface of {guest} has {mac}", scene.name(device))))
        .fix(Fix::advice(advice))
}
