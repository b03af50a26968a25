//! Open vSwitch by key: where a device is, who learnt an address, which rules a table has.

pub mod flow;

use crate::event::switch::{SwitchPlace, SwitchVlans};
use crate::event::switched::Switched;
use crate::event::{HostState, IfIndex, MacAddress};
use flow::{Action, Field};
use std::collections::{BTreeMap, HashMap};

/// The indexes.
#[derive(Debug)]
pub struct Switching<'a> {
    /// Devices and places.
    pub switched: Switched<'a>,
    host: &'a HostState,
    learnt: HashMap<(usize, u16, MacAddress), SwitchPlace>,
    numbers: HashMap<(usize, u16), SwitchPlace>,
    /// Rules by bridge and table, the highest priority first.
    tables: BTreeMap<(usize, u8), Vec<Rule>>,
}

/// An OpenFlow rule, read.
#[derive(Debug)]
pub struct Rule {
    /// Its index among the bridge's.
    pub index: usize,
    /// What it asks for; all of it.
    pub fields: Vec<Field>,
    /// What it does, in order.
    pub actions: Vec<Action>,
}

impl<'a> Switching<'a> {
    pub(super) fn new(host: &'a HostState) -> Self {
        let mut numbers = HashMap::new();
        for (place, interface) in host.switch.interfaces() {
            numbers.extend(interface.number.map(|number| ((place.bridge, number), place)));
        }
        let mut learnt = HashMap::new();
        let mut tables: BTreeMap<(usize, u8), Vec<Rule>> = BTreeMap::new();
        for (index, bridge) in host.switch.bridges.iter().enumerate() {
            for entry in &bridge.learnt {
                let place = numbers.get(&(index, entry.port)).copied();
                learnt.extend(place.map(|place| ((index, entry.vlan, entry.mac), place)));
            }
            for (number, flow) in bridge.flows.iter().flatten().enumerate() {
                let (fields, actions) = (flow::fields(&flow.fields), flow::actions(&flow.actions));
                tables.entry((index, flow.table)).or_default().push(Rule { index: number, fields, actions });
            }
            let priority = |rule: &Rule| bridge.flows.as_ref().and_then(|flows| Some(flows.get(rule.index)?.priority));
            for rules in tables.range_mut((index, 0)..=(index, u8::MAX)).map(|(_, rules)| rules) {
                rules.sort_by_key(|rule| std::cmp::Reverse(priority(rule)));
            }
        }
        Self { switched: Switched::new(host), host, learnt, numbers, tables }
    }

    /// Where a device is.
    pub fn place(&self, device: IfIndex) -> Option<SwitchPlace> {
        self.switched.place(device)
    }

    /// The interface behind which a bridge has learnt an address in a VLAN.
    pub fn learnt(&self, bridge: usize, vlan: u16, mac: MacAddress) -> Option<SwitchPlace> {
        self.learnt.get(&(bridge, vlan, mac)).copied()
    }

    /// The interface with an OpenFlow number.
    pub fn numbered(&self, bridge: usize, number: u16) -> Option<SwitchPlace> {
        self.numbers.get(&(bridge, number)).copied()
    }

    /// The rules of a table, the highest priority first.
    pub fn table(&self, bridge: usize, table: u8) -> &[Rule] {
        self.tables.get(&(bridge, table)).map_or(&[], Vec::as_slice)
    }

    /// What a device's port does with VLANs.
    pub fn vlans(&self, device: IfIndex) -> Option<&'a SwitchVlans> {
        Some(&self.host.switch.at(self.place(device)?)?.1.vlans)
    }
}
