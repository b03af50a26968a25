//! The firewall's rules as data: families, hooks, priorities, verdicts, tests, sets and maps.

/// The kernel's families of hooks (`NFPROTO_*`). Chains of the family `inet` stand in the hooks of both IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// IPv4 (`NFPROTO_IPV4`).
    Ipv4,
    /// IPv6 (`NFPROTO_IPV6`).
    Ipv6,
    /// ARP to and from this host (`NFPROTO_ARP`).
    Arp,
    /// Bridges (`NFPROTO_BRIDGE`).
    Bridge,
    /// One device (`NFPROTO_NETDEV`).
    Device,
}

/// A hook, as nft names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `ingress`, of a device.
    Ingress,
    /// `prerouting`
    Prerouting,
    /// `input`
    Input,
    /// `forward`
    Forward,
    /// `output`
    Output,
    /// `postrouting`
    Postrouting,
    /// `egress`, of a device.
    Egress,
}

/// A rule of a [`super::host::HostState`], by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleReference {
    /// Index of the chain.
    pub chain: usize,
    /// Index of the rule in the chain; none for the policy of a base chain.
    pub rule: Option<usize>,
}
