//! Kernel functions in which packets die, and the stage of each: this side's own table, so that a wrong name in the model's is
//! found.

use kvmtrace::forward::step::{Hook, Stage};

/// A kind of stage; which of the firewall's hooks does not show in a function's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// See [`Stage::DeviceReceive`].
    DeviceReceive,
    /// [`Stage::BridgeIngress`], [`Stage::BridgeForward`] and [`Stage::BridgeEgress`]: the kernel frees in `br_handle_frame`
    /// and its helpers what any of them refuses.
    Bridge,
    /// See [`Stage::BridgeLocal`].
    BridgeLocal,
    /// Rules of any hook, translation among them.
    Firewall,
    /// See [`Stage::SourceCheck`] and [`Stage::Route`]: one function refuses for either reason.
    Route,
    /// See [`Stage::IpForward`].
    IpForward,
    /// See [`Stage::Neighbour`].
    Neighbour,
    /// See [`Stage::NeighbourAnswer`].
    NeighbourAnswer,
    /// See [`Stage::Local`].
    Local,
    /// See [`Stage::DeviceTransmit`] and [`Stage::Guest`].
    DeviceTransmit,
    /// See [`Stage::Tunnel`].
    Tunnel,
    /// See [`Stage::Ipsec`].
    Ipsec,
    /// See [`Stage::Switch`].
    Switch,
}

