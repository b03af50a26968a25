//! What kvmtrace says in the end: the contract's `kvmtrace/verdict/1` object, and the one place that knows its JSON
//! names. Every key is always there, null where there is nothing to say.

use crate::event::{FlowKey, Timestamp};
use serde::Serialize;

/// The object of `verdict --json`, `report --json` and `check --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Report {
    pub schema: &'static str,
    pub host: Host,
    pub window: Window,
    pub degraded: Vec<crate::event::Degraded>,
    pub lost: crate::event::Loss,
    pub totals: Totals,
    pub guests: Vec<GuestReport>,
    pub flows: Vec<FlowReport>,
    pub findings: Vec<Finding>,
    /// An addition to the contract: per guest and direction, in = out + dropped + refused + in flight.
    pub ledger: Vec<super::ledger::Account>,
}

/// `Report::schema`.
pub const SCHEMA: &str = "kvmtrace/verdict/1";

impl Report {
    /// The gravest severity told: the exit status hangs on it.
    pub fn severity(&self) -> Severity {
        let flows = self.flows.iter().map(|flow| flow.severity);
        flows.chain(self.findings.iter().map(|finding| finding.severity)).max().unwrap_or(Severity::Ok)
    }
}

/// Which host was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub kvmtrace: String,
}

/// How long.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Window {
    #[serde(serialize_with = "rfc_3339")]
    pub start: Timestamp,
    #[serde(serialize_with = "rfc_3339")]
    pub end: Timestamp,
    pub seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) fn rfc_3339<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Sums over all flows, each flow counted where it entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Totals {
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub fragmented: u64,
}

/// A guest and its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct GuestReport {
    pub name: String,
    pub uuid: Option<String>,
    pub pid: Option<u32>,
    pub manager: Option<String>,
    pub interfaces: Vec<InterfaceReport>,
}

/// A guest's interface and its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct InterfaceReport {
    pub device: String,
    pub kind: String,
    pub mac: Option<String>,
    pub bridge: Option<String>,
    pub uplinks: Vec<String>,
    pub addresses: Vec<String>,
}

/// How grave something is; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Ok,
    /// Worth knowing, no fault.
    Info,
    /// It hurts, or will.
    Warning,
    /// Traffic is lost.
    Error,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It left in order.
    Delivered,
    /// Delivered in pieces.
    Fragmented,
    /// Left the host in order, nothing came back.
    Unanswered,
    /// An answer came that says no.
    Refused,
    /// Entered, never left, no drop seen.
    Lost,
    /// Dropped on this host, some or all of it.
    Dropped,
}

/// Which way a flow goes, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowDirection {
    /// The guest sends.
    FromGuest,
    /// The guest is to receive.
    ToGuest,
    /// Between two guests of this host.
    GuestToGuest,
    /// It touches no guest.
    Host,
}

/// A flow and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct FlowReport {
    /// Tells flows apart that read alike, such as two pings of the same pair.
    #[serde(skip)]
    pub key: FlowKey,
    pub guest: Option<String>,
    pub device: Option<String>,
    pub direction: FlowDirection,
    pub protocol: String,
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
    pub vlan: Option<u16>,
    pub translated: Option<Translated>,
    pub verdict: Verdict,
    pub cause: Option<Cause>,
    pub severity: Severity,
    pub complete: bool,
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub fragments: u64,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub path: Vec<Hop>,
    pub explanation: String,
    pub evidence: Vec<String>,
    pub fixes: Vec<Fix>,
}

/// The flow after NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Translated {
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
}

/// Where a fault sits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Where {
    pub device: Option<String>,
    pub point: Point,
    pub function: Option<String>,
    pub reason: Option<String>,
}

/// The contract's points of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub enum Point {
    TapIngress,
    TapEgress,
    BridgeIngress,
    BridgeForward,
    BridgeEgress,
    HostInput,
    HostOutput,
    Routing,
    NetfilterPrerouting,
    NetfilterInput,
    NetfilterForward,
    NetfilterOutput,
    NetfilterPostrouting,
    NetfilterIngress,
    NetfilterEgress,
    NicIngress,
    NicEgress,
    Tunnel,
    Neighbour,
    Socket,
    Qdisc,
    Guest,
    BeyondHost,
}

/// A flow's counts at one point of its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Name of the device.
    pub device: String,
    /// Its side.
    pub direction: crate::event::Direction,
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
    /// Time that the flow's first packet took from the hop before to this one; null at the first hop.
    pub latency_ns: Option<u64>,
}

/// A fact about a device, a guest or the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Finding {
    pub cause: Cause,
    pub severity: Severity,
    pub guest: Option<String>,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub count: Option<u64>,
    pub explanation: String,
    pub evidence: Vec<String>,
    pub fixes: Vec<Fix>,
}

/// A cure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// One line for `sh -c` on this host; null where the cure lies in the guest or beyond the host.
    pub command: Option<String>,
    /// The line that takes it back.
    pub undo: Option<String>,
    /// What it does and why it cures; at least ten characters.
    pub why: String,
    /// What else it touches.
    pub risk: Option<String>,
    /// How to make it survive a reboot.
    pub persist: Option<String>,
    /// What it sets, for telling where this host keeps that.
    #[serde(skip)]
    pub setting: Option<crate::diagnose::fix::persist::Setting>,
}

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
    NoReply = "no-reply",
    Unclassified = "unclassified",
}

impl Point {
    /// The point of a tc hook.
    pub fn of(scene: &super::scene::Scene<'_>, place: crate::event::Place) -> Self {
        use super::scene::Role;
        use crate::event::Direction;
        match (scene.role(place.device), place.direction) {
            (Role::Tap, Direction::Ingress) | (Role::Macvtap, Direction::Egress) => Self::TapIngress,
            (Role::Tap, Direction::Egress) | (Role::Macvtap, Direction::Ingress) => Self::TapEgress,
            (Role::Bridge, Direction::Ingress) => Self::HostInput,
            (Role::Bridge, Direction::Egress) => Self::HostOutput,
            (Role::Tunnel, _) => Self::Tunnel,
            (Role::Nic, Direction::Ingress) => Self::NicIngress,
            (Role::Nic, Direction::Egress) => Self::NicEgress,
        }
    }
}
