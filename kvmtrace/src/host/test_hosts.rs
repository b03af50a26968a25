//! Hosts for the tests of this folder.

use crate::event::host::{HostState, Link, LinkKind, LinkStatistics};
use crate::event::{IfIndex, MacAddress};

/// A device that is up, with a MAC address of its own.
pub(crate) fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index: IfIndex(index),
        name: name.to_owned(),
        kind,
        mac: Some(MacAddress([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: None,
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: "noqueue".to_owned(),
        port: None,
        xdp: None,
        large_receive: false,
        addresses: Vec::new(),
        statistics: LinkStatistics::default(),
    }
}

/// A host with these devices.
pub(crate) fn state(links: impl IntoIterator<Item = Link>) -> HostState {
    let links = links.into_iter().map(|link| (link.index, link)).collect();
    HostState { links, ..HostState::default() }
}
