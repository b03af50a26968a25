//! Hosts to draw without a kernel: for tests, for the bench of frame times and for the README's pictures.
//! All of it is made up, and the same every time.

mod host;
mod incidents;

use super::{Cost, Device, Devices, History, Hosts, Log, Replay, Snapshot, Status};
use crate::diagnose::report::{
    Basis, Cause, Finding, Fix, FlowDirection, FlowReport, GuestReport, Hop, Host, InterfaceReport, Label, Latency,
    Origin, Point, Report, SCHEMA, Severity, Totals, Verdict, Where, Window,
};
use crate::event::{
    Address, Degraded, Direction, DropSite, Event, EventKind, FlowKey, IfIndex, Loss, MacAddress, PacketCause,
    PacketRecord, Place, Protocol, Timestamp,
};
use host::host_state;
pub use host::{link, started};
use incidents::with_incidents;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
/// Bytes of the frames that are too big: 4000 and an Ethernet header.
const FRAME: u32 = 4_014;
/// Where they die, and on whose behalf.
const STACK: [&str; 6] = [
    "br_dev_queue_push_xmit",
    "br_forward_finish",
    "br_handle_frame_finish",
    "br_handle_frame",
    "__netif_receive_skb_core",
    "tun_get_user",
];
/// 2026-11-23T15:28:12Z
const START: u64 = 1_795_447_692 * SECOND;

fn at(seconds: u64) -> Timestamp {
    Timestamp(START + seconds * SECOND)
}

