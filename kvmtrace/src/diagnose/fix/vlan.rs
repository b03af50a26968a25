//! Fixes of a guest's membership in a VLAN of a bridge.

use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::HostState;
use crate::event::bridge::PortVlan;
use crate::event::host::{Link, LinkKind};
use crate::forward::effect::Effect;

/// The port lets the frames of a VLAN out as the guest sends them: with a tag, or without. None where its bridge does not decide
/// that.
pub fn retag(host: &HostState, port: &Link, sends: Option<u16>, gets: Option<u16>) -> Option<Fix> {
    let bridge = host.link(port.master?)?;
    if !matches!(&bridge.kind, LinkKind::Bridge(state) if state.vlan_filtering) {
        return None;
    }
    let vlan = sends.or(gets)?;
    let own = port.port.as_ref()?.vlans.iter().find(|own| own.covers(vlan))?;
    // With both, the guest and its network are in two VLANs: a membership alone mends nothing.
    let wrong = sends.is_none() != gets.is_none() && own.untagged == sends.is_some();
    // Frames without a tag belong to the PVID.
    if !wrong || sends.is_none() && !own.pvid {
        return None;
    }
    let set = |pvid: bool, untagged: bool| {
        let flags = format!("{}{}", if pvid { " pvid" } else { "" }, if untagged { " untagged" } else { "" });
        format!("bridge vlan add dev {} vid {vlan}{flags}", quote(&port.name))
    };
    let untagged = sends.is_none();
    let what = if untagged { "without a tag" } else { "with its tag" };
    let fix = Fix::run(
        set(untagged, untagged),
        set(own.pvid, own.untagged),
        format!("{} then gives the guest the frames of VLAN {vlan} {what}.", port.name),
    );
    let fix = fix.persist(
        "Set it where the port is made: libvirt's <vlan> (a trunk, or nativeMode), Proxmox' tag, systemd-networkd's [BridgeVLAN].",
    );
    Some(fix.effect(Effect::VlanAdd(port.index, PortVlan { id: vlan, last: None, pvid: untagged, untagged })))
}
