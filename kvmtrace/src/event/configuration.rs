//! What configures this host's network at boot, as far as files tell: so that a cure can say how it is made to last.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which files set what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// What sets a device up, by its name.
    pub devices: BTreeMap<String, DeviceConfiguration>,
    /// The last file that sets a sysctl, by its dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Files from which the firewall's rules are loaded.
    pub firewall: Vec<String>,
    /// The host is a Proxmox VE node.
    pub proxmox: bool,
}

impl Configuration {
    /// Entries of all lists.
    pub(super) fn entries(&self) -> usize {
        self.devices.len() + self.sysctls.len() + self.firewall.len()
    }

    /// Values, and text by eight bytes.
    pub(super) fn weight(&self) -> usize {
        let devices = self.devices.iter().map(|(name, device)| name.len() + device.file.len() + device.entry.len());
        let sysctls = self.sysctls.iter().map(|(name, file)| name.len() + file.len());
        let text: usize = devices.chain(sysctls).chain(self.firewall.iter().map(String::len)).sum();
        6 * self.entries() + text / 8
    }

    /// Keeps so many entries, the firewall's files first.
    pub(super) fn cut(&mut self, most: usize) {
        self.firewall.truncate(most);
        let most = most - self.firewall.len();
        super::bounds::keep_first(&mut self.sysctls, most);
        let most = most - self.sysctls.len();
        super::bounds::keep_first(&mut self.devices, most);
    }
}

/// What sets a device up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfiguration {
    /// Which program reads it.
    pub system: ConfigurationSystem,
    /// The file.
    pub file: String,
    /// The entry's own name: a connection's id, a network's name; else the device's.
    pub entry: String,
}

/// A program that sets devices up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigurationSystem {
    /// A network of libvirt's.
    Libvirt,
    /// netplan, whatever it renders to.
    Netplan,
    /// `NetworkManager`.
    NetworkManager,
    /// systemd-networkd.
    Networkd,
    /// ifupdown or ifupdown2.
    Ifupdown,
}
