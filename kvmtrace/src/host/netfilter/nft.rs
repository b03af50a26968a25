//! What `nft list ruleset` prints: its JSON for what rules mean, its text for how people write them.

use super::sets;
use crate::event::host::{Backend, Chain, Rule, Set};
use serde_json::Value;
use std::collections::HashMap;

/// Characters kept of a rule's text: sets can be endless.
const MOST_CHARACTERS: usize = 2000;
/// Different answers kept of a map of verdicts.
const MOST_ANSWERS: usize = 64;

/// The chains with their rules, and the named sets. `text` is `nft -a`'s; without it rules are told in JSON.
pub(super) fn parse(json: &str, text: &str) -> Result<(Vec<Chain>, Vec<Set>), String> {
    let ruleset: Value = serde_json::from_str(json).map_err(|error| format!("nft: {error}"))?;
    let text = Text::parse(text);
    let items = ruleset.get("nftables").and_then(Value::as_array).ok_or("nft: no ruleset")?;
    let mut chains: Vec<Chain> = items.iter().filter_map(|item| chain(item.get("chain")?, &text)).collect();
    let places: HashMap<_, _> =
        chains.iter().enumerate().map(|(i, chain)| (key(&chain.family, &chain.table, &chain.name), i)).collect();
    let maps: HashMap<Key, String> = items.iter().filter_map(|item| map(item.get("map")?)).collect();
    for item in items {
        let Some((place, rule)) = item.get("rule").and_then(|item| rule(item, &text, &maps)) else { continue };
        if let Some(chain) = places.get(&place).and_then(|&i| chains.get_mut(i)) {
            let number = u32::try_from(chain.rules.len() + 1).unwrap_or(u32::MAX);
            chain.rules.push(Rule { number, ..rule });
        }
    }
    Ok((chains, sets::of_nft(items)))
}

type Key = (String, String, String);

fn key(family: &str, table: &str, chain: &str) -> Key {
    (family.to_owned(), table.to_owned(), chain.to_owned())
}

