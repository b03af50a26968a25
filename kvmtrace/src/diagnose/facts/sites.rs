//! The one table of kernel functions that packets die in, or that a stack shows on their way: what a death there means, in
//! which kernels a function is to be found, and where it need not be.
//!
//! A rule asks for a [`Site`]; no rule holds a function's name. The names are looked up in the kallsyms of every kernel that
//! the project is tried on (`kvmtrace/tests/kernel_functions.rs`). The file is long because it is that one table.

/// A place in the kernel, by what a packet's death there means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// `net/bridge/br_input.c`, `br_vlan.c`: a port takes a frame in, or does not. What it took ends elsewhere: a
    /// flood takes copies.
    BridgeIngress,
    /// `net/bridge/br_input.c`: the first look at a frame, at its source address among others.
    BridgeHandle,
    /// `net/bridge/br_forward.c`: a frame that came in well finds no port that takes it.
    BridgeForward,
    /// `net/bridge/br_forward.c`, `br_input.c`: a bridge finds no port for a group's packet.
    BridgeNoMember,
    /// `net/bridge/br_input.c`: the copy for the host's own stack, which the bridge itself takes in no VLAN of the frame
    /// (`br_allowed_egress`).
    BridgeOwnCopy,
    /// `net/bridge/br_forward.c`, `br_netfilter_hooks.c`: longer than the egress port's MTU (`is_skb_forwardable`).
    BridgeEgressLength,
    /// `drivers/net/veth.c`, `net/core/dev.c`: a veth hands a packet to its other end, which is down or takes none of
    /// that length.
    FarEnd,
    /// Where a copy ends that a bridge flooded to a device which it is not for.
    FloodedCopy,
    /// `drivers/net/tun.c`, `net/core/dev.c`: what a guest sent, before or at its tap's ingress.
    TapReceive,
    /// `drivers/net/tun.c`, `tap.c`: what a guest sent by a device that is down.
    GuestSends,
    /// `drivers/net/tun.c`, `tap.c`: the ring that the guest reads is full, or nobody reads it.
    GuestRing,
    /// `net/core/dev.c`: a device has received a frame, and nobody takes it.
    DeviceReceive,
    /// `net/ipv4`, `net/ipv6`: `tap_handle_frame` left a frame to the host's own stack, for nobody has the macvtap
    /// open.
    MacvtapToStack,
    /// `net/core/dev.c`, `drivers/net/tun.c`: an XDP program that runs on socket buffers, or at the tap, drops.
    GenericXdp,
    /// `net/core/dev.c`, `net/sched/act_api.c`: a tc filter drops.
    TrafficControl,
    /// `net/core/dev.c`: a tc filter drops what leaves.
    TrafficControlEgress,
    /// `net/core/dev.c`, `net/sched`: a queueing discipline or a CPU's backlog is full.
    Queue,
    /// `net/ipv4/ip_input.c`, `net/ipv6/ip6_input.c`: the host's stack takes a packet in, and finds that it is not
    /// for it.
    IpReceive,
    /// `net/ipv6/ip6_input.c`: an address that can be no source.
    Ipv6Receive,
    /// Where the host's own stack decides that a group's packet is not for it.
    NotForUs,
    /// What a socket frees when it is closed, and what the kernel frees for its own ends.
    Housekeeping,
    /// `net/ipv4/route.c`, `ip_input.c`, `ip_forward.c`, `net/ipv6/route.c`, `ip6_output.c`: no way there, or no
    /// forwarding.
    Routing,
    /// `net/ipv4/route.c`, `net/ipv6/ip6_output.c`: the device or the host does not forward.
    NotForwarded,
    /// `net/ipv4/route.c`, `net/ipv6/route.c`, `net/core/dst.c`: where each kind of route that leads nowhere ends.
    RouteKind,
    /// `net/ipv6/route.c`: a route of kind prohibit.
    RouteProhibit,
    /// `net/core/dst.c`: a blackhole route.
    RouteDiscard,
    /// `net/ipv4/route.c`: unreachable, prohibited or not forwarded, by the error that is sent.
    RouteError,
    /// `net/ipv4/ip_input.c`, `route.c`, `fib_frontend.c`: the reverse-path filter, or a source that can be none.
    SourceCheck,
    /// `net/ipv4/ip_forward.c`, `net/ipv6/ip6_output.c`: forwarding finds the TTL used up, or a length that does not
    /// fit.
    Forward,
    /// `net/ipv4/ip_forward.c`, `ip_output.c`, `net/ipv6/ip6_output.c`: longer than the MTU of the route.
    ForwardLength,
    /// `net/ipv4/ip_output.c`, `net/ipv6/ip6_output.c`: a tunnel's packet is longer than the MTU below it.
    TunnelLength,
    /// `drivers/net/vxlan/vxlan_core.c`, `drivers/net/geneve.c`: no remote end, or no way to it.
    TunnelTransmit,
    /// `drivers/net/vxlan/vxlan_core.c`: no way to one remote end.
    VxlanTransmitOne,
    /// `drivers/net/vxlan/vxlan_core.c`: a network identifier that no device has.
    VxlanReceive,
    /// `net/core/neighbour.c`, `net/ipv4/arp.c`, `net/ipv6/ndisc.c`: nobody answers ARP or ND for the next hop.
    Neighbour,
    /// `net/ipv4/ip_fragment.c`, `net/ipv6/reassembly.c`, `net/ipv4/inet_fragment.c`: other pieces never came.
    FragmentsExpired,
    /// `net/ipv4/ip_fragment.c`: no room for pieces, or pieces that contradict each other.
    FragmentsIpv4,
    /// `net/ipv6/reassembly.c`: no room for pieces, or pieces that contradict each other.
    FragmentsIpv6,
    /// `net/ipv4/netfilter/nf_defrag_ipv4.c`: conntrack puts pieces together before any rule.
    ConntrackDefragments,
    /// `net/ipv4/syncookies.c`, `net/ipv6/syncookies.c`: the accept queue is full.
    SynCookie,
    /// `net/netfilter/nf_queue.c`: a queue of user space without a listener.
    UserQueue,
    /// `net/openvswitch`: its datapath does not send a packet on.
    Switch,
    /// `net/openvswitch/datapath.c`: no flow fits, and user space was not asked.
    SwitchUpcall,
    /// `net/ipv4/udp.c`, `net/ipv6/udp.c`: the socket's buffer is full.
    UdpQueue,
    /// `net/ipv4/tcp_ipv4.c`, `udp.c` and those of IPv6: nobody listens on the port.
    NoSocket,
    /// `net/ipv4/tcp_ipv4.c`, `net/ipv6/tcp_ipv6.c`: a segment that meets a half-open connection.
    TcpReceive,
    /// `net/netfilter` and the tables of iptables, ebtables and arptables: a rule, a policy or a hook drops.
    Netfilter,
    /// `net/netfilter/core.c`: the loop over the hooks.
    HookSlow,
    /// The callers of the prerouting hooks.
    Prerouting,
    /// The callers of the input hooks.
    Input,
    /// The callers of the forward hooks.
    ForwardHook,
    /// The callers of the postrouting hooks.
    Postrouting,
    /// The callers of the output hooks.
    Output,
    /// The callers of the netdev family's ingress hook.
    IngressHook,
    /// The callers of the netdev family's egress hook.
    EgressHook,
    /// `net/netfilter/nft_chain_filter.c`: a chain of the netdev family.
    NetdevChain,
    /// `net/netfilter/nft_chain_filter.c`, `net/bridge/netfilter/ebtables.c`: a chain of the bridge family.
    BridgeChain,
    /// `net/netfilter/nft_chain_filter.c`, `net/ipv4/netfilter/arp_tables.c`, `br_netfilter_hooks.c`: a chain of the
    /// ARP family.
    ArpChain,
    /// `net/bridge`: the bridge's own hooks, when they are near on the stack.
    BridgeHook,
    /// `net/bridge/br_device.c`, `net/core/dev.c`: this host's own transmit hands the bridge a packet.
    OwnTransmit,
    /// `net/bridge/br_input.c`, `net/core/dev.c`: a port hands the bridge a packet.
    FromPort,
}

