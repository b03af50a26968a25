//! The files that set devices, sysctls and rules at boot. Only looked into for names: what cannot be read or understood is
//! not told, and the cure then says it in general.

use super::text_file;
use crate::event::configuration::{Configuration, ConfigurationSystem, DeviceConfiguration};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of one directory that are looked into.
const FILES: usize = 256;
/// Bytes of a file that are looked into.
const BYTES: u64 = 256 << 10;

/// What is found below `root` about these devices and sysctls.
pub(super) fn read<'a>(
    root: &Path,
    devices: impl Iterator<Item = &'a str>,
    sysctls: &BTreeMap<String, String>,
) -> Configuration {
    let wanted: BTreeSet<&str> = devices.collect();
    let mut found = Configuration {
        proxmox: root.join("etc/pve").is_dir(),
        sysctls: sysctl_files(root, sysctls),
        firewall: [
            "etc/nftables.conf",
            "etc/sysconfig/nftables.conf",
            "etc/iptables/rules.v4",
            "etc/iptables/rules.v6",
        ]
        .into_iter()
        .filter(|file| root.join(file).is_file())
        .map(|file| format!("/{file}"))
        .collect(),
        ..Configuration::default()
    };
    let mut tell = |system, file: &Path, device: &str, entry: &str| {
        if wanted.contains(device) {
            let (file, entry) = (shown(root, file), entry.to_owned());
            // The first one found is the one closest to who wrote it: netplan before what it renders to.
            found.devices.entry(device.to_owned()).or_insert(DeviceConfiguration { system, file, entry });
        }
    };
    for (file, text) in files(root, "etc/libvirt/qemu/networks", "xml") {
        if let Some((network, bridge)) = libvirt_network(&text) {
            tell(ConfigurationSystem::Libvirt, &file, &bridge, &network);
        }
    }
    let netplan = ["etc/netplan", "run/netplan"].into_iter().flat_map(|directory| files(root, directory, "yaml"));
    for (file, text) in netplan {
        for device in text.lines().filter_map(netplan_device) {
            tell(ConfigurationSystem::Netplan, &file, device, device);
        }
    }
    for directory in ["etc/NetworkManager/system-connections", "run/NetworkManager/system-connections"] {
        for (file, text) in files(root, directory, "nmconnection").into_iter().filter(|(file, _)| !is_rendered(file)) {
            if let (Some(device), Some(id)) = (key(&text, "interface-name"), key(&text, "id")) {
                tell(ConfigurationSystem::NetworkManager, &file, device, id);
            }
        }
    }
    for directory in ["etc/systemd/network", "run/systemd/network"] {
        for (file, text) in files(root, directory, "network").into_iter().filter(|(file, _)| !is_rendered(file)) {
            let patterns = key(&text, "Name").unwrap_or_default();
            for device in wanted.iter().filter(|device| patterns.split_whitespace().any(|name| fits(name, device))) {
                tell(ConfigurationSystem::Networkd, &file, device, device);
            }
        }
    }
    let interfaces = root.join("etc/network/interfaces");
    let mut ifupdown = vec![(interfaces.clone(), text_file::read(&interfaces, BYTES).unwrap_or_default())];
    ifupdown.extend(files(root, "etc/network/interfaces.d", ""));
    for (file, text) in ifupdown {
        for device in text.lines().filter_map(|line| line.trim().strip_prefix("iface ")?.split_whitespace().next()) {
            tell(ConfigurationSystem::Ifupdown, &file, device, device);
        }
    }
    found
}

/// The path as it is on the host.
fn shown(root: &Path, file: &Path) -> String {
    Path::new("/").join(file.strip_prefix(root).unwrap_or(file)).display().to_string()
}

/// netplan wrote it.
fn is_rendered(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("netplan-"))
}

/// The files of a directory that end so (any, if `extension` is empty), by name, with their text.
fn files(root: &Path, directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(root.join(directory)) else { return Vec::new() };
    let fits = |path: &PathBuf| extension.is_empty() || path.extension().is_some_and(|known| known == extension);
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(fits).take(FILES).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| text_file::read(&path, BYTES).map(|text| (path, text))).collect()
}

/// The value of the first `key=` of a file of sections.
fn key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')).map(str::trim)
}

/// `eth0` or `en*`
fn fits(pattern: &str, device: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == device, |prefix| !prefix.is_empty() && device.starts_with(prefix))
}

/// The device whose settings begin with this line, or that is given this name.
fn netplan_device(line: &str) -> Option<&str> {
    let (indent, rest) = (line.len() - line.trim_start().len(), line.trim());
    if let Some(name) = rest.strip_prefix("set-name:") {
        return Some(name.trim().trim_matches(['"', '\'']));
    }
    let (name, value) = rest.split_once(':').filter(|_| indent > 0)?;
    (value.is_empty() || value.trim_start().starts_with('{')).then(|| name.trim_matches(['"', '\'']))
}

