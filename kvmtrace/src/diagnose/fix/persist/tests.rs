//! One cure on hosts that are configured in different ways.

use super::complete;
use crate::diagnose::fix::{device, sysctl};
use crate::diagnose::report::Fix;
use crate::event::configuration::{ConfigurationSystem as System, DeviceConfiguration};
use crate::event::host::{Guest, GuestInterface, Link, LinkKind, LinkStatistics};
use crate::event::{HostState, IfIndex, MacAddress};
use rstest::rstest;

/// A device that is up.
pub(in crate::diagnose) fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index: IfIndex(index),
        name: name.to_owned(),
        kind,
        mac: None,
        mtu: 1_500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: None,
        lower: None,
        peer: None,
        queue_length: 1_000,
        qdisc: String::new(),
        port: None,
        xdp: None,
        large_receive: false,
        addresses: Vec::new(),
        statistics: LinkStatistics::default(),
    }
}

fn host(system: System, file: &str, entry: &str) -> HostState {
    let mut host = HostState::default();
    host.links.insert(IfIndex(2), link(2, "eth0", LinkKind::Physical));
    host.links.insert(IfIndex(3), link(3, "br0", LinkKind::Physical));
    let found = DeviceConfiguration { system, file: file.to_owned(), entry: entry.to_owned() };
    host.configuration.devices.insert("eth0".to_owned(), found);
    host
}

fn persist(host: &HostState, mut fix: Fix) -> String {
    complete(host, &mut fix);
    fix.persist.unwrap()
}

#[rstest]
#[case(
    System::Netplan,
    "/etc/netplan/a.yaml",
    "eth0",
    "/etc/netplan/a.yaml: set \"mtu: 9000\" under eth0, then run: netplan apply"
)]
#[case(
    System::NetworkManager,
    "/etc/NetworkManager/system-connections/w.nmconnection",
    "Wired 1",
    "nmcli connection modify 'Wired 1' 802-3-ethernet.mtu 9000 && nmcli connection up 'Wired 1'"
)]
#[case(
    System::Networkd,
    "/etc/systemd/network/a.network",
    "eth0",
    "/etc/systemd/network/a.network: set MTUBytes=9000 in [Link], then run: networkctl reload && networkctl reconfigure eth0"
)]
#[case(
    System::Ifupdown,
    "/etc/network/interfaces",
    "eth0",
    "/etc/network/interfaces: add \"mtu 9000\" to \"iface eth0\""
)]
#[case(
    System::Libvirt,
    "/etc/libvirt/qemu/networks/d.xml",
    "default",
    "virsh net-edit default: set <mtu size='9000'/>, then restart the network."
)]
fn an_mtu_is_set_where_the_device_is(
    #[case] system: System,
    #[case] file: &str,
    #[case] entry: &str,
    #[case] expected: &str,
) {
    let host = host(system, file, entry);
    assert_eq!(persist(&host, device::mtu(host.link_named("eth0").unwrap(), 9_000, "why")), expected);
}

#[rstest]
#[case(
    System::Netplan,
    "/etc/netplan/a.yaml: set \"large-receive-offload: false\" under eth0, then run: netplan apply"
)]
#[case(System::NetworkManager, "nmcli connection modify eth0 ethtool.feature-lro off && nmcli connection up eth0")]
#[case(System::Ifupdown, "/etc/netplan/a.yaml: add \"post-up ethtool -K eth0 lro off\" to \"iface eth0\"")]
// In a file of its own, which is not the one that was found.
#[case(System::Networkd, "Set it where the device is configured: ")]
fn an_offload_is_switched_off_where_the_device_is_set_up(#[case] system: System, #[case] expected: &str) {
    let host = host(system, "/etc/netplan/a.yaml", "eth0");
    let told = persist(&host, device::large_receive_off(host.link_named("eth0").unwrap()));
    assert!(told.starts_with(expected), "{told}");
}

#[test]
fn what_no_file_or_no_word_sets_keeps_the_general_text() {
    let host = host(System::Netplan, "/etc/netplan/a.yaml", "eth0");
    let isolated = device::port_flag(host.link_named("eth0").unwrap(), "isolated", false, "why");
    assert!(persist(&host, isolated).starts_with("Set it where"));
    let other = device::mtu(host.link_named("br0").unwrap(), 9_000, "why");
    assert!(persist(&host, other).starts_with("Set it where"));
}

#[rstest]
#[case(
    "libvirt",
    "vnet0",
    "virsh edit web1: set <mtu size='9000'/> in the <interface> with <mac address='52:54:00:00:00:01'/>; it counts from the guest's next start."
)]
#[case(
    "proxmox",
    "tap100i2",
    "qm config 100 shows net2; with mtu=9000 in it, give the line to: qm set 100 --net2 LINE"
)]
#[case("qemu", "vnet0", "Set it where the device is configured")]
fn a_guests_tap_is_made_from_its_definition(#[case] manager: &str, #[case] tap: &str, #[case] expected: &str) {
    let mut host = HostState::default();
    host.links.insert(IfIndex(4), link(4, tap, LinkKind::Tun));
    let mac = Some(MacAddress([0x52, 0x54, 0, 0, 0, 1]));
    let interface = GuestInterface::new(IfIndex(4), "tap", mac, Vec::new());
    host.guests.push(Guest {
        name: "web1".to_owned(),
        manager: Some(manager.to_owned()),
        interfaces: vec![interface],
        ..Guest::default()
    });
    let told = persist(&host, device::mtu(host.link_named(tap).unwrap(), 9_000, "why"));
    assert!(told.starts_with(expected), "{told}");
}

#[rstest]
#[case("net.ipv4.ip_forward", None, "Write \"net.ipv4.ip_forward = 1\" to /etc/sysctl.d/90-kvmtrace.conf.")]
#[case(
    "net.ipv4.ip_forward",
    Some("/etc/sysctl.d/99-x.conf"),
    "/etc/sysctl.d/99-x.conf sets it at boot: write \"net.ipv4.ip_forward = 1\" there."
)]
#[case(
    "net.ipv4.ip_forward",
    Some("/usr/lib/sysctl.d/99-x.conf"),
    "/usr/lib/sysctl.d/99-x.conf sets it at boot: write \"net.ipv4.ip_forward = 1\" to /etc/sysctl.d/zz-kvmtrace.conf, which is read after it."
)]
#[case(
    "net.bridge.bridge-nf-call-iptables",
    None,
    "Write \"net.bridge.bridge-nf-call-iptables = 1\" to /etc/sysctl.d/90-kvmtrace.conf. The module br_netfilter sets it to 1 whenever it is loaded: name it in /etc/modules-load.d/kvmtrace.conf, so that it is loaded before."
)]
fn a_sysctl_is_set_where_it_is_read_last(#[case] name: &str, #[case] file: Option<&str>, #[case] expected: &str) {
    let mut host = HostState::default();
    if let Some(file) = file {
        host.configuration.sysctls.insert(name.to_owned(), file.to_owned());
    }
    assert_eq!(persist(&host, sysctl::set(&host, name, "1", "why")), expected);
}