impl Site {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::BridgeIngress,
        Self::BridgeHandle,
        Self::BridgeForward,
        Self::BridgeNoMember,
        Self::BridgeOwnCopy,
        Self::BridgeEgressLength,
        Self::FarEnd,
        Self::FloodedCopy,
        Self::TapReceive,
        Self::GuestSends,
        Self::GuestRing,
        Self::DeviceReceive,
        Self::MacvtapToStack,
        Self::GenericXdp,
        Self::TrafficControl,
        Self::TrafficControlEgress,
        Self::Queue,
        Self::IpReceive,
        Self::Ipv6Receive,
        Self::NotForUs,
        Self::Housekeeping,
        Self::Routing,
        Self::NotForwarded,
        Self::RouteKind,
        Self::RouteProhibit,
        Self::RouteDiscard,
        Self::RouteError,
        Self::SourceCheck,
        Self::Forward,
        Self::ForwardLength,
        Self::TunnelLength,
        Self::TunnelTransmit,
        Self::VxlanTransmitOne,
        Self::VxlanReceive,
        Self::Neighbour,
        Self::FragmentsExpired,
        Self::FragmentsIpv4,
        Self::FragmentsIpv6,
        Self::ConntrackDefragments,
        Self::SynCookie,
        Self::UserQueue,
        Self::Switch,
        Self::SwitchUpcall,
        Self::UdpQueue,
        Self::NoSocket,
        Self::TcpReceive,
        Self::Netfilter,
        Self::HookSlow,
        Self::Prerouting,
        Self::Input,
        Self::ForwardHook,
        Self::Postrouting,
        Self::Output,
        Self::IngressHook,
        Self::EgressHook,
        Self::NetdevChain,
        Self::BridgeChain,
        Self::ArpChain,
        Self::BridgeHook,
        Self::OwnTransmit,
        Self::FromPort,
    ];

    /// The functions, without what the compiler appends to a name.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub fn functions(self) -> &'static [&'static str] {
        match self {
            Self::BridgeIngress => {
                &["br_handle_frame", "br_handle_frame_finish", "br_allowed_ingress", "__allowed_ingress"]
            }
            Self::BridgeHandle => &["br_handle_frame"],
            Self::BridgeForward => {
                &["br_dev_xmit", "br_handle_frame_finish", "br_forward", "__br_forward", "maybe_deliver", "br_flood"]
            }
            Self::BridgeNoMember => &["br_handle_frame_finish", "br_dev_xmit", "br_multicast_flood", "br_flood"],
            Self::BridgeOwnCopy => &["br_pass_frame_up"],
            Self::BridgeEgressLength => &["br_dev_queue_push_xmit", "br_nf_dev_queue_xmit", "br_forward_finish"],
            Self::FarEnd => &["__dev_forward_skb2", "__dev_forward_skb", "dev_forward_skb", "veth_xmit"],
            Self::FloodedCopy => {
                &["tun_net_xmit", "tap_handle_frame", "br_dev_queue_push_xmit", "__dev_queue_xmit", "dev_queue_xmit"]
            }
            Self::TapReceive => &["tun_get_user", "tun_chr_write_iter", "do_xdp_generic", "__netif_receive_skb_core"],
            Self::GuestSends => &["tun_get_user", "tun_chr_write_iter", "tun_xdp_one", "tap_get_user"],
            Self::GuestRing => &["tun_net_xmit", "tap_handle_frame"],
            Self::DeviceReceive => &["__netif_receive_skb_core"],
            Self::MacvtapToStack => &[
                "ip_error",
                "ip_rcv_core",
                "ip_rcv_finish_core",
                "ip6_rcv_core",
                "ip6_forward",
                "ip6_pkt_drop",
                "ip6_pkt_discard",
                "ip6_mc_input",
            ],
            Self::GenericXdp => &["do_xdp_generic", "netif_receive_generic_xdp", "tun_build_skb"],
            Self::TrafficControl => &["sch_handle_ingress", "sch_handle_egress", "tcf_action_exec"],
            Self::TrafficControlEgress => &["sch_handle_egress"],
            Self::Queue => &[
                "__dev_queue_xmit",
                "dev_queue_xmit",
                "__dev_xmit_skb",
                "kfree_skb_list_reason",
                "kfree_skb_list",
                "tbf_enqueue",
                "qdisc_drop",
                "enqueue_to_backlog",
            ],
            Self::IpReceive => &["ip_rcv_core", "ip6_rcv_core"],
            Self::Ipv6Receive => &["ip6_rcv_core"],
            Self::NotForUs => &[
                "ip_rcv_finish_core",
                "ip_rcv_finish",
                "ip_error",
                "ip6_mc_input",
                "ip6_input_finish",
                "ip_rcv_core",
                "ip6_rcv_core",
                "ip6_pkt_drop",
                "ip6_pkt_discard",
                "__udp4_lib_rcv",
                "__udp6_lib_rcv",
                "udp_rcv",
                "udpv6_rcv",
                "__udp4_lib_mcast_deliver",
                "ip_protocol_deliver_rcu",
                "ip6_protocol_deliver_rcu",
                "llc_rcv",
                "snap_rcv",
                "arp_rcv",
                "arp_process",
                "ndisc_rcv",
                "ip_forward",
                "ip6_forward",
                "br_handle_frame_finish",
                "br_dev_xmit",
                "br_flood",
                "br_multicast_flood",
            ],
            Self::Housekeeping => &[
                "skb_rbtree_purge",
                "skb_queue_purge",
                "skb_queue_purge_reason",
                "__skb_queue_purge",
                "tcp_disconnect",
                "tcp_write_queue_purge",
                "inet_sock_destruct",
                "netif_napi_add_weight_locked",
                "netif_napi_add_weight",
                "stp_pdu_rcv",
                "ping_rcv",
                "icmpv6_rcv",
                "icmp_rcv",
                "igmp_rcv",
                "raw_local_deliver",
                "skb_release_head_state",
                "netlink_broadcast_filtered",
                "unix_stream_connect",
            ],
            Self::Routing => &[
                "ip_error",
                "ip6_pkt_drop",
                "ip6_pkt_discard",
                "ip6_pkt_prohibit",
                "dst_discard",
                "dst_discard_out",
                "ip6_forward",
                "ip_rcv_finish_core",
                "ip_forward",
                "ip_route_input_noref",
                "__ip_rcv_finish",
                "ip6_rcv_finish",
            ],
            Self::NotForwarded => &["ip_error", "ip6_forward"],
            Self::RouteKind => {
                &["ip_error", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard", "dst_discard_out"]
            }
            Self::RouteProhibit => &["ip6_pkt_prohibit"],
            Self::RouteDiscard => &["dst_discard", "dst_discard_out"],
            Self::RouteError => &["ip_error"],
            Self::SourceCheck => {
                &["ip_rcv_finish_core", "ip_rcv_finish", "ip_route_input_slow", "ip_route_input_noref", "ip_error"]
            }
            Self::Forward => &["ip_forward", "ip6_forward"],
            Self::ForwardLength => &[
                "ip_forward",
                "ip6_forward",
                "ip_fragment",
                "ip_do_fragment",
                "ip6_fragment",
                "ip_finish_output",
                "ip6_finish_output",
            ],
            Self::TunnelLength => &[
                "ip_fragment",
                "ip_do_fragment",
                "ip6_fragment",
                "ip_finish_output",
                "ip6_finish_output",
                "__ip_finish_output",
                "__ip6_finish_output",
            ],
            Self::TunnelTransmit => {
                &["vxlan_xmit", "vxlan_xmit_one", "vxlan_xmit_nh", "vxlan_xmit_nhid", "geneve_xmit", "geneve_xmit_skb"]
            }
            Self::VxlanTransmitOne => &["vxlan_xmit_one"],
            Self::VxlanReceive => &["vxlan_rcv"],
            Self::Neighbour => &[
                "neigh_invalidate",
                "__neigh_event_send",
                "neigh_timer_handler",
                "arp_error_report",
                "ndisc_error_report",
                "neigh_resolve_output",
                "neigh_flush_dev",
                "neigh_probe",
            ],
            Self::FragmentsExpired => {
                &["ip_expire", "ip6_frag_expire", "ip6frag_expire_frag_queue", "inet_frag_destroy"]
            }
            Self::FragmentsIpv4 => &["ip_defrag", "ip_frag_queue"],
            Self::FragmentsIpv6 => &["ipv6_frag_rcv", "ip6_frag_queue"],
            Self::ConntrackDefragments => &["ipv4_conntrack_defrag", "nf_ct_ipv4_gather_frags", "nf_hook_slow"],
            Self::SynCookie => &["cookie_v4_check", "cookie_v6_check"],
            Self::Switch => &[
                "do_execute_actions",
                "ovs_dp_process_packet",
                "ovs_execute_actions",
                "ovs_vport_receive",
                "ovs_vport_send",
            ],
            Self::SwitchUpcall => &["ovs_dp_process_packet"],
            Self::UserQueue => &["nf_queue", "__nf_queue"],
            Self::UdpQueue => &["udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb", "__udp_enqueue_schedule_skb"],
            Self::NoSocket => &["tcp_v4_rcv", "tcp_v6_rcv", "__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv"],
            Self::TcpReceive => &["tcp_v4_rcv", "tcp_v6_rcv"],
            Self::Netfilter => &[
                "nf_hook_slow",
                "nf_hook_slow_list",
                "nft_do_chain",
                "nft_do_chain_inet",
                "nft_do_chain_ipv4",
                "nft_do_chain_ipv6",
                "nft_do_chain_bridge",
                "nft_do_chain_arp",
                "nft_do_chain_netdev",
                "ipt_do_table",
                "ip6t_do_table",
                "ebt_do_table",
                "arpt_do_table",
                "nft_verdict_init",
                "br_nf_pre_routing",
                "ebt_in_hook",
                "nf_ingress",
                "nft_immediate_eval",
            ],
            Self::HookSlow => &["nf_hook_slow"],
            Self::Prerouting => &[
                "ip_rcv",
                "ipv6_rcv",
                "br_handle_frame",
                "br_nf_pre_routing",
                "br_nf_pre_routing_ipv6",
                "ip_list_rcv",
                "ipv6_list_rcv",
                "br_nf_hook_thresh",
                "ip_sabotage_in",
            ],
            Self::Input => &["ip_local_deliver", "ip6_input", "br_pass_frame_up", "arp_rcv", "ip_sublist_rcv"],
            Self::ForwardHook => &[
                "ip_forward",
                "ip6_forward",
                "__br_forward",
                "br_forward",
                "br_nf_forward_ip",
                "br_nf_forward",
                "br_nf_forward_arp",
                "maybe_deliver",
                "deliver_clone",
                "br_flood",
                "br_multicast_flood",
            ],
            Self::Postrouting => &[
                "ip_output",
                "ip_mc_output",
                "ip6_output",
                "br_nf_post_routing",
                "br_forward_finish",
                "ip_mc_finish_output",
            ],
            Self::Output => &[
                "__ip_local_out",
                "ip_local_out",
                "__ip6_local_out",
                "ip6_local_out",
                "ip6_xmit",
                "arp_xmit",
                "ndisc_send_skb",
                "mld_sendpack",
                "igmp6_send",
                "rawv6_sendmsg",
                "raw_sendmsg",
                "__br_deliver",
                "br_dev_xmit",
                "ip_send_skb",
                "ip6_send_skb",
            ],
            Self::IngressHook => &["nf_hook_ingress", "nf_ingress", "__netif_receive_skb_core"],
            Self::EgressHook => &["nf_hook_egress", "__dev_queue_xmit"],
            Self::NetdevChain => &["nft_do_chain_netdev"],
            Self::BridgeChain => &["nft_do_chain_bridge", "ebt_do_table"],
            Self::ArpChain => &["nft_do_chain_arp", "arpt_do_table", "br_nf_forward_arp"],
            Self::BridgeHook => {
                &["__br_forward", "br_handle_frame", "br_pass_frame_up", "br_forward_finish", "__br_deliver"]
            }
            Self::OwnTransmit => &["br_dev_xmit", "dev_hard_start_xmit"],
            Self::FromPort => &["br_handle_frame", "__netif_receive_skb_core"],
        }
    }

    /// One of them has this plain name.
    pub fn has(self, function: &str) -> bool {
        self.functions().contains(&function)
    }
}

