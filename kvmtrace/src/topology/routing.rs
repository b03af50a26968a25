//! Which route a packet takes: the rules of policy routing in their order, each with its table, as `fib_rules_lookup` asks
//! them. A rule may ask for more than is known of the packet (a user, a mark that is not known): then the answer says that it is in doubt.

use crate::event::IfIndex;
use crate::event::PolicyRule;
use crate::event::host::{HostState, LinkKind, Network, Route};
use crate::event::names::{RouteKind, RuleAction};
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
    /// Its mark; none if not known.
    pub mark: Option<u32>,
    /// IP protocol number, and source and destination port (0 where it has none); none if not known.
    pub layer4: Option<(u8, u16, u16)>,
}

impl<'q> Question<'q> {
    /// For a packet of which no more is known than its addresses and its device.
    pub fn of(from: Option<IpAddr>, to: IpAddr, input: &'q str) -> Self {
        Self { from, to, input, output: None, mark: None, layer4: None }
    }

    /// For a packet of this host's own.
    pub fn own(to: IpAddr) -> Self {
        Self::of(None, to, "lo")
    }

    /// A rule may be for this packet: nothing known speaks against it.
    pub fn may_take(&self, host: &HostState, rule: &PolicyRule) -> bool {
        rule.v6 == self.to.is_ipv6() && self.fits(host, rule) != Some(false)
    }

    /// What a rule asks for holds; none where that is not known (`fib_rule_match`, `fib4_rule_match`).
    fn fits(&self, host: &HostState, rule: &PolicyRule) -> Option<bool> {
        let within = |network: &Option<Network>, address: Option<IpAddr>| {
            network.is_none_or(|network| address.is_some_and(|address| network.contains(address)))
        };
        let leaves_by =
            |name: &String| self.output.and_then(|output| host.link(output)).is_some_and(|link| link.name == *name);
        let in_range =
            |range: Option<(u16, u16)>, port: u16| range.is_none_or(|(low, high)| (low..=high).contains(&port));
        let asks_layer4 = rule.protocol.is_some() || rule.source_ports.is_some() || rule.destination_ports.is_some();
        let tests = [
            Some(within(&rule.source, self.from)),
            Some(within(&rule.destination, Some(self.to))),
            Some(rule.input.as_deref().is_none_or(|name| name == self.input)),
            Some(rule.output.as_ref().is_none_or(leaves_by)),
            rule.mark.map_or(Some(true), |mark| self.mark.map(|own| mark.fits(own))),
            if asks_layer4 {
                self.layer4.map(|(protocol, source, destination)| {
                    rule.protocol.is_none_or(|asked| asked == protocol)
                        && in_range(rule.source_ports, source)
                        && in_range(rule.destination_ports, destination)
                })
            } else {
                Some(true)
            },
            (!rule.narrower).then_some(true),
        ];
        let fits = if tests.contains(&Some(false)) {
            Some(false)
        } else if tests.contains(&None) {
            None
        } else {
            Some(true)
        };
        fits.map(|fits| fits != rule.inverted)
    }
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// The route, of any kind.
    pub route: Option<&'a Route>,
    /// All next hops of the route, itself first: the kernel chooses one for each flow, by a hash (`fib_select_multipath`).
    pub legs: Vec<&'a Route>,
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
        self.route.filter(|route| route.kind == RouteKind::Unicast)
    }

    /// The next hop of the route by this device.
    pub fn leg(&self, device: IfIndex) -> Option<&'a Route> {
        self.legs.iter().copied().find(|leg| leg.kind == RouteKind::Unicast && leg.device == Some(device))
    }
}

/// Routes by table, prefix length and network: a look-up asks a hash once for each length that the table has.
#[derive(Debug, Default)]
pub struct Routes<'a> {
    lengths: BTreeMap<(u32, bool), Vec<u8>>,
    networks: HashMap<(u32, u8, IpAddr), Vec<&'a Route>>,
    /// Rules of IPv4 and of IPv6, in order.
    rules: [Vec<&'a PolicyRule>; 2],
}

