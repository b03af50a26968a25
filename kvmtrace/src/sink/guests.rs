//! `kvmtrace guests`: each guest and its way out of the host.

use super::escape::escape;
use super::json::line;
use super::style::Style;
use crate::diagnose::guests::{self, guests};
use crate::diagnose::report::{GuestReport, Host, InterfaceReport, LegReport, Severity, UplinkReport};
use crate::event::HostState;
use crate::event::host::Link;
use serde::Serialize;
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// The object of `guests --json`.
#[derive(Serialize)]
struct List {
    schema: &'static str,
    host: Host,
    guests: Vec<GuestReport>,
    /// An addition to the contract: the guests' uplinks and what they stand on.
    uplinks: Vec<UplinkReport>,
}

/// Writes the guests as one JSON object.
pub fn json(host: &HostState, out: &mut impl Write) -> io::Result<()> {
    let kvmtrace = env!("CARGO_PKG_VERSION").to_owned();
    let host_report = Host { name: host.name.clone(), kernel: host.kernel.clone(), kvmtrace };
    let guests = guests(host);
    let uplinks = guests::uplink_stacks(host, &guests);
    line(&List { schema: "kvmtrace/guests/1", host: host_report, guests, uplinks }, out)
}

/// Columns of a line, the first of them the guest's name.
const COLUMNS: [&str; 5] = ["GUEST", "PATH", "MAC", "ADDRESSES", "PROCESS"];

/// Writes the guests as a table, a line for each interface and below it what is worth a mark.
pub fn text(host: &HostState, color: bool, out: &mut impl Write) -> io::Result<()> {
    let style = Style { color };
    let guests = guests(host);
    if guests.is_empty() {
        return writeln!(out, "no guests: this network namespace has no tap or macvtap");
    }
    let mut rows = Vec::new();
    for guest in &guests {
        for (number, interface) in guest.interfaces.iter().enumerate() {
            rows.push((cells(host, guest, interface, number == 0), marks(host, interface)));
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|(cells, _)| cells.get(column)).map(|cell| cell.width());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    writeln!(out, "{}", style.dim(&aligned(&COLUMNS.map(str::to_owned), &widths)))?;
    for (cells, marks) in &rows {
        writeln!(out, "{}", aligned(cells, &widths))?;
        for mark in marks {
            let indent = " ".repeat(widths[0] + 2);
            writeln!(out, "{indent}{}", style.severity(Severity::Warning, &format!("! {mark}")))?;
        }
    }
    Ok(())
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.push_str(&" ".repeat((width + 2).saturating_sub(cell.width())));
    }
    line.trim_end().to_owned()
}

fn cells(host: &HostState, guest: &GuestReport, interface: &InterfaceReport, first: bool) -> Vec<String> {
    let mut path = vec![escape(&interface.device)];
    path.extend(interface.bridge.as_deref().map(escape));
    if !interface.uplinks.is_empty() {
        path.push(interface.uplinks.iter().map(|uplink| stack(host, uplink)).collect::<Vec<_>>().join(", "));
    }
    let process = match (guest.pid, guest.manager.as_deref()) {
        (Some(pid), Some(manager)) => format!("{pid} {}", escape(manager)),
        (Some(pid), None) => pid.to_string(),
        (None, _) => "none".to_owned(),
    };
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    // Another interface of the same guest: what is the same is not said again.
    let once = |text: String| if first { text } else { String::new() };
    vec![
        once(escape(&guest.name)),
        path.join(" → "),
        or_dash(interface.mac.clone().unwrap_or_default()),
        or_dash(interface.addresses.join(", ")),
        once(process),
    ]
}

/// An uplink with what it stands on: VLANs, and a bond with its mode and legs, those in reserve in brackets.
fn stack(host: &HostState, uplink: &str) -> String {
    let told = |device: &UplinkReport| {
        let name = escape(&device.device);
        let Some(bond) = &device.bond else { return name };
        let leg = |leg: &LegReport| {
            let name = escape(&leg.device);
            if leg.sends { name } else { format!("[{name}]") }
        };
        format!("{name} ({}: {})", bond.mode, bond.legs.iter().map(leg).collect::<Vec<_>>().join(", "))
    };
    let devices = guests::stack(host, uplink);
    if devices.is_empty() {
        return escape(uplink);
    }
    devices.iter().map(told).collect::<Vec<_>>().join(" → ")
}

