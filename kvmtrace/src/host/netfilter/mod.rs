//! The firewall's rules, as the firewall's own tools tell them. Only asked for, never changed: `iptables-legacy-save`
//! makes tables by looking at them, and `nft` loads its kernel module, so each is run only where the kernel says that
//! there is something to see.

mod command;
pub(super) mod lister;
mod listing;
mod nft;
mod save;
mod sets;

use crate::event::host::{Backend, Chain, Netfilter, Rule, Set};
use crate::event::ruleset::Names;
use listing::{Listing, SaveTool, TableTool};
use save::Table;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// What could not be read: what, why.
type Missing = Vec<(String, String)>;

/// All rules of this network namespace.
pub(super) async fn read() -> (Netfilter, Missing) {
    let ((modern, mut sets, missing), (legacy, more)) = tokio::join!(modern(), legacy());
    let chains: Vec<Chain> = modern.into_iter().chain(legacy).collect();
    let mut missing: Missing = missing.into_iter().chain(more).collect();
    if chains.iter().flat_map(|chain| &chain.rules).any(|rule| rule.text.contains("--match-set ")) {
        match run(Listing::Sets).await {
            Ok(text) => sets.extend(sets::of_ipset(&text)),
            Err(why) => missing.push(("sets of the rules".to_owned(), why)),
        }
    }
    (Netfilter { chains, sets }, missing)
}

/// A listing, or why there is none: from the lister, once there is one.
async fn run(listing: Listing) -> Result<String, String> {
    match lister::started() {
        Some(lister) => lister.ask(listing).await,
        None => command::direct(&listing).await,
    }
}

