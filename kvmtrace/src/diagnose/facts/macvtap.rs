//! A macvtap and its guest: two addresses that should be one.

use super::scene::Scene;
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind};

/// A macvtap's mode: `bridge`, `vepa`, `private`, `passthru`, `source`.
pub fn mode(link: &Link) -> Option<&str> {
    let LinkKind::Macvtap { mode } = &link.kind else { return None };
    Some(mode)
}

/// The macvtap's own address, where the guest has another: only what is sent to the macvtap's is handed up
/// (`macvlan_hash_lookup`), but for the modes that hand up all or have a list of sources.
pub fn other_address(scene: &Scene<'_>, own: &Link) -> Option<(MacAddress, MacAddress)> {
    let LinkKind::Macvtap { mode } = &own.kind else { return None };
    let guest = scene.interface(own.index)?.mac?;
    let by_address = matches!(mode.as_str(), "bridge" | "vepa" | "private");
    own.mac.filter(|mac| by_address && *mac != guest).map(|mac| (mac, guest))
}
