//! Guests: which process reads which tap, whose virtual machine it runs, and under which addresses that is seen.
//!
//! Processes and their command lines are written by whoever likes to: names are cleaned and cut, sizes are bounded, and
//! a process that ends meanwhile is no error.

mod addresses;
mod command_line;
pub(super) mod elsewhere;
mod leases;
mod managers;
mod open_taps;
mod process;

use crate::event::host::{Guest, GuestInterface, Link, LinkKind, PROCESSES};
use crate::event::{HostState, IfIndex, MacAddress};
use crate::kernel::clock::Clock;
use leases::Leases;
use open_taps::OpenTap;
use process::Process;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Fills `state.guests` from the process table; wants the rest of `state` to be there.
pub(super) fn read(state: &mut HostState) {
    if !state.links.values().any(|link| interface_kind(link).is_some()) {
        return;
    }
    let (open, hidden) = open_taps::find(state);
    let is_held = |link: &Link| open.iter().any(|open| open.device == link.index);
    if hidden && state.links.values().any(|link| interface_kind(link).is_some() && !is_held(link)) {
        let why = "processes of others don't show what they hold open, so guests go by the names of their interfaces and none is \
                   called gone; CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH show it";
        state.missing.push((PROCESSES.to_owned(), why.to_owned()));
    }
    let mut processes: Vec<_> = open.iter().map(|open| open.pid).collect();
    processes.sort_unstable();
    processes.dedup();
    let processes: BTreeMap<_, _> = processes.into_iter().filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
    state.guests = assemble(state, &open, &processes);
    add_leases(state, &Leases::read(Path::new("/"), Clock::read().now().0 / 1_000_000_000));
}

/// A guest that has been silent since this host started still has the address that it was leased. A lease of another network
/// than the one that the guest is on now, and one for a MAC address that two interfaces claim, count for nobody.
fn add_leases(state: &mut HostState, leases: &Leases) {
    let mut guests = std::mem::take(&mut state.guests);
    let mut claims = BTreeMap::<MacAddress, usize>::new();
    for mac in guests.iter().flat_map(|guest| &guest.interfaces).filter_map(|interface| interface.mac) {
        *claims.entry(mac).or_default() += 1;
    }
    for interface in guests.iter_mut().flat_map(|guest| &mut guest.interfaces) {
        let Some(mac) = interface.mac.filter(|mac| claims.get(mac) == Some(&1)) else { continue };
        let Some(link) = state.link(interface.device) else { continue };
        let leased = leases.of(mac).filter(|address| addresses::is_served(state, link, *address));
        let all: BTreeSet<_> = interface.addresses.iter().copied().chain(leased).collect();
        interface.addresses = all.into_iter().collect();
    }
    state.guests = guests;
}

/// Reads what a manager or a hypervisor has written: for the fuzzer.
pub(super) fn fuzz(mouth: u8, text: &str) {
    match mouth {
        0 => {
            let arguments: Vec<String> = text.split('\0').map(str::to_owned).collect();
            std::hint::black_box(command_line::parse(&arguments));
        }
        1 => managers::fuzz(text),
        mouth => Leases::fuzz(text, mouth == 2),
    }
}

/// `tap` or `macvtap`, for devices that a guest can sit behind.
fn interface_kind(link: &Link) -> Option<&'static str> {
    if link.name.starts_with(crate::host::OWN_DEVICES) {
        return None;
    }
    // A tun device is no tap: without Ethernet it is a VPN's.
    if matches!(link.kind, LinkKind::Tun) {
        return Some("tap");
    }
    open_taps::is_macvtap(&link.kind).then_some("macvtap")
}

/// Puts interfaces and processes together.
fn assemble(state: &HostState, open: &[OpenTap], processes: &BTreeMap<u32, Process>) -> Vec<Guest> {
    let mut by_process = BTreeMap::<u32, Vec<&Link>>::new();
    let mut guests = Vec::new();
    for link in state.links.values().filter(|link| interface_kind(link).is_some()) {
        // A manager may hold the tap too, before or after the hypervisor does: the one that is surely a hypervisor wins.
        let holders = open.iter().filter(|open| open.device == link.index);
        let holder = holders.filter_map(|open| processes.get(&open.pid)).min_by_key(|process| process.rank());
        match holder {
            Some(process) => by_process.entry(process.pid).or_default().push(link),
            None => guests.push(gone(state, link)),
        }
    }
    for (pid, links) in by_process {
        let Some(process) = processes.get(&pid) else { continue };
        if process.is_guest() {
            guests.push(guest(state, process, &links, open));
        } else {
            // Whatever copies frames for several taps (a relay, a switch) is not one machine with several cards.
            guests.extend(links.iter().map(|link| guest(state, process, &[link], open)));
        }
    }
    guests.sort_by_key(|guest| guest.interfaces.first().map(|interface| interface.device));
    make_names_unique(state, &mut guests);
    guests
}

