//! `dhcp-unanswered`: a guest asks for a lease in vain.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::faults::dhcp::is_request;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;

/// A guest asks for a lease, and nobody answers.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if !is_request(&case.key()) || !case.is_from_guest() || case.answered() > 0 {
        return None;
    }
    let scene = case.scene;
    let count = words::packets(case.packets());
    let bridge = case.bridge()?;
    let guest = case.device().and_then(|device| scene.guest_name(device)).unwrap_or_else(|| "the guest".to_owned());
    if scene.host.uplinks(bridge.index).next().is_some() {
        let explanation =
            format!("{count} of {guest} asked for a lease (DHCP); they left this host, and no server answered.");
        return Some(
            Judgement::dropped(Cause::DhcpUnanswered, beyond(case.last_device().map(|device| scene.name(device))), explanation)
                .verdict(Verdict::Unanswered)
                .severity(Severity::Info)
                .fix(Fix::advice("See whether a DHCP server runs on that network, has leases left, and knows this guest; or give the guest a fixed address.")),
        );
    }
    let explanation = format!(
        "{count} of {guest} asked for a lease (DHCP) on {}, a network of this host alone, and no server of this host answered.",
        bridge.name
    );
    Some(
        Judgement::dropped(Cause::DhcpUnanswered, at(scene, bridge.index, Point::HostInput), explanation)
            .verdict(Verdict::Unanswered)
            .severity(Severity::Warning)
            .evidence([format!("{}: no uplink; nothing came from UDP port 67", bridge.name)])
            .fix(Fix::advice(format!(
                "Start the DHCP server of {} (libvirt: virsh net-destroy NETWORK && virsh net-start NETWORK starts its dnsmasq; ss -lunp shows whether anybody listens on port 67), or see in its log why it gives no lease. Where a relay of this host asks another server (dnsmasq --dhcp-relay, dhcrelay), look there: does it get the requests and know this network?",
                bridge.name
            ))),
    )
}
