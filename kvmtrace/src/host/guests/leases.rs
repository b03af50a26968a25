//! Addresses that DHCP servers on this host have leased, by the client's MAC address. Only the files are read: those of dnsmasq
//! (`lease.c`: expiry, MAC address, address, name, client id) and the state that libvirt's dnsmasq hook keeps beside them.

use crate::event::MacAddress;
use crate::host::text_file;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the files are: a directory, what a name must end with, and whether they stand one directory below.
const PLACES: [(&str, &str, bool); 6] = [
    ("var/lib/libvirt/dnsmasq", ".status", false),
    ("var/lib/misc", ".leases", false),
    ("var/lib/dnsmasq", ".leases", false),
    ("var/lib/incus/networks", ".leases", true),
    ("var/lib/lxd/networks", ".leases", true),
    ("var/snap/lxd/common/lxd/networks", ".leases", true),
];
/// Entries of one directory that are looked at.
const ENTRIES: usize = 256;
/// Bytes of a file that are read.
const BYTES: u64 = 4 << 20;
/// Leases that are kept.
const LEASES: usize = 65_536;

/// Leased addresses by MAC address.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_mac: BTreeMap<MacAddress, BTreeSet<IpAddr>>,
    kept: usize,
}

impl Leases {
    /// What is leased at `now`, in seconds since the epoch, after the files below `root`.
    pub(super) fn read(root: &Path, now: u64) -> Self {
        let mut leases = Self::default();
        for (directory, ending, below) in PLACES {
            let directory = root.join(directory);
            let directories = if below { entries(&directory) } else { vec![directory] };
            let files = directories.iter().flat_map(|directory| entries(directory));
            for file in files.filter(|file| file.to_string_lossy().ends_with(ending)) {
                let Some(text) = text_file::read(&file, BYTES) else { continue };
                if ending == ".status" { leases.take_status(&text, now) } else { leases.take_dnsmasq(&text, now) }
            }
        }
        leases
    }

    /// Reads a lease file: for the fuzzer.
    pub(super) fn fuzz(text: &str, of_dnsmasq: bool) {
        let mut leases = Self::default();
        if of_dnsmasq {
            leases.take_dnsmasq(text, 1);
        } else {
            leases.take_status(text, 1);
        }
        std::hint::black_box(leases);
    }

    /// The addresses of this MAC address.
    pub(super) fn of(&self, mac: MacAddress) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_mac.get(&mac).into_iter().flatten().copied()
    }

    /// Lines of dnsmasq's lease file. Those of IPv6 bear a number in the MAC address's place, and are left out by it.
    fn take_dnsmasq(&mut self, text: &str, now: u64) {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(expiry), Some(mac), Some(address)) = (words.next(), words.next(), words.next()) else { continue };
            // `06-52:54:…`: dnsmasq writes the kind of hardware where it is not Ethernet.
            let (Ok(expiry), Ok(mac), Ok(address)) = (expiry.parse(), mac.parse(), address.parse()) else { continue };
            self.note(mac, address, expiry, now);
        }
    }

    /// What libvirt's hook writes (`leaseshelper.c`).
    fn take_status(&mut self, text: &str, now: u64) {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Lease {
            ip_address: String,
            mac_address: Option<String>,
            expiry_time: Option<u64>,
        }
        let Ok(leases) = serde_json::from_str::<Vec<Lease>>(text) else { return };
        for lease in leases {
            let mac = lease.mac_address.and_then(|mac| mac.parse().ok());
            if let (Some(mac), Ok(address)) = (mac, lease.ip_address.parse()) {
                self.note(mac, address, lease.expiry_time.unwrap_or(0), now);
            }
        }
    }

    /// An expiry of zero is none.
    fn note(&mut self, mac: MacAddress, address: IpAddr, expiry: u64, now: u64) {
        if (expiry == 0 || expiry > now) && self.kept < LEASES && self.by_mac.entry(mac).or_default().insert(address) {
            self.kept += 1;
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found.take(ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(files: &[(&str, &str)], mac: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let leases = Leases::read(root.path(), 1_000);
        leases.of(mac.parse().unwrap()).map(|address| address.to_string()).collect()
    }

    #[test]
    fn a_lease_of_dnsmasq_names_the_clients_address_until_it_expires() {
        let text = "1001 52:54:00:00:00:01 10.0.0.5 web1 01:52:54:00:00:00:01\n\
                    0 52:54:00:00:00:02 10.0.0.6 * *\n\
                    1000 52:54:00:00:00:03 10.0.0.7 late *\n\
                    duid 00:01:00:01:2c\n1001 9502721 fd00::5 web1 00:01:00:01\nnonsense\n1001 52:54:00:00:00:04\n";
        let file = [("var/lib/misc/dnsmasq.lxcbr0.leases", text)];
        assert_eq!(leased(&file, "52:54:00:00:00:01"), ["10.0.0.5"]);
        assert_eq!(leased(&file, "52:54:00:00:00:02"), ["10.0.0.6"]);
        assert!(leased(&file, "52:54:00:00:00:03").is_empty());
        assert!(leased(&file, "52:54:00:00:00:04").is_empty());
        let below = [("var/lib/incus/networks/incusbr0/dnsmasq.leases", text)];
        assert_eq!(leased(&below, "52:54:00:00:00:01"), ["10.0.0.5"]);
    }

    #[test]
    fn libvirts_status_has_both_families() {
        let text = r#"[{"ip-address": "192.168.122.50", "mac-address": "52:54:00:0a:00:01", "client-id": "01:52", "expiry-time": 2000},
            {"ip-address": "fd00::50", "mac-address": "52:54:00:0a:00:01", "expiry-time": 2000},
            {"ip-address": "192.168.122.51", "mac-address": "52:54:00:0a:00:01", "expiry-time": 999},
            {"ip-address": "no address", "mac-address": "52:54:00:0a:00:01", "expiry-time": 2000},
            {"ip-address": "192.168.122.52", "expiry-time": 2000}]"#;
        let file = [("var/lib/libvirt/dnsmasq/virbr0.status", text)];
        assert_eq!(leased(&file, "52:54:00:0a:00:01"), ["192.168.122.50", "fd00::50"]);
        assert!(leased(&[("var/lib/libvirt/dnsmasq/virbr0.status", "[{]")], "52:54:00:0a:00:01").is_empty());
    }
}