fn guest(state: &HostState, process: &Process, links: &[&Link], open: &[OpenTap]) -> Guest {
    let identity = process.identity(links);
    let interfaces = links
        .iter()
        .map(|link| {
            let descriptors: Vec<_> = open
                .iter()
                .filter(|open| open.device == link.index && open.pid == process.pid)
                .map(|open| open.descriptor)
                .collect();
            let configured = identity.macs.get(&link.name).copied().or_else(|| process.mac(link, &descriptors, links));
            GuestInterface {
                link_down: identity.links_down.contains(&link.name),
                unplugged: identity.is_described && !identity.macs.contains_key(&link.name) && !process.names(link),
                ..interface(state, link, configured)
            }
        })
        .collect();
    let first = links.first().map(|link| link.name.clone()).unwrap_or_default();
    Guest {
        name: identity.name.unwrap_or(first),
        uuid: identity.uuid,
        pid: Some(process.pid),
        manager: identity.manager.map(str::to_owned),
        interfaces,
        stopped: process.stopped,
        paused: identity.paused,
        worked_ns: process.worked_ns,
    }
}

/// A tap that nobody reads.
fn gone(state: &HostState, link: &Link) -> Guest {
    let manager = managers::from_interface(&link.name);
    let proxmox = managers::proxmox_id(&link.name).and_then(managers::proxmox_guest);
    let (name, macs) = proxmox.map(|guest| (guest.name, guest.macs)).unwrap_or_default();
    Guest {
        name: name.as_deref().and_then(process::clean).unwrap_or_else(|| link.name.clone()),
        uuid: None,
        pid: None,
        manager: manager.map(str::to_owned),
        interfaces: vec![interface(state, link, macs.get(&link.name).copied())],
        ..Guest::default()
    }
}

fn interface(state: &HostState, link: &Link, configured: Option<MacAddress>) -> GuestInterface {
    let mac = configured.or_else(|| addresses::mac(state, link));
    let addresses = addresses::addresses(state, link, mac);
    GuestInterface::new(link.index, interface_kind(link).unwrap_or("tap"), mac, addresses)
}

