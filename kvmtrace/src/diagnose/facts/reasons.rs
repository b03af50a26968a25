//! What the kernel's drop reasons mean, for drops that no rule explains.
//!
//! Source: the comments of `enum skb_drop_reason` (`include/net/dropreason-core.h`, 6.18) and the places that give them.

/// A reason in words, as the end of "the kernel dropped it:". None for one that says nothing by itself.
pub fn meaning(reason: &str) -> Option<&'static str> {
    let index = MEANINGS.binary_search_by_key(&reason, |(name, _)| name).ok()?;
    MEANINGS.get(index).map(|(_, meaning)| *meaning)
}

/// Sorted by name.
const MEANINGS: &[(&str, &str)] = &[
    ("BPF_CGROUP_EGRESS", "a BPF program of the sender's cgroup refused it"),
    ("DEV_HDR", "the driver could not read its header"),
    ("DEV_READY", "the device is not ready"),
    ("HDR_TRUNC", "it is shorter than its headers"),
    ("IPV6_BAD_EXTHDR", "an IPv6 extension header is malformed"),
    ("IPV6_NDISC_BAD_CODE", "a message of neighbour discovery has a code that is none"),
    ("IPV6_NDISC_BAD_OPTIONS", "the options of a message of neighbour discovery are malformed"),
    ("IPV6_NDISC_FRAG", "a message of neighbour discovery came in fragments, which RFC 6980 forbids"),
    (
        "IPV6_NDISC_HOP_LIMIT",
        "a message of neighbour discovery has a hop limit below 255: it comes from another network",
    ),
    (
        "IP_INHDR",
        "the IP header is malformed (its version, length or checksum), or the packet is shorter than the header says",
    ),
    ("IP_NOPROTO", "this host has nothing that takes this IP protocol"),
    ("IP_TUNNEL_ECN", "the ECN bits of a tunnel's outer and inner headers contradict each other"),
    ("LOCAL_MAC", "it came in with the MAC address of the tunnel's own device as its source"),
    ("MAC_IEEE_MAC_CONTROL", "it is an Ethernet control frame (pause), which ends at the link"),
    ("NOMEM", "the kernel had no memory for it"),
    ("PFMEMALLOC", "the kernel's memory was so short that only what frees some was let through"),
    ("PKT_TOO_SMALL", "it is shorter than its headers say"),
    ("PROTO_MEM", "the protocol's memory on this host is used up (net.ipv4.tcp_mem, udp_mem)"),
    ("RECURSION_LIMIT", "devices that stand on each other pass it round in a circle"),
    ("SECURITY_HOOK", "a security module (SELinux, Smack) refused it"),
    ("SKB_CSUM", "its checksum could not be computed"),
    ("SKB_GSO_SEG", "it could not be cut into segments"),
    ("SKB_UCOPY_FAULT", "the receiving program's memory could not be written"),
    ("SOCKET_FILTER", "a filter that a program has set on its socket refused it"),
    (
        "TAP_FILTER",
        "the filter that the guest's hypervisor has set on the tap refused it (TUNSETFILTEREBPF, TUNATTACHFILTER)",
    ),
    ("TAP_TXFILTER", "the list of MAC addresses that the guest takes has not its destination (TUNSETTXFILTER)"),
    ("TC_CHAIN_NOTFOUND", "a tc filter jumps to a chain that is not there"),
    ("TC_RECLASSIFY_LOOP", "tc filters send it round in a circle"),
    ("UNHANDLED_PROTO", "this host has nothing that takes this kind of frame"),
    ("UNICAST_IN_L2_MULTICAST", "a packet to one address came in a frame to a group"),
    ("VXLAN_INVALID_HDR", "its VXLAN header has bits that this device does not know"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found() {
        for (name, text) in MEANINGS {
            assert_eq!(meaning(name), Some(*text));
        }
        assert_eq!(meaning("NOT_SPECIFIED"), None);
    }
}
