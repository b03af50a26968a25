//! The host's network as it was at one moment: pure data. `crate::host` fills it from netlink, `/proc` and the
//! firewall's own tools; the rules read it; recordings hold it.

pub use super::bridge::{BridgePort, BridgeState, PortState, PortVlan};
use super::configuration::Configuration;
use super::names::{MacvtapMode, NeighbourState, RouteKind};
pub use super::units::Network;
use super::units::{IfIndex, MacAddress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything about the host that a verdict may need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// Host name.
    pub name: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// The network namespace by the name or path that the operator gave; none for the one that kvmtrace was started in.
    #[serde(default)]
    pub netns: Option<String>,
    /// The bound of the table of connections can't be set from this network namespace: it is the first namespace's.
    #[serde(default)]
    pub conntrack_bound_fixed: bool,
    /// Devices of this network namespace.
    pub links: BTreeMap<IfIndex, Link>,
    /// Unicast, blackhole, prohibit and unreachable routes of all tables but `local`.
    pub routes: Vec<Route>,
    /// Rules of policy routing, IPv4 first, as they are asked.
    #[serde(default)]
    pub policy_rules: Vec<super::policy::PolicyRule>,
    /// Neighbour table (ARP and ND).
    pub neighbours: Vec<Neighbour>,
    /// Addresses that this host answers ARP or ND for in another's place (`ip neigh show proxy`), and on which device.
    #[serde(default)]
    pub proxies: Vec<(IpAddr, IfIndex)>,
    /// Addresses of this host's that duplicate address detection found with another machine, and on which device: they are set, and
    /// not used (`IFA_F_DADFAILED`).
    #[serde(default)]
    pub duplicates: Vec<(Network, IfIndex)>,
    /// Forwarding database of all bridges and VXLAN devices.
    pub forwarding: Vec<FdbEntry>,
    /// Queueing disciplines with their counters.
    pub qdiscs: Vec<Qdisc>,
    /// Sysctls that matter, by their dotted names: `net.ipv4.ip_forward`, `net.ipv4.conf.eth0.rp_filter`. The device
    /// name stands as it is, so names with dots are no trouble when the key is built the same way.
    pub sysctls: BTreeMap<String, String>,
    /// Counters of `/proc/net/{snmp,snmp6,netstat}`, as `Ip.FragFails`, `Icmp6.OutPktTooBigs`, `TcpExt.ListenDrops`,
    /// of conntrack as `conntrack.drop`, and of softnet as `softnet.dropped`.
    pub counters: BTreeMap<String, u64>,
    /// The firewall's rules.
    pub netfilter: Netfilter,
    /// Guests and their interfaces.
    pub guests: Vec<Guest>,
    /// Parts that could not be read: what, why.
    pub missing: Vec<(String, String)>,
    /// Time zone: its IANA name, else its offset from UTC (`+02:00`).
    #[serde(default)]
    pub timezone: Option<String>,
    /// What sets all this at boot.
    #[serde(default)]
    pub configuration: Configuration,
    /// Tunnels, IPsec, `WireGuard`, IPVS.
    #[serde(default)]
    pub overlay: super::overlay::Overlay,
    /// Open vSwitch.
    #[serde(default)]
    pub switch: super::switch::Switch,
    /// Bonds.
    #[serde(default)]
    pub bonds: BTreeMap<IfIndex, super::bond::Bond>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its own MAC address.
    pub mac: Option<MacAddress>,
    /// Largest layer-3 packet in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Its frames begin with an Ethernet header (by its hardware type, `ARPHRD_*`). Those of tun, `WireGuard`, PPP, IPIP,
    /// SIT, GRE, VTI and XFRM devices have none: nothing of layer 2 can be said of them.
    #[serde(default = "has_ethernet")]
    pub ethernet: bool,
    /// It takes no part in ARP (`IFF_NOARP`).
    #[serde(default)]
    pub arp_off: bool,
    /// The bridge or bond that it belongs to.
    pub master: Option<IfIndex>,
    /// The device that it is stacked on (VLAN, macvlan, macvtap, vxlan), if that is in this namespace.
    pub lower: Option<IfIndex>,
    /// The other end of a veth pair, if that is in this namespace.
    pub peer: Option<IfIndex>,
    /// Length of the transmit queue; on a tap: of the ring that the guest reads.
    pub queue_length: u32,
    /// Root queueing discipline.
    pub qdisc: String,
    /// Its state as a port, when `master` is a bridge.
    pub port: Option<BridgePort>,
    /// An XDP program is attached: `generic`, `native` or `offload`.
    pub xdp: Option<String>,
    /// It merges TCP segments as it receives them (large receive offload is on).
    #[serde(default)]
    pub large_receive: bool,
    /// Its IP addresses with their prefix lengths.
    pub addresses: Vec<Network>,
    /// Its counters.
    pub statistics: LinkStatistics,
}

