//! Devices that stand on others: what is set of the upper one needs the lower one to allow it.
//!
//! A VLAN device carries no more than the one below it (`vlan_dev_change_mtu`: ERANGE), a macvlan neither
//! (`macvlan_change_mtu`), a VXLAN device its lower one's MTU less the headers (`vxlan_change_mtu`: EINVAL). A VLAN device
//! can't be up while the one below is down (`vlan_dev_open`: ENETDOWN), and goes down with it (`vlan_device_event`).

use crate::diagnose::facts::tunnel::overhead;
use crate::diagnose::report::{DeviceSetting, Fix, Setting};
use crate::diagnose::shell::quote;
use crate::event::HostState;
use crate::event::host::{Link, LinkKind};
use crate::forward::effect::Effect;

/// Devices that stand on each other at most.
const DEEPEST: usize = 8;

/// VLAN devices that one command brings up at most.
const MOST: usize = 64;

/// Sets the lower devices first.
pub fn complete(host: &HostState, fix: &mut Fix) {
    let Some(Setting::Device { device, what }) = &fix.setting else { return };
    let Some(link) = host.link_named(device) else { return };
    let steps = match what {
        DeviceSetting::Mtu(mtu) => wider_below(host, link, *mtu),
        DeviceSetting::Up => up_below(host, link),
        DeviceSetting::Bridge(_)
        | DeviceSetting::Port { .. }
        | DeviceSetting::LargeReceiveOff
        | DeviceSetting::Option { .. } => return,
    };
    let above = if matches!(what, DeviceSetting::Up) { downed_above(host, link) } else { Vec::new() };
    if steps.is_empty() && above.is_empty() {
        return;
    }
    let (Some(command), Some(undo)) = (&fix.command, &fix.undo) else { return };
    let effects: Vec<Effect> = steps.iter().map(|step| step.effect.clone()).collect();
    let set: Vec<&str> = steps.iter().map(|step| step.set.as_str()).collect();
    let up = above.iter().map(|link| format!("ip link set dev {} up", quote(&link.name)));
    fix.command =
        Some(set.into_iter().map(str::to_owned).chain([command.clone()]).chain(up).collect::<Vec<_>>().join(" && "));
    let back = std::iter::once(undo.clone()).chain(steps.iter().rev().map(|step| step.back.clone()));
    fix.undo = Some(back.collect::<Vec<_>>().join(" && "));
    fix.effects.splice(0..0, effects);
    fix.effects.extend(above.iter().map(|link| Effect::Up(link.index, true)));
    if !steps.is_empty() {
        fix.why = format!("{} The device below comes first: it allows no more.", fix.why);
    }
}

/// What is done to a lower device, and taken back.
struct Step {
    set: String,
    back: String,
    effect: Effect,
}

/// The largest MTU, up to `wanted`, that a VXLAN device can have with the devices below as they are: the headers make a packet
/// of the underlay's larger than its network may carry. Any other device can have what is wanted.
pub fn room(host: &HostState, link: &Link, wanted: u32) -> u32 {
    let (mut room, mut headers, mut link) = (wanted, 0, link);
    if !matches!(link.kind, LinkKind::Vxlan { .. }) {
        return wanted;
    }
    for _ in 0..DEEPEST {
        let Some(lower) = link.lower.and_then(|lower| host.link(lower)) else { break };
        if let LinkKind::Vxlan { .. } = link.kind {
            headers += overhead(link, lower);
        } else if !matches!(link.kind, LinkKind::Vlan { .. } | LinkKind::Macvlan | LinkKind::Macvtap { .. }) {
            break;
        }
        room = room.min(lower.mtu.saturating_sub(headers));
        link = lower;
    }
    room
}

/// From the lowest device on.
fn wider_below(host: &HostState, link: &Link, mtu: u32) -> Vec<Step> {
    let (mut steps, mut link, mut needed) = (Vec::new(), link, mtu);
    for _ in 0..DEEPEST {
        let Some(lower) = link.lower.and_then(|lower| host.link(lower)) else { break };
        needed += match link.kind {
            LinkKind::Vlan { .. } | LinkKind::Macvlan | LinkKind::Macvtap { .. } => 0,
            LinkKind::Vxlan { .. } => overhead(link, lower),
            LinkKind::Loopback
            | LinkKind::Tun
            | LinkKind::Bridge(_)
            | LinkKind::Veth
            | LinkKind::Bond
            | LinkKind::Physical
            | LinkKind::Other(_) => break,
        };
        if lower.mtu < needed {
            let set = |mtu: u32| format!("ip link set dev {} mtu {mtu}", quote(&lower.name));
            let effect = Effect::Mtu(lower.index, needed);
            steps.push(Step { set: set(needed), back: set(lower.mtu), effect });
        }
        link = lower;
    }
    steps.reverse();
    steps
}

