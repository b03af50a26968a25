//! The rows of the flow list: flows, and groups of flows that fold and unfold. Made when something changes, never while
//! drawing.

use super::group::Grouping;
use super::rates::FlowRates;
use super::snapshot::Snapshot;
use super::view::{FlowColumn, Sort};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Flows of one group, summed up.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The same group has the same id in every snapshot.
    pub(super) id: u64,
    /// What its flows have in common.
    pub(super) grouping: Grouping,
    /// How many flows.
    pub(super) flows: u32,
    /// Index of the one that suffers most.
    pub(super) worst: u32,
    /// Packets.
    pub(super) packets: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// Packets dropped.
    pub(super) dropped: u64,
    /// Per second.
    pub(super) rates: FlowRates,
    /// All are of one guest.
    pub(super) one_guest: bool,
    /// Its flows are not shown.
    pub(super) folded: bool,
}

/// What a row is, beside the flow that it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How deep within groups.
    pub(super) depth: u8,
    /// Index of the group that it sums up, if it does: then its flow is the group's worst.
    pub(super) group: Option<u32>,
}

/// Rows, and what they are.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Indices of flows.
    pub(super) rows: Vec<u32>,
    /// Of each row; empty where no row is a group.
    pub(super) heads: Vec<Head>,
    /// The groups.
    pub(super) groups: Vec<Group>,
}

impl Listing {
    /// Flows in their order, as groups.
    pub(super) fn of(
        snapshot: &Snapshot,
        flows: Vec<u32>,
        grouping: Grouping,
        sort: Sort<FlowColumn>,
        unfolded: &BTreeSet<u64>,
    ) -> Self {
        let mut listing = Self::default();
        if grouping == Grouping::Nothing {
            listing.rows = flows;
        } else {
            listing.add(snapshot, &flows, grouping, 0, sort, unfolded);
        }
        listing
    }

    fn add(
        &mut self,
        snapshot: &Snapshot,
        flows: &[u32],
        grouping: Grouping,
        depth: u8,
        sort: Sort<FlowColumn>,
        unfolded: &BTreeSet<u64>,
    ) {
        let mut groups = grouped(snapshot, flows, grouping, unfolded);
        order(&mut groups, sort);
        let open: HashMap<u64, Vec<u32>, Hashed> = members(snapshot, flows, grouping, &groups);
        for group in groups {
            if group.flows == 1 && grouping == Grouping::Alike {
                self.push(group.worst, Head { depth, group: None });
                continue;
            }
            let number = u32::try_from(self.groups.len()).ok();
            self.groups.push(group);
            self.push(group.worst, Head { depth, group: number });
            match open.get(&group.id) {
                Some(members) if grouping == Grouping::Alike => {
                    for flow in members {
                        self.push(*flow, Head { depth: depth + 1, group: None });
                    }
                }
                Some(members) => self.add(snapshot, members, Grouping::Alike, depth + 1, sort, unfolded),
                None => {}
            }
        }
    }

    fn push(&mut self, flow: u32, head: Head) {
        self.rows.push(flow);
        self.heads.push(head);
    }

    /// What the row is.
    pub(super) fn head(&self, row: usize) -> Head {
        self.heads.get(row).copied().unwrap_or_default()
    }

    /// The group that the row sums up.
    pub(super) fn group(&self, row: usize) -> Option<&Group> {
        self.groups.get(self.head(row).group? as usize)
    }
}

/// The groups in the order of their first flows.
fn grouped(snapshot: &Snapshot, flows: &[u32], grouping: Grouping, unfolded: &BTreeSet<u64>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<u64, u32, Hashed> = HashMap::default();
    for index in flows {
        let (flow, facts) = (&snapshot.report.flows[*index as usize], &snapshot.flows[*index as usize]);
        let Some(id) = facts.groups.of(grouping) else { continue };
        let number = *known.entry(id).or_insert(u32::try_from(groups.len()).unwrap_or(u32::MAX));
        if number as usize == groups.len() {
            groups.push(Group {
                id,
                grouping,
                flows: 0,
                worst: *index,
                packets: 0,
                bytes: 0,
                dropped: 0,
                rates: FlowRates::default(),
                one_guest: true,
                folded: !unfolded.contains(&id),
            });
        }
        let Some(group) = groups.get_mut(number as usize) else { continue };
        group.flows += 1;
        group.one_guest &= facts.guest_rank == snapshot.flows[group.worst as usize].guest_rank;
        // The report has the worst first.
        group.worst = group.worst.min(*index);
        group.packets = group.packets.saturating_add(flow.packets);
        group.bytes = group.bytes.saturating_add(flow.bytes);
        group.dropped = group.dropped.saturating_add(flow.dropped);
        group.rates.add(facts.rates);
    }
    groups
}

/// By what is counted, groups stand in the order of their sums; else in that of their first flows.
fn order(groups: &mut [Group], sort: Sort<FlowColumn>) {
    let sum: fn(&Group) -> u64 = match sort.column {
        FlowColumn::PacketRate => |group| group.rates.packets,
        FlowColumn::ByteRate => |group| group.rates.bytes,
        FlowColumn::Packets => |group| group.packets,
        FlowColumn::Dropped => |group| group.dropped,
        FlowColumn::Worst
        | FlowColumn::Verdict
        | FlowColumn::Cause
        | FlowColumn::Guest
        | FlowColumn::Protocol
        | FlowColumn::Source
        | FlowColumn::Destination
        | FlowColumn::Latency => return,
    };
    groups.sort_by_key(|group| if sort.reversed { sum(group) } else { !sum(group) });
}

/// The flows of the groups that are unfolded, in their order.
fn members(snapshot: &Snapshot, flows: &[u32], grouping: Grouping, groups: &[Group]) -> HashMap<u64, Vec<u32>, Hashed> {
    let mut open: HashMap<u64, Vec<u32>, Hashed> =
        groups.iter().filter(|group| !group.folded).map(|group| (group.id, Vec::new())).collect();
    if open.is_empty() {
        return open;
    }
    for index in flows {
        let id = snapshot.flows[*index as usize].groups.of(grouping);
        if let Some(members) = id.and_then(|id| open.get_mut(&id)) {
            members.push(*index);
        }
    }
    open
}

type Hashed = BuildHasherDefault<AsItIs>;

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