impl<'a> Routes<'a> {
    /// Indexes a host's routes.
    pub fn new(host: &'a HostState) -> Self {
        let of = |v6: bool| host.policy_rules.iter().filter(|rule| rule.v6 == v6).collect();
        let mut index = Self { rules: [of(false), of(true)], ..Self::default() };
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
        let rules = self.rules.get(usize::from(v6)).map(Vec::as_slice).unwrap_or_default();
        if rules.is_empty() {
            answer.tables = vec![MAIN, DEFAULT];
            let mut tables = answer.tables.iter();
            answer.legs = tables.find_map(|table| self.best(host, *table, question, None)).unwrap_or_default();
            answer.route = answer.legs.first().copied();
            return answer;
        }
        let mut skipped_to = 0;
        for rule in rules.iter().copied() {
            if rule.priority < skipped_to {
                continue;
            }
            let fits = question.fits(host, rule);
            if fits == Some(false) {
                continue;
            }
            let surely = fits == Some(true);
            match rule.action {
                RuleAction::Nop => continue,
                RuleAction::Lookup if rule.table == LOCAL => continue,
                RuleAction::L3mdev if vrf_of(host, question.input).is_none() => continue,
                // A jump leads forward only (`fib_nl_newrule`); without a rule at its target it leads nowhere.
                RuleAction::Goto if surely && rule.target.is_some() => {
                    let target = rule.target.filter(|target| *target > rule.priority);
                    if rules.iter().any(|rule| Some(rule.priority) == target) {
                        skipped_to = target.unwrap_or(0);
                    }
                    continue;
                }
                RuleAction::Goto => {
                    answer.doubt.get_or_insert(rule);
                    continue;
                }
                RuleAction::Lookup | RuleAction::L3mdev => {
                    let of_vrf = vrf_of(host, question.input).filter(|_| rule.action == RuleAction::L3mdev);
                    let Some(table) = of_vrf.map_or(Some(rule.table), |vrf| vrf_table(host, vrf)) else {
                        answer.doubt.get_or_insert(rule);
                        continue;
                    };
                    if !answer.tables.contains(&table) {
                        answer.tables.push(table);
                    }
                    let legs = self.best(host, table, question, rule.suppress).unwrap_or_default();
                    match legs.first().copied() {
                        Some(route) if route.kind != RouteKind::Throw && surely => {
                            (answer.route, answer.legs) = (Some(route), legs);
                        }
                        Some(route) if route.kind != RouteKind::Throw => {
                            answer.doubt.get_or_insert(rule);
                            continue;
                        }
                        // Without a route there, the rule is as good as none.
                        _ => continue,
                    }
                }
                RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit | RuleAction::Other => {
                    if !surely {
                        answer.doubt.get_or_insert(rule);
                        continue;
                    }
                }
            }
            answer.rule = Some(rule);
            break;
        }
        answer
    }

    /// The best route of a table with all its next hops, unless it is as wide as a rule suppresses (`fib4_rule_suppress`). A route whose device is down
    /// does not count (`RTNH_F_DEAD`).
    fn best(
        &self,
        host: &HostState,
        table: u32,
        question: Question<'_>,
        suppress: Option<u32>,
    ) -> Option<Vec<&'a Route>> {
        let lengths = self.lengths.get(&(table, question.to.is_ipv6()))?;
        let usable = |route: &&&'a Route| {
            let up = route.device.is_none_or(|device| host.link(device).is_none_or(|link| link.up));
            up && question.output.is_none_or(|output| route.device.is_none_or(|device| device == output))
        };
        let legs: Vec<&'a Route> = lengths.iter().find_map(|length| {
            let network = masked(question.to, *length);
            let routes = || self.networks.get(&(table, *length, network)).into_iter().flatten().filter(usable).copied();
            let first = routes().next()?;
            let is_leg = |route: &&Route| route.metric == first.metric && route.kind == first.kind;
            Some(routes().filter(is_leg).collect())
        })?;
        let prefix = legs.first()?.destination.prefix;
        suppress.is_none_or(|suppress| u32::from(prefix) > suppress).then_some(legs)
    }
}

/// The network that an address lies in.
pub(crate) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
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

/// The VRF that a device belongs to.
fn vrf_of(host: &HostState, device: &str) -> Option<IfIndex> {
    let master = host.link_named(device).and_then(|link| host.link(link.master?));
    master.filter(|master| matches!(&master.kind, LinkKind::Other(kind) if kind == "vrf")).map(|vrf| vrf.index)
}

/// The table of a VRF: the kernel puts the networks of its devices there (`l3mdev_fib_table_rcu` in `fib_magic`, `addrconf`).
pub fn vrf_table(host: &HostState, vrf: IfIndex) -> Option<u32> {
    let inside = |device: IfIndex| host.link(device).is_some_and(|link| link.master == Some(vrf));
    let on_link = |route: &&Route| route.gateway.is_none() && !matches!(route.table, 0 | MAIN | LOCAL | DEFAULT);
    let mut routes = host.routes.iter().filter(on_link).filter(|route| route.device.is_some_and(inside));
    routes.next().map(|route| route.table)
}
