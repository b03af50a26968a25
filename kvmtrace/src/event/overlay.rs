//! What carries packets inside others, and what chooses a server for them: ends of tunnels, IPsec's policies and states,
//! `WireGuard`'s peers, IPVS's services.

use super::units::{IfIndex, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Ends of GRE, IPIP, SIT, ip6tnl, geneve, VTI and xfrm devices. VXLAN's are in its [`super::host::LinkKind`].
    pub tunnels: BTreeMap<IfIndex, TunnelEnds>,
    /// IPsec's policies, in the order in which they are asked: by direction, then by priority.
    pub policies: Vec<IpsecPolicy>,
    /// IPsec's states.
    pub states: Vec<IpsecState>,
    /// Peers of `WireGuard` devices.
    pub peers: BTreeMap<IfIndex, Vec<WireguardPeer>>,
    /// Services of IPVS.
    pub services: Vec<VirtualService>,
}

/// The ends of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEnds {
    /// This host's end; none for any of its addresses.
    pub local: Option<IpAddr>,
    /// The other end; none where each packet says.
    pub remote: Option<IpAddr>,
    /// GRE's key, geneve's VNI, an xfrm interface's id, of what is sent.
    pub key: Option<u32>,
    /// The same of what is received.
    pub input_key: Option<u32>,
    /// UDP port of geneve.
    pub port: u16,
    /// The outer packet must not be fragmented (`pmtudisc`, geneve's `df set`).
    pub dont_fragment: bool,
}

/// A policy (`ip xfrm policy`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsecPolicy {
    /// `in`, `out`, `fwd`.
    pub direction: IpsecDirection,
    /// Lower is asked first.
    pub priority: u32,
    /// The packets that it is for.
    pub selector: IpsecSelector,
    /// It drops them.
    pub blocks: bool,
    /// Mark and mask that it asks for; zeroes for any.
    pub mark: (u32, u32),
    /// Of the xfrm interface with this id; 0 for none.
    pub interface: u32,
    /// How they have to be wrapped; empty: as they are.
    pub templates: Vec<IpsecTemplate>,
}

/// Which packets a policy is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IpsecDirection {
    /// For this host.
    #[default]
    In,
    /// That leave this host, its own and routed ones.
    Out,
    /// Routed ones, as they came.
    Forward,
}

/// Packets by their addresses, protocol and ports (`struct xfrm_selector`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsecSelector {
    /// Sources.
    pub source: Network,
    /// Destinations.
    pub destination: Network,
    /// IP protocol number; 0 for any.
    pub protocol: u8,
    /// Source port and the bits that count.
    pub source_port: (u16, u16),
    /// Destination port and the bits that count.
    pub destination_port: (u16, u16),
    /// The device; none for any.
    pub device: Option<IfIndex>,
}

impl Default for IpsecSelector {
    fn default() -> Self {
        let any = Network { address: IpAddr::from([0; 4]), prefix: 0 };
        Self { source: any, destination: any, protocol: 0, source_port: (0, 0), destination_port: (0, 0), device: None }
    }
}

/// A template of a policy: the state that it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsecTemplate {
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// 50 ESP, 51 AH, 108 IPCOMP.
    pub protocol: u8,
    /// SPI in host order; 0 for any.
    pub spi: u32,
    /// Request id; 0 for any.
    pub request: u32,
    /// Tunnel mode; else transport mode.
    pub tunnel: bool,
    /// It may be missing.
    pub optional: bool,
}

/// A state (`ip xfrm state`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsecState {
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// 50 ESP, 51 AH, 108 IPCOMP.
    pub protocol: u8,
    /// SPI in host order.
    pub spi: u32,
    /// Request id.
    pub request: u32,
    /// Tunnel mode; else transport mode.
    pub tunnel: bool,
    /// ESP in UDP (NAT-T).
    pub in_udp: bool,
}

/// A peer of a `WireGuard` device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardPeer {
    /// The beginning of its public key in hexadecimal.
    pub key: String,
    /// Address and port that it is at; none where it has not been heard of.
    pub endpoint: Option<(IpAddr, u16)>,
    /// Addresses that are sent to it and taken from it.
    pub allowed: Vec<Network>,
    /// It has shaken hands once.
    pub has_shaken_hands: bool,
}

/// A service of IPVS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualService {
    /// IP protocol number; none for packets by their mark.
    pub protocol: Option<u8>,
    /// Address; none for packets by their mark.
    pub address: Option<IpAddr>,
    /// Port; 0 for any. The mark, where packets are chosen by it.
    pub port: u32,
    /// Servers.
    pub servers: Vec<RealServer>,
}

/// A server of an IPVS service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// `Masq`, `Route`, `Tunnel`, `Local`.
    pub forward: String,
    /// 0: it gets nothing new.
    pub weight: u32,
}