/// Of devices in recordings that don't say.
fn has_ethernet() -> bool {
    true
}

/// What kind of device a [`Link`] is (`IFLA_INFO_KIND`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// The loopback device.
    Loopback,
    /// A tap: its other end is a process, for instance a guest's. A tun device, whose packets have no Ethernet header and
    /// which is a VPN's as a rule, is `Other("tun")`.
    Tun,
    /// A bridge.
    Bridge(BridgeState),
    /// One end of a veth pair.
    Veth,
    /// A VXLAN tunnel.
    Vxlan {
        /// VXLAN network identifier.
        vni: u32,
        /// Default remote, if any.
        remote: Option<IpAddr>,
        /// Local address, if set.
        local: Option<IpAddr>,
        /// UDP port, in host order.
        port: u16,
        /// `df` setting: 0 unset, 1 set, 2 inherit.
        dont_fragment: u8,
    },
    /// A macvtap on `Link::lower`.
    Macvtap {
        /// Which of the macvtaps of one device it reaches.
        mode: MacvtapMode,
    },
    /// A macvlan on `Link::lower`.
    Macvlan,
    /// An 802.1Q device on `Link::lower`.
    Vlan {
        /// VLAN id.
        id: u16,
    },
    /// A bond.
    Bond,
    /// A NIC: it has no kind.
    Physical,
    /// Something else, by the kernel's name.
    Other(String),
}

/// `rtnl_link_stats64`, those that explain losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kernel's own names, documented in if_link.h")]
pub struct LinkStatistics {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_missed: u64,
    pub rx_nohandler: u64,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: Network,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// By which device.
    pub device: Option<IfIndex>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Table (254 is `main`).
    pub table: u32,
    /// Priority; lower wins.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// MTU set on the route, in bytes.
    pub mtu: Option<u32>,
}

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// On which device.
    pub device: IfIndex,
    /// Its MAC address, null while unresolved.
    pub mac: Option<MacAddress>,
    /// What is known of it.
    pub state: NeighbourState,
}

/// An entry of a bridge's or VXLAN device's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The address.
    pub mac: MacAddress,
    /// The port behind which it is.
    pub device: IfIndex,
    /// The bridge, for bridge entries.
    pub bridge: Option<IfIndex>,
    /// VLAN, if any.
    pub vlan: Option<u16>,
    /// The address is the bridge's or port's own, or set to be local.
    pub permanent: bool,
    /// Set by hand, does not age.
    pub fixed: bool,
    /// Does not move to another port.
    pub sticky: bool,
    /// VXLAN: the remote tunnel end.
    pub remote: Option<IpAddr>,
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qdisc {
    /// On which device.
    pub device: IfIndex,
    /// `tbf`, `htb`, `fq_codel`, `clsact`, …
    pub kind: String,
    /// `8001:`, as tc writes it.
    pub handle: String,
    /// `root`, `ingress` or a class.
    pub parent: String,
    /// Packets dropped since it was made.
    pub drops: u64,
    /// Packets that had to wait for the limit since it was made.
    pub overlimits: u64,
    /// Packets waiting.
    pub backlog: u32,
    /// What it does, in tc's words: `loss 40%` of netem, `rate 10000000bit limit 63500b` of tbf; null for other kinds.
    pub setting: Option<String>,
    /// Bytes that a token bucket (tbf) lets through at once: no larger packet ever passes.
    pub burst: Option<u32>,
    /// Policers among the filters of `ingress` and `clsact`.
    #[serde(default)]
    pub policers: Vec<Policer>,
}

