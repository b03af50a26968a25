//! Rules without counters: what their text says decides which of them dropped, and whether one less would do.

use crate::rule_trace::{STACK, chain, command, rule, told};
use kvmtrace::diagnose::report::FlowReport;
use kvmtrace::event::host::Rule;

/// A ping of 10.0.0.11 that met these rules.
fn met(policy: &str, rules: &[(&str, &str)]) -> FlowReport {
    let rules: Vec<Rule> = rules
        .iter()
        .zip(1..)
        .map(|((text, verdict), number)| rule(u64::from(number) + 2, number, text, verdict))
        .collect();
    told(vec![chain("c", Some("forward"), Some(policy), rules)], &STACK, Vec::new())
}

const DELETE_LAST: &str = "nft 'delete rule inet fw c handle 5'";
const BESIDE: &str =
    "nft 'insert rule inet fw c ip saddr 10.0.0.11 ip daddr 10.0.0.100 meta l4proto icmp counter accept";

#[test]
fn rules_whose_sets_and_protocols_do_not_fit_are_no_suspects() {
    let flow = met(
        "accept",
        &[
            ("tcp dport { 22, 80-90 } drop", "drop"),
            ("ip saddr { 10.0.1.0/24, 10.0.0.12-10.0.0.99 } drop", "drop"),
            (
                "ip saddr { 10.0.1.1, 10.0.0.0/24 } ip protocol icmp counter packets 0 bytes 0 drop comment \"no tcp\"",
                "drop",
            ),
        ],
    );
    assert!(command(&flow).contains("insert rule inet fw c position 5 ip saddr 10.0.0.11 "), "{flow:?}");
    assert!(flow.fixes.iter().any(|fix| fix.command.as_deref() == Some(DELETE_LAST)), "{flow:?}");
}

#[test]
fn what_stands_behind_a_rule_that_matches_for_sure_is_no_suspect() {
    let flow = met(
        "accept",
        &[
            ("ct state invalid drop", "drop"),
            ("udp dport 53 accept", "accept"),
            ("ip daddr 10.0.0.100 drop", "drop"),
            ("meta mark 0x1 drop", "drop"),
        ],
    );
    assert!(command(&flow).contains("insert rule inet fw c position 5 ip saddr 10.0.0.11 "), "{flow:?}");
    assert!(flow.fixes.iter().any(|fix| fix.command.as_deref() == Some(DELETE_LAST)), "{flow:?}");
    assert!(!flow.explanation.contains("or "), "{}", flow.explanation);
}

#[test]
fn of_rules_that_cannot_be_told_apart_none_is_taken_away_first() {
    let flow = met("accept", &[("meta mark 0x1 drop", "drop"), ("meta mark 0x2 drop", "drop")]);
    assert!(command(&flow).replace(" position 3", "").starts_with(BESIDE), "{}", command(&flow));
    let others: Vec<_> = flow.fixes.iter().skip(1).filter_map(|fix| fix.command.as_deref()).collect();
    assert_eq!(others, ["nft 'delete rule inet fw c handle 3'", "nft 'delete rule inet fw c handle 4'"]);
}

#[test]
fn a_twin_or_a_policy_behind_the_rule_would_drop_in_its_stead() {
    for (policy, rules) in [
        ("accept", &[("ip protocol icmp drop", "drop"), ("ip protocol icmp drop", "drop")][..]),
        ("drop", &[("ip protocol icmp drop", "drop"), ("tcp dport 22 accept", "accept")]),
    ] {
        let flow = met(policy, rules);
        assert!(command(&flow).replace(" position 3", "").starts_with(BESIDE), "{}", command(&flow));
    }
    // Whether an unknown rule lets it through, nobody can say: the rule goes, as before.
    let flow = met("drop", &[("ip protocol icmp drop", "drop"), ("meta mark 0x1 accept", "accept")]);
    assert!(command(&flow).starts_with("nft 'insert rule inet fw c position 3 "), "{}", command(&flow));
}

#[test]
fn another_table_that_would_drop_too_is_opened_with_the_first() {
    let mut other = chain("d", Some("forward"), Some("accept"), vec![rule(9, 1, "ip saddr 10.0.0.11 drop", "drop")]);
    other.priority = Some(10);
    let first = chain("c", Some("forward"), Some("accept"), vec![rule(3, 1, "ip protocol icmp drop", "drop")]);
    // As nft lists them: in no order that means anything.
    let flow = told(vec![other, first], &STACK, Vec::new());
    assert!(
        command(&flow).replace(" position 3", "").starts_with(BESIDE)
            && command(&flow).contains(" && nft 'insert rule inet fw d "),
        "{}",
        command(&flow)
    );
    let undo = flow.fixes[0].undo.as_deref().unwrap_or_default();
    assert!(undo.contains("list chain inet fw c") && undo.contains("list chain inet fw d"), "{undo}");
}

#[test]
fn a_map_of_verdicts_that_may_drop_is_let_be_and_passed() {
    let flow = met("accept", &[("ip protocol vmap { icmp : drop, udp : accept }", "vmap accept|drop")]);
    assert!(command(&flow).replace(" position 3", "").starts_with(BESIDE), "{flow:?}");
    let flow = met("drop", &[("ct state vmap { established : accept, invalid : drop }", "vmap accept|drop")]);
    assert!(flow.explanation.contains("the drop policy"), "{}", flow.explanation);
    assert!(!flow.explanation.contains("or "), "{}", flow.explanation);
}
