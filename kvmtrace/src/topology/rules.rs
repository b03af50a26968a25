//! The firewall's rules, read from their text once for a host's state, and found by hook.

use crate::event::HostState;
use crate::event::host::{Backend, Chain as ListedChain};
use crate::event::ruleset::{Hook, Layer, Names, Rule, Statement};
use std::collections::BTreeMap;

/// The rules of one host, typed.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    chains: Vec<Chain>,
    hooks: BTreeMap<(Layer, Hook), Vec<usize>>,
    /// Some rule sets the connection's mark.
    sets_connection_mark: bool,
    /// Some rule sets a packet's mark.
    sets_mark: bool,
}

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its rules in order.
    pub rules: Vec<Rule>,
    /// What makes it a base chain; none for one that is only jumped to.
    pub base: Option<Base>,
}

/// A chain that the kernel calls.
#[derive(Clone, Debug)]
pub struct Base {
    /// Where it stands among the chains of its hook, and of two nat chains the one before the other.
    pub priority: (i32, i32),
    /// Its policy is to drop.
    pub drops: bool,
    /// It translates addresses: only the first packet of a connection comes by.
    pub nat: bool,
    /// Its drop hands the frame to IP (ebtables' table `broute`).
    pub routes: bool,
    /// Only packets of these devices; none for all.
    pub devices: Option<Vec<String>>,
}

impl Rules {
    /// Reads all rules of a host.
    pub fn new(host: &HostState) -> Self {
        let names = Names::new(&host.netfilter);
        let chains: Vec<Chain> = host
            .netfilter
            .chains
            .iter()
            .map(|chain| Chain {
                rules: chain.rules.iter().map(|rule| names.rule(chain, rule)).collect(),
                base: base(chain),
            })
            .collect();
        let mut hooks: BTreeMap<(Layer, Hook), Vec<usize>> = BTreeMap::new();
        for (index, chain) in host.netfilter.chains.iter().enumerate() {
            let Some(hook) = chain.hook.as_deref().and_then(Hook::named) else { continue };
            for layer in layers(&chain.family, hook) {
                hooks.entry((*layer, hook)).or_default().push(index);
            }
        }
        for order in hooks.values_mut() {
            // Of equal priorities the chain that was registered last comes first (`nf_hook_entries_grow`).
            order.reverse();
            order.sort_by_key(|index| {
                chains.get(*index).and_then(|chain| chain.base.as_ref()).map(|base| base.priority)
            });
        }
        let any = |wanted: fn(&Statement) -> bool| {
            chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements).any(wanted)
        };
        let sets_connection_mark = any(|statement| matches!(statement, Statement::ConnectionMark(_)));
        let sets_mark = any(|statement| matches!(statement, Statement::Mark(_) | Statement::Unknown(_)));
        Self { chains, hooks, sets_connection_mark, sets_mark }
    }

    /// The base chains of a hook, in the order in which packets meet them.
    pub fn at(&self, layer: Layer, hook: Hook) -> &[usize] {
        self.hooks.get(&(layer, hook)).map(Vec::as_slice).unwrap_or_default()
    }

    /// A chain, by its index among the host's chains.
    pub fn chain(&self, index: usize) -> Option<&Chain> {
        self.chains.get(index)
    }

    /// No rule sets a packet's mark: it is 0.
    pub fn marks_nothing(&self) -> bool {
        !self.sets_mark
    }

    /// No rule sets a connection's mark: it is 0.
    pub fn connection_mark_is_zero(&self) -> bool {
        !self.sets_connection_mark
    }
}

/// The families of hooks that a chain of this family stands in.
fn layers(family: &str, hook: Hook) -> &'static [Layer] {
    match (family, hook) {
        ("inet", Hook::Ingress | Hook::Egress) | ("netdev", _) => &[Layer::Device],
        ("inet", _) => &[Layer::Ipv4, Layer::Ipv6],
        ("ip", _) => &[Layer::Ipv4],
        ("ip6", _) => &[Layer::Ipv6],
        ("bridge", _) => &[Layer::Bridge],
        ("arp", _) => &[Layer::Arp],
        _ => &[],
    }
}

/// NAT asks its chains at one place of each hook, in the order of their priorities (`nf_nat_inet_fn`; `nf_nat_ipv4_ops`:
/// `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`). The chains' own priorities only order them among each other.
pub fn nat_priority(hook: Hook) -> i32 {
    if matches!(hook, Hook::Prerouting | Hook::Output) { -100 } else { 100 }
}

fn base(chain: &ListedChain) -> Option<Base> {
    let hook = Hook::named(chain.hook.as_deref()?)?;
    let nat = chain.kind.as_deref() == Some("nat") && matches!(chain.family.as_str(), "ip" | "ip6" | "inet");
    let own = chain.priority.unwrap_or(0);
    Some(Base {
        priority: (if nat { nat_priority(hook) } else { own }, own),
        drops: chain.policy.as_deref() == Some("drop"),
        nat,
        routes: chain.backend != Backend::Nft && chain.family == "bridge" && chain.table == "broute",
        devices: chain.device.as_ref().map(|devices| devices.split(',').map(str::to_owned).collect()),
    })
}
