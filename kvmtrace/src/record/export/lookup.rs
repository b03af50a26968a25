//! What exporters look up: names of devices, verdicts of flows.

use crate::diagnose::report::{FlowReport, Report};
use crate::event::{Event, EventKind, FlowKey, IfIndex};
use std::collections::{HashMap, HashSet};

/// Names of devices and what their packets begin with, as the last host state has them.
#[derive(Debug, Default)]
pub(super) struct DeviceNames {
    names: HashMap<IfIndex, String>,
    without_ethernet: HashSet<IfIndex>,
}

impl DeviceNames {
    /// Learns from an event.
    pub(super) fn learn(&mut self, event: &Event) {
        if let EventKind::Host(host) = &event.kind {
            let links = host.links.values();
            self.without_ethernet = links.clone().filter(|link| !link.ethernet).map(|link| link.index).collect();
            self.names = links.map(|link| (link.index, link.name.clone())).collect();
        }
    }

    /// The name of a device, or `if7` when it is not known.
    pub(super) fn get(&self, device: IfIndex) -> String {
        self.names.get(&device).cloned().unwrap_or_else(|| device.to_string())
    }

    /// Its packets are known to begin at layer 3.
    pub(super) fn has_no_ethernet(&self, device: IfIndex) -> bool {
        self.without_ethernet.contains(&device)
    }
}

/// How a report names a flow.
type Name = (String, String, Option<u16>, String, Option<u16>);

/// The flows of a report by their names, and by what NAT made of them.
#[derive(Debug)]
pub(super) struct Verdicts {
    flows: Vec<FlowReport>,
    by_name: HashMap<Name, usize>,
}

impl Verdicts {
    /// Takes a report apart.
    pub(super) fn new(report: &Report) -> Self {
        let mut by_name = HashMap::new();
        for (number, flow) in report.flows.iter().enumerate() {
            let protocol = flow.protocol.clone();
            let name =
                (protocol, flow.source.clone(), flow.source_port, flow.destination.clone(), flow.destination_port);
            // Flows stand worst first: the worst of several with one name is the one to tell of.
            by_name.entry(name).or_insert(number);
        }
        for (number, flow) in report.flows.iter().enumerate() {
            if let Some(nat) = &flow.translated {
                let protocol = flow.protocol.clone();
                let name =
                    (protocol, nat.source.clone(), nat.source_port, nat.destination.clone(), nat.destination_port);
                by_name.entry(name).or_insert(number);
            }
        }
        Self { flows: report.flows.clone(), by_name }
    }

    /// What the report says of a flow.
    pub(super) fn get(&self, flow: &FlowKey) -> Option<&FlowReport> {
        let (source, destination) = (flow.source.to_string(), flow.destination.to_string());
        let name = (flow.protocol.to_string(), source, flow.source_port, destination, flow.destination_port);
        self.by_name.get(&name).and_then(|number| self.flows.get(*number))
    }
}
