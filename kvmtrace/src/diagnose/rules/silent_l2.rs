//! Flows that go astray because two claim one address: `address-conflict`, `arp-spoofed`, `mac-conflict`.

use crate::diagnose::case::Case;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::layer2::Conflict;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::scene::Scene;
use crate::event::{IfIndex, MacAddress};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.answered() > 0 {
        return None;
    }
    let facts = &case.scene.layer2;
    let addresses = [case.key().destination.ip(), case.key().source.ip(), case.group.main.target];
    if let Some(conflict) = addresses.into_iter().flatten().find_map(|address| facts.conflict(case.scene, address)) {
        let (cause, explanation, fix) = of_address(case.scene, &conflict);
        let place = at(case.scene, conflict.offender.1, Point::TapIngress);
        return Some(Judgement::dropped(cause, place, explanation).verdict(Verdict::Unanswered).fix(fix));
    }
    let macs = [case.destination_mac(), case.entry().map(|(_, counters)| counters.source_mac)];
    let (mac, devices) = macs.into_iter().flatten().find_map(|mac| Some((mac, facts.shared(mac)?)))?;
    let (explanation, fix) = of_mac(case.scene, mac, &devices);
    let place = at(case.scene, *devices.last()?, Point::TapIngress);
    Some(Judgement::dropped(Cause::MacConflict, place, explanation).verdict(Verdict::Unanswered).fix(fix))
}

/// Two answer for one IP address.
pub fn of_address(scene: &Scene<'_>, conflict: &Conflict) -> (Cause, String, Fix) {
    let macs: Vec<String> = conflict.macs.iter().map(MacAddress::to_string).collect();
    let (mac, device) = conflict.offender;
    let guest = scene.guest_name(device).unwrap_or_default();
    let name = scene.name(device);
    let address = conflict.address;
    if conflict.spoofed {
        let explanation = format!(
            "{guest} ({mac} on {name}) claims {address}, which belongs to another machine: traffic for it is drawn to the guest. Claimed by: {}.",
            macs.join(", ")
        );
        let fix = Fix {
            command: scene.bridge_of(device).map(|_| {
                let rule = format!("add table bridge kvmtrace_arp; add chain bridge kvmtrace_arp prerouting {{ type filter hook prerouting priority -300; }}; add rule bridge kvmtrace_arp prerouting iifname \"{name}\" arp saddr ip {address} drop");
                format!("nft {}", super::super::fix::quote(&rule))
            }).filter(|_| address.is_ipv4()),
            undo: address.is_ipv4().then(|| "nft delete table bridge kvmtrace_arp".to_owned()),
            why: format!("Drops the ARP by which {guest} claims {address}; then find out in the guest why it does."),
            risk: Some("If the guest owns this address after all, it loses it.".to_owned()),
            persist: Some("libvirt: <filterref filter='clean-traffic'/> in the guest's interface.".to_owned()),
            setting: None,
        };
        return (Cause::ArpSpoofed, explanation, fix);
    }
    let explanation = format!(
        "Several machines claim {address}: {}; whoever answers last gets the traffic. One of them is {guest} on {name}.",
        macs.join(", ")
    );
    (
        Cause::AddressConflict,
        explanation,
        Fix::advice(format!("Give one of them another address: {address} is set in more than one guest.")),
    )
}

/// Two guests send with one MAC address.
pub fn of_mac(scene: &Scene<'_>, mac: MacAddress, devices: &[IfIndex]) -> (String, Fix) {
    let who: Vec<String> = devices
        .iter()
        .map(|device| format!("{} on {}", scene.guest_name(*device).unwrap_or_default(), scene.name(*device)))
        .collect();
    let explanation = format!(
        "{mac} sends from several ports: {}; the bridge learns it now here, now there, and frames go to the wrong guest.",
        who.join(", ")
    );
    (
        explanation,
        Fix::advice(
            "Give one of these guests another MAC address, in its definition (virsh edit) and, if set there, in the guest.",
        ),
    )
}