/// A filter with the action `police`, which drops what comes faster than a rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policer {
    /// It is asked as packets leave, else as they come in.
    pub egress: bool,
    /// `u32`, `matchall`, `flower`, …
    pub filter: String,
    /// Bits a second; 0 where it has no rate of this kind.
    pub rate: u64,
}

/// The firewall's rules, of all back ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netfilter {
    /// Chains in the order in which they were read.
    pub chains: Vec<Chain>,
    /// The named sets that rules refer to.
    #[serde(default)]
    pub sets: Vec<Set>,
}

/// A named set of addresses or ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// As of a [`Chain`].
    pub family: String,
    /// nft's table; null for a set of ipset, which has none.
    pub table: Option<String>,
    /// Name.
    pub name: String,
    /// Addresses, networks, ranges, … as their tool writes them.
    pub elements: Vec<String>,
    /// All elements are here, and none was of a kind that is not kept.
    pub complete: bool,
    /// What its elements are, as its tool writes it: `ipv4_addr . inet_service`, `hash:ip,port`; null in recordings that
    /// lack it.
    #[serde(default)]
    pub kind: Option<String>,
    /// For a map: the answer of each element, as nft writes it. Empty for a set.
    #[serde(default)]
    pub answers: Vec<String>,
}

/// Which tool owns a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `nft`
    Nft,
    /// `iptables`, `ip6tables`, `ebtables` or `arptables` of the nft back end.
    IptablesNft,
    /// `iptables-legacy`, `ip6tables-legacy`, `ebtables-legacy`, `arptables-legacy`.
    IptablesLegacy,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Which tool owns it.
    pub backend: Backend,
    /// `ip`, `ip6`, `inet`, `bridge`, `arp`, `netdev`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Name.
    pub name: String,
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress`, `egress`; null for a chain that is only
    /// jumped to.
    pub hook: Option<String>,
    /// `filter`, `nat`, `route`.
    pub kind: Option<String>,
    /// Order among the chains of a hook.
    pub priority: Option<i32>,
    /// `accept` or `drop`, for base chains.
    pub policy: Option<String>,
    /// Packets that the policy has met, where counted (iptables).
    pub policy_packets: Option<u64>,
    /// The device of a netdev chain.
    pub device: Option<String>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// nft's handle.
    pub handle: Option<u64>,
    /// Its place in the chain, from 1.
    pub number: u32,
    /// Its text as the tool that owns it prints it (nft: without the handle; iptables: from `-A` on).
    pub text: String,
    /// Packets counted, where the rule has a counter.
    pub packets: Option<u64>,
    /// `accept`, `drop`, `reject`, `return`, `jump NAME`, `goto NAME`, `masquerade`, `snat`, `dnat`, …; `vmap` with what a
    /// map may answer, as in `vmap accept|jump NAME`; null when the rule only counts or marks.
    pub verdict: Option<String>,
}

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name; where none is known, the name of its first interface.
    pub name: String,
    /// Its UUID, if the process or its manager tells.
    pub uuid: Option<String>,
    /// The process that reads the tap, null when there is none (the guest is gone).
    pub pid: Option<u32>,
    /// `libvirt`, `proxmox`, `openstack`, `qemu`, `firecracker`, `cloud-hypervisor`, …; null when unknown.
    pub manager: Option<String>,
    /// Its interfaces, ordered by index.
    pub interfaces: Vec<GuestInterface>,
    /// The process is stopped (by a signal or a debugger) and reads nothing: state `T` or `t` in `proc_pid_stat(5)`.
    #[serde(default)]
    pub stopped: bool,
    /// The hypervisor runs and the machine does not: libvirt's status file says `paused`.
    #[serde(default)]
    pub paused: bool,
    /// Time that the process's threads spent on a CPU so far, in nanoseconds: the first word of `/proc/PID/task/TID/schedstat`;
    /// 0 where it is not known.
    #[serde(default)]
    pub worked_ns: u64,
}

/// A guest's interface as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInterface {
    /// The tap or macvtap.
    pub device: IfIndex,
    /// `tap` or `macvtap`.
    pub kind: String,
    /// The guest's own MAC address (not the tap's), when configured or seen.
    pub mac: Option<MacAddress>,
    /// IP addresses of that MAC address: seen (neighbour tables), routed to the device alone, or leased by this host.
    pub addresses: Vec<IpAddr>,
    /// The manager holds the interface's link down, as `virsh domif-setlink` does.
    #[serde(default)]
    pub link_down: bool,
    /// The manager's description of the running guest has no such interface: it was unplugged.
    #[serde(default)]
    pub unplugged: bool,
}

impl GuestInterface {
    /// An interface that is plugged in, with its link up.
    pub fn new(device: IfIndex, kind: &str, mac: Option<MacAddress>, addresses: Vec<IpAddr>) -> Self {
        Self { device, kind: kind.to_owned(), mac, addresses, link_down: false, unplugged: false }
    }
}

/// What [`HostState::missing`] calls processes that don't show what they hold open: any of them may be a guest's.
pub const PROCESSES: &str = "processes of guests";

impl HostState {
    /// The device with this index.
    pub fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The device with this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The name of a device, or `if7` when it is not known.
    pub fn link_name(&self, index: IfIndex) -> String {
        self.link(index).map_or_else(|| index.to_string(), |link| link.name.clone())
    }

    /// A table is not known, or not all of it.
    pub fn is_cut(&self, table: &str) -> bool {
        self.missing.iter().any(|(what, _)| what == table)
    }

    /// No process holds the guest's interfaces, as far as processes show what they hold ([`PROCESSES`]).
    pub fn is_abandoned(&self, guest: &Guest) -> bool {
        guest.pid.is_none() && !self.is_cut(PROCESSES)
    }

    /// The ports of a bridge.
    pub fn ports(&self, bridge: IfIndex) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(bridge))
    }

    /// The guest that owns an interface.
    pub fn guest_of(&self, device: IfIndex) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.interfaces.iter().any(|interface| interface.device == device))
    }

    /// The value of a sysctl.
    pub fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.get(name).map(String::as_str)
    }

    /// The devices by which a bridge reaches beyond this host: its ports that are no guest's interface. A pair that joins
    /// it to another bridge (Proxmox's firewall bridges, OpenStack's hybrid plug) stands for that bridge's ports.
    pub fn uplinks(&self, bridge: IfIndex) -> impl Iterator<Item = &Link> {
        let joined = self.joined(bridge);
        let ports = joined.clone().into_iter().flat_map(|bridge| self.ports(bridge));
        ports.filter(move |port| {
            let behind = port.peer.and_then(|peer| self.link(peer)).and_then(|peer| peer.master);
            !matches!(port.kind, LinkKind::Tun)
                && self.guest_of(port.index).is_none()
                && !behind.is_some_and(|other| joined.contains(&other))
        })
    }

    /// The bond that a device is a leg of, by its index, where its state is known.
    pub fn bond_of(&self, leg: IfIndex) -> Option<(IfIndex, &super::bond::Bond)> {
        let master = self.link(leg)?.master?;
        self.bonds.get(&master).map(|bond| (master, bond))
    }

    /// A bridge and those that pairs join it to.
    pub fn joined(&self, bridge: IfIndex) -> Vec<IfIndex> {
        let (mut next, mut joined) = (0, vec![bridge]);
        while let Some(bridge) = joined.get(next).copied() {
            next += 1;
            for far in self.ports(bridge).filter_map(|port| self.link(port.peer?)?.master) {
                if !joined.contains(&far) {
                    joined.push(far);
                }
            }
        }
        joined
    }
}
