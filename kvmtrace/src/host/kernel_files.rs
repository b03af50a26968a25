//! Sysctls and counters: `/proc/sys/net` and `/proc/thread-self/net`, which show the network namespace of the thread
//! that reads them. `/sys/class/net` does not: under `nsenter --net` it still shows the namespace that mounted it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Settings of the whole network namespace, below `/proc/sys`.
const GLOBAL: &[&str] = &[
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv6.icmp.echo_ignore_all",
    "net.bridge.bridge-nf-call-arptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-filter-pppoe-tagged",
    "net.bridge.bridge-nf-filter-vlan-tagged",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.ipv4.icmp_ratelimit",
    "net.ipv4.icmp_ratemask",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_forward_use_pmtu",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.ipfrag_high_thresh",
    "net.ipv4.ipfrag_time",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.ip6frag_high_thresh",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_frag6_high_thresh",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
];

/// Settings of each device, and of `all` and `default`.
const PER_DEVICE: &[(&str, &[&str])] = &[
    (
        "ipv4",
        &[
            "accept_local",
            "arp_filter",
            "arp_ignore",
            "drop_unicast_in_l2_multicast",
            "forwarding",
            "log_martians",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
            "src_valid_mark",
        ],
    ),
    (
        "ipv6",
        &["accept_ra", "disable_ipv6", "drop_unicast_in_l2_multicast", "forwarding", "proxy_ndp", "use_oif_addrs_only"],
    ),
];

/// The sysctls that matter. One that this kernel does not have is left out.
pub(super) fn sysctls<'a>(devices: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let root = Path::new("/proc/sys");
    let mut values = BTreeMap::new();
    for &name in GLOBAL {
        // None of these has a dot within a path component.
        if let Some(value) = read_line(root.join(name.replace('.', "/"))) {
            values.insert(name.to_owned(), value);
        }
    }
    for device in ["all", "default"].into_iter().chain(devices) {
        for &(family, names) in PER_DEVICE {
            let directory: PathBuf =
                [root, Path::new("net"), Path::new(family), "conf".as_ref(), device.as_ref()].iter().collect();
            for &name in names {
                if let Some(value) = read_line(directory.join(name)) {
                    values.insert(format!("net.{family}.conf.{device}.{name}"), value);
                }
            }
        }
    }
    values
}

fn read_line(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Counters of the IP stack, conntrack and the receive queues.
pub(super) fn counters() -> BTreeMap<String, u64> {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/thread-self/net").join(name)).unwrap_or_default();
    let mut counters = BTreeMap::new();
    counters.extend(paired_lines(&read("snmp")));
    counters.extend(paired_lines(&read("netstat")));
    counters.extend(snmp6(&read("snmp6")));
    counters.extend(conntrack(&read("stat/nf_conntrack")));
    counters.extend(softnet(&read("softnet_stat")));
    counters.extend(fragments(&read("sockstat")));
    counters.extend(fragments(&read("sockstat6")));
    counters.extend(ipsec(&read("xfrm_stat")));
    counters
}

/// `XfrmInNoStates 8` (`xfrm_statistics_seq_show`): what IPsec dropped, and why; noughts say nothing.
fn ipsec(text: &str) -> BTreeMap<String, u64> {
    let counter = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        let value = value.trim().parse::<u64>().ok().filter(|value| *value > 0)?;
        Some((format!("Xfrm.{}", name.strip_prefix("Xfrm").unwrap_or(name)), value))
    };
    text.lines().filter_map(counter).collect()
}

/// `Ip: Forwarding DefaultTTL …` above `Ip: 1 64 …`.
fn paired_lines(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<_> = text.lines().collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':')) else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Tcp.MaxConn is -1: no counter.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counters
}