/// Reads a tool's text, and the rules in it: for the fuzzer.
pub(super) fn fuzz(mouth: u8, text: &str) {
    let family = if text.len().is_multiple_of(2) { "ip" } else { "bridge" };
    let chains = |tables: Vec<Table>, backend: Backend| {
        tables.into_iter().flat_map(|table| table.into_chains(backend, family)).collect::<Vec<_>>()
    };
    let (chains, sets) = match mouth {
        0 => nft::parse(text, "").unwrap_or_default(),
        1 => nft::parse(r#"{"nftables": []}"#, text).unwrap_or_default(),
        2 => (chains(save::parse(text), Backend::IptablesNft), Vec::new()),
        3 => (chains(vec![save::parse_listing("filter", text)], Backend::IptablesLegacy), Vec::new()),
        _ => (Vec::new(), sets::of_ipset(text)),
    };
    let netfilter = Netfilter { chains, sets };
    let names = Names::new(&netfilter);
    for chain in &netfilter.chains {
        for rule in &chain.rules {
            std::hint::black_box(names.rule(chain, rule));
        }
    }
}

/// Whether an entry of `HostState::missing` is about rules.
pub(super) fn tells(what: &str) -> bool {
    what.contains("rules")
}

/// The `*-nft-save` tools and the families of their tables.
const MODERN_TOOLS: [(SaveTool, &str); 4] = [
    (SaveTool::IptablesNft, "ip"),
    (SaveTool::Ip6tablesNft, "ip6"),
    (SaveTool::EbtablesNft, "bridge"),
    (SaveTool::ArptablesNft, "arp"),
];

/// nftables, and what the iptables family keeps in it.
async fn modern() -> (Vec<Chain>, Vec<Set>, Missing) {
    if !nf_tables_is_present() {
        return (Vec::new(), Vec::new(), Missing::new());
    }
    let (json, text) = tokio::join!(run(Listing::NftJson), run(Listing::NftText));
    let mut missing = Missing::new();
    let ruleset = json.and_then(|json| nft::parse(&json, &text.unwrap_or_default()));
    let (mut chains, sets) = ruleset.unwrap_or_else(|why| {
        missing.push(("nftables rules".to_owned(), why));
        (Vec::new(), Vec::new())
    });
    let listed = missing.is_empty();
    for (tool, family) in MODERN_TOOLS {
        if listed && !chains.iter().any(|chain| chain.family == family && save::is_built_in(&chain.table, &chain.name))
        {
            continue;
        }
        match run(Listing::Saved(tool)).await {
            Ok(text) => adopt(&mut chains, family, save::parse(&text), listed),
            // Without nft the tool was a guess; with it, the chains are told as nft prints them.
            Err(why) if listed => missing.push((format!("rules of {family} as iptables writes them"), why)),
            Err(_) => {}
        }
    }
    (chains, sets, missing)
}

/// Hands chains over to the iptables tool that owns them. A chain is its own when it tells as many rules in it as nft
/// does; without nft's list (`listed`) the tool is the only witness. A chain of ebtables that is only jumped to has a policy,
/// which is its last rule in the kernel (`nft_bridge_chain_postprocess` in iptables).
fn adopt(chains: &mut Vec<Chain>, family: &str, tables: Vec<Table>, listed: bool) {
    for saved in tables.into_iter().flat_map(|table| table.into_chains(Backend::IptablesNft, family)) {
        let same =
            |chain: &&mut Chain| chain.family == family && chain.table == saved.table && chain.name == saved.name;
        match chains.iter_mut().find(same) {
            Some(chain)
                if chain
                    .rules
                    .len()
                    .checked_sub(saved.rules.len())
                    .is_some_and(|more| more == 0 || more == 1 && family == "bridge" && chain.hook.is_none()) =>
            {
                let policy = chain.rules.split_off(saved.rules.len());
                let handles: Vec<_> = chain.rules.iter().map(|rule| rule.handle).collect();
                chain.backend = Backend::IptablesNft;
                chain.policy_packets = saved.policy_packets;
                chain.rules = saved.rules;
                for (rule, handle) in chain.rules.iter_mut().zip(handles) {
                    rule.handle = handle;
                }
                chain.rules.extend(policy.into_iter().map(|rule| {
                    let verdict = rule.verdict.as_deref().unwrap_or_default().to_uppercase();
                    Rule { text: format!("-P {} {verdict}", chain.name), ..rule }
                }));
            }
            Some(_) => {}
            // The tool also tells the policies of tables that are not there.
            None if listed || (saved.rules.is_empty() && saved.policy.as_deref() != Some("drop")) => {}
            None => chains.push(saved),
        }
    }
}

/// The legacy tools with a `-save` that works, the plain name that they have where there is but one back end, the families of
/// their tables, and where the kernel names those that exist.
const LEGACY_TOOLS: [(SaveTool, SaveTool, &str, &str); 2] = [
    (SaveTool::IptablesLegacy, SaveTool::Iptables, "ip", "ip_tables_names"),
    (SaveTool::Ip6tablesLegacy, SaveTool::Ip6tables, "ip6", "ip6_tables_names"),
];

async fn legacy() -> (Vec<Chain>, Missing) {
    let mut chains = Vec::new();
    let mut missing = Missing::new();
    for (tool, plain, family, names) in LEGACY_TOOLS {
        let names = tables_named_in(names);
        if names.is_empty() {
            continue;
        }
        let text = match run(Listing::Saved(tool)).await {
            Err(why) if command::is_absent(tool.name()) => {
                let plain = run(Listing::Saved(plain)).await;
                plain.ok().filter(|text| !text.contains("nf_tables")).ok_or(why)
            }
            text => text,
        };
        match text {
            Ok(text) => chains.extend(legacy_chains(&text, family)),
            Err(why) => missing.push((format!("legacy rules of {family} ({})", names.join(", ")), why)),
        }
    }
    // The kernel names no tables of ebtables; their modules have to do.
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let bridge: Vec<String> = ["filter", "nat", "broute"]
        .into_iter()
        .filter(|table| modules.contains(&format!("ebtable_{table} ")))
        .map(str::to_owned)
        .collect();
    let arp = tables_named_in("arp_tables_names");
    let listings = [(TableTool::Ebtables, "bridge", bridge), (TableTool::Arptables, "arp", arp)];
    for (tool, family, tables) in listings {
        for table in tables {
            match run(Listing::Table(tool, table.clone())).await {
                Ok(text) => {
                    let listed = save::parse_listing(&table, &text).into_chains(Backend::IptablesLegacy, family);
                    // A module makes its table wherever it is looked at: an untouched one is nobody's.
                    if listed.iter().any(|chain| !chain.rules.is_empty() || chain.policy.as_deref() == Some("drop")) {
                        chains.extend(listed);
                    }
                }
                Err(why) => missing.push((format!("legacy rules of {family} ({table})"), why)),
            }
        }
    }
    (chains, missing)
}

/// The tables that exist in this network namespace.
fn tables_named_in(file: &str) -> Vec<String> {
    let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

fn legacy_chains(text: &str, family: &str) -> Vec<Chain> {
    save::parse(text).into_iter().flat_map(|table| table.into_chains(Backend::IptablesLegacy, family)).collect()
}

/// `nft` would load the kernel's side of itself, and where that is not loaded there are no rules of it.
pub fn nf_tables_is_present() -> bool {
    static PRESENT: AtomicBool = AtomicBool::new(false);
    // Reading all symbols takes a while; once is enough, for it stays.
    if !PRESENT.load(Ordering::Relaxed) {
        let module = fs::read_to_string("/proc/modules").is_ok_and(|modules| modules.contains("nf_tables "));
        let built_in = || fs::read_to_string("/proc/kallsyms").is_ok_and(|symbols| symbols.contains(" nft_do_chain"));
        PRESENT.store(module || built_in(), Ordering::Relaxed);
    }
    PRESENT.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_iptables_nft_gets_the_text_of_its_tool_and_keeps_the_handles_of_nft() {
        let json = r#"{"nftables": [
            {"table": {"family": "ip", "name": "filter", "handle": 5}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "mine", "handle": 9}},
            {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 4, "expr": [{"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 7, "bytes": 70}}, {"drop": null}]}},
            {"rule": {"family": "ip", "table": "filter", "chain": "mine", "handle": 6, "expr": [{"drop": null}]}}]}"#;
        let mut chains = nft::parse(json, "").unwrap().0;
        let saved = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [3:30]\n[7:70] -A FORWARD -i vnet0 -m comment --comment \"a b\" -j DROP\nCOMMIT\n";
        adopt(&mut chains, "ip", save::parse(saved), true);
        assert_eq!(chains.len(), 2, "INPUT is not there: {chains:?}");
        let forward = &chains[0];
        assert_eq!(forward.backend, Backend::IptablesNft);
        assert_eq!((forward.policy.as_deref(), forward.policy_packets), (Some("drop"), Some(3)));
        let rule = &forward.rules[0];
        assert_eq!(rule.text, "-A FORWARD -i vnet0 -m comment --comment \"a b\" -j DROP");
        assert_eq!((rule.handle, rule.packets, rule.verdict.as_deref()), (Some(4), Some(7), Some("drop")));
        assert_eq!(chains[1].backend, Backend::Nft);
    }

    #[test]
    fn a_chain_of_ebtables_has_its_policy_for_its_last_rule() {
        let json = r#"{"nftables": [
            {"chain": {"family": "bridge", "table": "nat", "name": "PREROUTING", "handle": 1, "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}},
            {"chain": {"family": "bridge", "table": "nat", "name": "libvirt-I-vnet0", "handle": 2}},
            {"rule": {"family": "bridge", "table": "nat", "chain": "PREROUTING", "handle": 3, "expr": [{"jump": {"target": "libvirt-I-vnet0"}}]}},
            {"rule": {"family": "bridge", "table": "nat", "chain": "libvirt-I-vnet0", "handle": 4, "expr": [{"counter": {"packets": 3, "bytes": 9}}, {"drop": null}]}},
            {"rule": {"family": "bridge", "table": "nat", "chain": "libvirt-I-vnet0", "handle": 5, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}}]}"#;
        let mut chains = nft::parse(json, "").unwrap().0;
        let saved = "*nat\n:PREROUTING ACCEPT\n:libvirt-I-vnet0 ACCEPT\n[3:9] -A PREROUTING -i vnet0 -j libvirt-I-vnet0\n[3:9] -A libvirt-I-vnet0 -j DROP\n";
        adopt(&mut chains, "bridge", save::parse(saved), true);
        let rules: Vec<_> = chains[1].rules.iter().map(|rule| (rule.handle, rule.text.as_str())).collect();
        assert_eq!(rules, [(Some(4), "-A libvirt-I-vnet0 -j DROP"), (Some(5), "-P libvirt-I-vnet0 ACCEPT")]);
        assert!(chains.iter().all(|chain| chain.backend == Backend::IptablesNft), "{chains:?}");
    }

    #[test]
    fn without_nft_the_save_tools_tell_what_is_not_at_its_default() {
        let mut chains = Vec::new();
        adopt(&mut chains, "ip", save::parse("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n"), false);
        assert_eq!(chains.iter().map(|chain| chain.name.as_str()).collect::<Vec<_>>(), ["FORWARD"]);
    }
}