/// Name and bridge of a network of libvirt's.
fn libvirt_network(text: &str) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(text).ok()?;
    let child = |name: &str| document.root_element().children().find(|node| node.has_tag_name(name));
    Some((child("name")?.text()?.to_owned(), child("bridge")?.attribute("name")?.to_owned()))
}

/// Which file sets a sysctl last: by file name, and of files of one name only the first directory's (sysctl.d(5)).
fn sysctl_files(root: &Path, sysctls: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut by_name: BTreeMap<std::ffi::OsString, (PathBuf, String)> = BTreeMap::new();
    for directory in ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"] {
        for (path, text) in files(root, directory, "conf") {
            if let Some(name) = path.file_name() {
                by_name.entry(name.to_owned()).or_insert((path, text));
            }
        }
    }
    let last = root.join("etc/sysctl.conf");
    let last = text_file::read(&last, BYTES).map(|text| (last, text));
    let mut found = BTreeMap::new();
    for (path, text) in by_name.into_values().chain(last) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let Some((name, _)) = line.split_once('=') else { continue };
            let name = name.trim().trim_start_matches('-').replace('/', ".");
            if sysctls.contains_key(&name) {
                found.insert(name, shown(root, &path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConfigurationSystem::{Ifupdown, Libvirt, Netplan, NetworkManager, Networkd};
    use rstest::rstest;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[rstest]
    #[case(Netplan, "etc/netplan/50-cloud.yaml", "network:\n  ethernets:\n    eth0:\n      dhcp4: true\n", "eth0")]
    #[case(Netplan, "etc/netplan/1.yaml", "network:\n  ethernets:\n    lan:\n      set-name: \"eth0\"\n", "eth0")]
    #[case(
        NetworkManager,
        "etc/NetworkManager/system-connections/Wired.nmconnection",
        "[connection]\nid=Wired 1\ntype=ethernet\ninterface-name=eth0\n",
        "Wired 1"
    )]
    #[case(Networkd, "etc/systemd/network/10-lan.network", "[Match]\nName=en* eth*\n\n[Network]\n", "eth0")]
    #[case(Ifupdown, "etc/network/interfaces", "auto lo\niface lo inet loopback\niface eth0 inet manual\n", "eth0")]
    #[case(Ifupdown, "etc/network/interfaces.d/lan", "  iface eth0 inet dhcp\n", "eth0")]
    #[case(
        Libvirt,
        "etc/libvirt/qemu/networks/default.xml",
        "<network><name>default</name><bridge name='eth0' stp='on'/></network>",
        "default"
    )]
    fn who_sets_a_device_up_is_known_by_its_file(
        #[case] system: ConfigurationSystem,
        #[case] file: &str,
        #[case] text: &str,
        #[case] entry: &str,
    ) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), file, text);
        let found = read(root.path(), ["eth0", "br0"].into_iter(), &BTreeMap::new());
        let expected = DeviceConfiguration { system, file: format!("/{file}"), entry: entry.to_owned() };
        assert_eq!(found.devices, BTreeMap::from([("eth0".to_owned(), expected)]));
    }

    #[test]
    fn what_netplan_renders_is_netplans() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "run/systemd/network/10-netplan-eth0.network", "[Match]\nName=eth0\n");
        assert!(read(root.path(), ["eth0"].into_iter(), &BTreeMap::new()).devices.is_empty());
        write(root.path(), "etc/netplan/a.yaml", "network:\n  ethernets:\n    eth0: {}\n");
        write(root.path(), "etc/network/interfaces", "iface eth0 inet dhcp\n");
        let found = read(root.path(), ["eth0"].into_iter(), &BTreeMap::new());
        assert_eq!(found.devices["eth0"].system, Netplan);
    }

    #[test]
    fn the_last_file_sets_a_sysctl_and_one_in_etc_hides_its_namesakes() {
        let root = tempfile::tempdir().unwrap();
        let known = BTreeMap::from(
            ["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter"].map(|name| (name.to_owned(), "0".to_owned())),
        );
        write(
            root.path(),
            "usr/lib/sysctl.d/50-default.conf",
            "-net/ipv4/conf/all/rp_filter = 2\n# net.ipv4.ip_forward=1\n",
        );
        write(root.path(), "etc/sysctl.d/99-router.conf", "net.ipv4.ip_forward=1\nkernel.x=1\n");
        let found = read(root.path(), std::iter::empty(), &known).sysctls;
        assert_eq!(found["net.ipv4.ip_forward"], "/etc/sysctl.d/99-router.conf");
        assert_eq!(found["net.ipv4.conf.all.rp_filter"], "/usr/lib/sysctl.d/50-default.conf");
        assert_eq!(found.len(), 2);
        write(root.path(), "etc/sysctl.d/50-default.conf", "");
        assert_eq!(read(root.path(), std::iter::empty(), &known).sysctls.len(), 1);
    }
}
