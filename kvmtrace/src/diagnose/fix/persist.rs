//! How a cure is made to last on this host: in the file that sets the thing at boot, in the words of the program that
//! reads it. Where no such file was found, a cure keeps its general text.

use super::sysctl;
use crate::diagnose::report::{DeviceSetting, Fix, Setting};
use crate::diagnose::shell::quote;
use crate::event::HostState;
use crate::event::configuration::{ConfigurationSystem as System, DeviceConfiguration};
use crate::event::host::{Guest, LinkKind};

/// Replaces the general text by this host's, where it is known.
pub fn complete(host: &HostState, fix: &mut Fix) {
    let told = match &fix.setting {
        Some(Setting::Device { device, what }) => device_text(host, device, what),
        Some(Setting::Sysctl { name, value }) => Some(sysctl_text(host, name, value)),
        None => None,
    };
    fix.persist = told.or_else(|| fix.persist.take());
}

fn device_text(host: &HostState, device: &str, what: &DeviceSetting) -> Option<String> {
    let link = host.link_named(device)?;
    if let Some(guest) = host.guest_of(link.index).filter(|_| link.kind == LinkKind::Tun) {
        return guest_text(host, guest, device, what);
    }
    let found = host.configuration.devices.get(device)?;
    let DeviceConfiguration { file, entry, .. } = found;
    Some(match found.system {
        System::Netplan => format!("{file}: set {} under {entry}, then run: netplan apply", netplan(what, device)?),
        System::NetworkManager => {
            let entry = quote(entry);
            format!("nmcli connection modify {entry} {} && nmcli connection up {entry}", network_manager(what)?)
        }
        System::Networkd => {
            format!(
                "{file}: set {}, then run: networkctl reload && networkctl reconfigure {}",
                networkd(what)?,
                quote(device)
            )
        }
        System::Ifupdown => {
            let apply = if host.configuration.proxmox {
                ", then run: ifreload -a (or set it in the web interface: System, Network)"
            } else {
                ""
            };
            format!("{file}: {}{apply}", ifupdown(what, entry)?)
        }
        System::Libvirt => {
            format!("virsh net-edit {}: set {}, then restart the network.", quote(entry), libvirt_network(what)?)
        }
    })
}

fn netplan(what: &DeviceSetting, device: &str) -> Option<String> {
    match what {
        DeviceSetting::Up => Some("\"activation-mode: manual\" no longer (it keeps the device down)".to_owned()),
        DeviceSetting::Mtu(mtu) => Some(format!("\"mtu: {mtu}\"")),
        DeviceSetting::Bridge(bridge) => {
            Some(format!("{device} in the list \"interfaces:\" of bridges: {bridge}:, and no address"))
        }
        DeviceSetting::Port { flag, on } if flag == "hairpin" => {
            Some(format!("\"hairpin: {on}\" (netplan 1.0 and later)"))
        }
        DeviceSetting::Port { flag, on } if flag == "learning" => {
            Some(format!("\"port-mac-learning: {on}\" (netplan 1.0 and later)"))
        }
        DeviceSetting::Option { option, value } if option == "stp_state" => {
            Some(format!("\"stp: {}\" in its parameters", value != "0"))
        }
        DeviceSetting::LargeReceiveOff => Some("\"large-receive-offload: false\"".to_owned()),
        DeviceSetting::Port { .. } | DeviceSetting::Option { .. } => None,
    }
}

fn network_manager(what: &DeviceSetting) -> Option<String> {
    match what {
        DeviceSetting::Up => Some("connection.autoconnect yes".to_owned()),
        DeviceSetting::Mtu(mtu) => Some(format!("802-3-ethernet.mtu {mtu}")),
        DeviceSetting::LargeReceiveOff => Some("ethtool.feature-lro off".to_owned()),
        // `controller` and `port-type` have these names only since 1.46; the old ones are still understood.
        DeviceSetting::Bridge(bridge) => {
            Some(format!("connection.master {} connection.slave-type bridge", quote(bridge)))
        }
        DeviceSetting::Port { flag, on } if flag == "hairpin" => {
            Some(format!("bridge-port.hairpin-mode {}", if *on { "yes" } else { "no" }))
        }
        DeviceSetting::Option { option, value } if option == "stp_state" => {
            Some(format!("bridge.stp {}", if value == "0" { "no" } else { "yes" }))
        }
        DeviceSetting::Option { option, value } if option == "mcast_snooping" => {
            Some(format!("bridge.multicast-snooping {}", if value == "0" { "no" } else { "yes" }))
        }
        DeviceSetting::Port { .. } | DeviceSetting::Option { .. } => None,
    }
}

fn networkd(what: &DeviceSetting) -> Option<String> {
    match what {
        DeviceSetting::Up => Some("ActivationPolicy=up in [Link]".to_owned()),
        DeviceSetting::Mtu(mtu) => Some(format!("MTUBytes={mtu} in [Link]")),
        DeviceSetting::Bridge(bridge) => Some(format!("Bridge={bridge} in [Network]")),
        DeviceSetting::Port { flag, on } => {
            let key = match flag.as_str() {
                "isolated" => "Isolated",
                "learning" => "Learning",
                "flood" => "UnicastFlood",
                "mcast_flood" => "MulticastFlood",
                "hairpin" => "HairPin",
                _ => return None,
            };
            Some(format!("{key}={} in [Bridge]", if *on { "yes" } else { "no" }))
        }
        // Those of the bridge itself stand in its .netdev file, offloads in a .link file.
        DeviceSetting::Option { .. } | DeviceSetting::LargeReceiveOff => None,
    }
}

