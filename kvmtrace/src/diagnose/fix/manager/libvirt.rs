//! The rules of libvirt's networks: for each bridge what may go in, what may go out, and what may cross (libvirt's
//! `src/network/network_iptables.c` and `network_nftables.c`).

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::accept::accept_ways;
use crate::diagnose::fix::conversation::Conversation;
use crate::diagnose::report::Fix;
use crate::event::host::{Chain, Rule};

/// A network without `<forward>` is for its guests and this host alone. Else one conversation; libvirt lets answers through by
/// itself.
pub(super) fn fix(scene: &Scene<'_>, chain: &Chain, wanted: &Conversation, rule: Option<&Rule>) -> Fix {
    if let Some(bridge) = rule.and_then(|rule| isolated(scene, chain, rule)) {
        return Fix::advice(format!(
            "libvirt's network on {bridge} is isolated: its guests reach each other and this host, and nothing is to be mended where that is meant. Else give it a way out: virsh net-list; virsh net-edit NAME, add <forward mode='nat'/>; virsh net-destroy NAME && virsh net-start NAME, and start its guests anew, which lose the network by that."
        ));
    }
    let fix = accept_ways(scene, chain, &[*wanted], None);
    let why = format!("{} libvirt lets nobody outside open connections to guests of a NAT network.", fix.why);
    Fix { why, ..fix }.persist(
        "libvirt makes its chains anew when the network starts: run the command from /etc/libvirt/hooks/network, or set <forward mode='open'/> (no rules by libvirt) in the network's XML.",
    )
}

/// The bridge that the rule is about, where libvirt's chains let nothing in to it and nothing out.
fn isolated<'a>(scene: &Scene<'_>, chain: &Chain, rule: &'a Rule) -> Option<&'a str> {
    let mut pairs = words(rule).zip(words(rule).skip(1));
    let (_, bridge) = pairs.find(|(test, _)| matches!(*test, "iifname" | "oifname" | "-i" | "-o"))?;
    let mut chains = scene.host.netfilter.chains.iter();
    let opens = chains.any(|other| {
        let way = ["LIBVIRT_FWI", "LIBVIRT_FWO", "guest_input", "guest_output"].contains(&other.name.as_str());
        let accepts = |rule: &Rule| rule.verdict.as_deref() == Some("accept") && words(rule).any(|word| word == bridge);
        way && (other.backend, &other.family, &other.table) == (chain.backend, &chain.family, &chain.table)
            && other.rules.iter().any(accepts)
    });
    (!opens).then_some(bridge)
}

fn words(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.text.split_whitespace().map(|word| word.trim_matches('"'))
}
