//! `netfilter-queue`: a rule hands packets to a queue of user space, and nobody listens there (`nf_queue`: the queue's
//! handler answers ESRCH, and without `bypass` the packet is dropped).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::event::host::{Chain, Rule};

/// A drop on the way to a queue.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.within(Site::UserQueue) {
        return None;
    }
    let chains = case.scene.host.netfilter.chains.iter();
    let rules = chains.flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
    let mut queues = rules.filter(|(_, rule)| queue_of(rule).is_some());
    let found = queues.next();
    let only = found.filter(|_| queues.next().is_none());
    let who = found.map_or_else(
        || "a rule that hands packets to user space".to_owned(),
        |(chain, rule)| format!("rule \"{}\" in {} {} {}", rule.text, chain.family, chain.table, chain.name),
    );
    let explanation = format!(
        "{} were to go to a queue of user space{}, where nobody listens, so the kernel drops them: {who}.",
        case.dropped_share(),
        found.and_then(|(_, rule)| queue_of(rule)).map(|number| format!(" (number {number})")).unwrap_or_default()
    );
    let device = drop.device().or(case.device())?;
    Some(
        Judgement::dropped(
            Cause::NetfilterQueue,
            at(case.scene, device, Point::NetfilterForward).of(drop),
            explanation,
        )
        .evidence(found.map(|(_, rule)| rule.text.clone()))
        .fix(Fix::advice(advice(only))),
    )
}

fn advice(only: Option<(&Chain, &Rule)>) -> String {
    let start = "Start the program that should listen (an intrusion prevention system, a filter of user space; /proc/net/netfilter/nfnetlink_queue lists who does)";
    let bypass = match only {
        Some((_, rule)) if rule.text.starts_with("-A ") => "add --queue-bypass to the rule",
        _ => "add \"bypass\" to the rule (nft: queue flags bypass; iptables: --queue-bypass)",
    };
    format!("{start}, or {bypass}: packets then pass while nobody listens, unchecked.")
}

/// The number of the queue that the rule names.
fn queue_of(rule: &Rule) -> Option<String> {
    let words: Vec<&str> = rule.text.split_whitespace().collect();
    let named = |word: &&str| matches!(*word, "NFQUEUE" | "queue");
    words.iter().any(named).then(|| {
        let after = words.iter().position(|word| matches!(*word, "--queue-num" | "num" | "to"));
        after.and_then(|at| words.get(at + 1)).map_or_else(|| "0".to_owned(), |number| (*number).to_owned())
    })
}