/// Function, and the kinds of stages that free packets in it. The compiler may have put a smaller function into it.
const SITES: &[(&str, &[Kind])] = &[
    ("br_handle_frame", &[Kind::Bridge]),
    ("br_handle_frame_finish", &[Kind::Bridge, Kind::BridgeLocal]),
    ("br_forward", &[Kind::Bridge]),
    ("__br_forward", &[Kind::Bridge]),
    ("br_flood", &[Kind::Bridge]),
    ("br_multicast_flood", &[Kind::Bridge]),
    ("br_dev_queue_push_xmit", &[Kind::Bridge]),
    ("br_nf_dev_queue_xmit", &[Kind::Bridge]),
    ("br_forward_finish", &[Kind::Bridge]),
    ("br_dev_xmit", &[Kind::Bridge]),
    ("br_allowed_ingress", &[Kind::Bridge]),
    ("__allowed_ingress", &[Kind::Bridge]),
    ("br_handle_vlan", &[Kind::Bridge, Kind::BridgeLocal]),
    ("br_pass_frame_up", &[Kind::BridgeLocal]),
    ("br_stp_rcv", &[Kind::Bridge, Kind::BridgeLocal]),
    ("br_handle_local_finish", &[Kind::Bridge, Kind::BridgeLocal]),
    ("br_nf_pre_routing", &[Kind::Route, Kind::Bridge, Kind::Firewall]),
    ("br_nf_pre_routing_finish", &[Kind::Route, Kind::Bridge]),
    ("br_nf_pre_routing_ipv6", &[Kind::Route, Kind::Bridge, Kind::Firewall]),
    ("br_validate_ipv4", &[Kind::Bridge]),
    ("br_validate_ipv6", &[Kind::Bridge]),
    ("nf_hook_slow", &[Kind::Firewall]),
    ("nft_do_chain", &[Kind::Firewall]),
    ("ipt_do_table", &[Kind::Firewall]),
    ("ip6t_do_table", &[Kind::Firewall]),
    ("arpt_do_table", &[Kind::Firewall]),
    ("ebt_do_table", &[Kind::Firewall]),
    ("nf_hook_slow_list", &[Kind::Firewall]),
    ("nf_bridge_pre", &[Kind::Firewall]),
    ("nft_reject_inet_eval", &[Kind::Firewall]),
    ("nft_reject_bridge_eval", &[Kind::Firewall]),
    ("nft_reject_ipv4_eval", &[Kind::Firewall]),
    ("nft_reject_ipv6_eval", &[Kind::Firewall]),
    ("nft_reject_netdev_eval", &[Kind::Firewall]),
    ("nft_synproxy_do_eval", &[Kind::Firewall]),
    ("reject_tg", &[Kind::Firewall]),
    ("reject_tg6", &[Kind::Firewall]),
    ("ip_rcv_core", &[Kind::DeviceReceive, Kind::Route]),
    ("ip_rcv", &[Kind::DeviceReceive, Kind::Route]),
    ("ip6_rcv_core", &[Kind::DeviceReceive, Kind::Route]),
    ("ipv6_rcv", &[Kind::DeviceReceive, Kind::Route]),
    ("arp_rcv", &[Kind::DeviceReceive, Kind::NeighbourAnswer]),
    ("arp_process", &[Kind::NeighbourAnswer]),
    ("__netif_receive_skb_core", &[Kind::DeviceReceive]),
    ("__netif_receive_skb_one_core", &[Kind::DeviceReceive]),
    ("netif_receive_skb_internal", &[Kind::DeviceReceive]),
    ("enqueue_to_backlog", &[Kind::DeviceReceive]),
    ("tun_get_user", &[Kind::DeviceReceive]),
    ("tap_get_user", &[Kind::DeviceReceive]),
    ("macvlan_handle_frame", &[Kind::DeviceReceive]),
    ("macvlan_broadcast", &[Kind::DeviceReceive]),
    ("vlan_do_receive", &[Kind::DeviceReceive]),
    ("ip_rcv_finish", &[Kind::Route]),
    ("ip_rcv_finish_core", &[Kind::Route]),
    ("ip_route_input_slow", &[Kind::Route]),
    ("ip_route_input_noref", &[Kind::Route]),
    ("ip_mkroute_input", &[Kind::Route]),
    ("ip_error", &[Kind::Route]),
    ("ip6_pkt_drop", &[Kind::Route]),
    ("ip6_pkt_discard", &[Kind::Route]),
    ("ip6_pkt_prohibit", &[Kind::Route]),
    ("ip6_pkt_discard_out", &[Kind::Route]),
    ("ip6_pkt_prohibit_out", &[Kind::Route]),
    ("ip6_route_input", &[Kind::Route]),
    ("dst_discard", &[Kind::Route]),
    ("dst_discard_out", &[Kind::Route]),
    ("ip_forward", &[Kind::IpForward, Kind::Route, Kind::Ipsec]),
    ("ip_forward_finish", &[Kind::IpForward]),
    ("ip6_forward", &[Kind::IpForward, Kind::Route, Kind::Ipsec]),
    ("ip_fragment", &[Kind::IpForward, Kind::Bridge]),
    ("ip_do_fragment", &[Kind::IpForward, Kind::Bridge]),
    ("ip_finish_output", &[Kind::IpForward, Kind::Neighbour]),
    ("__ip_finish_output", &[Kind::IpForward]),
    ("ip6_fragment", &[Kind::IpForward, Kind::Bridge]),
    ("ip6_finish_output", &[Kind::IpForward]),
    ("ip_mr_input", &[Kind::Route]),
    ("ip6_mr_input", &[Kind::Route]),
    ("ip6_mc_input", &[Kind::Route, Kind::Local]),
    ("ip_finish_output2", &[Kind::Neighbour]),
    ("ip6_finish_output2", &[Kind::Neighbour]),
    ("neigh_resolve_output", &[Kind::Neighbour]),
    ("__neigh_event_send", &[Kind::Neighbour]),
    ("neigh_invalidate", &[Kind::Neighbour]),
    ("arp_error_report", &[Kind::Neighbour]),
    ("ndisc_error_report", &[Kind::Neighbour]),
    ("neigh_timer_handler", &[Kind::Neighbour]),
    ("ndisc_rcv", &[Kind::NeighbourAnswer, Kind::Local]),
    ("ndisc_recv_ns", &[Kind::NeighbourAnswer, Kind::Local]),
    ("ndisc_recv_na", &[Kind::NeighbourAnswer, Kind::Local]),
    ("ip_local_deliver", &[Kind::Local]),
    ("ip_local_deliver_finish", &[Kind::Local]),
    ("ip_protocol_deliver_rcu", &[Kind::Local, Kind::Ipsec]),
    ("ip6_input", &[Kind::Local]),
    ("ip6_input_finish", &[Kind::Local]),
    ("ip6_protocol_deliver_rcu", &[Kind::Local, Kind::Ipsec]),
    ("raw_local_deliver", &[Kind::Local]),
    ("icmp_rcv", &[Kind::Local, Kind::Ipsec]),
    ("icmpv6_rcv", &[Kind::Local, Kind::Ipsec]),
    ("udp_rcv", &[Kind::Local]),
    ("__udp4_lib_rcv", &[Kind::Local, Kind::Ipsec]),
    ("__udp4_lib_mcast_deliver", &[Kind::Local]),
    ("__udp6_lib_mcast_deliver", &[Kind::Local]),
    ("udpv6_rcv", &[Kind::Local]),
    ("__udp6_lib_rcv", &[Kind::Local, Kind::Ipsec]),
    ("tcp_v4_rcv", &[Kind::Local, Kind::Ipsec]),
    ("tcp_v6_rcv", &[Kind::Local, Kind::Ipsec]),
    ("sctp_rcv", &[Kind::Local]),
    ("igmp_rcv", &[Kind::Local]),
    ("__dev_queue_xmit", &[Kind::DeviceTransmit]),
    ("__dev_xmit_skb", &[Kind::DeviceTransmit]),
    ("dev_hard_start_xmit", &[Kind::DeviceTransmit]),
    ("validate_xmit_skb", &[Kind::DeviceTransmit]),
    ("noop_enqueue", &[Kind::DeviceTransmit]),
    ("tun_net_xmit", &[Kind::DeviceTransmit]),
    ("veth_xmit", &[Kind::DeviceTransmit]),
    ("__dev_forward_skb2", &[Kind::DeviceTransmit, Kind::DeviceReceive]),
    ("vlan_dev_hard_start_xmit", &[Kind::DeviceTransmit]),
    ("macvlan_queue_xmit", &[Kind::DeviceTransmit]),
    ("macvlan_start_xmit", &[Kind::DeviceTransmit]),
    ("vxlan_xmit", &[Kind::Tunnel]),
    ("vxlan_xmit_one", &[Kind::Tunnel]),
    ("vxlan_rcv", &[Kind::Tunnel]),
];

