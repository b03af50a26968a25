//! The contract's cause and point for each way in which the model lets a packet stop.

use crate::diagnose::report::{Cause, Point};
use crate::event::host::LinkKind;
use crate::event::ruleset::RuleReference;
use crate::event::{Direction, HostState};
use crate::forward::step::{Doubt, Hook, Stage, Step, Stop};

/// The cause of a stop at a step. `bridged`: the packet is bridged there, so that IP rules see it by way of `br_netfilter`.
pub fn cause_of_stop(host: &HostState, step: &Step, stop: &Stop, bridged: bool) -> Cause {
    match stop {
        Stop::LinkDown => Cause::LinkDown,
        Stop::NoCarrier => Cause::NoCarrier,
        Stop::GuestGone => Cause::GuestGone,
        Stop::XdpDrop => Cause::XdpDrop,
        Stop::BridgeDown => Cause::BridgeDown,
        Stop::PortBlocked => Cause::BridgePortBlocked,
        Stop::PortInoperative => Cause::BridgePortDown,
        Stop::Detached | Stop::NoPort => Cause::BridgePortDetached,
        Stop::VlanFiltered(_) => Cause::BridgeVlanFiltered,
        Stop::Isolated => Cause::BridgePortIsolated,
        Stop::Locked => Cause::BridgePortLocked,
        Stop::FloodDisabled => Cause::BridgeFloodDisabled,
        Stop::Misdirected(_) | Stop::Hairpin => Cause::BridgeFdbMisdirected,
        Stop::MulticastPruned => Cause::BridgeMulticastPruned,
        Stop::LinkLocalGroup => Cause::BridgeLinkLocal,
        Stop::InvalidSourceMac => Cause::InvalidSourceMac,
        Stop::OtherHost => Cause::NeighbourStale,
        Stop::UnhandledProtocol => Cause::Unclassified,
        Stop::BridgeMtu(_) => Cause::BridgeMtuExceeded,
        Stop::RouteMtu(_) if step.stage == Stage::Tunnel => Cause::TunnelMtuExceeded,
        Stop::RouteMtu(_) => Cause::RouteMtuExceeded,
        Stop::Rule(rule) => cause_of_rule(host, *rule, step.stage, bridged),
        Stop::Rejected(_) => Cause::NetfilterReject,
        Stop::Limited(_) => Cause::RateLimited,
        Stop::ForwardingDisabled => Cause::ForwardingDisabled,
        Stop::NoRoute | Stop::Unreachable => Cause::NoRoute,
        Stop::Blackhole => Cause::RouteBlackhole,
        Stop::Prohibited => Cause::RouteProhibited,
        Stop::ReversePath(_) => Cause::ReversePathFilter,
        Stop::MartianSource => Cause::MartianSource,
        Stop::MartianDestination => Cause::MartianDestination,
        Stop::TimeToLive => Cause::TtlExpired,
        Stop::NeighbourFailed(_) | Stop::NotAnswered => Cause::NeighbourUnresolved,
        Stop::Ipv6Disabled => Cause::Ipv6Disabled,
        Stop::PortClosed => Cause::PortClosed,
        Stop::IcmpIgnored => Cause::IcmpIgnored,
        Stop::NoServer => Cause::IpvsNoServer,
        Stop::NoRemote => Cause::TunnelNoRemote,
        Stop::NoPeer => Cause::TunnelPeerMissing,
        Stop::UnknownVni(_) => Cause::TunnelUnknownVni,
        Stop::IpsecPolicy => Cause::IpsecPolicy,
        Stop::NotReflected => Cause::MacvtapHostUnreachable,
        Stop::MacvtapMode => Cause::MacvtapMode,
        Stop::MulticastFiltered => Cause::MacvtapMulticastFiltered,
        Stop::InactiveLeg => Cause::BondInactiveLeg,
        Stop::SwitchDrop(_) => Cause::OvsDrop,
        Stop::SwitchVlan(..) => Cause::OvsVlan,
        Stop::SwitchPortDown => Cause::OvsPortDown,
        Stop::Loop => Cause::BridgeLoop,
    }
}

fn cause_of_rule(host: &HostState, rule: RuleReference, stage: Stage, bridged: bool) -> Cause {
    let family = host.netfilter.chains.get(rule.chain).map(|chain| chain.family.as_str());
    match (family, hook(stage)) {
        (Some("bridge"), _) => Cause::NetfilterBridge,
        (Some("arp"), _) => Cause::NetfilterArp,
        (Some("netdev"), _) | (_, Some(Hook::Ingress | Hook::Egress)) => Cause::NetfilterIngress,
        (_, Some(Hook::Forward | Hook::Prerouting | Hook::Postrouting)) if bridged => Cause::NetfilterBridgedIp,
        (_, Some(Hook::Prerouting)) => Cause::NetfilterPrerouting,
        (_, Some(Hook::Input)) => Cause::NetfilterInput,
        (_, Some(Hook::Output)) => Cause::NetfilterOutput,
        (_, Some(Hook::Postrouting)) => Cause::NetfilterPostrouting,
        (_, Some(Hook::Forward) | None) => Cause::NetfilterForward,
    }
}

