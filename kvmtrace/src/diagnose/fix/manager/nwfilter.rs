//! libvirt's filters of a guest's interface: what they let pass stands in the guest's definition, and for its running
//! interface in a binding.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::Conversation;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::host::{Chain, Link};
use std::net::IpAddr;

/// The chains of these filters, by the names that `nwfilter_ebiptables_driver.c` gives them.
pub(in crate::diagnose) fn owns(chain: &Chain) -> bool {
    let name = chain.name.as_str();
    if chain.family == "bridge" {
        return ["libvirt-I-", "libvirt-O-", "I-", "O-"].iter().any(|prefix| name.starts_with(prefix));
    }
    let own = ["libvirt-in", "libvirt-out", "libvirt-host-in", "FI-", "FO-", "HI-"];
    own.iter().any(|prefix| name.starts_with(prefix))
}

/// An address that the filter does not know is made known to it; for all else the filter itself is to be changed.
pub(in crate::diagnose) fn fix(scene: &Scene<'_>, chain: &Chain, wanted: &Conversation) -> Fix {
    let by_address = ["-ipv4-ip", "-ipv6-ip", "-arp-ip"].iter().find_map(|end| chain.name.strip_suffix(end));
    let tap = by_address.and_then(|head| scene.host.link_named(head.strip_prefix("I-")?));
    // What a guest merely claims to be its address opens no filter.
    let known = |tap: &Link, address: IpAddr| {
        let interface = scene.interface(tap.index);
        interface.is_some_and(|interface| interface.addresses.contains(&address))
    };
    match (tap, wanted.source) {
        (Some(tap), Some(address)) if known(tap, address) => know(scene, tap, address),
        (Some(tap), Some(address)) => Fix::advice(format!(
            "libvirt's filter of {} does not know {address}, which the guest claims. If it is meant to be the guest's: virsh edit {}, and add <parameter name='IP' value='{address}'/> to the interface's <filterref>; else give the guest the address that it may have.",
            tap.name,
            quote(&scene.guest_name(tap.index).unwrap_or_else(|| tap.name.clone()))
        )),
        _ => Fix::advice(
            "libvirt filters the guest's interface: change the filter (virsh nwfilter-list; virsh nwfilter-edit NAME), or the <filterref> of the interface in the guest's definition (virsh edit).",
        ),
    }
}

fn know(scene: &Scene<'_>, tap: &Link, address: IpAddr) -> Fix {
    let guest = scene.guest_name(tap.index).unwrap_or_else(|| tap.name.clone());
    let (old, new) = ("", ".new");
    let [old, new] = [old, new].map(|end| quote(&format!("/run/kvmtrace-filter-{}{end}", tap.name)));
    let virsh = "virsh --connect nwfilter:///system nwfilter-binding";
    let name = quote(&tap.name);
    let edit = quote(&format!("s|</filterref>|<parameter name='IP' value='{address}'/></filterref>|"));
    Fix::run(
        format!(
            "{virsh}-dumpxml {name} > {old} && sed {edit} {old} > {new} && {virsh}-delete {name} && {virsh}-create {new}"
        ),
        format!("{virsh}-delete {name}; {virsh}-create {old}"),
        format!("Lets {guest} send from {address}, which libvirt's filter of {} does not know.", tap.name),
    )
    .risk(format!("Only right if {address} is meant to be the guest's; else give the guest the address that it may have."))
    .persist(format!(
        "virsh edit {}: add <parameter name='IP' value='{address}'/> to the <filterref> of the <interface>.",
        quote(&guest)
    ))
}
