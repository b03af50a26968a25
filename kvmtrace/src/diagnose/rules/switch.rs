//! Open vSwitch: `ovs-drop`, `ovs-upcall`, by the kernel's own reason; `ovs-vlan`, where a port puts a guest into a VLAN in which nobody
//! is whom it asks for.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::device::up;
use crate::diagnose::fix::switch::port_vlan;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::event::host::Link;
use crate::event::switch::SwitchPlace;
use crate::event::{Address, IfIndex};
use crate::forward::switch::{has_fellows, vlan_of_target};
use crate::forward::words;

/// A drop inside Open vSwitch. Which rule it was, the model says where it knows the rules.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let reason = drop.reason().strip_prefix("OVS_DROP_");
    if reason.is_none() && !drop.within(Site::Switch) {
        return None;
    }
    if let Some(judgement) = own_port_down(case, drop) {
        return Some(judgement);
    }
    let device = drop.device().or(case.device())?;
    let place = at(case.scene, device, Point::BridgeForward).of(drop);
    let share = case.dropped_share();
    let name = case.scene.name(device);
    if reason.is_none() && drop.within(Site::SwitchUpcall) {
        let explanation = format!(
            "{share} met no flow of the kernel's datapath at {name}, and ovs-vswitchd, which should have been asked, did not take them."
        );
        return Some(Judgement::dropped(Cause::OvsUpcall, place, explanation).fix(Fix::advice(
            "See that ovs-vswitchd runs and answers (ovs-appctl version; systemctl status ovs-vswitchd, or openvswitch-switch), and start it anew if it does not. Where it runs, too many new flows at once overran it: ovs-appctl upcall/show; ovs-dpctl show counts what was lost.",
        )));
    }
    let why = match reason {
        Some("LAST_ACTION") => "no action of their flow sends them anywhere",
        Some("EXPLICIT" | "EXPLICIT_WITH_ERROR") => "their flow has the action drop",
        Some("METER") => "a meter of their flow has no more room",
        Some("RECURSION_LIMIT" | "DEFERRED_LIMIT") => "their flow goes in a circle",
        Some("FRAG_L2_TOO_LONG" | "FRAG_INVALID_PROTO") => "they can't be put together or cut up again",
        Some("CONNTRACK") => "connection tracking does not take them",
        Some("IP_TTL") => "their TTL is used up",
        _ => "its datapath does not send them on",
    };
    let explanation = format!("{share} ended in Open vSwitch, which they came to by {name}: {why}.");
    Some(Judgement::dropped(Cause::OvsDrop, place, explanation).fix(Fix::advice(format!(
        "Ask the switch which rule it was: ovs-appctl ofproto/trace BRIDGE in_port={name},…; ovs-appctl dpctl/dump-flows shows the flow that they met."
    ))))
}

/// The packets are for this host, or ask for it, and its own port of the switch is down (`do_output` finds it not running).
fn own_port_down(case: &Case<'_>, drop: &Dropped<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let is_asked = |link: &&Link| {
        !link.up && scene.is_switch_device(link.index) && link.addresses.iter().any(|own| own.address == asked)
    };
    let link = scene.host.links.values().find(is_asked).filter(|_| drop.because(&["DEV_READY"]))?;
    let explanation = format!(
        "{} were for {asked} of this host, whose own port {} of Open vSwitch is down.",
        case.dropped_share(),
        link.name
    );
    let place = at(scene, link.index, Point::BridgeForward).of(drop);
    Some(Judgement::dropped(Cause::OvsPortDown, place, explanation).fix(up(scene.host, scene.host, link)))
}

/// Nobody answers, and the port puts the guest's frames into a VLAN in which nobody else was heard, while the one whom they are for is in
/// another.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    if case.answered() > 0 {
        return None;
    }
    let asked = case.group.main.target.or(case.key().destination.ip());
    if !case.is_from_guest() {
        let guest = case.scene.guest_by_address(Address::Ip(asked?))?;
        return kept_out(case, guest);
    }
    let topology = case.scene.topology();
    let device = case.device()?;
    let place = topology.switch.place(device)?;
    let vlan = topology.switch.vlans(device)?.takes(case.key().vlan.unwrap_or(0))?;
    if has_fellows(topology, place, vlan) {
        return None;
    }
    let guest = asked.and_then(|asked| case.scene.guest_by_address(Address::Ip(asked)));
    let wanted =
        vlan_of_target(topology, place, asked, case.destination_mac(), guest).filter(|wanted| *wanted != vlan)?;
    let name = case.scene.name(device);
    let bridge = &case.scene.host.switch.bridges.get(place.bridge)?.name;
    let explanation = format!(
        "{} went into {} of {bridge}, for {name} has {}, and nobody else was heard in it; {} in {}.",
        crate::diagnose::words::packets(case.packets()),
        vlan_words(vlan),
        words::switch_vlans(topology.switch.vlans(device)?),
        asked.map_or_else(|| "the others are".to_owned(), |asked| format!("{asked} belongs")),
        vlan_words(wanted),
    );
    Some(judgement(case, device, place, wanted, explanation))
}

/// What asks for a guest comes in a VLAN that its port does not carry.
fn kept_out(case: &Case<'_>, guest: IfIndex) -> Option<Judgement> {
    let topology = case.scene.topology();
    let (entry, _) = case.entry()?;
    if case.reached(guest) {
        return None;
    }
    let (from, to) = (topology.switch.place(entry.device)?, topology.switch.place(guest)?);
    let vlan = topology.switch.vlans(entry.device)?.takes(case.key().vlan.unwrap_or(0))?;
    let own = topology.switch.vlans(guest)?;
    if from.bridge != to.bridge || own.carries(vlan) {
        return None;
    }
    let explanation = format!(
        "{} came by {} in {}, which the port of the guest does not carry ({}: {}).",
        crate::diagnose::words::packets(case.packets()),
        case.scene.name(entry.device),
        vlan_words(vlan),
        case.scene.name(guest),
        words::switch_vlans(own),
    );
    Some(judgement(case, guest, to, vlan, explanation))
}

fn judgement(case: &Case<'_>, device: IfIndex, place: SwitchPlace, wanted: u16, explanation: String) -> Judgement {
    let why =
        format!("Puts {} where the one is that the packets are for: {}.", case.scene.name(device), vlan_words(wanted));
    let fix = port_vlan(case.scene, place, wanted, why).unwrap_or_else(|| {
        Fix::advice(format!(
            "Let the port {} carry {}: ovs-vsctl list port {0}.",
            case.scene.name(device),
            vlan_words(wanted)
        ))
    });
    let verdict = if case.left() > 0 { Verdict::Unanswered } else { Verdict::Lost };
    let point = if case.is_from_guest() { Point::TapIngress } else { Point::TapEgress };
    Judgement::dropped(Cause::OvsVlan, at(case.scene, device, point), explanation).verdict(verdict).fix(fix)
}

fn vlan_words(vlan: u16) -> String {
    if vlan == 0 { "no VLAN".to_owned() } else { format!("VLAN {vlan}") }
}
