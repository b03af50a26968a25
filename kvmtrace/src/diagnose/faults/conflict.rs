//! Two claim one IP or MAC address: `address-conflict`, `arp-spoofed`, `mac-conflict`.

use crate::diagnose::facts::layer2::Conflict;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::{Cause, Fix};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::{IfIndex, MacAddress};
use std::net::IpAddr;

/// Two answer for one IP address.
pub fn claimed_twice(scene: &Scene<'_>, conflict: &Conflict) -> (Cause, String, Fix) {
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
        let fix = if scene.bridge_of(device).is_some() {
            drop_claims(&guest, &name, device, address)
        } else {
            Fix::advice(format!("Find out in {guest} why it claims {address}, and take the address off it."))
        };
        return (Cause::ArpSpoofed, explanation, fix);
    }
    let explanation = format!(
        "Several machines claim {address}: {}; whoever answers last gets the traffic. Among them: {}.",
        macs.join(", "),
        words::list(&who(scene, &conflict.guests))
    );
    (
        Cause::AddressConflict,
        explanation,
        Fix::advice(if conflict.guests.len() > 1 {
            format!(
                "{address} is set in more than one guest: give one of {} another.",
                words::list(&who(scene, &conflict.guests))
            )
        } else {
            format!("{address} is set in {guest} and on a machine beyond this host: give one of them another.")
        }),
    )
}

fn who(scene: &Scene<'_>, devices: &[IfIndex]) -> Vec<String> {
    let name =
        |device: &IfIndex| format!("{} on {}", scene.guest_name(*device).unwrap_or_default(), scene.name(*device));
    devices.iter().map(name).collect()
}

/// The interface that sends with the MAC address and has another by its definition; the last one where none is known to.
pub fn taker(scene: &Scene<'_>, mac: MacAddress, devices: &[IfIndex]) -> Option<IfIndex> {
    let defined = |device: &IfIndex| scene.interface(*device).and_then(|interface| interface.mac);
    let is_owned = devices.iter().any(|device| defined(device) == Some(mac));
    let mut others = devices.iter().filter(|device| defined(device).is_some_and(|own| own != mac));
    others.next().filter(|_| is_owned).or(devices.last()).copied()
}

/// Two guests send with one MAC address.
pub fn sent_from_several(scene: &Scene<'_>, mac: MacAddress, devices: &[IfIndex]) -> (String, Fix) {
    let names = who(scene, devices);
    let owner = scene.guest_by_mac(mac).filter(|owner| devices.contains(owner));
    let taker = taker(scene, mac, devices).filter(|taker| owner.is_some_and(|owner| owner != *taker));
    let by_definition = match owner.zip(taker) {
        Some((owner, taker)) => format!(
            " By their definitions it is that of {}; {} has taken it.",
            words::list(&who(scene, &[owner])),
            words::list(&who(scene, &[taker]))
        ),
        None => String::new(),
    };
    let explanation = format!(
        "{mac} sends from several ports: {}; the bridge learns it now here, now there, and frames go to the wrong guest.{by_definition}",
        names.join(", ")
    );
    let first = match taker.and_then(|taker| Some((taker, scene.interface(taker)?.mac?))) {
        Some((taker, own)) => format!(
            "Let {} send with its own MAC address, {own} (libvirt: <filterref filter='no-mac-spoofing'/>; Proxmox: macfilter: 1). Or give",
            words::list(&who(scene, &[taker]))
        ),
        None => "Give".to_owned(),
    };
    (
        explanation,
        Fix::advice(format!(
            "{first} one of {} another MAC address, in its definition (virsh edit) and, if set there, in the guest.",
            words::list(&names)
        )),
    )
}

/// Drops what a guest says about an address: ARP, and neighbour advertisements with it as their target (at byte 8 of the
/// ICMPv6 header; nft has a word for it only in newer versions) or anything that it sends from it.
fn drop_claims(guest: &str, device: &str, index: IfIndex, address: IpAddr) -> Fix {
    // A table of its own, so that its removal removes nothing else. A colon may not stand in a name.
    let table = format!("bridge kvmtrace_claim_{}_{}", index.0, address.to_string().replace(':', "-"));
    let from = format!("add rule {table} prerouting iifname \"{device}\"");
    let (what, rules) = match address {
        IpAddr::V4(_) => ("ARP", format!("{from} arp saddr ip {address} drop")),
        IpAddr::V6(target) => {
            let target = u128::from(target);
            let advertised = format!("{from} icmpv6 type nd-neighbor-advert @th,64,128 {target:#034x} drop");
            ("neighbour advertisements", format!("{advertised}; {from} ip6 saddr {address} drop"))
        }
    };
    let chain = format!("add chain {table} prerouting {{ type filter hook prerouting priority -300; }}");
    Fix::run(
        format!("nft {}", quote(&format!("add table {table}; {chain}; {rules}"))),
        format!("nft delete table {table}"),
        format!("Drops the {what} by which {guest} claims {address}; then find out in the guest why it does."),
    )
    .risk("If the guest owns this address after all, it loses it. What asked meanwhile remembers the wrong machine until it asks anew.")
    .persist("libvirt: <filterref filter='clean-traffic'/> in the guest's interface.")
}