/// The kinds of stages that a drop may be of: those of the innermost function that is known.
pub fn kinds(function: Option<&str>, stack: &[String]) -> Option<&'static [Kind]> {
    let names = function.into_iter().chain(stack.iter().map(String::as_str));
    names.map(bare).find_map(|name| SITES.iter().find(|(site, _)| *site == name).map(|(_, kinds)| *kinds))
}

/// A name without what the compiler adds to copies and parts (`.constprop.0`, `.part.0`, `.cold`).
fn bare(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Packets that a stage ends die at sites of this kind.
pub fn kind(stage: Stage) -> Kind {
    match stage {
        Stage::DeviceReceive => Kind::DeviceReceive,
        Stage::BridgeIngress | Stage::BridgeForward | Stage::BridgeEgress => Kind::Bridge,
        Stage::BridgeLocal => Kind::BridgeLocal,
        Stage::Firewall(
            Hook::Ingress
            | Hook::Prerouting
            | Hook::Input
            | Hook::Forward
            | Hook::Output
            | Hook::Postrouting
            | Hook::Egress,
        )
        | Stage::Nat => Kind::Firewall,
        Stage::SourceCheck | Stage::Route => Kind::Route,
        Stage::IpForward => Kind::IpForward,
        Stage::Neighbour => Kind::Neighbour,
        Stage::NeighbourAnswer => Kind::NeighbourAnswer,
        Stage::Local => Kind::Local,
        Stage::DeviceTransmit | Stage::Guest => Kind::DeviceTransmit,
        Stage::Tunnel => Kind::Tunnel,
        Stage::Ipsec => Kind::Ipsec,
        Stage::Switch => Kind::Switch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_known_function_decides() {
        let stack = ["something_new", "ip_forward.part.0", "br_handle_frame"].map(str::to_owned);
        assert_eq!(
            kinds(Some("kfree_skb_list_reason"), &stack),
            Some(&[Kind::IpForward, Kind::Route, Kind::Ipsec][..])
        );
        assert_eq!(kinds(None, &[]), None);
    }

    #[test]
    fn no_function_stands_twice() {
        let mut names: Vec<&str> = SITES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