/// The function is one of nft's expressions or chains.
pub fn is_of_nft(function: &str) -> bool {
    function.starts_with("nft_")
}

/// The function evaluates an nft chain.
pub fn is_nft_chain(function: &str) -> bool {
    function.starts_with("nft_do_chain")
}

/// The function belongs to br_netfilter, which sends bridged frames through the IP hooks.
pub fn is_of_br_netfilter(function: &str) -> bool {
    function.starts_with("br_nf_")
}

/// The function belongs to ebtables.
pub fn is_of_ebtables(function: &str) -> bool {
    function.starts_with("ebt_")
}

/// A part of the kernel that may be a module that is not loaded, or not built at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the modules'")]
pub enum Part {
    /// It is always there.
    Core,
    Bridge,
    BridgeVlan,
    BridgeNetfilter,
    Vxlan,
    Geneve,
    Tun,
    Tap,
    Veth,
    NfTables,
    IpTables,
    Ip6Tables,
    ArpTables,
    Ebtables,
    Tbf,
    DefragmentIpv4,
    Stp,
    Llc,
    Snap,
    OpenVswitch,
}

impl Part {
    /// A function that is there exactly when the part is.
    pub fn witness(self) -> Option<&'static str> {
        match self {
            Self::Core => None,
            Self::Bridge => Some("br_add_if"),
            Self::BridgeVlan => Some("br_vlan_enabled"),
            Self::BridgeNetfilter => Some("br_validate_ipv4"),
            Self::Vxlan => Some("vxlan_dev_create"),
            Self::Geneve => Some("geneve_dev_create_fb"),
            Self::Tun => Some("tun_get_socket"),
            Self::Tap => Some("tap_get_socket"),
            Self::Veth => Some("veth_open"),
            Self::NfTables => Some("nft_register_chain_type"),
            Self::IpTables => Some("ipt_register_table"),
            Self::Ip6Tables => Some("ip6t_register_table"),
            Self::ArpTables => Some("arpt_register_table"),
            Self::Ebtables => Some("ebt_register_table"),
            Self::Llc => Some("llc_sap_open"),
            Self::Snap => Some("register_snap_client"),
            Self::Tbf => Some("tbf_init"),
            Self::DefragmentIpv4 => Some("nf_defrag_ipv4_enable"),
            Self::Stp => Some("stp_proto_register"),
            Self::OpenVswitch => Some("ovs_dp_detach_port"),
        }
    }
}