fn string(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

fn chain(item: &Value, text: &Text) -> Option<Chain> {
    let (family, table, name) = (string(item, "family")?, string(item, "table")?, string(item, "name")?);
    // nft 1.0.6 leaves the device out of its JSON.
    let device = match item.get("dev") {
        Some(Value::String(device)) => Some(device.clone()),
        Some(Value::Array(devices)) => Some(devices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        _ => text.devices.get(&key(&family, &table, &name)).cloned(),
    };
    Some(Chain {
        backend: Backend::Nft,
        hook: string(item, "hook"),
        kind: string(item, "type"),
        priority: item.get("prio").and_then(Value::as_i64).and_then(|priority| priority.try_into().ok()),
        policy: string(item, "policy"),
        policy_packets: None,
        device,
        rules: Vec::new(),
        family,
        table,
        name,
    })
}

/// A map whose answers are verdicts, with these.
fn map(item: &Value) -> Option<(Key, String)> {
    let place = key(&string(item, "family")?, &string(item, "table")?, &string(item, "name")?);
    (string(item, "map")? == "verdict").then(|| (place, answers(item.get("elem").unwrap_or(&Value::Null))))
}

/// The different verdicts of a map's elements, with bars between.
fn answers(elements: &Value) -> String {
    let elements = elements.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut answers: Vec<String> = elements.iter().filter_map(|element| verdict(element.get(1)?)).collect();
    answers.sort();
    answers.dedup();
    answers.truncate(MOST_ANSWERS);
    answers.join("|")
}

/// What a map of verdicts may answer: `vmap accept|drop|jump mine`.
fn told_by_map(value: &Value, family: &str, table: &str, maps: &HashMap<Key, String>) -> Option<String> {
    let data = value.get("data")?;
    let answers = match data.as_str() {
        Some(name) => maps.get(&key(family, table, name.strip_prefix('@')?))?.clone(),
        None => answers(data.get("set")?),
    };
    Some(format!("vmap {answers}"))
}

fn rule(item: &Value, text: &Text, maps: &HashMap<Key, String>) -> Option<(Key, Rule)> {
    let (family, table, chain) = (string(item, "family")?, string(item, "table")?, string(item, "chain")?);
    let handle = item.get("handle").and_then(Value::as_u64);
    let expressions = item.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let packets = expressions.iter().find_map(|expression| expression.get("counter")?.get("packets")?.as_u64());
    let told = handle.and_then(|handle| text.rules.get(&(family.clone(), table.clone(), handle)).cloned());
    let told = told.unwrap_or_else(|| Value::from(expressions).to_string());
    let by_map = expressions
        .iter()
        .find_map(|expression| expression.get("vmap"))
        .and_then(|value| told_by_map(value, &family, &table, maps));
    let rule = Rule {
        handle,
        number: 0,
        text: told.chars().take(MOST_CHARACTERS).collect(),
        packets,
        verdict: by_map.or_else(|| expressions.iter().rev().find_map(verdict)),
    };
    Some((key(&family, &table, &chain), rule))
}

/// What an expression does with the packet, if it decides anything.
fn verdict(expression: &Value) -> Option<String> {
    let (name, value) = expression.as_object()?.iter().next()?;
    match name.as_str() {
        "accept" | "drop" | "return" | "reject" | "queue" | "masquerade" | "snat" | "dnat" | "redirect" | "vmap" => {
            Some(name.clone())
        }
        "jump" | "goto" => Some(format!("{name} {}", value.get("target")?.as_str()?)),
        // A target of iptables, which its own tool would tell better.
        "xt" => match value.get("name")?.as_str()? {
            target @ ("REJECT" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT") => Some(target.to_ascii_lowercase()),
            _ => None,
        },
        _ => None,
    }
}

/// What is taken from the text form.
#[derive(Default)]
struct Text {
    /// By family, table and handle, which is unique in a table.
    rules: HashMap<(String, String, u64), String>,
    devices: HashMap<Key, String>,
}

impl Text {
    /// Tables stand at the margin, chains behind one tab, rules behind two; long sets go over several lines.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let (mut table, mut chain, mut pending) = (None, None, String::new());
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match (line.starts_with('\t'), words.as_slice()) {
                (false, ["table", family, name, ..]) => table = Some(((*family).to_owned(), (*name).to_owned())),
                // An empty line stands between two chains.
                (false, []) => {}
                (false, _) => (table, chain) = (None, None),
                (true, [kind, name, ..]) if !line.starts_with("\t\t") => {
                    chain = (*kind == "chain").then(|| (*name).to_owned());
                    pending.clear();
                }
                (true, ["}"]) if !line.starts_with("\t\t") => chain = None,
                (true, words) => {
                    let (Some((family, table)), Some(chain)) = (&table, &chain) else { continue };
                    if let ["type", _, "hook", ..] = words {
                        if let Some(device) = device(line) {
                            found.devices.insert(key(family, table, chain), device);
                        }
                        continue;
                    }
                    if !pending.is_empty() {
                        pending.push(' ');
                    }
                    pending.push_str(line.trim());
                    if let Some((rule, handle)) = pending.rsplit_once(" # handle ")
                        && let Ok(handle) = handle.parse()
                    {
                        found.rules.insert((family.clone(), table.clone(), handle), rule.to_owned());
                        pending.clear();
                    }
                }
            }
        }
        found
    }
}

/// `type filter hook ingress device "vnet0" priority filter;` or `devices = { "a", "b" }`.
fn device(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" device")?;
    let rest = rest.split(" priority").next()?;
    let quoted: Vec<_> = rest.split('"').skip(1).step_by(2).collect();
    if quoted.is_empty() { rest.split_whitespace().next().map(str::to_owned) } else { Some(quoted.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const JSON: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {"chain": {"family": "inet", "table": "filter", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": -5, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "helper", "handle": 2}},
        {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 3, "comment": "x", "expr": [{"counter": {"packets": 4, "bytes": 0}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 5, "expr": [{"counter": "named"}, {"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 6, "expr": [{"jump": {"target": "helper"}}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "helper", "handle": 7, "expr": [{"match": {}}, {"reject": {"type": "tcp reset"}}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "helper", "handle": 8, "expr": [{"mangle": {}}]}},
        {"chain": {"family": "netdev", "table": "nd", "name": "in", "handle": 1, "type": "filter", "hook": "ingress", "prio": 0, "policy": "accept"}}]}"#;

    const TEXT: &str = "table inet filter { # handle 1\n\tset s { # handle 4\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1,\n\t\t\t     10.0.0.3 }\n\t}\n\n\tchain forward { # handle 1\n\t\ttype filter hook forward priority -5; policy drop;\n\t\tct state established counter packets 4 bytes 0 accept comment \"it is { ok } # handle 99\" # handle 3\n\t\tip saddr { 10.0.0.1,\n\t\t\t   10.0.0.2 } drop # handle 5\n\t\tjump helper # handle 6\n\t}\n\n\tchain helper { # handle 2\n\t\ttcp dport 22 reject with tcp reset # handle 7\n\t}\n}\ntable netdev nd { # handle 3\n\tchain in { # handle 1\n\t\ttype filter hook ingress device \"vnet0\" priority filter; policy accept;\n\t}\n}\n";

    #[test]
    fn rules_have_meaning_from_json_and_words_from_the_text() {
        let chains = parse(JSON, TEXT).unwrap().0;
        let forward = &chains[0];
        assert_eq!(
            (forward.priority, forward.policy.as_deref(), forward.hook.as_deref()),
            (Some(-5), Some("drop"), Some("forward"))
        );
        let rules: Vec<_> = forward
            .rules
            .iter()
            .map(|rule| (rule.number, rule.handle.unwrap(), rule.packets, rule.verdict.as_deref()))
            .collect();
        assert_eq!(
            rules,
            [(1, 3, Some(4), Some("accept")), (2, 5, None, Some("drop")), (3, 6, None, Some("jump helper"))]
        );
        assert_eq!(
            forward.rules[0].text,
            "ct state established counter packets 4 bytes 0 accept comment \"it is { ok } # handle 99\""
        );
        assert_eq!(forward.rules[1].text, "ip saddr { 10.0.0.1, 10.0.0.2 } drop");
        let helper: Vec<_> = chains[1].rules.iter().map(|rule| rule.verdict.as_deref()).collect();
        assert_eq!(helper, [Some("reject"), None]);
        assert_eq!(chains[2].device.as_deref(), Some("vnet0"));
    }

    #[test]
    fn a_map_of_verdicts_is_told_with_its_answers() {
        let json = r#"{"nftables": [
            {"map": {"family": "ip", "name": "way", "table": "t", "type": "ipv4_addr", "handle": 2, "map": "verdict", "elem": [["10.0.0.1", {"drop": null}], [{"elem": {"val": "10.0.0.2", "timeout": 9}}, {"jump": {"target": "one"}}], ["10.0.0.3", {"drop": null}]]}},
            {"map": {"family": "ip", "name": "to", "table": "t", "type": "ipv4_addr", "handle": 3, "map": "ipv4_addr"}},
            {"chain": {"family": "ip", "table": "t", "name": "f", "handle": 1}},
            {"rule": {"family": "ip", "table": "t", "chain": "f", "handle": 4, "expr": [{"vmap": {"key": {}, "data": "@way"}}]}},
            {"rule": {"family": "ip", "table": "t", "chain": "f", "handle": 5, "expr": [{"vmap": {"key": {}, "data": {"set": [[53, {"accept": null}], [54, {"drop": null}]]}}}]}},
            {"rule": {"family": "ip", "table": "t", "chain": "f", "handle": 6, "expr": [{"vmap": {"key": {}, "data": "@gone"}}]}}]}"#;
        let chains = parse(json, "").unwrap().0;
        let verdicts: Vec<_> = chains[0].rules.iter().filter_map(|rule| rule.verdict.as_deref()).collect();
        assert_eq!(verdicts, ["vmap drop|jump one", "vmap accept|drop", "vmap"]);
    }

    #[test]
    fn without_the_text_a_rule_is_told_in_json() {
        let chains = parse(JSON, "").unwrap().0;
        assert_eq!(chains[0].rules[2].text, r#"[{"jump":{"target":"helper"}}]"#);
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case("[1,2]")]
    #[case("{\"nftables\": 1}")]
    fn what_is_no_ruleset_is_refused(#[case] json: &str) {
        assert!(parse(json, "").is_err());
    }

    #[rstest]
    #[case("\t\ttype filter hook ingress device vnet0 priority 0;", Some("vnet0"))]
    #[case("\t\ttype filter hook ingress devices = { \"a\", \"b\" } priority 0;", Some("a,b"))]
    #[case("\t\ttype filter hook forward priority 0;", None)]
    fn devices_of_netdev_chains(#[case] line: &str, #[case] expected: Option<&str>) {
        assert_eq!(device(line).as_deref(), expected);
    }
}