fn hook(stage: Stage) -> Option<Hook> {
    match stage {
        Stage::Firewall(hook) => Some(hook),
        Stage::DeviceReceive
        | Stage::BridgeIngress
        | Stage::BridgeForward
        | Stage::BridgeEgress
        | Stage::BridgeLocal
        | Stage::Nat
        | Stage::SourceCheck
        | Stage::Route
        | Stage::IpForward
        | Stage::Neighbour
        | Stage::NeighbourAnswer
        | Stage::Local
        | Stage::DeviceTransmit
        | Stage::Tunnel
        | Stage::Ipsec
        | Stage::Switch
        | Stage::Guest => None,
    }
}

/// The cause of a doubt, where the contract has one.
pub fn cause_of_doubt(doubt: &Doubt) -> Option<Cause> {
    match doubt {
        Doubt::Queue(..) => Some(Cause::NetfilterQueue),
        Doubt::Rule(..)
        | Doubt::Program(_)
        | Doubt::Missing(_)
        | Doubt::Daemon(_)
        | Doubt::PolicyRule(_)
        | Doubt::Packet(_)
        | Doubt::Bound => None,
    }
}

/// The contract's point of a step.
pub fn point_of_step(host: &HostState, step: &Step) -> Point {
    let received = step.hook != Some(Direction::Egress);
    match step.stage {
        Stage::DeviceReceive => device_point(host, step, true),
        Stage::DeviceTransmit => device_point(host, step, false),
        Stage::BridgeIngress => Point::BridgeIngress,
        Stage::BridgeForward | Stage::Switch => Point::BridgeForward,
        Stage::BridgeEgress => Point::BridgeEgress,
        Stage::BridgeLocal => Point::HostInput,
        Stage::Firewall(Hook::Ingress) => Point::NetfilterIngress,
        Stage::Firewall(Hook::Egress) => Point::NetfilterEgress,
        Stage::Firewall(Hook::Prerouting) => Point::NetfilterPrerouting,
        Stage::Firewall(Hook::Input) => Point::NetfilterInput,
        Stage::Firewall(Hook::Forward) => Point::NetfilterForward,
        Stage::Firewall(Hook::Output) => Point::NetfilterOutput,
        Stage::Nat if received => Point::NetfilterPrerouting,
        Stage::Firewall(Hook::Postrouting) | Stage::Nat => Point::NetfilterPostrouting,
        Stage::SourceCheck | Stage::Route | Stage::IpForward | Stage::Ipsec => Point::Routing,
        Stage::Neighbour | Stage::NeighbourAnswer => Point::Neighbour,
        Stage::Local => Point::Socket,
        Stage::Tunnel => Point::Tunnel,
        Stage::Guest => Point::Guest,
    }
}

fn device_point(host: &HostState, step: &Step, received: bool) -> Point {
    let link = step.device.and_then(|device| host.link(device));
    let guests = step.device.is_some_and(|device| host.guest_of(device).is_some());
    match (link.map(|link| &link.kind), received) {
        (Some(LinkKind::Vxlan { .. }), _) => Point::Tunnel,
        (Some(LinkKind::Bridge(_)), true) => Point::HostInput,
        (Some(LinkKind::Bridge(_)), false) => Point::HostOutput,
        (_, true) if guests => Point::TapIngress,
        (_, false) if guests => Point::TapEgress,
        (_, true) => Point::NicIngress,
        (_, false) => Point::NicEgress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{Backend, Chain, Netfilter};
    use rstest::rstest;

    fn step(stage: Stage) -> Step {
        Step {
            parent: None,
            stage,
            device: None,
            hook: None,
            functions: &[],
            decisions: Vec::new(),
            outcome: crate::forward::step::Outcome::Passes,
        }
    }

    fn host(family: &str) -> HostState {
        let chain = Chain {
            backend: Backend::Nft,
            family: family.to_owned(),
            table: "filter".to_owned(),
            name: "c".to_owned(),
            hook: Some("forward".to_owned()),
            kind: None,
            priority: None,
            policy: None,
            policy_packets: None,
            device: None,
            rules: Vec::new(),
        };
        HostState { netfilter: Netfilter { chains: vec![chain], sets: Vec::new() }, ..HostState::default() }
    }

    #[rstest]
    #[case::a_routed_packet("inet", Hook::Forward, false, "netfilter-forward")]
    #[case::a_bridged_packet("ip", Hook::Forward, true, "netfilter-bridged-ip")]
    #[case::a_packet_to_this_host("ip6", Hook::Input, false, "netfilter-input")]
    #[case::a_packet_of_this_host("inet", Hook::Output, false, "netfilter-output")]
    #[case::the_bridges_own_family("bridge", Hook::Forward, true, "netfilter-bridge")]
    #[case::a_device("netdev", Hook::Ingress, false, "netfilter-ingress")]
    #[case::arp("arp", Hook::Input, false, "netfilter-arp")]
    fn a_rule_that_drops_is_named_by_family_and_hook(
        #[case] family: &str,
        #[case] hook: Hook,
        #[case] bridged: bool,
        #[case] cause: &str,
    ) {
        let stop = Stop::Rule(RuleReference { chain: 0, rule: Some(0) });
        assert_eq!(cause_of_stop(&host(family), &step(Stage::Firewall(hook)), &stop, bridged).id(), cause);
    }
}
