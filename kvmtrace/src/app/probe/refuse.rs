//! For whom nothing is sent, and why.

use crate::event::HostState;
use crate::forward::Entry;
use crate::forward::asked::{Asked, guest_named};
use anyhow::bail;

/// Refuses what would speak for nobody, harm a guest, or bear an address that is only supposed.
pub(super) fn check(host: &HostState, asked: &Asked) -> anyhow::Result<()> {
    let name = &asked.guest;
    let guest = guest_named(host, name).map(|(guest, _)| guest);
    if guest.is_some_and(|guest| guest.stopped) {
        bail!("{name} is paused, so nothing is sent in its name and nothing reaches it: resume it first");
    }
    if guest.is_none_or(|guest| guest.pid.is_none()) {
        bail!("{name}: no process holds its interface, so there is no guest to speak for: start it first");
    }
    let unknown = asked.next_hop.is_some_and(|hop| hop.mac.is_none());
    let by_guest = asked.first.as_ref().filter(|_| unknown).map(|_| asked.interface);
    let by_itself = match asked.entry {
        Entry::Guest(device) | Entry::Wire(device) => Some(device),
        Entry::Host => None,
    };
    for device in by_itself.into_iter().chain(by_guest) {
        let link = host.link(device);
        if let Some(link) = link.filter(|link| !link.up) {
            bail!(
                "{} is down, so nothing comes in by it: `ip link set dev {} up` first",
                link.name,
                crate::diagnose::shell::quote(&link.name)
            );
        }
    }
    if let (Entry::Wire(device), Some(hop)) = (asked.entry, asked.next_hop)
        && hop.mac.is_none()
        && asked.first.is_none()
    {
        bail!(
            "the MAC address of {} at {} is not known here, and a false one would mislead the bridge: `ping -c1 {}` first",
            hop.address,
            host.link_name(device),
            hop.address
        );
    }
    Ok(())
}