/// `Icmp6OutPktTooBigs   3`, told as `Icmp6.OutPktTooBigs`.
fn snmp6(text: &str) -> BTreeMap<String, u64> {
    const GROUPS: [&str; 4] = ["Icmp6", "UdpLite6", "Udp6", "Ip6"];
    let counter = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        let (group, rest) = GROUPS.iter().find_map(|group| Some((group, name.strip_prefix(group)?)))?;
        Some((format!("{group}.{rest}"), value.trim().parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// A line of names, then one of hexadecimal numbers for each CPU. `entries` is the whole table's on each line.
fn conntrack(text: &str) -> BTreeMap<String, u64> {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut counters = BTreeMap::<String, u64>::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            let Ok(value) = u64::from_str_radix(value, 16) else { continue };
            let sum = counters.entry(format!("conntrack.{name}")).or_default();
            *sum = if *name == "entries" { value } else { sum.saturating_add(value) };
        }
    }
    counters
}

/// `FRAG6: inuse 0 memory 0`, told as `FRAG6.memory`: bytes that wait for the rest of their datagrams.
fn fragments(text: &str) -> BTreeMap<String, u64> {
    let memory = |line: &str| {
        let (name, values) = line.split_once(':')?;
        let (_, bytes) = values.split_once("memory")?;
        name.starts_with("FRAG").then_some((format!("{name}.memory"), bytes.trim().parse().ok()?))
    };
    text.lines().filter_map(memory).collect()
}

/// Hexadecimal numbers for each CPU: packets taken from the queue, dropped because it was full, times out of budget.
fn softnet(text: &str) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::<String, u64>::new();
    for line in text.lines() {
        for (name, value) in ["processed", "dropped", "time_squeeze"].into_iter().zip(line.split_whitespace()) {
            let value = u64::from_str_radix(value, 16).unwrap_or(0);
            *counters.entry(format!("softnet.{name}")).or_default() += value;
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_lines_give_named_counters_and_what_is_no_counter_is_left_out() {
        let text = "Ip: Forwarding FragFails\nIp: 1 7\nTcp: MaxConn ActiveOpens\nTcp: -1 12\nTcpExt: ListenDrops\n";
        let counters = paired_lines(text);
        assert_eq!(counters.get("Ip.FragFails"), Some(&7));
        assert_eq!(counters.get("Tcp.ActiveOpens"), Some(&12));
        assert_eq!(counters.get("Tcp.MaxConn"), None);
        assert_eq!(counters.len(), 3);
    }

    #[test]
    fn snmp6_names_are_split_after_their_group() {
        let counters =
            snmp6("Ip6InReceives                   \t5\nIcmp6OutPktTooBigs \t3\nUdpLite6InErrors 1\nnonsense\n");
        assert_eq!(counters.get("Ip6.InReceives"), Some(&5));
        assert_eq!(counters.get("Icmp6.OutPktTooBigs"), Some(&3));
        assert_eq!(counters.get("UdpLite6.InErrors"), Some(&1));
    }

    #[test]
    fn conntrack_counters_are_summed_over_cpus_but_for_the_table_size() {
        let counters = conntrack("entries  searched drop\n0000000a 00000000 00000003\n0000000a 00000000 00000004\n");
        assert_eq!(counters.get("conntrack.entries"), Some(&10));
        assert_eq!(counters.get("conntrack.drop"), Some(&7));
    }

    #[test]
    fn of_the_sockets_only_the_memory_of_fragments_is_told() {
        let counters = fragments("sockets: used 9\nUDP: inuse 3 mem 2\nFRAG: inuse 1 memory 4264\n");
        assert_eq!(counters, BTreeMap::from([("FRAG.memory".to_owned(), 4264)]));
    }

    #[test]
    fn softnet_counters_are_summed_over_cpus() {
        let counters = softnet("00000010 00000001 00000002 0 0\n00000010 00000001 00000000 0 0\n");
        assert_eq!(counters.get("softnet.processed"), Some(&32));
        assert_eq!(counters.get("softnet.dropped"), Some(&2));
        assert_eq!(counters.get("softnet.time_squeeze"), Some(&2));
    }

    #[test]
    fn what_ipsec_dropped_is_counted_by_its_reason() {
        let counters = ipsec("XfrmInError             \t0\nXfrmInNoStates          \t8\nXfrmOutPolBlock 1\n");
        let expected = [("Xfrm.InNoStates".to_owned(), 8), ("Xfrm.OutPolBlock".to_owned(), 1)];
        assert_eq!(counters, BTreeMap::from(expected));
    }
}
