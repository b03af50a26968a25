//! For whom nothing is sent, and why.

use crate::app::alone::host_alone;
use crate::diagnose::report::{Report, Severity};
use crate::event::{HostState, IfIndex};
use crate::forward::Entry;
use crate::forward::asked::{Asked, guest_named};
use crate::host::path::Scope;

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(in crate::app) struct Refusal {
    why: String,
    guest: String,
    /// The device where it would have entered.
    device: Option<IfIndex>,
    /// What is not known is about somebody beyond this host: the fault may be anywhere on the guest's way there.
    beyond: bool,
}

impl Refusal {
    /// The faults of the configuration that stand in the way, where there are any: then they are the answer.
    pub(in crate::app) fn faults(&self, host: &HostState) -> Option<Report> {
        let scope = Scope { guests: vec![self.guest.clone()], ..Scope::default() };
        let mut report = host_alone(host.clone(), scope).check();
        let device = self.device.map(|device| host.link_name(device));
        report.findings.retain(|finding| {
            let near = finding.place.as_ref().and_then(|place| place.device.as_ref());
            finding.severity >= Severity::Warning
                && (self.beyond
                    || finding.guest.as_ref() == Some(&self.guest)
                    || device.is_some() && near == device.as_ref())
        });
        report.reachability = None;
        report.settle_incidents();
        (!report.findings.is_empty()).then_some(report)
    }
}

/// Refuses what would speak for nobody, harm a guest, or bear an address that is only supposed.
pub(in crate::app) fn check(host: &HostState, asked: &Asked) -> Result<(), Refusal> {
    let name = &asked.guest;
    let refuse =
        |device: Option<IfIndex>, why: String| Err(Refusal { why, guest: asked.guest.clone(), device, beyond: false });
    let guest = guest_named(host, name).map(|(guest, _)| guest);
    if guest.is_some_and(|guest| guest.stopped) {
        return refuse(
            None,
            format!("{name} is paused, so nothing is sent in its name and nothing reaches it: resume it first"),
        );
    }
    if guest.is_none_or(|guest| guest.pid.is_none()) {
        return refuse(
            None,
            format!("{name}: no process holds its interface, so there is no guest to speak for: start it first"),
        );
    }
    let device = |entry: Entry| match entry {
        Entry::Guest(device) | Entry::Wire(device) => Some(device),
        Entry::Host => None,
    };
    for device in asked.entries().filter_map(device) {
        if let Some(link) = host.link(device).filter(|link| !link.up) {
            let name = crate::diagnose::shell::quote(&link.name);
            return refuse(
                Some(device),
                format!("{} is down, so nothing comes in by it: `ip link set dev {name} up` first", link.name),
            );
        }
    }
    if let (Entry::Wire(device), Some(hop)) = (asked.entry, asked.next_hop)
        && hop.mac.is_none()
        && asked.sender.is_none()
    {
        return Err(Refusal {
            why: format!(
                "the MAC address of {} at {} is not known here, and a false one would mislead the bridge: `ping -c1 {}` first",
                hop.address,
                host.link_name(device),
                hop.address
            ),
            guest: asked.guest.clone(),
            device: Some(device),
            beyond: true,
        });
    }
    Ok(())
}
