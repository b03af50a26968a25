//! The wirings: `ip`, `bridge`, `sysctl` and `nft` commands as an operator would type them.

use super::Lab;
use super::plan::{Masquerade, Port, Topology};
use super::process;
use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::time::Duration;

/// Bytes that IPv4, UDP, VXLAN and the inner Ethernet header take.
const VXLAN_OVERHEAD: u32 = 50;

/// Quiet and quick: no duplicate address detection, no router solicitations, no source filter of the distribution's.
const SYSCTLS: [&str; 8] = [
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.autoconf=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv4.ip_forward=0",
];

/// Wires the namespaces of a new lab and starts its guests.
pub(super) fn build(lab: &mut Lab) -> Result<()> {
    for namespace in lab.guests.iter().map(|guest| &guest.namespace).chain([&lab.host, &lab.lan]) {
        namespace.sysctl(&SYSCTLS)?;
    }
    let called = u8::from(lab.plan.options.br_netfilter);
    // Not every kernel has br_netfilter: then there is nothing to switch.
    for table in ["ip", "ip6", "arp"] {
        lab.host.sysctl(&[format!("net.bridge.bridge-nf-call-{table}tables={called}")]).ok();
    }
    let mtu = lab.plan.mtu;
    uplink(lab, if lab.plan.options.topology == Topology::Vxlan { mtu + VXLAN_OVERHEAD } else { mtu })?;
    match lab.plan.options.topology {
        Topology::Bridge => {
            bridge(lab)?;
            lab.host.ip(&[format!("link set {} master {}", lab.plan.uplink.device, lab.plan.bridge)])?;
            lan_address(lab)?;
        }
        Topology::Routed => {
            bridge(lab)?;
            route(lab)?;
            let via = lab.plan.uplink.addresses;
            let net = lab.plan.guest_net.host(0);
            lab.lan.ip(&[
                format!("route add {}/24 via {}", net.v4, via.v4),
                format!("route add {}/64 via {}", net.v6, via.v6),
            ])?;
        }
        Topology::Nat => {
            bridge(lab)?;
            route(lab)?;
            masquerade(lab)?;
        }
        Topology::Vxlan => {
            bridge(lab)?;
            tunnel(lab)?;
        }
        Topology::Macvtap => {
            lab.host.ip(&lab.plan.host.addresses.assign(&lab.plan.uplink.device))?;
            lan_address(lab)?;
            macvtaps(lab)?;
        }
    }
    guests(lab)
}

/// The NIC: a veth whose other end is the LAN's.
fn uplink(lab: &Lab, mtu: u32) -> Result<()> {
    let (Port { device, mac, .. }, lan) = (&lab.plan.uplink, &lab.plan.lan);
    lab.host.ip(&[
        format!(
            "link add {device} mtu {mtu} address {mac} type veth peer name {} mtu {mtu} address {} netns {}",
            lan.device,
            lan.mac,
            lab.lan.name()
        ),
        format!("link set {device} up"),
    ])?;
    lab.lan.ip(&[format!("link set {} up", lan.device)])
}

/// The bridge with the host's address on it.
fn bridge(lab: &Lab) -> Result<()> {
    let (name, host) = (&lab.plan.bridge, &lab.plan.host);
    let snooping = u8::from(lab.plan.options.snooping);
    let mut lines = vec![
        format!(
            "link add {name} address {} type bridge stp_state 0 forward_delay 0 mcast_snooping {snooping}",
            host.mac
        ),
        format!("link set {name} mtu {} up", lab.plan.mtu),
    ];
    lines.extend(host.addresses.assign(name));
    lab.host.ip(&lines)
}

fn lan_address(lab: &Lab) -> Result<()> {
    lab.lan.ip(&lab.plan.lan.addresses.assign(&lab.plan.lan.device))
}

