//! The contract's cause ids.

use serde::Serialize;

macro_rules! causes {
    ($($(#[doc = $doc:literal])* $name:ident = $id:literal,)*) => {
        /// Why: the contract's cause ids.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Cause {
            $($(#[doc = $doc])* #[doc = concat!("`", $id, "`")] #[serde(rename = $id)] $name,)*
        }

        impl Cause {
            /// All of them, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The id, as in JSON.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }
        }
    };
}

causes! {
    BridgeMtuExceeded = "bridge-mtu-exceeded",
    RouteMtuExceeded = "route-mtu-exceeded",
    PmtuBlackHole = "pmtu-black-hole",
    FragmentedByHost = "fragmented-by-host",
    FragmentedByBridge = "fragmented-by-bridge",
    FragmentedByGuest = "fragmented-by-guest",
    FragmentsLost = "fragments-lost",
    TunnelMtuExceeded = "tunnel-mtu-exceeded",
    NetfilterForward = "netfilter-forward",
    NetfilterBridgedIp = "netfilter-bridged-ip",
    NetfilterBridge = "netfilter-bridge",
    NetfilterArp = "netfilter-arp",
    NetfilterInput = "netfilter-input",
    NetfilterOutput = "netfilter-output",
    NetfilterPrerouting = "netfilter-prerouting",
    NetfilterPostrouting = "netfilter-postrouting",
    NetfilterIngress = "netfilter-ingress",
    NetfilterReject = "netfilter-reject",
    ConntrackFull = "conntrack-full",
    ForwardingDisabled = "forwarding-disabled",
    NoRoute = "no-route",
    RouteBlackhole = "route-blackhole",
    RouteProhibited = "route-prohibited",
    ReversePathFilter = "reverse-path-filter",
    MartianSource = "martian-source",
    TtlExpired = "ttl-expired",
    NatMissing = "nat-missing",
    BridgePortBlocked = "bridge-port-blocked",
    BridgePortDetached = "bridge-port-detached",
    BridgePortDown = "bridge-port-down",
    BridgeDown = "bridge-down",
    BridgeVlanFiltered = "bridge-vlan-filtered",
    BridgePortIsolated = "bridge-port-isolated",
    BridgePortLocked = "bridge-port-locked",
    BridgeFloodDisabled = "bridge-flood-disabled",
    BridgeFdbMisdirected = "bridge-fdb-misdirected",
    BridgeMulticastPruned = "bridge-multicast-pruned",
    BridgeLinkLocal = "bridge-link-local",
    LinkDown = "link-down",
    NoCarrier = "no-carrier",
    GuestNotReading = "guest-not-reading",
    GuestGone = "guest-gone",
    QdiscLimit = "qdisc-limit",
    TcDrop = "tc-drop",
    XdpDrop = "xdp-drop",
    MacvtapHostUnreachable = "macvtap-host-unreachable",
    InvalidSourceMac = "invalid-source-mac",
    NeighbourUnresolved = "neighbour-unresolved",
    AddressConflict = "address-conflict",
    MacConflict = "mac-conflict",
    MacSpoofed = "mac-spoofed",
    ArpSpoofed = "arp-spoofed",
    ArpStorm = "arp-storm",
    BridgeLoop = "bridge-loop",
    PortClosed = "port-closed",
    ListenOverflow = "listen-overflow",
    SocketBufferFull = "socket-buffer-full",
    ChecksumBad = "checksum-bad",
    TunnelUnknownVni = "tunnel-unknown-vni",
    TunnelNoRemote = "tunnel-no-remote",
    SourceSpoofed = "source-spoofed",
    MartianDestination = "martian-destination",
    NeighbourStale = "neighbour-stale",
    FramesReflected = "frames-reflected",
    MacvtapMulticastFiltered = "macvtap-multicast-filtered",
    NetfilterQueue = "netfilter-queue",
    IpsecPolicy = "ipsec-policy",
    IpsecState = "ipsec-state",
    DhcpUnanswered = "dhcp-unanswered",
    RogueDhcpServer = "rogue-dhcp-server",
    RouterMissing = "router-missing",
    RogueRouter = "rogue-router",
    GuestPaused = "guest-paused",
    GuestLinkDown = "guest-link-down",
    GuestNicMissing = "guest-nic-missing",
    Ipv6Disabled = "ipv6-disabled",
    AddressOverlap = "address-overlap",
    IcmpIgnored = "icmp-ignored",
    NatUnwanted = "nat-unwanted",
    VlanTagMismatch = "vlan-tag-mismatch",
    MacvtapMode = "macvtap-mode",
    BondInactiveLeg = "bond-inactive-leg",
    TunnelPeerMissing = "tunnel-peer-missing",
    IpvsNoServer = "ipvs-no-server",
    OvsDrop = "ovs-drop",
    OvsVlan = "ovs-vlan",
    OvsUpcall = "ovs-upcall",
    OvsPortDown = "ovs-port-down",
    ConnectionUntracked = "connection-untracked",
    RateLimited = "rate-limited",
    Netem = "netem",
    NoReply = "no-reply",
    Unclassified = "unclassified",
}