/// A report of a host without guests and flows.
pub fn empty_report() -> Report {
    Report {
        schema: SCHEMA,
        host: Host { name: "kvm7".to_owned(), kernel: "6.18.44".to_owned(), kvmtrace: "0.1.0".to_owned() },
        window: window(60),
        degraded: Vec::new(),
        lost: Loss::default(),
        lost_at: Vec::new(),
        totals: Totals::default(),
        guests: Vec::new(),
        incidents: Vec::new(),
        command_status: None,
        flows: Vec::new(),
        ledger: Vec::new(),
        reachability: None,
        reachability_left_out: None,
        findings: Vec::new(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a few seconds")]
fn window(seconds: u64) -> Window {
    Window { start: at(0), end: at(seconds), seconds: seconds as f64, timezone: "UTC".to_owned() }
}

fn guest(name: &str, number: u8) -> GuestReport {
    GuestReport {
        origin: Origin::default(),
        name: name.to_owned(),
        uuid: None,
        pid: Some(4_700 + u32::from(number)),
        manager: Some("libvirt".to_owned()),
        interfaces: vec![InterfaceReport {
            device: format!("vnet{number}"),
            kind: "tap".to_owned(),
            mac: Some(format!("52:54:00:aa:00:{number:02x}")),
            bridge: Some("br0".to_owned()),
            uplinks: vec!["eth0".to_owned()],
            addresses: vec![format!("10.99.0.{}", 11 + number)],
        }],
    }
}

fn hop(device: &str, direction: Direction, packets: u64, latency_ns: Option<u64>) -> Hop {
    Hop {
        device: device.to_owned(),
        direction,
        stage: Point::NicEgress,
        packets,
        bytes: packets * 800,
        latency_ns: latency_ns.map(Latency::once),
        expected: false,
    }
}

fn key(protocol: &str, source: (&str, u16), destination: (&str, u16)) -> FlowKey {
    // A hostile address is none.
    let address = |text: &str| text.parse().map_or(Address::Mac(MacAddress::default()), Address::Ip);
    FlowKey {
        protocol: if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp },
        source: address(source.0),
        source_port: Some(source.1),
        destination: address(destination.0),
        destination_port: Some(destination.1),
        vlan: None,
    }
}

/// A flow from a guest to the LAN that arrives.
fn delivered(
    guest: &str,
    number: u8,
    protocol: &str,
    source_port: u16,
    destination: &str,
    destination_port: u16,
    packets: u64,
) -> FlowReport {
    let tap = format!("vnet{number}");
    FlowReport {
        key: key(protocol, (&format!("10.99.0.{}", 11 + number), source_port), (destination, destination_port)),
        other_keys: Vec::new(),
        trace: 0,
        id: format!("{number:016x}"),
        origin: Origin::default(),
        incident: None,
        first_seen: at(0),
        last_seen: at(60),
        root: None,
        icmp_id: None,
        guest: Some(guest.to_owned()),
        device: Some(tap.clone()),
        direction: FlowDirection::FromGuest,
        probe: false,
        protocol: protocol.to_owned(),
        source: format!("10.99.0.{}", 11 + number),
        source_port: Some(source_port),
        destination: destination.to_owned(),
        destination_port: Some(destination_port),
        vlan: None,
        translated: None,
        verdict: Verdict::Delivered,
        cause: None,
        severity: Severity::Ok,
        basis: Basis::Observed,
        complete: true,
        packets,
        bytes: packets * 800,
        dropped: 0,
        fragments: 0,
        place: None,
        path: vec![hop(&tap, Direction::Ingress, packets, None), hop("eth0", Direction::Egress, packets, Some(18_200))],
        explanation: format!("All {packets} packets left by eth0."),
        evidence: Vec::new(),
        fixes: Vec::new(),
    }
}

/// The answer to a flow.
fn answer(flow: &FlowReport) -> FlowReport {
    let tap = flow.device.clone().unwrap_or_default();
    FlowReport {
        key: flow.key.reverse(),
        direction: FlowDirection::ToGuest,
        probe: false,
        source: flow.destination.clone(),
        source_port: flow.destination_port,
        destination: flow.source.clone(),
        destination_port: flow.source_port,
        path: vec![
            hop("eth0", Direction::Ingress, flow.packets, None),
            hop(&tap, Direction::Egress, flow.packets, Some(12_700)),
        ],
        explanation: format!("All {} packets reached {tap}.", flow.packets),
        ..flow.clone()
    }
}

/// A host on which all is well, after so many seconds.
#[allow(clippy::cast_precision_loss, reason = "a few seconds")]
pub fn healthy_report(seconds: u64) -> Report {
    let mut report = empty_report();
    report.window = window(seconds);
    let names = ["web1", "web2", "db1", "mail", "build"];
    for (number, name) in (0..).zip(names) {
        report.guests.push(guest(name, number));
        let pace = [420, 96, 57, 8, 1][usize::from(number)];
        // Not quite steady, so that the sparklines have something to show.
        let packets = (1..=seconds).map(|second| pace + pace * ((second * (3 + u64::from(number))) % 7) / 6).sum();
        let flow = delivered(name, number, "tcp", 40_000 + u16::from(number), "203.0.113.80", 443, packets);
        report.flows.push(answer(&flow));
        report.flows.push(flow);
    }
    report.totals = totals(&report);
    report
}

fn totals(report: &Report) -> Totals {
    let sum = |part: fn(&FlowReport) -> u64| report.flows.iter().map(part).sum();
    Totals {
        flows: report.flows.len() as u64,
        packets: sum(|flow| flow.packets),
        bytes: sum(|flow| flow.bytes),
        dropped: sum(|flow| flow.dropped),
        fragmented: 0,
    }
}

/// The same host, on which web1 sends jumbo frames through a NIC with an MTU of 1500.
pub fn mtu_report(seconds: u64) -> Report {
    let mut report = healthy_report(seconds);
    let lost = 12 * seconds;
    let mut flow = delivered("web1", 0, "udp", 40_000, "10.99.0.1", 9_000, lost);
    flow.verdict = Verdict::Dropped;
    flow.cause = Some(Cause::BridgeMtuExceeded);
    flow.severity = Severity::Error;
    flow.dropped = lost;
    flow.place = Some(Where {
        device: Some("eth0".to_owned()),
        point: Point::BridgeEgress,
        function: Some("br_dev_queue_push_xmit".to_owned()),
        reason: Some("NOT_SPECIFIED".to_owned()),
    });
    flow.bytes = lost * u64::from(FRAME);
    flow.path[0].bytes = flow.bytes;
    flow.path[1] = hop("eth0", Direction::Egress, 0, None);
    flow.explanation = format!(
        "{lost} of {lost} packets were too big (4000 bytes) for eth0 (MTU 1500); a bridge drops these without telling the sender."
    );
    flow.evidence = vec![
        "eth0: MTU 1500; largest packet dropped: 4000 bytes".to_owned(),
        format!("counted at vnet0 ingress: {lost} packets, largest 4000 bytes"),
        format!("{lost} × NOT_SPECIFIED in br_dev_queue_push_xmit (eth0), largest 4000 bytes"),
        format!("stack: {}", STACK.join(" < ")),
    ];
    flow.fixes = vec![
        Fix {
            command: Some("ip link set dev eth0 mtu 9000".to_owned()),
            undo: Some("ip link set dev eth0 mtu 1500".to_owned()),
            why: "Lets eth0 carry the 4000-byte packets that the guest may send.".to_owned(),
            risk: Some(
                "The switch and everything behind it must carry frames of that size too; some NICs reset the link."
                    .to_owned(),
            ),
            persist: Some("Set it where the device is configured (netplan, NetworkManager, ifupdown, systemd-networkd; for a guest's tap in the guest's definition).".to_owned()),
            ..Fix::advice("")
        },
        Fix {
            command: None,
            undo: None,
            why: "Or set the MTU of the guest's interface to 1500, in the guest or by its network's DHCP option 26."
                .to_owned(),
            ..Fix::advice("")
        },
    ];
    flow.id = format!("{:016x}", 0xf0);
    report.flows.insert(0, flow);
    report.findings.push(Finding {
        label: Label { id: "ring".to_owned(), ..Label::default() },
        cause: Cause::GuestNotReading,
        severity: Severity::Warning,
        guest: Some("mail".to_owned()),
        place: Some(Where { device: Some("vnet3".to_owned()), point: Point::TapEgress, function: None, reason: None }),
        count: None,
        explanation: "The ring of vnet3 holds 100 packets: a short burst overflows it before mail can read.".to_owned(),
        evidence: vec!["vnet3: txqueuelen 100".to_owned()],
        fixes: vec![Fix {
            command: Some("ip link set dev vnet3 txqueuelen 1000".to_owned()),
            undo: Some("ip link set dev vnet3 txqueuelen 100".to_owned()),
            why: "Gives the ring the kernel's ordinary length; it counts from the guest's next start.".to_owned(),
            ..Fix::advice("")
        }],
    });
    report
        .degraded
        .push(Degraded { what: "device vnet5".to_owned(), why: "it went while it was being attached".to_owned() });
    report.totals = totals(&report);
    with_incidents(report)
}

/// A host with very many flows, some of them faulty.
pub fn many_report(flows: u32) -> Report {
    let mut report = mtu_report(60);
    for number in 0..flows.saturating_sub(report.flows.len() as u32) {
        let [_, a, b, c] = number.to_be_bytes();
        let guest = usize::from(c % 5);
        let name = report.guests[guest].name.clone();
        let port = 1_024 + (number % 60_000) as u16;
        let mut flow = delivered(
            &name,
            c % 5,
            if c.is_multiple_of(3) { "udp" } else { "tcp" },
            port,
            &format!("198.{a}.{b}.{c}"),
            443,
            u64::from(number % 977),
        );
        if number % 50 == 7 {
            flow.verdict = Verdict::Dropped;
            flow.severity = Severity::Error;
            flow.cause = Some(Cause::NetfilterForward);
            flow.dropped = flow.packets;
            flow.place = Some(Where {
                device: Some("br0".to_owned()),
                point: Point::NetfilterForward,
                function: None,
                reason: Some("NETFILTER_DROP".to_owned()),
            });
        }
        report.flows.push(flow);
    }
    report.totals = totals(&report);
    report
}

/// Names that try to write to the terminal.
pub const HOSTILE_NAMES: [&str; 6] = [
    "\u{1b}[31mred\u{7}",
    "right\u{202e}to-left",
    "漢字漢字漢字漢字",
    "zero\u{200b}\u{feff}width",
    "e\u{301}a\u{308}combining",
    "line\nbreak\ttab\u{9b}2J",
];

/// A host whose guests have [`HOSTILE_NAMES`], in every text that a guest can touch.
pub fn hostile_report(names: &[&str]) -> Report {
    let mut report = healthy_report(20);
    report.host.name = names.join("");
    for (index, name) in names.iter().enumerate() {
        let number = (index % 200) as u8;
        let mut guest = guest(name, number);
        guest.interfaces[0].device = format!("t{index}{name}");
        guest.interfaces[0].bridge = Some((*name).to_owned());
        report.guests.push(guest);
        let mut flow = delivered(name, number, name, 1, name, 2, 5);
        flow.device = Some(format!("t{index}{name}"));
        flow.path[0].device = format!("t{index}{name}");
        flow.severity = Severity::Error;
        flow.verdict = Verdict::Dropped;
        flow.dropped = 5;
        flow.place = Some(Where {
            device: Some((*name).to_owned()),
            point: Point::BridgeForward,
            function: Some((*name).to_owned()),
            reason: Some((*name).to_owned()),
        });
        flow.explanation = format!("The name is {name}, and {name}.");
        flow.evidence = vec![(*name).to_owned()];
        flow.fixes = vec![Fix {
            command: Some((*name).to_owned()),
            undo: Some((*name).to_owned()),
            why: (*name).to_owned(),
            risk: Some((*name).to_owned()),
            ..Fix::advice("")
        }];
        flow.id = format!("{:016x}", 0x100 + index);
        report.flows.insert(0, flow);
    }
    with_incidents(report)
}

/// The events of [`mtu_report`], or of a host on which nothing is dropped.
fn log(report: &Report) -> Log {
    let mut log = Log::default();
    log.push(&started(at(0)));
    log.push(&Event { time: at(0), kind: EventKind::Host(Arc::new(host_state())) });
    let flow = FlowKey {
        protocol: Protocol::Udp,
        source: Address::Ip([10, 99, 0, 11].into()),
        source_port: Some(40_000),
        destination: Address::Ip([10, 99, 0, 1].into()),
        destination_port: Some(9_000),
        vlan: None,
    };
    #[rustfmt::skip]
    let header = vec![
        0x52, 0x54, 0, 0xaa, 0, 0xfe, 0x52, 0x54, 0, 0xaa, 0, 0, 8, 0,
        0x45, 0, 0x0f, 0xa0, 0x1d, 0x94, 0x40, 0, 64, 17, 0, 0, 10, 99, 0, 11, 10, 99, 0, 1,
        0x9c, 0x40, 0x23, 0x28, 0x0f, 0x8c, 0, 0,
    ];
    let first = PacketRecord {
        cause: PacketCause::First,
        flow,
        place: Some(Place { device: IfIndex(7), direction: Direction::Ingress }),
        input_device: Some(IfIndex(7)),
        count: 1,
        length: FRAME,
        gso_size: 0,
        segments: 1,
        ether_type: 0x0800,
        ethernet: true,
        header,
    };
    log.push(&Event { time: at(1), kind: EventKind::Packet(Box::new(first.clone())) });
    if report.totals.dropped == 0 {
        return log;
    }
    for (doubling, second) in (0..7).zip(1..) {
        let site = DropSite {
            reason: Some("NOT_SPECIFIED".to_owned()),
            function: Some("br_dev_queue_push_xmit".to_owned()),
            offset: 0x46,
            device: Some(IfIndex(2)),
        };
        let cause = PacketCause::Dropped { site, stack: STACK.map(str::to_owned).to_vec() };
        // On the egress of the bridge nothing tells of the tap any more.
        let packet = PacketRecord { cause, place: None, input_device: None, count: 1 << doubling, ..first.clone() };
        log.push(&Event { time: Timestamp(at(second).0 + 4_000_000), kind: EventKind::Packet(Box::new(packet)) });
    }
    log.push(&Event { time: at(30), kind: EventKind::Loss(Loss { ring_events: 3, ..Loss::default() }) });
    log
}

/// The devices of the host: its NIC's MTU is smaller than the rest, unless all is well.
fn devices(report: &Report) -> Devices {
    let inside = if report.totals.dropped > 0 { 9_000 } else { 1_500 };
    let device = |name: &str, kind: &str, mtu| (name.to_owned(), Device { kind: kind.to_owned(), mtu, lower: None });
    let taps = (0..5).map(|number| device(&format!("vnet{number}"), "tap", inside));
    taps.chain([device("br0", "bridge", inside), device("eth0", "NIC", 1_500)]).collect()
}

/// A snapshot of one report.
pub fn snapshot(report: Report, status: Status) -> Arc<Snapshot> {
    let now = report.window.end;
    let (log, devices) = (log(&report).entries(), devices(&report));
    Arc::new(Snapshot::new(1, now, report, &mut History::default(), log, devices, status))
}

/// A snapshot with a minute of history, second by second.
pub fn snapshot_over_time(report_after: fn(u64) -> Report) -> Arc<Snapshot> {
    let mut history = History::default();
    let status =
        Status { cost: Cost { cpu_per_mille: Some(8), nanoseconds_per_packet: Some(95) }, ..Status::default() };
    let mut turns = Log::default();
    let mut look = |second: u64| {
        let report = report_after(second);
        for turn in history.incidents.step(at(second), &report) {
            turns.turn(at(second), turn);
        }
        let (log, devices) = (log(&report).entries(), devices(&report));
        let snapshot = Snapshot::new(second, at(second), report, &mut history, log, devices, status.clone());
        Snapshot { turns: turns.turns(), ..snapshot }
    };
    for second in 1..60 {
        look(second);
    }
    Arc::new(look(60))
}

/// The status of a recording that is being played.
pub fn replay_status() -> Status {
    Status {
        replay: Some(Replay { start: at(0), end: at(300), paused: false, quarter_speed: 8, hosts: Hosts::default() }),
        ..Status::default()
    }
}
