//! Which route a packet takes: the rules of policy routing in their order, each with its table, as `fib_rules_lookup` asks
//! them. A rule may ask for more than is known here (a mark, ports, a user): then the answer says that it is in doubt.

use crate::event::IfIndex;
use crate::event::PolicyRule;
use crate::event::host::{HostState, LinkKind, Route};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The table `main` (`RT_TABLE_MAIN`).
pub const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
const LOCAL: u32 = 255;

/// The question that the kernel asks its routing.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The packet's source; none where the kernel has yet to choose one.
    pub from: Option<IpAddr>,
    /// Its destination.
    pub to: IpAddr,
    /// The device that it came in by; `lo` for what this host sends itself.
    pub input: &'q str,
    /// The device that it must leave by (`flowi4_oif`), as for a socket bound to a device.
    pub output: Option<IfIndex>,
}

impl Question<'_> {
    /// For a packet of this host's own.
    pub fn own(to: IpAddr) -> Self {
        Self { from: None, to, input: "lo", output: None }
    }
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// The route, of any kind.
    pub route: Option<&'a Route>,
    /// The rule that decided: by itself, or by its table. None where the rules are not known.
    pub rule: Option<&'a PolicyRule>,
    /// A rule that comes before the deciding one, and may have taken the packet: it asks for more than is known here.
    pub doubt: Option<&'a PolicyRule>,
    /// The tables that were asked.
    pub tables: Vec<u32>,
}

impl<'a> Answer<'a> {
    /// The route, if it leads somewhere.
    pub fn unicast(&self) -> Option<&'a Route> {
        self.route.filter(|route| route.kind == "unicast")
    }
}

/// Routes by table, prefix length and network: a look-up asks a hash once for each length that the table has.
#[derive(Debug, Default)]
pub struct Routes<'a> {
    lengths: BTreeMap<(u32, bool), Vec<u8>>,
    networks: HashMap<(u32, u8, IpAddr), Vec<&'a Route>>,
    rules: Vec<&'a PolicyRule>,
}

impl<'a> Routes<'a> {
    /// Indexes a host's routes.
    pub fn new(host: &'a HostState) -> Self {
        let mut index = Self { rules: host.policy_rules.iter().collect(), ..Self::default() };
        for route in &host.routes {
            // Routes of old recordings have no table.
            let table = if route.table == 0 { MAIN } else { route.table };
            let prefix = route.destination.prefix;
            let lengths = index.lengths.entry((table, route.destination.address.is_ipv6())).or_default();
            if let Err(at) = lengths.binary_search_by(|length| prefix.cmp(length)) {
                lengths.insert(at, prefix);
            }
            let network = masked(route.destination.address, prefix);
            index.networks.entry((table, prefix, network)).or_default().push(route);
        }
        for routes in index.networks.values_mut() {
            routes.sort_by_key(|route| route.metric);
        }
        index
    }

    /// The route for a packet.
    pub fn lookup(&self, host: &'a HostState, question: Question<'_>) -> Answer<'a> {
        let mut answer = Answer::default();
        let v6 = question.to.is_ipv6();
        let mut rules = self.rules.iter().copied().filter(|rule| rule.v6 == v6).peekable();
        if rules.peek().is_none() {
            answer.tables = vec![MAIN, DEFAULT];
            answer.route = answer.tables.iter().find_map(|table| self.best(host, *table, question, None));
            return answer;
        }
        for rule in rules.filter(|rule| rule.may_take(question.from, question.to, question.input)) {
            match rule.action.as_str() {
                "nop" => continue,
                "lookup" if rule.table == LOCAL => continue,
                "l3mdev" if !in_vrf(host, question.input) => continue,
                action if rule.narrower || matches!(action, "goto" | "l3mdev") => {
                    answer.doubt.get_or_insert(rule);
                    continue;
                }
                "lookup" => {
                    let table = rule.table;
                    if !answer.tables.contains(&table) {
                        answer.tables.push(table);
                    }
                    match self.best(host, table, question, rule.suppress) {
                        Some(route) if route.kind != "throw" => answer.route = Some(route),
                        _ => continue,
                    }
                }
                _ => {}
            }
            answer.rule = Some(rule);
            break;
        }
        answer
    }

    /// The best route of a table, unless it is as wide as a rule suppresses (`fib4_rule_suppress`). A route whose device is down
    /// does not count (`RTNH_F_DEAD`).
    fn best(&self, host: &HostState, table: u32, question: Question<'_>, suppress: Option<u32>) -> Option<&'a Route> {
        let lengths = self.lengths.get(&(table, question.to.is_ipv6()))?;
        let usable = |route: &&&'a Route| {
            let up = route.device.is_none_or(|device| host.link(device).is_none_or(|link| link.up));
            up && question.output.is_none_or(|output| route.device.is_none_or(|device| device == output))
        };
        let route = lengths.iter().find_map(|length| {
            let network = masked(question.to, *length);
            self.networks.get(&(table, *length, network))?.iter().find(usable).copied()
        })?;
        suppress.is_none_or(|suppress| u32::from(route.destination.prefix) > suppress).then_some(route)
    }
}

/// The network that an address lies in.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// The device belongs to a VRF.
fn in_vrf(host: &HostState, device: &str) -> bool {
    let master = host.link_named(device).and_then(|link| host.link(link.master?));
    master.is_some_and(|master| matches!(&master.kind, LinkKind::Other(kind) if kind == "vrf"))
}
