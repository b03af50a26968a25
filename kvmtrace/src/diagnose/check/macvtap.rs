//! A macvtap: what it stands on, and its address.

use super::about::About;
use super::dead::dead_uplink;
use crate::diagnose::facts::macvtap::other_address;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::device::readdress;
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::host::{Link, LinkKind};

pub(super) fn findings(scene: &Scene<'_>, guest: &str, link: &Link) -> Vec<Finding> {
    if !matches!(link.kind, LinkKind::Macvtap { .. }) || !link.up {
        return Vec::new();
    }
    let below = dead_uplink(scene, link, &format!("the interface of {guest}"));
    let below = below.map(|finding| Finding { guest: Some(guest.to_owned()), ..finding });
    below.into_iter().chain(address(scene, guest, link)).collect()
}

/// libvirt gives both one address, and lets a guest that is trusted change it: what was defined says nothing there.
fn address(scene: &Scene<'_>, guest: &str, link: &Link) -> Option<Finding> {
    let manager = scene.host.guest_of(link.index).and_then(|guest| guest.manager.as_deref());
    let addresses = other_address(scene, link).filter(|_| manager != Some("libvirt"))?;
    let (mac, own) = addresses;
    let (cause, severity, point) = (Cause::MacSpoofed, Severity::Error, Point::TapEgress);
    Some(About { scene, cause, severity, guest: Some(guest), device: link.index, point }.say(
        format!(
            "{guest} has the address {own}, and its macvtap {} has {mac}: what is sent to the guest is not handed to it.",
            link.name
        ),
        format!("{}: {mac}; {guest}: {own}", link.name),
        vec![readdress(link, addresses)],
    ))
}
