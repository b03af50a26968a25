//! NICs that merge what comes in (large receive offload).

use crate::event::IfIndex;
use crate::event::host::{HostState, Link, LinkKind};

/// The NICs that merge what comes in by a device: itself, or those that it bundles. What a bond or team says of itself
/// merges nothing.
pub fn merging(host: &HostState, device: IfIndex) -> impl Iterator<Item = &Link> {
    let bundled = host.ports(device).filter(move |_| {
        let bundle = host.link(device);
        bundle.is_some_and(|link| !matches!(link.kind, LinkKind::Bridge(_)))
    });
    host.link(device).into_iter().chain(bundled).filter(|link| link.kind == LinkKind::Physical && link.large_receive)
}

/// As it was read.
pub fn large_receive_evidence(nic: &Link) -> String {
    format!("{}: large-receive-offload on", nic.name)
}
