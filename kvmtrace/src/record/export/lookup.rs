//! What exporters look up: names of devices and their guests, flows by the keys of their packets.

use crate::diagnose::report::{Report, TraceKey};
use crate::event::{Event, EventKind, FlowKey, HostState, IfIndex};
use std::collections::HashMap;
use std::sync::Arc;

/// The devices of one trace, as its last host state has them.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// What stands before a name: `kvm1/` where there are several hosts, as in the report.
    prefix: String,
    host: Arc<HostState>,
}

impl Devices {
    /// Of a trace whose devices the report names so.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, host: Arc::default() }
    }

    /// Learns from an event.
    pub(super) fn learn(&mut self, event: &Event) {
        if let EventKind::Host(host) = &event.kind {
            self.host = Arc::clone(host);
        }
    }

    /// The name of a device, or `if7` when it is not known.
    pub(super) fn name(&self, device: IfIndex) -> String {
        let prefix = &self.prefix;
        self.host.link(device).map_or_else(|| format!("{prefix}{device}"), |link| format!("{prefix}{}", link.name))
    }

    /// The guest that the device belongs to.
    pub(super) fn guest(&self, device: IfIndex) -> Option<&str> {
        self.host.guest_of(device).map(|guest| guest.name.as_str())
    }

    /// Its packets are known to begin at layer 3.
    pub(super) fn has_no_ethernet(&self, device: IfIndex) -> bool {
        self.host.link(device).is_some_and(|link| !link.ethernet)
    }
}

/// Where each flow is in a report, by the keys of its packets.
#[derive(Debug)]
pub(super) struct Flows {
    by_key: HashMap<TraceKey, usize>,
}

impl Flows {
    /// Of a report.
    pub(super) fn new(report: &Report) -> Self {
        let mut by_key = HashMap::new();
        for (number, flow) in report.flows.iter().enumerate() {
            by_key.insert(TraceKey { trace: flow.trace, key: flow.key }, number);
        }
        // A key that is one flow's own is never another's.
        for (number, flow) in report.flows.iter().enumerate() {
            for key in &flow.other_keys {
                by_key.entry(*key).or_insert(number);
            }
        }
        Self { by_key }
    }

    /// The place in the report's list of the flow that packets with this key belong to.
    pub(super) fn get(&self, trace: usize, key: FlowKey) -> Option<usize> {
        self.by_key.get(&TraceKey { trace, key }).copied()
    }
}
