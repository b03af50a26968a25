//! A host made of values: a bridge with an uplink and two guests, and traffic on it. No kernel, no root.

use kvmtrace::diagnose::report::{FlowReport, Report};
use kvmtrace::event::host::{
    BridgePort, BridgeState, Guest, GuestInterface, HostState, Link, LinkKind, LinkStatistics, Network, PortState,
};
use kvmtrace::event::{
    Address, Direction, DropSample, DropSite, Event, EventKind, FlowCounters, FlowKey, FlowSample, IfIndex, MacAddress,
    PacketCause, PacketRecord, Place, Protocol, Started, Timestamp,
};
use kvmtrace::pipeline::Pipeline;
use std::net::IpAddr;
use std::sync::LazyLock;

pub(crate) const UPLINK: IfIndex = IfIndex(1);
pub(crate) const BRIDGE: IfIndex = IfIndex(2);
pub(crate) const TAP: IfIndex = IfIndex(3);
pub(crate) const OTHER_TAP: IfIndex = IfIndex(4);
pub(crate) const GUEST: &str = "10.0.0.11";
pub(crate) const LAN: &str = "10.0.0.100";
const SECOND: u64 = 1_000_000_000;

pub(crate) fn mac(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0xaa, 0, last])
}

/// A script of events.
pub(crate) struct World {
    pub(crate) host: HostState,
    /// The host when the trace ends, if it was read again.
    pub(crate) end: Option<HostState>,
    /// Each with its second.
    events: Vec<(u64, EventKind)>,
    second: u64,
}

impl World {
    /// The healthy host.
    pub(crate) fn new() -> Self {
        let mut host = HostState { name: "kvm7".to_owned(), kernel: "6.18.0".to_owned(), ..HostState::default() };
        let bridge = BridgeState { default_pvid: 1, multicast_snooping: true, ..BridgeState::default() };
        for (index, name, kind, address) in [
            (UPLINK, "eth0", LinkKind::Physical, 0xe0),
            (BRIDGE, "br0", LinkKind::Bridge(bridge), 0xb0),
            (TAP, "vnet0", LinkKind::Tun, 0xf1),
            (OTHER_TAP, "vnet1", LinkKind::Tun, 0xf2),
        ] {
            host.links.insert(index, link(index, name, kind, address));
        }
        let own = Network { address: "10.0.0.1".parse().unwrap(), prefix: 24 };
        host.links.get_mut(&BRIDGE).unwrap().addresses.push(own);
        for (name, device, last) in [("web1", TAP, 1), ("web2", OTHER_TAP, 2)] {
            let interface = GuestInterface::new(device, "tap", Some(mac(last)), Vec::new());
            host.guests.push(Guest {
                name: name.to_owned(),
                pid: Some(1),
                interfaces: vec![interface],
                ..Guest::default()
            });
        }
        Self { host, end: None, events: Vec::new(), second: 5 }
    }

    pub(crate) fn link(&mut self, index: IfIndex) -> &mut Link {
        self.host.links.get_mut(&index).unwrap()
    }

    pub(crate) fn port(&mut self, index: IfIndex) -> &mut BridgePort {
        self.link(index).port.as_mut().unwrap()
    }

    /// The flow was counted at a place; `after` milliseconds from the start.
    pub(crate) fn seen(
        &mut self,
        flow: FlowKey,
        device: IfIndex,
        direction: Direction,
        change: impl FnOnce(&mut FlowCounters),
    ) {
        let after = self.events.len() as u64;
        let mut counters = FlowCounters {
            packets: 4,
            bytes: 392,
            largest: 84,
            first: Timestamp(SECOND + after * 1_000_000),
            time_to_live: 64,
            source_mac: mac(1),
            destination_mac: mac(0x64),
            ..FlowCounters::default()
        };
        change(&mut counters);
        let place = Place { device, direction };
        self.happened(EventKind::Flow(FlowSample { flow, place, counters }));
    }

    /// Packets of the flow were dropped.
    pub(crate) fn dropped(
        &mut self,
        flow: FlowKey,
        site: (&str, &str, IfIndex),
        packets: u64,
        largest: u32,
        stack: &[&str],
    ) {
        let (reason, function, device) = site;
        let site = DropSite {
            reason: Some(reason.to_owned()),
            function: Some(function.to_owned()),
            offset: 0,
            device: Some(device),
        };
        let first = Timestamp(SECOND + 500);
        let bytes = u64::from(largest) * packets;
        self.happened(EventKind::Drop(DropSample { flow, site: site.clone(), packets, bytes, first, largest }));
        let stack = std::iter::once(function).chain(stack.iter().copied()).map(str::to_owned).collect();
        self.happened(EventKind::Packet(Box::new(PacketRecord {
            cause: PacketCause::Dropped { site, stack },
            flow,
            place: None,
            input_device: Some(TAP),
            count: 1,
            length: largest,
            gso_size: 0,
            segments: 1,
            ether_type: 0x0800,
            ethernet: false,
            header: Vec::new(),
        })));
    }

