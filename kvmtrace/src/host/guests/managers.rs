//! What the managers of virtual machines leave in files and in the names of taps.

use crate::event::MacAddress;
use crate::host::text_file;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Larger files than this are none of a manager's.
const MOST_BYTES: u64 = 1 << 20;

/// A domain of libvirt, from its status file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    pub(super) uuid: Option<String>,
    /// The instance's name in OpenStack.
    pub(super) nova_name: Option<String>,
    /// The guest's MAC addresses by interface.
    pub(super) macs: BTreeMap<String, MacAddress>,
    /// Interfaces whose link is held down.
    pub(super) links_down: BTreeSet<String>,
    /// The domain is paused.
    pub(super) paused: bool,
}

/// The running domain of this name.
pub(super) fn libvirt_domain(name: &str) -> Option<Domain> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    parse_domain(&text_file::read(&Path::new("/run/libvirt/qemu").join(format!("{name}.xml")), MOST_BYTES)?)
}

/// `<domstatus pid='…'><domain>…</domain></domstatus>`, or a `<domain>` alone.
/// Reads a file of libvirt's and of Proxmox': for the fuzzer.
pub(super) fn fuzz(text: &str) {
    std::hint::black_box((parse_domain(text).is_some(), parse_proxmox(100, text).name));
}

fn parse_domain(xml: &str) -> Option<Domain> {
    // Libvirt writes a comment before the root; a document type, and with it entities, it never writes.
    let document = roxmltree::Document::parse(xml).ok()?;
    let root = document.root_element();
    let domain =
        if root.has_tag_name("domain") { root } else { root.children().find(|node| node.has_tag_name("domain"))? };
    let text = |name: &str| domain.children().find(|node| node.has_tag_name(name))?.text();
    let mut found = Domain {
        pid: root.attribute("pid").and_then(|pid| pid.parse().ok()),
        name: text("name")?.to_owned(),
        uuid: text("uuid").map(str::to_owned),
        // `virDomainStateTypeToString`: running, blocked, paused, shutdown, shutoff, crashed, pmsuspended.
        paused: root.attribute("state") == Some("paused"),
        ..Domain::default()
    };
    for node in domain.descendants() {
        let in_nova = node.tag_name().namespace().is_some_and(|space| space.contains("openstack.org"));
        if in_nova && node.tag_name().name() == "name" && found.nova_name.is_none() {
            found.nova_name = node.text().map(str::to_owned);
        }
        if node.has_tag_name("interface") {
            let attribute =
                |tag: &str, name: &str| node.children().find(|child| child.has_tag_name(tag))?.attribute(name);
            if let (Some(target), Some(mac)) = (attribute("target", "dev"), attribute("mac", "address"))
                && let Ok(mac) = mac.parse()
            {
                found.macs.insert(target.to_owned(), mac);
                if attribute("link", "state") == Some("down") {
                    found.links_down.insert(target.to_owned());
                }
            }
        }
    }
    Some(found)
}

/// A virtual machine of Proxmox, from its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxmoxGuest {
    pub(super) name: Option<String>,
    /// The guest's MAC addresses by interface.
    pub(super) macs: BTreeMap<String, MacAddress>,
}

/// The guest with this id, if this host is its node.
pub(super) fn proxmox_guest(id: u32) -> Option<ProxmoxGuest> {
    text_file::read(&Path::new("/etc/pve/qemu-server").join(format!("{id}.conf")), MOST_BYTES)
        .map(|text| parse_proxmox(id, &text))
}

fn parse_proxmox(id: u32, text: &str) -> ProxmoxGuest {
    let mut guest = ProxmoxGuest::default();
    // Sections after the first are snapshots of the past.
    for line in text.lines().take_while(|line| !line.starts_with('[')) {
        let Some((key, value)) = line.split_once(':') else { continue };
        if key == "name" {
            guest.name = Some(value.trim().to_owned());
        } else if let Some(number) = key.strip_prefix("net").and_then(|number| number.parse::<u32>().ok()) {
            // net0: virtio=BC:24:11:00:00:01,bridge=vmbr0
            let mac =
                value.trim().split(',').filter_map(|word| word.split_once('=')).find_map(|(_, mac)| mac.parse().ok());
            guest.macs.extend(mac.map(|mac| (format!("tap{id}i{number}"), mac)));
        }
    }
    guest
}

