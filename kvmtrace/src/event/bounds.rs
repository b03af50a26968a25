//! A host's state in bounded memory: a router with a full table has a million routes, and a file may tell anything.
//!
//! No table has more than [`MOST`] entries. All tables together weigh no more than a given room: until they fit, the
//! heaviest is halved. What tells least goes first, the same entries each time; what a guest owns, and what is said in
//! general, stays. What went is told in [`HostState::missing`].

use super::host::{Chain, FdbEntry, Guest, Link, LinkKind, Neighbour, Qdisc, Route};
use super::{HostState, IfIndex, MacAddress};
use crate::event::names::RouteKind;
use std::collections::{BTreeMap, BTreeSet};

/// Entries of one table: more than hosts have, but for routers, fabrics of tunnels and hosts of thousands of containers.
pub const MOST: usize = 10_000;
/// Weight of a state at most. A unit is a value, or eight bytes of text, so that this many fit into a recording's block.
pub const ROOM: usize = 800_000;

/// Routes in the order in which they go: the most special first; a route that stands for many stays. One without a
/// gateway leads to a neighbour or a guest, or forbids something.
fn rank_of_route(route: &Route) -> (bool, u8) {
    let general = route.destination.prefix == 0 || route.gateway.is_none() || route.kind != RouteKind::Unicast;
    (!general, route.destination.prefix)
}

/// Keeps the `most` routes that tell most, in their order.
pub fn keep_routes(routes: &mut Vec<Route>, most: usize) {
    keep(routes, most, |route| (rank_of_route(route), route.destination, route.table, route.metric));
}

/// How many each owner may keep, so that all of them together keep no more than `room`: those with fewer keep all, the
/// others the same number.
pub fn fair_share(owned: impl IntoIterator<Item = usize>, room: usize) -> usize {
    let mut owned: Vec<usize> = owned.into_iter().collect();
    owned.sort_unstable();
    let (mut left, mut owners) = (room, owned.len());
    for count in owned {
        if count > left / owners {
            return left / owners;
        }
        left -= count;
        owners -= 1;
    }
    usize::MAX
}

/// What is told of a table that was cut.
pub fn note(all: u64, kept: usize) -> String {
    format!("there are {all}; the {kept} that tell most are kept, so that the trace stays small")
}

/// The tables that may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Routes,
    Neighbours,
    Forwarding,
    Qdiscs,
    Rules,
    Links,
    Guests,
    Sysctls,
    Counters,
    Missing,
    Configuration,
    Switch,
}

const TABLES: [(Table, &str); 12] = [
    (Table::Routes, "routes"),
    (Table::Neighbours, "neighbours"),
    (Table::Forwarding, "forwarding database"),
    (Table::Qdiscs, "queueing disciplines"),
    (Table::Rules, "firewall rules"),
    (Table::Links, "devices"),
    (Table::Guests, "guests"),
    (Table::Sysctls, "sysctls"),
    (Table::Counters, "counters"),
    (Table::Missing, "parts that could not be read"),
    (Table::Configuration, "configuration files"),
    (Table::Switch, SWITCH),
];

/// What [`HostState::missing`] calls the tables of Open vSwitch.
pub const SWITCH: &str = "Open vSwitch";

impl HostState {
    /// Keeps of each table what tells most, as far as it fits into `room`, and tells in `missing` what went.
    pub fn bound(&mut self, room: usize) {
        for (table, name) in TABLES {
            if self.entries(table) > MOST {
                self.cut(table, name, MOST);
            }
        }
        loop {
            let weights = TABLES.map(|(table, name)| (self.weight(table), table, name));
            let heaviest = weights.iter().max_by_key(|(weight, ..)| *weight);
            let Some((_, table, name)) =
                heaviest.filter(|_| weights.iter().map(|(weight, ..)| weight).sum::<usize>() > room)
            else {
                return;
            };
            let entries = self.entries(*table);
            self.cut(*table, name, entries / 2);
            if entries == 0 {
                return;
            }
        }
    }

    fn entries(&self, table: Table) -> usize {
        match table {
            Table::Routes => self.routes.len(),
            Table::Neighbours => self.neighbours.len(),
            Table::Forwarding => self.forwarding.len(),
            Table::Qdiscs => self.qdiscs.len(),
            Table::Rules => self.netfilter.chains.iter().map(|chain| 1 + chain.rules.len()).sum(),
            Table::Links => self.links.len(),
            Table::Guests => self.guests.iter().map(|guest| 1 + guest.interfaces.len()).sum(),
            Table::Sysctls => self.sysctls.len(),
            Table::Counters => self.counters.len(),
            Table::Missing => self.missing.len(),
            Table::Configuration => self.configuration.entries(),
            Table::Switch => self.switch.entries(),
        }
    }

    fn weight(&self, table: Table) -> usize {
        let text = |text: &str| 1 + text.len() / 8;
        match table {
            Table::Routes => self.routes.len() * 72,
            Table::Neighbours => self.neighbours.len() * 36,
            Table::Forwarding => self.forwarding.len() * 40,
            Table::Qdiscs => self.qdiscs.iter().map(|qdisc| 8 + text(&qdisc.kind)).sum(),
            Table::Rules => {
                let rule = |rule: &super::host::Rule| 8 + text(&rule.text);
                let chain = |chain: &Chain| 20 + text(&chain.name) + chain.rules.iter().map(rule).sum::<usize>();
                self.netfilter.chains.iter().map(chain).sum()
            }
            Table::Links => self.links.values().map(weight_of_link).sum(),
            Table::Guests => {
                let guest = |guest: &Guest| {
                    let interfaces = guest.interfaces.iter();
                    16 + text(&guest.name)
                        + interfaces.map(|interface| 16 + 20 * interface.addresses.len()).sum::<usize>()
                };
                self.guests.iter().map(guest).sum()
            }
            Table::Sysctls => self.sysctls.iter().map(|(key, value)| text(key) + text(value)).sum(),
            Table::Counters => self.counters.keys().map(|key| 1 + text(key)).sum(),
            Table::Missing => self.missing.iter().map(|(what, why)| text(what) + text(why)).sum(),
            Table::Configuration => self.configuration.weight(),
            Table::Switch => self.switch.weight(),
        }
    }

