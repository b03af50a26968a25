//! What nft's trace named is believed: over the text of rules, over counters, over the stack.

use crate::world::{BRIDGE, GUEST, LAN, TAP, World, echo};
use kvmtrace::diagnose::report::{Cause, FlowReport, Point};
use kvmtrace::event::Direction::Ingress;
use kvmtrace::event::host::{Backend, Chain, Rule};
use kvmtrace::event::{EventKind, RuleDrop, RuleSite};

pub(crate) const STACK: [&str; 3] = ["nft_do_chain_inet", "nf_hook_slow", "ip_forward"];

pub(crate) fn rule(handle: u64, number: u32, text: &str, verdict: &str) -> Rule {
    Rule { handle: Some(handle), number, text: text.to_owned(), packets: None, verdict: Some(verdict.to_owned()) }
}

pub(crate) fn chain(name: &str, hook: Option<&str>, policy: Option<&str>, rules: Vec<Rule>) -> Chain {
    Chain {
        backend: Backend::Nft,
        family: "inet".to_owned(),
        table: "fw".to_owned(),
        name: name.to_owned(),
        hook: hook.map(str::to_owned),
        kind: hook.map(|_| "filter".to_owned()),
        priority: hook.map(|_| 0),
        policy: policy.map(str::to_owned),
        policy_packets: None,
        device: None,
        rules,
    }
}

/// Two equal chains, one of which a map of verdicts chooses.
fn equal_chains() -> Vec<Chain> {
    vec![
        chain("one", None, None, vec![rule(5, 1, "meta l4proto icmp drop", "drop")]),
        chain("two", None, None, vec![rule(6, 1, "meta l4proto icmp drop", "drop")]),
        chain("c", Some("forward"), Some("accept"), vec![rule(9, 1, "ip daddr vmap @way", "vmap")]),
    ]
}

fn traced(base: &str, chain: &str, handle: Option<u64>, packets: u64) -> EventKind {
    let name = str::to_owned;
    let rule = RuleSite { family: name("inet"), table: name("fw"), base: name(base), chain: name(chain), handle };
    EventKind::RuleDrop(RuleDrop { flow: echo(GUEST, LAN), rule, packets })
}

/// A ping of the guest that died in `nft_do_chain` with this stack, and what the trace told.
pub(crate) fn told(chains: Vec<Chain>, stack: &[&str], trace: Vec<EventKind>) -> FlowReport {
    let mut world = World::new();
    world.host.netfilter.chains = chains;
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), 4, 84, stack);
    for event in trace {
        world.happened(event);
    }
    world.verdict(ping)
}

pub(crate) fn command(flow: &FlowReport) -> &str {
    flow.fixes.first().and_then(|fix| fix.command.as_deref()).unwrap_or_default()
}

#[test]
fn of_two_equal_chains_the_one_that_the_trace_named_is_opened() {
    let blind = told(equal_chains(), &STACK, Vec::new());
    assert_eq!(command(&blind), "", "the map of verdicts hides both chains: {blind:?}");
    let flow = told(equal_chains(), &STACK, vec![traced("c", "two", Some(6), 3)]);
    assert!(command(&flow).starts_with("nft 'insert rule inet fw two position 6 "), "{}", command(&flow));
    let deleted =
        flow.fixes.iter().find(|fix| fix.command.as_deref() == Some("nft 'delete rule inet fw two handle 6'"));
    let undo = deleted.and_then(|fix| fix.undo.as_deref());
    assert_eq!(undo, Some("nft 'add rule inet fw two meta l4proto icmp drop'"));
    let line = "nft's trace: 3 packets ended by rule \"meta l4proto icmp drop\" in nft inet fw two handle 6, reached from chain c";
    assert!(flow.evidence.iter().any(|evidence| evidence == line), "{:?}", flow.evidence);
    assert!(!flow.explanation.contains("or one of"), "{}", flow.explanation);
}

#[test]
fn a_verdict_that_a_map_holds_is_cured_by_a_rule_of_its_own_and_the_map_stays() {
    let flow = told(equal_chains(), &STACK, vec![traced("c", "c", Some(9), 1)]);
    assert!(command(&flow).starts_with("nft 'insert rule inet fw c position "), "{}", command(&flow));
    assert!(flow.evidence.iter().any(|line| line.contains("ip daddr vmap @way")), "{:?}", flow.evidence);
}

#[test]
fn a_policy_that_was_traced_is_opened_for_this_flow() {
    let chains = vec![
        chain("c", Some("forward"), Some("drop"), vec![rule(3, 1, "ip protocol icmp drop", "drop")]),
        chain("d", Some("forward"), Some("drop"), Vec::new()),
    ];
    let flow = told(chains, &STACK, vec![traced("d", "d", None, 2)]);
    assert!(flow.explanation.contains("the drop policy of nft inet fw d"), "{}", flow.explanation);
    assert!(command(&flow).starts_with("nft 'insert rule inet fw d "), "{}", command(&flow));
}

#[test]
fn the_trace_is_right_about_the_hook_where_the_stack_was_misread() {
    let chains = vec![chain("in", Some("input"), Some("accept"), vec![rule(3, 1, "drop", "drop")])];
    let flow = told(chains, &["a_function_of_tomorrow"], vec![traced("in", "in", Some(3), 1)]);
    assert_eq!(
        (flow.cause, flow.place.map(|place| place.point)),
        (Some(Cause::NetfilterInput), Some(Point::NetfilterInput))
    );
}

#[test]
fn the_rule_that_was_seen_most_often_comes_first() {
    let trace = vec![traced("c", "one", Some(5), 1), traced("c", "two", Some(6), 7)];
    let flow = told(equal_chains(), &STACK, trace);
    assert!(command(&flow).starts_with("nft 'insert rule inet fw two position 6 "), "{}", command(&flow));
    assert!(flow.explanation.contains("(and 1 more)"), "{}", flow.explanation);
}

#[test]
fn a_rule_that_is_in_no_list_is_named_by_its_handle_and_no_command_is_made_up() {
    let flow = told(equal_chains(), &STACK, vec![traced("c", "two", Some(77), 1)]);
    assert!(flow.explanation.contains("the rule with handle 77 in nft inet fw two"), "{}", flow.explanation);
    assert_eq!(flow.fixes.first().map(|fix| fix.command.is_none()), Some(true));
}

#[test]
fn where_no_handles_are_known_the_rule_is_sought_as_without_the_trace() {
    let mut only = chain("c", Some("forward"), Some("accept"), vec![rule(3, 1, "-A c -p icmp -j DROP", "drop")]);
    only.backend = Backend::IptablesNft;
    only.family = "ip".to_owned();
    for rule in &mut only.rules {
        rule.handle = None;
    }
    let name = str::to_owned;
    let site = RuleSite { family: name("ip"), table: name("fw"), base: name("c"), chain: name("c"), handle: Some(3) };
    let trace = EventKind::RuleDrop(RuleDrop { flow: echo(GUEST, LAN), rule: site, packets: 1 });
    let flow = told(vec![only], &STACK, vec![trace]);
    assert!(command(&flow).starts_with("iptables-nft -t fw -I c "), "{}", command(&flow));
}
