//! A macvtap and its guest: two addresses that should be one.

use super::scene::Scene;
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind};
use crate::event::names::MacvtapMode;

/// A macvtap's mode.
pub fn mode(link: &Link) -> Option<MacvtapMode> {
    let LinkKind::Macvtap { mode } = &link.kind else { return None };
    Some(*mode)
}

/// The macvtap's own address, where the guest has another: only what is sent to the macvtap's is handed up
/// (`macvlan_hash_lookup`), but for the modes that hand up all or have a list of sources.
pub fn other_address(scene: &Scene<'_>, own: &Link) -> Option<(MacAddress, MacAddress)> {
    let LinkKind::Macvtap { mode } = &own.kind else { return None };
    let guest = scene.interface(own.index)?.mac?;
    let by_address = mode.hands_up_by_address();
    own.mac.filter(|mac| by_address && *mac != guest).map(|mac| (mac, guest))
}