fn up_below(host: &HostState, link: &Link) -> Vec<Step> {
    let (mut steps, mut link) = (Vec::new(), link);
    for _ in 0..DEEPEST {
        let Some(lower) = link.lower.and_then(|lower| host.link(lower)).filter(|lower| !lower.up) else { break };
        let set = |state: &str| format!("ip link set dev {} {state}", quote(&lower.name));
        steps.push(Step { set: set("up"), back: set("down"), effect: Effect::Up(lower.index, true) });
        link = lower;
    }
    steps.reverse();
    steps
}

/// VLAN devices that went down with it, and those on them (QinQ), from the lowest on.
fn downed_above<'a>(host: &'a HostState, link: &Link) -> Vec<&'a Link> {
    let mut downed: Vec<&Link> = Vec::new();
    let mut below = vec![link.index];
    for _ in 0..DEEPEST {
        let on_these = |upper: &&Link| upper.lower.is_some_and(|lower| below.contains(&lower)) && !upper.up;
        let above = host.links.values().filter(|upper| matches!(upper.kind, LinkKind::Vlan { .. }));
        let level: Vec<&Link> = above.filter(on_these).take(MOST.saturating_sub(downed.len())).collect();
        if level.is_empty() {
            break;
        }
        below = level.iter().map(|link| link.index).collect();
        downed.extend(level);
    }
    downed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fix::device;
    use crate::diagnose::fix::persist::tests::link;
    use crate::event::IfIndex;

    fn host(kind: LinkKind) -> HostState {
        let mut host = HostState::default();
        let (lower, mut upper) = (link(1, "eth0", LinkKind::Physical), link(2, "upper", kind));
        (upper.lower, upper.mtu) = (Some(IfIndex(1)), 1_450);
        for link in [lower, upper] {
            host.links.insert(link.index, link);
        }
        host
    }

    #[test]
    fn the_device_below_carries_the_packet_and_the_headers_first() {
        let vxlan =
            LinkKind::Vxlan { vni: 1, remote: None, local: Some([192, 0, 2, 1].into()), port: 8472, dont_fragment: 0 };
        let host = host(vxlan);
        let mut fix = device::mtu(host.link_named("upper").unwrap(), 1_500, "why");
        complete(&host, &mut fix);
        assert_eq!(fix.command.as_deref(), Some("ip link set dev eth0 mtu 1550 && ip link set dev upper mtu 1500"));
        assert_eq!(fix.undo.as_deref(), Some("ip link set dev upper mtu 1450 && ip link set dev eth0 mtu 1500"));
    }

    #[test]
    fn a_vlan_needs_no_more_below_than_it_carries() {
        let host = host(LinkKind::Vlan { id: 100 });
        let mut fix = device::mtu(host.link_named("upper").unwrap(), 1_500, "why");
        complete(&host, &mut fix);
        assert_eq!(fix.command.as_deref(), Some("ip link set dev upper mtu 1500"));
    }

    #[test]
    fn a_vlan_comes_up_after_the_device_that_it_stands_on() {
        let mut host = host(LinkKind::Vlan { id: 100 });
        for link in host.links.values_mut() {
            link.up = false;
        }
        for name in ["upper", "eth0"] {
            let mut fix = device::up(&host, &host, host.link_named(name).unwrap());
            complete(&host, &mut fix);
            assert_eq!(fix.command.as_deref(), Some("ip link set dev eth0 up && ip link set dev upper up"), "{name}");
        }
    }

    #[test]
    fn what_went_down_with_a_device_comes_up_again_level_by_level() {
        let mut host = host(LinkKind::Vlan { id: 100 });
        let mut inner = link(3, "inner", LinkKind::Vlan { id: 7 });
        inner.lower = Some(IfIndex(2));
        host.links.insert(inner.index, inner);
        for link in host.links.values_mut() {
            link.up = false;
        }
        let mut fix = device::up(&host, &host, host.link_named("eth0").unwrap());
        complete(&host, &mut fix);
        let commands = "ip link set dev eth0 up && ip link set dev upper up && ip link set dev inner up";
        assert_eq!(fix.command.as_deref(), Some(commands));
        for effect in &fix.effects {
            effect.apply(&mut host);
        }
        assert!(host.links.values().all(|link| link.up), "the model brings them up as well");
    }
}