    /// The packet that was told last came in by this device.
    pub(crate) fn came_in_by(&mut self, device: IfIndex) {
        if let Some((_, EventKind::Packet(record))) = self.events.last_mut() {
            record.input_device = Some(device);
        }
    }

    /// What is told from now on is told in this second of the trace, which begins in the first and ends in the sixth.
    pub(crate) fn at(&mut self, second: u64) {
        self.second = second;
    }

    /// Something else was told.
    pub(crate) fn happened(&mut self, event: EventKind) {
        self.events.push((self.second, event));
    }

    pub(crate) fn report(&self) -> Report {
        let started = Started {
            version: "0.1.0".to_owned(),
            devices: Vec::new(),
            guests: Vec::new(),
            all: false,
            filter: String::new(),
            followed: false,
        };
        let mut pipeline = Pipeline::default();
        let mut take = |time, kind| pipeline.take(&Event { time: Timestamp(time), kind });
        take(SECOND, EventKind::Started(started));
        take(SECOND, EventKind::Host(std::sync::Arc::new(self.host.clone())));
        for (second, kind) in &self.events {
            take(second * SECOND, kind.clone());
        }
        if let Some(end) = &self.end {
            take(6 * SECOND, EventKind::Host(std::sync::Arc::new(end.clone())));
        }
        take(6 * SECOND, EventKind::Ended);
        let report = pipeline.report();
        keeps_the_schema(&report);
        report
    }

    /// The one flow that the test is about.
    pub(crate) fn verdict(&self, flow: FlowKey) -> FlowReport {
        let report = self.report();
        let found = report.flows.iter().find(|told| {
            told.source == flow.source.to_string()
                && told.destination == flow.destination.to_string()
                && told.protocol == flow.protocol.to_string()
        });
        found.unwrap_or_else(|| panic!("no verdict for {flow} in {report:?}")).clone()
    }
}

/// Every report keeps the published schema, and its incidents cover its faults.
fn keeps_the_schema(report: &Report) {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let schema = serde_json::from_str(include_str!("../../../docs/verdict.schema.json")).unwrap();
        jsonschema::draft202012::new(&schema).unwrap()
    });
    let json = serde_json::to_value(report).unwrap();
    let errors: Vec<String> =
        SCHEMA.iter_errors(&json).take(5).map(|error| format!("{}: {error:.300}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for flow in &report.flows {
        let holders = report.incidents.iter().filter(|incident| incident.flows.contains(&flow.id));
        let holders: Vec<&String> = holders.map(|incident| &incident.id).collect();
        assert_eq!(holders, flow.incident.iter().collect::<Vec<_>>(), "{flow:?}");
    }
    for finding in &report.findings {
        let holders = report.incidents.iter().filter(|incident| incident.findings.contains(&finding.label.id));
        let holders: Vec<&String> = holders.map(|incident| &incident.id).collect();
        assert_eq!(holders, finding.label.incident.iter().collect::<Vec<_>>(), "{finding:?}");
    }
}

fn link(index: IfIndex, name: &str, kind: LinkKind, last: u8) -> Link {
    let is_bridge = matches!(kind, LinkKind::Bridge(_));
    let port = BridgePort {
        state: PortState::Forwarding,
        isolated: false,
        locked: false,
        flood: true,
        multicast_flood: true,
        broadcast_flood: true,
        learning: true,
        hairpin: false,
        bpdu_guard: false,
        group_forward_mask: 0,
        vlans: Vec::new(),
    };
    Link {
        index,
        name: name.to_owned(),
        kind,
        mac: Some(mac(last)),
        mtu: 1500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: (!is_bridge).then_some(BRIDGE),
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: "pfifo_fast".to_owned(),
        port: (!is_bridge).then_some(port),
        xdp: None,
        large_receive: false,
        addresses: Vec::new(),
        statistics: LinkStatistics::default(),
    }
}

/// A flow between two addresses.
pub(crate) fn flow(protocol: Protocol, source: &str, destination: &str) -> FlowKey {
    let ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    let address = |text: &str| Address::Ip(text.parse::<IpAddr>().unwrap());
    FlowKey {
        protocol,
        source: address(source),
        source_port: ports.then_some(40_000),
        destination: address(destination),
        destination_port: ports.then_some(9_000),
        vlan: None,
    }
}

/// A ping.
pub(crate) fn echo(source: &str, destination: &str) -> FlowKey {
    flow(Protocol::Icmp { kind: 8, code: 0, id: 7 }, source, destination)
}