/// A kernel release: major and minor.
pub type Release = (u32, u32);

/// A function and where it is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its plain name.
    pub name: &'static str,
    /// The part of the kernel that it belongs to.
    pub part: Part,
    /// The first of the kernels tried that has it.
    pub since: Release,
    /// The last one that has it, where newer ones don't.
    pub until: Option<Release>,
    /// Why a kernel that has it may show no symbol for it.
    pub inlined: Option<&'static str>,
}

impl Function {
    const fn new(name: &'static str) -> Self {
        Self { name, part: Part::Core, since: OLDEST, until: None, inlined: None }
    }

    const fn of(name: &'static str, part: Part) -> Self {
        Self { part, ..Self::new(name) }
    }

    const fn since(self, since: Release) -> Self {
        Self { since, ..self }
    }

    const fn until(self, until: Release) -> Self {
        Self { until: Some(until), ..self }
    }

    const fn inlined(self, why: &'static str) -> Self {
        Self { inlined: Some(why), ..self }
    }

    /// A kernel of this release has it, and a symbol for it, if it has the part.
    pub fn is_in(&self, release: Release) -> bool {
        self.inlined.is_none() && self.since <= release && self.until.is_none_or(|until| release <= until)
    }
}

/// The oldest kernel that is supported.
const OLDEST: Release = (5, 10);
const STATIC: &str = "static: the compiler may put it into its callers";
const IN_HEADER: &str = "static inline in its header";

