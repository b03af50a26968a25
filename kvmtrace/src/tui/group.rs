//! What flows have in common: the keys by which they are one group.

use super::text;
use crate::diagnose::report::{Cause, FlowDirection, FlowReport, Report};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

/// What flows are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Flows that differ in the client's port only: the attempts of one guest at one service.
    Alike,
    /// By guest; within, alike.
    Guest,
    /// By the address of the other end; within, alike.
    Peer,
    /// By protocol and the service's port; within, alike.
    Service,
    /// By cause or verdict; within, alike.
    Cause,
    /// Each flow is a row.
    Nothing,
}

impl Grouping {
    const ALL: [Self; 6] = [Self::Alike, Self::Guest, Self::Peer, Self::Service, Self::Cause, Self::Nothing];

    /// The next one.
    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// In a few words, behind "flows".
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Alike => "that differ in the client's port only are one row",
            Self::Guest => "by guest",
            Self::Peer => "by peer",
            Self::Service => "by service",
            Self::Cause => "by cause",
            Self::Nothing => "each in a row of its own",
        }
    }
}

/// Which end of a flow is the service, and the keys of the groups that it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupKeys {
    /// By [`Grouping`], but for `Nothing`.
    keys: [u64; 5],
    /// The source is the service that the flow's answers come from.
    pub(super) from_service: bool,
}

impl GroupKeys {
    /// The key by this grouping; none where each flow stands alone.
    pub(super) fn of(&self, grouping: Grouping) -> Option<u64> {
        self.keys.get(grouping as usize).copied()
    }
}

/// How many flows each end has. A service has many clients, a client's port has one service.
pub(super) struct Ends<'a>(HashMap<(&'a str, &'a str, u16), u32>);

impl<'a> Ends<'a> {
    /// Of all flows of a report.
    pub(super) fn of(report: &'a Report) -> Self {
        let mut ends = HashMap::new();
        for flow in &report.flows {
            for (address, port) in [(&flow.source, flow.source_port), (&flow.destination, flow.destination_port)] {
                if let Some(port) = port {
                    *ends.entry((flow.protocol.as_str(), address.as_str(), port)).or_default() += 1;
                }
            }
        }
        Self(ends)
    }

    /// The flow comes from a service: more flows have that end, or as many and its port is the lower one.
    fn comes_from_service(&self, flow: &FlowReport) -> bool {
        let (Some(source), Some(destination)) = (flow.source_port, flow.destination_port) else { return false };
        let flows = |address, port| self.0.get(&(flow.protocol.as_str(), address, port)).copied().unwrap_or(0);
        let (from, to) = (flows(flow.source.as_str(), source), flows(flow.destination.as_str(), destination));
        // A conversation has two flows: an end with no more than those says nothing.
        if from.max(to) > 2 && from != to { from > to } else { source < destination }
    }

    /// The keys of a flow's groups.
    pub(super) fn keys(&self, flow: &FlowReport) -> GroupKeys {
        let from_service = self.comes_from_service(flow);
        let port = if from_service { flow.source_port } else { flow.destination_port };
        let protocol = text::protocol(flow);
        let (cause, peer) = (flow.cause, peer(flow));
        let alike = (&flow.guest, flow.direction, &protocol, flow.vlan, &flow.source, &flow.destination);
        let keys = [
            hash(&(alike, &flow.device, from_service, port, cause, flow.verdict)),
            hash(&(1_u8, &flow.guest)),
            hash(&(2_u8, peer)),
            hash(&(3_u8, &flow.protocol, port)),
            hash(&(4_u8, cause, flow.verdict)),
        ];
        GroupKeys { keys, from_service }
    }
}

/// The address of the end that is not the guest's; between guests the receiver's.
pub(super) fn peer(flow: &FlowReport) -> &str {
    match flow.direction {
        FlowDirection::ToGuest => &flow.source,
        FlowDirection::FromGuest | FlowDirection::GuestToGuest | FlowDirection::Host => &flow.destination,
    }
}

/// The same without the guest's own address, which the guest's name stands for; where there is little room.
pub(super) fn short_name(grouping: Grouping, flow: &FlowReport, keys: GroupKeys) -> String {
    let guest_is_client = match flow.direction {
        FlowDirection::FromGuest => !keys.from_service,
        FlowDirection::ToGuest => keys.from_service,
        FlowDirection::GuestToGuest | FlowDirection::Host => false,
    };
    if grouping != Grouping::Alike || !guest_is_client {
        return name(grouping, flow, keys);
    }
    let protocol = text::protocol(flow);
    if keys.from_service {
        format!("{protocol} {}→", text::end_point(&flow.source, flow.source_port))
    } else {
        format!("{protocol} →{}", text::end_point(&flow.destination, flow.destination_port))
    }
}

/// What a group is called, after one of its flows.
pub(super) fn name(grouping: Grouping, flow: &FlowReport, keys: GroupKeys) -> String {
    let service = if keys.from_service { flow.source_port } else { flow.destination_port };
    match grouping {
        Grouping::Alike | Grouping::Nothing => {
            let client = |is_client: bool, port: Option<u16>| if is_client { None } else { port };
            let source = text::end_point(&flow.source, client(!keys.from_service, flow.source_port));
            let destination = text::end_point(&flow.destination, client(keys.from_service, flow.destination_port));
            format!("{} {source}→{destination}", text::protocol(flow))
        }
        Grouping::Guest => flow.guest.clone().unwrap_or_else(|| "host".to_owned()),
        Grouping::Peer => peer(flow).to_owned(),
        Grouping::Service => match service {
            Some(port) => format!("{} {port}", flow.protocol),
            None => flow.protocol.clone(),
        },
        Grouping::Cause => flow.cause.map_or(super::theme::verdict(flow.verdict), Cause::id).to_owned(),
    }
}

fn hash(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
