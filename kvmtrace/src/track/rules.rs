//! Which rule took packets from which flow, as nft's trace told it.
//!
//! It is kept beside the flows, by the key that the traced packet had: the message may come before the counters of its
//! flow, and an ICMP error's key is only half known (its headers are cut before what it is about).

use crate::event::{FlowKey, Protocol, RuleDrop, RuleSite, Timestamp};
use std::collections::BTreeMap;

/// Flows of which a rule is known at once.
const FLOWS: usize = 8_192;
/// Flows that make room when there are too many.
const EVICTED_AT_ONCE: usize = FLOWS / 8;
/// Rules per flow.
const RULES: usize = 8;

/// The rules by flow.
#[derive(Debug, Default)]
pub(super) struct Rules {
    flows: BTreeMap<FlowKey, Known>,
}

#[derive(Debug, Default)]
struct Known {
    rules: BTreeMap<RuleSite, u64>,
    last: Timestamp,
}

impl Rules {
    pub(super) fn apply(&mut self, drop: &RuleDrop, now: Timestamp) {
        if self.flows.len() >= FLOWS && !self.flows.contains_key(&drop.flow) {
            self.evict();
        }
        let known = self.flows.entry(drop.flow).or_default();
        known.last = known.last.max(now);
        if known.rules.len() < RULES || known.rules.contains_key(&drop.rule) {
            known.rules.insert(drop.rule.clone(), drop.packets);
        }
    }

    fn evict(&mut self) {
        let mut ranked: Vec<_> = self.flows.iter().map(|(key, known)| (known.last, *key)).collect();
        let cut = EVICTED_AT_ONCE.min(ranked.len().saturating_sub(1));
        ranked.select_nth_unstable(cut);
        for (_, key) in ranked.iter().take(EVICTED_AT_ONCE) {
            self.flows.remove(key);
        }
    }

    pub(super) fn forget(&mut self, before: Timestamp) {
        self.flows.retain(|_, known| known.last >= before);
    }

    /// The rules that took packets from a flow, the one that was seen most often first.
    pub(super) fn of(&self, key: &FlowKey) -> Vec<(&RuleSite, u64)> {
        let mut key = *key;
        if key.protocol.is_icmp_error()
            && let Protocol::Icmp { id, .. } | Protocol::Icmpv6 { id, .. } = &mut key.protocol
        {
            *id = 0;
        }
        // At the IP hooks the tag is gone from the packet or not, as bridge-nf-filter-vlan-tagged has it.
        let known = self.flows.get(&key).or_else(|| self.flows.get(&FlowKey { vlan: None, ..key }));
        let mut rules: Vec<_> =
            known.into_iter().flat_map(|known| &known.rules).map(|(rule, count)| (rule, *count)).collect();
        rules.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Address;

    fn key(number: u32, protocol: Protocol) -> FlowKey {
        let address = Address::Ip(std::net::IpAddr::from(number.to_be_bytes()));
        FlowKey {
            protocol,
            source: address,
            source_port: None,
            destination: address,
            destination_port: None,
            vlan: None,
        }
    }

    fn drop(flow: FlowKey, handle: u64, packets: u64) -> RuleDrop {
        let name = || "x".to_owned();
        let rule = RuleSite { family: name(), table: name(), base: name(), chain: name(), handle: Some(handle) };
        RuleDrop { flow, rule, packets }
    }

    #[test]
    fn the_rule_seen_most_often_comes_first_and_the_newest_count_stands() {
        let mut rules = Rules::default();
        let flow = key(1, Protocol::Udp);
        for (handle, packets) in [(1, 1), (2, 1), (2, 5), (3, 2)] {
            rules.apply(&drop(flow, handle, packets), Timestamp(1));
        }
        let told: Vec<_> = rules.of(&flow).into_iter().map(|(rule, packets)| (rule.handle, packets)).collect();
        assert_eq!(told, [(Some(2), 5), (Some(3), 2), (Some(1), 1)]);
        assert!(rules.of(&key(2, Protocol::Udp)).is_empty());
        assert_eq!(rules.of(&FlowKey { vlan: Some(7), ..flow }).len(), 3);
    }

    #[test]
    fn an_icmp_error_is_found_though_the_trace_does_not_know_what_it_is_about() {
        let mut rules = Rules::default();
        rules.apply(&drop(key(1, Protocol::Icmp { kind: 3, code: 4, id: 0 }), 9, 1), Timestamp(1));
        assert_eq!(rules.of(&key(1, Protocol::Icmp { kind: 3, code: 4, id: 0x1234 })).len(), 1);
        assert!(rules.of(&key(1, Protocol::Icmp { kind: 8, code: 0, id: 0x1234 })).is_empty());
    }

    #[test]
    fn a_flood_of_flows_and_rules_stays_bounded_and_the_newest_stay() {
        let mut rules = Rules::default();
        for number in 0..3 * FLOWS as u32 {
            rules.apply(&drop(key(number, Protocol::Udp), 1, 1), Timestamp(u64::from(number)));
            rules.apply(&drop(key(u32::MAX, Protocol::Udp), u64::from(number), 1), Timestamp(u64::MAX));
        }
        assert!(rules.flows.len() <= FLOWS);
        assert_eq!(rules.of(&key(u32::MAX, Protocol::Udp)).len(), RULES);
        assert_eq!(rules.of(&key(3 * FLOWS as u32 - 1, Protocol::Udp)).len(), 1);
        rules.forget(Timestamp(u64::MAX));
        assert_eq!(rules.flows.len(), 1);
    }
}