/// All functions of all sites, by name.
pub const FUNCTIONS: &[Function] = &[
    Function::of("__allowed_ingress", Part::BridgeVlan).inlined(STATIC),
    Function::new("__br_deliver").until((4, 11)),
    Function::of("__br_forward", Part::Bridge),
    Function::new("__dev_forward_skb"),
    Function::new("__dev_forward_skb2").since((6, 1)),
    Function::new("__dev_queue_xmit"),
    Function::new("__dev_xmit_skb").inlined(STATIC),
    Function::new("__ip6_finish_output").inlined(STATIC),
    Function::new("__ip6_local_out"),
    Function::new("__ip_finish_output"),
    Function::new("__ip_local_out"),
    Function::new("__ip_rcv_finish").until((4, 20)),
    Function::new("__neigh_event_send"),
    Function::new("__netif_receive_skb_core"),
    Function::new("__nf_queue").inlined(STATIC),
    Function::new("__skb_queue_purge").inlined(IN_HEADER),
    Function::new("__udp4_lib_mcast_deliver").inlined(STATIC),
    Function::new("__udp4_lib_rcv"),
    Function::new("__udp6_lib_rcv"),
    Function::new("__udp_enqueue_schedule_skb"),
    Function::new("arp_error_report"),
    Function::new("arp_process"),
    Function::new("arp_rcv"),
    Function::new("arp_xmit"),
    Function::of("arpt_do_table", Part::ArpTables),
    Function::of("br_allowed_ingress", Part::BridgeVlan),
    Function::of("br_dev_queue_push_xmit", Part::Bridge),
    Function::of("br_dev_xmit", Part::Bridge),
    Function::of("br_flood", Part::Bridge),
    Function::of("br_forward", Part::Bridge),
    Function::of("br_forward_finish", Part::Bridge),
    Function::of("br_handle_frame", Part::Bridge),
    Function::of("br_handle_frame_finish", Part::Bridge),
    Function::of("br_multicast_flood", Part::Bridge),
    Function::of("br_nf_dev_queue_xmit", Part::BridgeNetfilter),
    Function::of("br_nf_forward", Part::BridgeNetfilter).since((6, 12)),
    Function::of("br_nf_forward_arp", Part::BridgeNetfilter).until((6, 1)),
    Function::of("br_nf_forward_ip", Part::BridgeNetfilter),
    Function::of("br_nf_hook_thresh", Part::BridgeNetfilter),
    Function::of("br_nf_post_routing", Part::BridgeNetfilter),
    Function::of("br_nf_pre_routing", Part::BridgeNetfilter),
    Function::of("br_nf_pre_routing_ipv6", Part::BridgeNetfilter),
    Function::of("br_pass_frame_up", Part::Bridge),
    Function::new("cookie_v4_check"),
    Function::new("cookie_v6_check"),
    Function::of("deliver_clone", Part::Bridge).inlined(STATIC),
    Function::new("dev_forward_skb"),
    Function::new("dev_hard_start_xmit"),
    Function::new("dev_queue_xmit").inlined("static inline in its header in newer kernels"),
    Function::of("do_execute_actions", Part::OpenVswitch).inlined(STATIC),
    Function::new("do_xdp_generic"),
    Function::new("dst_discard"),
    Function::new("dst_discard_out"),
    Function::of("ebt_do_table", Part::Ebtables),
    Function::of("ebt_in_hook", Part::Ebtables).until((5, 10)),
    Function::new("enqueue_to_backlog"),
    Function::of("geneve_xmit", Part::Geneve),
    Function::of("geneve_xmit_skb", Part::Geneve).inlined(STATIC),
    Function::new("icmp_rcv"),
    Function::new("icmpv6_rcv"),
    Function::new("igmp6_send"),
    Function::new("igmp_rcv"),
    Function::new("inet_frag_destroy"),
    Function::new("inet_sock_destruct"),
    Function::new("ip6_finish_output"),
    Function::new("ip6_forward"),
    Function::new("ip6_frag_expire"),
    Function::new("ip6_frag_queue").inlined(STATIC),
    Function::new("ip6_fragment"),
    Function::new("ip6_input"),
    Function::new("ip6_input_finish"),
    Function::new("ip6_local_out"),
    Function::new("ip6_mc_input"),
    Function::new("ip6_output"),
    Function::new("ip6_pkt_discard"),
    Function::new("ip6_pkt_drop"),
    Function::new("ip6_pkt_prohibit"),
    Function::new("ip6_protocol_deliver_rcu"),
    Function::new("ip6_rcv_core"),
    Function::new("ip6_rcv_finish"),
    Function::new("ip6_send_skb"),
    Function::new("ip6_xmit"),
    Function::new("ip6frag_expire_frag_queue").inlined(IN_HEADER),
    Function::of("ip6t_do_table", Part::Ip6Tables),
    Function::new("ip_defrag"),
    Function::new("ip_do_fragment"),
    Function::new("ip_error"),
    Function::new("ip_expire"),
    Function::new("ip_finish_output"),
    Function::new("ip_forward"),
    Function::new("ip_frag_queue").inlined(STATIC),
    Function::new("ip_fragment"),
    Function::new("ip_list_rcv"),
    Function::new("ip_local_deliver"),
    Function::new("ip_local_out"),
    Function::new("ip_mc_finish_output"),
    Function::new("ip_mc_output"),
    Function::new("ip_output"),
    Function::new("ip_protocol_deliver_rcu"),
    Function::new("ip_rcv"),
    Function::new("ip_rcv_core"),
    Function::new("ip_rcv_finish"),
    Function::new("ip_rcv_finish_core"),
    Function::new("ip_route_input_noref"),
    Function::new("ip_route_input_slow"),
    Function::of("ip_sabotage_in", Part::BridgeNetfilter),
    Function::new("ip_send_skb"),
    Function::new("ip_sublist_rcv"),
    Function::of("ipt_do_table", Part::IpTables),
    Function::of("ipv4_conntrack_defrag", Part::DefragmentIpv4),
    Function::new("ipv6_frag_rcv"),
    Function::new("ipv6_list_rcv"),
    Function::new("ipv6_rcv"),
    Function::new("kfree_skb_list").until((5, 10)),
    Function::new("kfree_skb_list_reason").since((6, 1)),
    Function::of("llc_rcv", Part::Llc),
    Function::of("maybe_deliver", Part::Bridge),
    Function::new("mld_sendpack"),
    Function::new("ndisc_error_report"),
    Function::new("ndisc_rcv"),
    Function::new("ndisc_send_skb"),
    Function::new("neigh_flush_dev"),
    Function::new("neigh_invalidate"),
    Function::new("neigh_probe"),
    Function::new("neigh_resolve_output"),
    Function::new("neigh_timer_handler"),
    Function::new("netif_napi_add_weight").since((6, 1)).until((6, 12)),
    Function::new("netif_napi_add_weight_locked").since((6, 18)),
    Function::new("netif_receive_generic_xdp").inlined(STATIC),
    Function::new("netlink_broadcast_filtered").inlined("6.1 shows no symbol for it"),
    Function::of("nf_ct_ipv4_gather_frags", Part::DefragmentIpv4).inlined(STATIC),
    Function::new("nf_hook_egress").inlined(IN_HEADER),
    Function::new("nf_hook_ingress").inlined(IN_HEADER),
    Function::new("nf_hook_slow"),
    Function::new("nf_hook_slow_list"),
    Function::new("nf_ingress").inlined(STATIC),
    Function::new("nf_queue"),
    Function::of("nft_do_chain", Part::NfTables),
    Function::of("nft_do_chain_arp", Part::NfTables),
    Function::of("nft_do_chain_bridge", Part::NfTables),
    Function::of("nft_do_chain_inet", Part::NfTables),
    Function::of("nft_do_chain_ipv4", Part::NfTables),
    Function::of("nft_do_chain_ipv6", Part::NfTables),
    Function::of("nft_do_chain_netdev", Part::NfTables),
    Function::of("nft_immediate_eval", Part::NfTables),
    Function::of("nft_verdict_init", Part::NfTables).inlined(STATIC),
    Function::of("ovs_dp_process_packet", Part::OpenVswitch),
    Function::of("ovs_execute_actions", Part::OpenVswitch),
    Function::of("ovs_vport_receive", Part::OpenVswitch),
    Function::of("ovs_vport_send", Part::OpenVswitch),
    Function::new("ping_rcv"),
    Function::new("qdisc_drop").inlined(IN_HEADER),
    Function::new("raw_local_deliver"),
    Function::new("raw_sendmsg"),
    Function::new("rawv6_sendmsg"),
    Function::new("sch_handle_egress").inlined(STATIC),
    Function::new("sch_handle_ingress").inlined(STATIC),
    Function::new("skb_queue_purge").until((6, 1)),
    Function::new("skb_queue_purge_reason").since((6, 12)),
    Function::new("skb_rbtree_purge"),
    Function::new("skb_release_head_state"),
    Function::of("snap_rcv", Part::Snap),
    Function::of("stp_pdu_rcv", Part::Stp),
    Function::of("tap_get_user", Part::Tap),
    Function::of("tap_handle_frame", Part::Tap),
    Function::of("tbf_enqueue", Part::Tbf),
    Function::new("tcf_action_exec"),
    Function::new("tcp_disconnect"),
    Function::new("tcp_v4_rcv"),
    Function::new("tcp_v6_rcv"),
    Function::new("tcp_write_queue_purge"),
    Function::of("tun_build_skb", Part::Tun),
    Function::of("tun_chr_write_iter", Part::Tun),
    Function::of("tun_get_user", Part::Tun),
    Function::of("tun_net_xmit", Part::Tun),
    Function::of("tun_xdp_one", Part::Tun).inlined(STATIC),
    Function::new("udp_queue_rcv_one_skb"),
    Function::new("udp_rcv"),
    Function::new("udpv6_queue_rcv_one_skb"),
    Function::new("udpv6_rcv"),
    Function::new("unix_stream_connect"),
    Function::of("veth_xmit", Part::Veth),
    Function::of("vxlan_rcv", Part::Vxlan),
    Function::of("vxlan_xmit", Part::Vxlan),
    Function::of("vxlan_xmit_nh", Part::Vxlan).inlined(STATIC),
    Function::of("vxlan_xmit_nhid", Part::Vxlan).inlined(STATIC),
    Function::of("vxlan_xmit_one", Part::Vxlan),
];

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, Site};
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_each_name_once_and_no_other() {
        let named: BTreeSet<&str> = Site::ALL.iter().flat_map(|site| site.functions()).copied().collect();
        let listed: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
        assert_eq!(listed, named.into_iter().collect::<Vec<_>>());
    }
}