/// `-g NAME` must mean one guest: guests of the same name get their first interface's name behind an `@`, and those
/// that only have the name of their program get the interface's name alone.
fn make_names_unique(state: &HostState, guests: &mut [Guest]) {
    let mut count = BTreeMap::<String, usize>::new();
    for guest in guests.iter() {
        *count.entry(guest.name.clone()).or_default() += 1;
    }
    let device = |index: IfIndex| state.link_name(index);
    for guest in guests.iter_mut().filter(|guest| count.get(&guest.name).is_some_and(|&count| count > 1)) {
        let Some(first) = guest.interfaces.first().map(|interface| device(interface.device)) else { continue };
        guest.name = if guest.manager.is_some() { format!("{}@{first}", guest.name) } else { first };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::Network;
    use crate::host::test_hosts::{link, state};

    fn process(pid: u32, line: &str) -> (u32, Process) {
        let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let program = arguments[0].rsplit('/').next().unwrap().to_owned();
        (pid, Process::new(pid, &program, &arguments))
    }

    fn open(device: u32, pid: u32, descriptor: u32) -> OpenTap {
        OpenTap { device: IfIndex(device), pid, descriptor }
    }

    fn names(guests: &[Guest]) -> Vec<&str> {
        guests.iter().map(|guest| guest.name.as_str()).collect()
    }

    #[test]
    fn a_machine_with_two_cards_is_one_guest_with_its_own_macs() {
        let state = state([link(2, "vnet0", LinkKind::Tun), link(3, "vnet1", LinkKind::Tun)]);
        let line = "qemu-system-x86_64 -name guest=web1 -netdev tap,id=a,fd=31 -device virtio-net-pci,netdev=a,mac=52:54:00:00:00:01 \
                    -netdev tap,id=b,ifname=vnet1 -device virtio-net-pci,netdev=b,mac=52:54:00:00:00:02";
        let guests = assemble(&state, &[open(2, 10, 31), open(3, 10, 35)], &BTreeMap::from([process(10, line)]));
        assert_eq!(names(&guests), ["web1"]);
        assert_eq!(guests[0].manager.as_deref(), Some("qemu"));
        assert_eq!(guests[0].pid, Some(10));
        let macs: Vec<_> = guests[0].interfaces.iter().map(|interface| interface.mac.unwrap().to_string()).collect();
        assert_eq!(macs, ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
    }

    #[test]
    fn the_hypervisor_wins_over_whoever_else_holds_its_tap() {
        let state = state([link(2, "vnet0", LinkKind::Tun)]);
        let processes =
            BTreeMap::from([process(5, "/usr/sbin/libvirtd"), process(10, "qemu-system-x86_64 -name web1")]);
        let guests = assemble(&state, &[open(2, 5, 40), open(2, 10, 31)], &processes);
        assert_eq!(names(&guests), ["web1"]);
    }

    #[test]
    fn a_relay_of_two_taps_is_two_guests_named_by_their_taps() {
        let state = state([link(2, "vnet0", LinkKind::Tun), link(3, "vnet1", LinkKind::Tun)]);
        let guests = assemble(&state, &[open(2, 10, 3), open(3, 10, 4)], &BTreeMap::from([process(10, "relay")]));
        assert_eq!(names(&guests), ["vnet0", "vnet1"]);
        assert_eq!(guests[0].manager, None);
    }

    #[test]
    fn an_unknown_program_with_one_tap_lends_its_name() {
        let state = state([link(2, "vnet0", LinkKind::Tun)]);
        let guests = assemble(&state, &[open(2, 10, 3)], &BTreeMap::from([process(10, "/opt/bin/myvmm --fast")]));
        assert_eq!(names(&guests), ["myvmm"]);
    }

    #[test]
    fn guests_of_one_name_are_told_apart_by_their_taps() {
        let state = state([link(2, "vnet0", LinkKind::Tun), link(3, "vnet1", LinkKind::Tun)]);
        let processes = BTreeMap::from([process(10, "qemu-kvm -name web"), process(11, "qemu-kvm -name web")]);
        let guests = assemble(&state, &[open(2, 10, 3), open(3, 11, 3)], &processes);
        assert_eq!(names(&guests), ["web@vnet0", "web@vnet1"]);
    }

    #[test]
    fn a_tap_that_nobody_reads_is_a_guest_without_a_process_but_a_vpn_is_none() {
        let vpn = link(3, "tun0", LinkKind::Other("tun".to_owned()));
        let state = state([link(2, "vnet0", LinkKind::Tun), vpn]);
        let guests = assemble(&state, &[], &BTreeMap::new());
        assert_eq!(names(&guests), ["vnet0"]);
        assert_eq!(guests[0].pid, None);
    }

    #[test]
    fn a_name_can_not_write_to_the_terminal_or_be_endless() {
        let state = state([link(2, "vnet0", LinkKind::Tun)]);
        let line = format!("qemu-kvm -name guest=\u{1b}[31mred\u{202e}{}", "x".repeat(100_000));
        let guests = assemble(&state, &[open(2, 10, 3)], &BTreeMap::from([process(10, &line)]));
        assert!(!guests[0].name.chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", guests[0].name);
        assert!(guests[0].name.len() < 600);
    }

    #[test]
    fn taps_of_openstack_and_proxmox_tell_their_manager() {
        let state = state([link(2, "tap1a2b3c4d-5e", LinkKind::Tun), link(3, "tap100i0", LinkKind::Tun)]);
        let processes = BTreeMap::from([
            process(10, "qemu-kvm -name guest=instance-1"),
            process(11, "kvm -name web1,debug-threads=on"),
        ]);
        let guests = assemble(&state, &[open(2, 10, 3), open(3, 11, 3)], &processes);
        assert_eq!(guests[0].manager.as_deref(), Some("openstack"));
        assert_eq!(guests[1].manager.as_deref(), Some("proxmox"));
    }
    #[test]
    fn a_lease_counts_on_its_own_network_and_for_one_owner_of_its_mac_address() {
        let mac: MacAddress = "52:54:00:00:00:01".parse().unwrap();
        let addresses = |networks: &[&str], macs: &[MacAddress]| {
            let mut bridge = link(9, "virbr0", LinkKind::Other("bridge".to_owned()));
            bridge.addresses =
                networks.iter().map(|address| Network { address: address.parse().unwrap(), prefix: 24 }).collect();
            let mut host = state([bridge]);
            for (index, mac) in (1..).zip(macs) {
                let name = format!("vnet{index}");
                let tap = Link { master: Some(IfIndex(9)), ..link(index, &name, LinkKind::Tun) };
                host.links.insert(tap.index, tap);
                let interface = GuestInterface::new(IfIndex(index), "tap", Some(*mac), Vec::new());
                host.guests.push(Guest { name, interfaces: vec![interface], ..Guest::default() });
            }
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("var/lib/misc")).unwrap();
            let text = format!("0 {mac} 192.168.122.50 web1 *\n");
            std::fs::write(root.path().join("var/lib/misc/dnsmasq.leases"), text).unwrap();
            add_leases(&mut host, &Leases::read(root.path(), 0));
            host.guests.iter().map(|guest| guest.interfaces[0].addresses.clone()).collect::<Vec<_>>()
        };
        let leased: Vec<std::net::IpAddr> = vec!["192.168.122.50".parse().unwrap()];
        assert_eq!(addresses(&["192.168.122.1"], &[mac]), std::slice::from_ref(&leased));
        assert_eq!(addresses(&["10.0.0.1"], &[mac]), [Vec::<std::net::IpAddr>::new()]);
        assert_eq!(addresses(&["192.168.122.1"], &[mac, mac]), [Vec::<std::net::IpAddr>::new(), Vec::new()]);
    }
}