/// The VM id in Proxmox's `tap100i0`.
pub(super) fn proxmox_id(tap: &str) -> Option<u32> {
    let (id, number) = tap.strip_prefix("tap")?.split_once('i')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(id) && digits(number)).then(|| id.parse().ok()).flatten()
}

/// OpenStack's `tap` and the first eleven characters of the port's UUID.
pub(super) fn is_openstack_tap(tap: &str) -> bool {
    let Some(port) = tap.strip_prefix("tap") else { return false };
    port.len() == 11
        && port.bytes().enumerate().all(|(i, byte)| if i == 8 { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

/// The manager whose way of naming taps this is.
pub(super) fn from_interface(name: &str) -> Option<&'static str> {
    if proxmox_id(name).is_some() { Some("proxmox") } else { is_openstack_tap(name).then_some("openstack") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const STATUS: &str = r"<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST.
-->
<domstatus state='running' reason='booted' pid='4711'>
  <taint flag='high-privileges'/>
  <domain type='kvm' id='1'>
    <name>instance-0000001a</name>
    <uuid>0c5a4a2e-9e1b-4c7e-9d1e-0d7e5a5b6c7d</uuid>
    <metadata>
      <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
        <nova:name>web1</nova:name>
        <nova:flavor name='small'/>
      </nova:instance>
    </metadata>
    <devices>
      <interface type='bridge'>
        <mac address='52:54:00:aa:00:01'/>
        <source bridge='br0'/>
        <target dev='vnet0'/>
        <model type='virtio'/>
      </interface>
      <interface type='direct'>
        <mac address='52:54:00:aa:00:02'/>
        <target dev='macvtap0'/>
        <link state='down'/>
      </interface>
    </devices>
  </domain>
</domstatus>";

    #[test]
    fn a_status_file_of_libvirt_names_the_domain_its_process_and_its_macs() {
        let domain = parse_domain(STATUS).unwrap();
        assert_eq!(domain.pid, Some(4711));
        assert_eq!(domain.name, "instance-0000001a");
        assert_eq!(domain.uuid.as_deref(), Some("0c5a4a2e-9e1b-4c7e-9d1e-0d7e5a5b6c7d"));
        assert_eq!(domain.nova_name.as_deref(), Some("web1"));
        assert_eq!(domain.macs["vnet0"].to_string(), "52:54:00:aa:00:01");
        assert_eq!(domain.macs["macvtap0"].to_string(), "52:54:00:aa:00:02");
        assert_eq!(domain.links_down, BTreeSet::from(["macvtap0".to_owned()]));
        assert!(!domain.paused);
        let paused = STATUS.replace("state='running' reason='booted'", "state='paused' reason='user'");
        assert!(parse_domain(&paused).unwrap().paused);
    }

    #[rstest]
    #[case::nothing("")]
    #[case::cut("<domstatus pid='1'><domain><name>web")]
    #[case::another_document("<html><body/></html>")]
    #[case::entities("<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><domain><name>&b;</name></domain>")]
    fn xml_that_libvirt_would_not_write_is_no_domain(#[case] xml: &str) {
        assert_eq!(parse_domain(xml), None);
    }

    #[test]
    fn a_proxmox_configuration_names_the_guest_and_its_macs_but_not_those_of_snapshots() {
        let text = "boot: order=scsi0\nname: web1\nnet0: virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1\n\
                    [before]\nname: old\nnet1: virtio=BC:24:11:00:00:02,bridge=vmbr0\n";
        let guest = parse_proxmox(100, text);
        assert_eq!(guest.name.as_deref(), Some("web1"));
        assert_eq!(guest.macs["tap100i0"].to_string(), "bc:24:11:00:00:01");
        assert_eq!(guest.macs.len(), 1);
    }

    #[rstest]
    #[case("tap100i0", Some(100))]
    #[case("tap100", None)]
    #[case("tapi0", None)]
    #[case("tap99999999999i0", None)]
    #[case("tap1i", None)]
    fn proxmox_taps(#[case] tap: &str, #[case] id: Option<u32>) {
        assert_eq!(proxmox_id(tap), id);
    }

    #[rstest]
    #[case("tap1a2b3c4d-5e", true)]
    #[case("tap1a2b3c4d5e6", false)]
    #[case("tap0", false)]
    #[case("vnet0", false)]
    fn openstack_taps(#[case] tap: &str, #[case] yes: bool) {
        assert_eq!(is_openstack_tap(tap), yes);
    }
}
