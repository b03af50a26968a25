//! What netlink tells of bridges and their ports.

use super::netlink::{Attributes, read_u16};
use crate::event::host::{BridgePort, BridgeState, PortState, PortVlan};

/// `IFLA_BR_*`
pub(super) fn state(data: Attributes<'_>) -> BridgeState {
    BridgeState {
        forward_delay: data.u32(1).unwrap_or(0),
        stp: data.u32(5).is_some_and(|state| state != 0),
        vlan_filtering: data.flag(7),
        group_forward_mask: data.u16(9).unwrap_or(0),
        multicast_snooping: data.flag(23),
        multicast_querier: data.flag(25),
        netfilter_ip: data.flag(36),
        netfilter_ip6: data.flag(37),
        netfilter_arp: data.flag(38),
        default_pvid: data.u16(39).unwrap_or(0),
        vlans: Vec::new(),
    }
}

/// `IFLA_BRPORT_*`. Kernels that lack a flag behave as if it stood at its default.
pub(super) fn port(data: Attributes<'_>) -> BridgePort {
    let on_unless_off = |kind| data.u8(kind).is_none_or(|value| value != 0);
    BridgePort {
        state: port_state(data.u8(1).unwrap_or(0)),
        hairpin: data.flag(4),
        bpdu_guard: data.flag(5),
        learning: on_unless_off(8),
        flood: on_unless_off(9),
        multicast_flood: on_unless_off(27),
        broadcast_flood: on_unless_off(30),
        group_forward_mask: data.u16(31).unwrap_or(0),
        isolated: data.flag(33),
        locked: data.flag(39),
        vlans: Vec::new(),
    }
}

/// `BR_STATE_*`
fn port_state(state: u8) -> PortState {
    match state {
        1 => PortState::Listening,
        2 => PortState::Learning,
        3 => PortState::Forwarding,
        4 => PortState::Blocking,
        _ => PortState::Disabled,
    }
}

/// `IFLA_AF_SPEC` of a bridge or port: `struct bridge_vlan_info` entries, of which some open or close a range.
pub(super) fn vlans(specification: Attributes<'_>) -> Vec<PortVlan> {
    const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
    const PVID: u16 = 1 << 1;
    const UNTAGGED: u16 = 1 << 2;
    const RANGE_BEGIN: u16 = 1 << 3;
    const RANGE_END: u16 = 1 << 4;
    const LAST: u16 = 4094;

    let mut vlans = Vec::new();
    let mut begin = None;
    for (kind, value) in specification.iter() {
        let (Some(flags), Some(id)) = (read_u16(value), value.get(2..).and_then(read_u16)) else { continue };
        if kind != IFLA_BRIDGE_VLAN_INFO || id > LAST {
            continue;
        }
        if flags & RANGE_BEGIN != 0 {
            begin = Some(id);
            continue;
        }
        let first = begin.take().filter(|_| flags & RANGE_END != 0).unwrap_or(id);
        let (pvid, untagged) = (flags & PVID != 0, flags & UNTAGGED != 0);
        vlans.push(PortVlan { id: first, last: Some(id).filter(|last| *last > first), pvid, untagged });
    }
    vlans
}

#[cfg(test)]
mod tests {
    use super::super::netlink::attribute;
    use super::*;

    fn entry(flags: u16, id: u16) -> Vec<u8> {
        attribute(2, &[flags.to_ne_bytes(), id.to_ne_bytes()].concat())
    }

    #[test]
    fn runs_of_vlans_stay_together() {
        let bytes = [entry(6, 1), entry(8, 10), entry(16, 13), entry(4, 20)].concat();
        let vlans = vlans(Attributes(&bytes));
        assert_eq!(vlans.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1", "10-13", "20"]);
        assert_eq!(vlans[0], PortVlan { id: 1, last: None, pvid: true, untagged: true });
        assert_eq!(vlans[1], PortVlan { id: 10, last: Some(13), pvid: false, untagged: false });
        assert_eq!(vlans[2], PortVlan { id: 20, last: None, pvid: false, untagged: true });
        assert!([10, 13].iter().all(|id| vlans[1].covers(*id)) && ![9, 14].iter().any(|id| vlans[1].covers(*id)));
    }

    #[test]
    fn an_old_kernel_without_the_newer_flags_floods_and_is_not_locked() {
        let port = port(Attributes(&[]));
        assert!(port.flood && port.multicast_flood && port.broadcast_flood && port.learning);
        assert!(!port.isolated && !port.locked);
    }
}