/// The host routes between the bridge and the NIC.
fn route(lab: &Lab) -> Result<()> {
    lab.host.ip(&lab.plan.uplink.addresses.assign(&lab.plan.uplink.device))?;
    lab.host.sysctl(&["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    lan_address(lab)
}

fn masquerade(lab: &Lab) -> Result<()> {
    let (device, net) = (&lab.plan.uplink.device, lab.plan.guest_net.host(0));
    match lab.plan.options.masquerade {
        Masquerade::Nft => lab.host.nft(&format!(
            "table inet lab_nat {{ chain postrouting {{ type nat hook postrouting priority srcnat; \
             ip saddr {}/24 oifname \"{device}\" masquerade; ip6 saddr {}/64 oifname \"{device}\" masquerade; }}; }}",
            net.v4, net.v6
        )),
        Masquerade::IptablesLegacy => {
            lab.host.check(&format!(
                "iptables-legacy -w -t nat -A POSTROUTING -s {}/24 -o {device} -j MASQUERADE",
                net.v4
            ))?;
            lab.host.check(&format!(
                "ip6tables-legacy -w -t nat -A POSTROUTING -s {}/64 -o {device} -j MASQUERADE",
                net.v6
            ))?;
            Ok(())
        }
    }
}

/// A VXLAN port in the bridge, and the same at the other end, which holds the LAN's address.
fn tunnel(lab: &Lab) -> Result<()> {
    let plan = &lab.plan;
    let (Port { device, addresses, .. }, lan) = (&plan.uplink, &plan.lan);
    let (name, vni, mtu) = (&plan.vxlan, plan.vni, plan.mtu);
    let vxlan = |local, remote, device: &str| {
        format!("link add {name} mtu {mtu} type vxlan id {vni} dstport 4789 local {local} remote {remote} dev {device}")
    };
    lab.host.ip(&addresses.assign(device))?;
    lab.host
        .ip(&[vxlan(addresses.v4, plan.underlay.v4, device), format!("link set {name} master {} up", plan.bridge)])?;
    lab.lan.ip(&plan.underlay.assign(&lan.device))?;
    lab.lan.ip(&[
        vxlan(plan.underlay.v4, addresses.v4, &lan.device),
        "link add lanbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
        format!("link set {name} master lanbr up"),
        format!("link set lanbr mtu {mtu} up"),
    ])?;
    lab.lan.ip(&lan.addresses.assign("lanbr"))
}

/// A macvtap per guest, and the node that its process opens.
fn macvtaps(lab: &mut Lab) -> Result<()> {
    for index in 0..lab.guests.len() {
        let guest = lab.guests[index].plan.clone();
        lab.host.ip(&[
            format!(
                "link add link {} name {} address {} type macvtap mode bridge",
                lab.plan.uplink.device, guest.tap, guest.port.mac
            ),
            // Without it the device filters the groups of the guest's neighbour discovery.
            format!("link set {} allmulticast on up", guest.tap),
        ])?;
        let numbers = lab.host.check(&format!("cat /sys/class/net/{}/tap*/dev", guest.tap))?;
        let (major, minor) = numbers.trim().split_once(':').context("no macvtap device number")?;
        // Called as udev would call it in /dev, which all namespaces share: two labs may have the same number.
        let number = lab.host.check(&format!("cat /sys/class/net/{}/ifindex", guest.tap))?;
        let node = lab.directory().join(format!("tap{}", number.trim()));
        mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major.parse()?, minor.parse()?))?;
        lab.guests[index].relay.node = Some(node);
    }
    Ok(())
}

/// The guests' devices, and their processes.
fn guests(lab: &mut Lab) -> Result<()> {
    let bridged = lab.has_bridge();
    let gateway = match lab.plan.options.topology {
        Topology::Routed | Topology::Nat => lab.plan.host.addresses,
        Topology::Bridge | Topology::Vxlan | Topology::Macvtap => lab.plan.lan.addresses,
    };
    for index in 0..lab.guests.len() {
        let (plan, mtu, bridge) = (lab.guests[index].plan.clone(), lab.plan.mtu, lab.plan.bridge.clone());
        if bridged {
            // libvirt gives the tap the guest's MAC with fe: in front.
            let mac = format!("fe{}", &plan.port.mac[2..]);
            lab.host.ip(&[
                format!("tuntap add dev {} mode tap vnet_hdr", plan.tap),
                format!("link set {} address {mac} mtu {mtu} master {bridge} up", plan.tap),
            ])?;
        }
        let device = &plan.port.device;
        let namespace = &lab.guests[index].namespace;
        namespace.ip(&[
            format!("tuntap add dev {device} mode tap vnet_hdr"),
            format!("link set {device} address {} mtu {mtu} up", plan.port.mac),
        ])?;
        namespace.ip(&plan.port.addresses.assign(device))?;
        lab.guests[index].start()?;
        let namespace = &lab.guests[index].namespace;
        // A route needs a carrier for its next hop only with IPv6's stricter checks: it comes last.
        process::wait_until(Duration::from_secs(2), || {
            namespace.run(&format!("ip link show {device} up")).is_ok_and(|output| output.stdout.contains("LOWER_UP"))
        });
        namespace.ip(&[
            format!("route replace default via {}", gateway.v4),
            format!("route replace default via {}", gateway.v6),
            format!("route add 224.0.0.0/4 dev {device}"),
        ])?;
    }
    let device = if lab.plan.options.topology == Topology::Vxlan { "lanbr" } else { &lab.plan.lan.device };
    lab.lan.ip(&[format!("route add 224.0.0.0/4 dev {device}")])
}