fn ifupdown(what: &DeviceSetting, entry: &str) -> Option<String> {
    match what {
        DeviceSetting::Up => Some(format!("add \"auto {entry}\"")),
        DeviceSetting::Mtu(mtu) => Some(format!("add \"mtu {mtu}\" to \"iface {entry}\"")),
        DeviceSetting::LargeReceiveOff => {
            Some(format!("add \"post-up ethtool -K {entry} lro off\" to \"iface {entry}\""))
        }
        DeviceSetting::Bridge(bridge) => {
            Some(format!("add {entry} to \"bridge-ports\" of \"iface {bridge}\" (bridge_ports with bridge-utils)"))
        }
        DeviceSetting::Option { option, value } if option == "stp_state" => Some(format!(
            "set \"bridge-stp {}\" in \"iface {entry}\" (bridge_stp with bridge-utils)",
            if value == "0" { "off" } else { "on" }
        )),
        DeviceSetting::Port { .. } | DeviceSetting::Option { .. } => None,
    }
}

fn libvirt_network(what: &DeviceSetting) -> Option<String> {
    match what {
        DeviceSetting::Mtu(mtu) => Some(format!("<mtu size='{mtu}'/>")),
        DeviceSetting::Option { option, value } if option == "stp_state" => {
            Some(format!("stp='{}' on <bridge>", if value == "0" { "off" } else { "on" }))
        }
        DeviceSetting::Up
        | DeviceSetting::Bridge(_)
        | DeviceSetting::Port { .. }
        | DeviceSetting::LargeReceiveOff
        | DeviceSetting::Option { .. } => None,
    }
}

/// A guest's tap is made anew at each start, from the guest's definition.
fn guest_text(host: &HostState, guest: &Guest, device: &str, what: &DeviceSetting) -> Option<String> {
    let name = quote(&guest.name);
    let on_off = |on: bool| if on { "yes" } else { "no" };
    match guest.manager.as_deref()? {
        "libvirt" => {
            let element = match what {
                DeviceSetting::Up => "<link state='up'/>".to_owned(),
                DeviceSetting::Mtu(mtu) => format!("<mtu size='{mtu}'/>"),
                DeviceSetting::Bridge(bridge) => format!("<source bridge='{bridge}'/>"),
                DeviceSetting::Port { flag, on } if flag == "isolated" => format!("<port isolated='{}'/>", on_off(*on)),
                DeviceSetting::Port { .. } | DeviceSetting::LargeReceiveOff | DeviceSetting::Option { .. } => {
                    return None;
                }
            };
            let link = host.link_named(device)?;
            let interface = guest.interfaces.iter().find(|interface| interface.device == link.index)?;
            let which = interface.mac.map(|mac| format!(" with <mac address='{mac}'/>")).unwrap_or_default();
            Some(format!(
                "virsh edit {name}: set {element} in the <interface>{which}; it counts from the guest's next start."
            ))
        }
        "proxmox" => {
            // tap100i0: guest 100, net0; with the firewall the bridge's port is fwpr100p0.
            let (id, number) = device.strip_prefix("tap")?.split_once('i')?;
            let (id, number): (u32, u32) = (id.parse().ok()?, number.parse().ok()?);
            let option = match what {
                DeviceSetting::Up => "link_down=1 taken out of".to_owned(),
                DeviceSetting::Mtu(mtu) => format!("mtu={mtu} in"),
                DeviceSetting::Bridge(bridge) => format!("bridge={bridge} in"),
                DeviceSetting::Port { .. } | DeviceSetting::LargeReceiveOff | DeviceSetting::Option { .. } => {
                    return None;
                }
            };
            Some(format!(
                "qm config {id} shows net{number}; with {option} it, give the line to: qm set {id} --net{number} LINE"
            ))
        }
        _ => None,
    }
}

/// The file that sets it now, or one that is read after all others that set it.
fn sysctl_text(host: &HostState, name: &str, value: &str) -> String {
    let line = format!("{} = {value}", sysctl::path(name));
    let mut text = match host.configuration.sysctls.get(name).map(String::as_str) {
        Some(file) if file.starts_with("/etc/") => format!("{file} sets it at boot: write \"{line}\" there."),
        Some(file) => {
            let last = file.rsplit('/').next().unwrap_or_default();
            let own = if last < "90-kvmtrace.conf" { "90-kvmtrace.conf" } else { "zz-kvmtrace.conf" };
            format!("{file} sets it at boot: write \"{line}\" to /etc/sysctl.d/{own}, which is read after it.")
        }
        None => format!("Write \"{line}\" to /etc/sysctl.d/90-kvmtrace.conf."),
    };
    if name.starts_with("net.bridge.") {
        text.push_str(" The module br_netfilter sets it to 1 whenever it is loaded: name it in /etc/modules-load.d/kvmtrace.conf, so that it is loaded before.");
    }
    text
}

#[cfg(test)]
pub(in crate::diagnose) mod tests;