    fn cut(&mut self, table: Table, name: &str, most: usize) {
        let all = self.entries(table);
        let devices: BTreeSet<IfIndex> = self.interfaces().map(|(device, _)| device).collect();
        let macs: BTreeSet<MacAddress> = self.interfaces().filter_map(|(_, mac)| mac).collect();
        match table {
            Table::Routes => keep_routes(&mut self.routes, most),
            Table::Neighbours => {
                let gateways: BTreeSet<_> = self.routes.iter().filter_map(|route| route.gateway).collect();
                keep(&mut self.neighbours, most, |neighbour: &Neighbour| {
                    let guest = neighbour.mac.is_some_and(|mac| macs.contains(&mac));
                    (!guest && !gateways.contains(&neighbour.address), neighbour.device, neighbour.address)
                });
            }
            Table::Forwarding => keep(&mut self.forwarding, most, |entry: &FdbEntry| {
                let guest = macs.contains(&entry.mac) || devices.contains(&entry.device);
                (!guest, !entry.fixed, entry.device, entry.mac, entry.vlan)
            }),
            Table::Qdiscs => keep(&mut self.qdiscs, most, |qdisc: &Qdisc| {
                (!devices.contains(&qdisc.device), qdisc.parent != "root", qdisc.device)
            }),
            Table::Rules => keep_rules(&mut self.netfilter.chains, most),
            Table::Links => {
                let mut links: Vec<Link> = std::mem::take(&mut self.links).into_values().collect();
                keep(&mut links, most, |link: &Link| {
                    // A tunnel without Ethernet is a way out, as a NIC is.
                    let plain = matches!(link.kind, LinkKind::Veth | LinkKind::Other(_)) && link.ethernet;
                    (!devices.contains(&link.index), plain, link.index)
                });
                self.links = links.into_iter().map(|link| (link.index, link)).collect();
            }
            Table::Guests => keep_guests(&mut self.guests, most),
            Table::Sysctls => keep_first(&mut self.sysctls, most),
            Table::Counters => keep_first(&mut self.counters, most),
            Table::Missing => self.missing.truncate(most.saturating_sub(1)),
            Table::Configuration => self.configuration.cut(most),
            Table::Switch => self.switch.cut(most),
        }
        let why = note(all as u64, self.entries(table));
        match self.missing.iter_mut().find(|(what, _)| what == name) {
            // It was cut before, of more.
            Some((_, before)) if before.starts_with("there are ") => {
                let all = before.split_once(';').map_or_else(String::new, |(all, _)| all.to_owned());
                let kept = why.split_once(';').map_or("", |(_, kept)| kept);
                *before = format!("{all};{kept}");
            }
            _ => self.missing.push((name.to_owned(), why)),
        }
    }

    /// Devices of guests, and the guests' MAC addresses there.
    fn interfaces(&self) -> impl Iterator<Item = (IfIndex, Option<MacAddress>)> {
        self.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| (interface.device, interface.mac))
    }
}

fn weight_of_link(link: &Link) -> usize {
    let vlans = match (&link.kind, &link.port) {
        (LinkKind::Bridge(bridge), _) => bridge.vlans.len(),
        (_, Some(port)) => port.vlans.len(),
        _ => 0,
    };
    90 + 24 * link.addresses.len() + 5 * vlans + link.name.len() / 8
}

/// Keeps the `most` lowest by `rank`, in their order.
fn keep<T, K: Ord>(table: &mut Vec<T>, most: usize, rank: impl Fn(&T) -> K) {
    let Some(spare) = table.len().checked_sub(most).filter(|spare| *spare > 0) else { return };
    let mut order: Vec<(K, usize)> = table.iter().enumerate().map(|(number, entry)| (rank(entry), number)).collect();
    order.sort_unstable();
    let gone: BTreeSet<usize> = order.into_iter().rev().take(spare).map(|(_, number)| number).collect();
    let mut number = 0;
    table.retain(|_| {
        number += 1;
        !gone.contains(&(number - 1))
    });
}

/// Keeps the rules of the chains that packets meet first: those with a hook, then those that are jumped to.
fn keep_rules(chains: &mut Vec<Chain>, most: usize) {
    let mut left = most;
    for hooked in [true, false] {
        for chain in chains.iter_mut().filter(|chain| chain.hook.is_some() == hooked) {
            // A chain without its rules would seem to let everything pass.
            let fits = chain.rules.len() < left;
            chain.rules.truncate(if fits { chain.rules.len() } else { left.saturating_sub(1) });
            left -= (1 + chain.rules.len()).min(left);
            if !fits {
                left = 0;
            }
        }
    }
    let mut kept = 0;
    chains.retain(|chain| {
        kept += 1 + chain.rules.len();
        kept <= most
    });
}

fn keep_guests(guests: &mut Vec<Guest>, most: usize) {
    let mut left = most;
    guests.retain_mut(|guest| {
        guest.interfaces.truncate(left.saturating_sub(1));
        let fits = left > 0;
        left -= (1 + guest.interfaces.len()).min(left);
        fits
    });
}

/// Keeps the first `most` entries.
pub(super) fn keep_first<V>(map: &mut BTreeMap<String, V>, most: usize) {
    if let Some(first) = map.keys().nth(most).cloned() {
        drop(map.split_off(&first));
    }
}