/// What catches the eye of who looks for a fault.
fn marks(host: &HostState, interface: &InterfaceReport) -> Vec<String> {
    let mut marks = Vec::new();
    let Some(link) = host.link_named(&interface.device) else { return marks };
    let others = interface.bridge.iter().chain(&interface.uplinks).filter_map(|name| host.link_named(name));
    let way: Vec<&Link> = [link].into_iter().chain(others).collect();
    for link in &way {
        let name = escape(&link.name);
        if !link.up {
            marks.push(format!("{name} is down"));
        } else if !link.carrier {
            marks.push(format!("{name} has no carrier"));
        }
    }
    let narrow = way.iter().filter(|other| other.mtu < link.mtu);
    let narrow: Vec<_> = narrow.map(|other| format!("{} at {}", other.mtu, escape(&other.name))).collect();
    if !narrow.is_empty() {
        marks.push(format!("MTU falls from {} at {} to {}", link.mtu, escape(&link.name), narrow.join(", ")));
    }
    let routed = host.routes.iter().any(|route| route.device == Some(link.index));
    if interface.kind == "tap" && link.master.is_none() && !routed {
        marks.push(format!("{} is in no bridge", escape(&link.name)));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{BridgeState, Guest, GuestInterface, LinkKind, LinkStatistics};
    use crate::event::{IfIndex, MacAddress};

    fn link(index: u32, name: &str, kind: LinkKind, mtu: u32, master: Option<u32>) -> Link {
        Link {
            index: IfIndex(index),
            name: name.to_owned(),
            kind,
            mac: None,
            mtu,
            up: true,
            carrier: true,
            ethernet: true,
            arp_off: false,
            master: master.map(IfIndex),
            lower: None,
            peer: None,
            queue_length: 1000,
            qdisc: String::new(),
            port: None,
            xdp: None,
            large_receive: false,
            addresses: Vec::new(),
            statistics: LinkStatistics::default(),
        }
    }

    fn interface(device: u32, addresses: &[&str]) -> GuestInterface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let mac = Some(MacAddress([0x52, 0x54, 0, 0, 0, device as u8]));
        GuestInterface::new(IfIndex(device), "tap", mac, addresses)
    }

    fn host() -> HostState {
        let mut host = HostState { name: "kvm7".to_owned(), kernel: "6.18.44".to_owned(), ..HostState::default() };
        let bridge = LinkKind::Bridge(BridgeState::default());
        for link in [
            link(2, "eth0", LinkKind::Physical, 1500, Some(3)),
            link(3, "br0", bridge, 1500, None),
            link(4, "vnet0", LinkKind::Tun, 9000, Some(3)),
            link(5, "vnet1", LinkKind::Tun, 1500, Some(3)),
            link(6, "vnet2", LinkKind::Tun, 1500, None),
        ] {
            host.links.insert(link.index, link);
        }
        host.links.get_mut(&IfIndex(6)).unwrap().carrier = false;
        let guest = |name: &str, pid, interfaces| Guest { name: name.to_owned(), pid, interfaces, ..Guest::default() };
        host.guests = vec![
            guest("web1", Some(4711), vec![interface(4, &["10.99.0.11", "fd00::11"]), interface(5, &[])]),
            guest("red\u{1b}[31m", None, vec![GuestInterface { mac: None, ..interface(6, &[]) }]),
        ];
        host.guests[0].manager = Some("libvirt".to_owned());
        host
    }

    fn shown(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn guests_as_a_table() {
        insta::assert_snapshot!(shown(|out| text(&host(), false, out)));
    }

    #[test]
    fn guests_as_json() {
        let version = env!("CARGO_PKG_VERSION");
        let json = shown_json(&host()).replace(version, "VERSION");
        insta::assert_snapshot!(json);
    }

    #[test]
    fn a_bond_below_a_vlan_shows_its_legs() {
        use crate::event::bond::{Bond, BondLeg, BondMode};
        let mut host = host();
        host.links.insert(IfIndex(9), link(9, "eth1", LinkKind::Physical, 1500, Some(8)));
        host.links.insert(IfIndex(8), link(8, "bond0", LinkKind::Bond, 1500, None));
        let vlan = host.links.get_mut(&IfIndex(2)).unwrap();
        (vlan.kind, vlan.lower) = (LinkKind::Vlan { id: 7 }, Some(IfIndex(8)));
        let legs = [(IfIndex(9), BondLeg::default()), (IfIndex(7), BondLeg::default())];
        let (mode, active) = (BondMode::ActiveBackup, Some(IfIndex(9)));
        host.bonds.insert(IfIndex(8), Bond { mode, active, legs: legs.into(), ..Bond::default() });
        let text = stack(&host, "eth0");
        assert_eq!(text, format!("eth0 → bond0 (active-backup: [{}], eth1)", host.link_name(IfIndex(7))));
        let told: serde_json::Value = serde_json::from_str(&shown_json(&host)).unwrap();
        let legs = serde_json::json!([{"device": host.link_name(IfIndex(7)), "sends": false}, {"device": "eth1", "sends": true}]);
        let bond = serde_json::json!({"mode": "active-backup", "legs": legs});
        let expected = serde_json::json!([
            {"device": "eth0", "vlan": 7, "lower": "bond0", "bond": null},
            {"device": "bond0", "vlan": null, "lower": null, "bond": bond},
        ]);
        assert_eq!(told["uplinks"], expected);
    }

    fn shown_json(host: &HostState) -> String {
        shown(|out| json(host, out))
    }

    #[test]
    fn a_host_without_guests_says_so() {
        assert_eq!(
            shown(|out| text(&HostState::default(), false, out)),
            "no guests: this network namespace has no tap or macvtap\n"
        );
    }
}
