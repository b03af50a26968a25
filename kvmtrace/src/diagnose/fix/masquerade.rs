//! A rule that translates a network's source addresses.

use super::manager::firewalld;
use crate::diagnose::facts::nat::nat_chains;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::{nft_chain, nft_delete, nft_device, quote};
use crate::event::host::{Backend, Link, Network};
use std::net::IpAddr;

/// By the tool that already translates here, else by a table of its own; for one destination, before all other rules.
pub fn masquerade(scene: &Scene<'_>, uplink: &Link, network: Network, to: Option<IpAddr>) -> Fix {
    let v6 = network.address.is_ipv6();
    let why = format!("Gives packets from {network} the address of {} on their way out.", uplink.name);
    let name = &uplink.name;
    let chain = nat_chains(scene, Some(network.address))
        .find(|chain| chain.kind.as_deref() == Some("nat") && chain.hook.is_some());
    let word = if v6 { "ip6" } else { "ip" };
    let fix = match chain {
        Some(chain) if chain.backend != Backend::Nft => {
            let program = match (v6, chain.backend == Backend::IptablesLegacy) {
                (false, true) => "iptables-legacy",
                (true, true) => "ip6tables-legacy",
                (false, false) => "iptables-nft",
                (true, false) => "ip6tables-nft",
            };
            let only = to.map(|to| format!(" -d {to}")).unwrap_or_default();
            let rule = |verb: &str| {
                format!("{program} -t nat {verb} POSTROUTING -s {network}{only} -o {} -j MASQUERADE", quote(name))
            };
            Fix::run(rule(if to.is_some() { "-I" } else { "-A" }), rule("-D"), why)
        }
        Some(chain) if chain.table == "firewalld" => firewalld::masquerade(scene, uplink, network, why),
        Some(chain) => match nft_chain(chain) {
            Some(place) => {
                let out = nft_device("oif", uplink);
                let only = to.map(|to| format!(" {word} daddr {to}")).unwrap_or_default();
                let comment = format!("kvmtrace: {network}{}", to.map(|to| format!(" to {to}")).unwrap_or_default());
                let verb = if to.is_some() { "insert" } else { "add" };
                let rule =
                    format!("{verb} rule {place} {word} saddr {network}{only} {out} masquerade comment \"{comment}\"");
                Fix::run(format!("nft {}", quote(&rule)), nft_delete(&place, &comment), why)
            }
            None => own_table(word, uplink, network, to, why),
        },
        None => own_table(word, uplink, network, to, why),
    };
    let fix = fix.risk("Established connections keep their old way until they are opened anew.");
    if fix.persist.is_some() {
        return fix;
    }
    fix.persist("Add the rule to /etc/nftables.conf or /etc/iptables/rules.v4; for a libvirt network set <forward mode='nat'/>.")
}

fn own_table(word: &str, uplink: &Link, network: Network, to: Option<IpAddr>, why: String) -> Fix {
    let out = nft_device("oif", uplink);
    let only = to.map(|to| format!(" {word} daddr {to}")).unwrap_or_default();
    let table = format!(
        "add table {word} kvmtrace_nat; add chain {word} kvmtrace_nat postrouting {{ type nat hook postrouting priority 100; }}; add rule {word} kvmtrace_nat postrouting {word} saddr {network}{only} {out} masquerade"
    );
    Fix::run(format!("nft {}", quote(&table)), format!("nft delete table {word} kvmtrace_nat"), why)
}
