//! The named sets that rules refer to: nft's own, and those of ipset.

use crate::event::host::Set;
use serde_json::Value;
use std::collections::HashMap;

/// Elements kept of one set, and of all: a list of what is blocked can be endless.
const MOST_OF_ONE: usize = 4096;
const MOST_OF_ALL: usize = 32_768;

/// The sets and maps among what `nft -j list ruleset` lists.
pub(super) fn of_nft(items: &[Value]) -> Vec<Set> {
    let set = |item: &Value| {
        let is_map = item.get("map").is_some();
        let item = item.get("set").or_else(|| item.get("map"))?;
        let string = |name: &str| item.get(name)?.as_str().map(str::to_owned);
        let elements = item.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let known = elements.iter().take(MOST_OF_ONE).filter_map(|entry| {
            if is_map {
                Some((element(entry.get(0)?)?, answer(entry.get(1)?)?))
            } else {
                Some((element(entry)?, String::new()))
            }
        });
        let (known, answers): (Vec<_>, Vec<_>) = known.unzip();
        Some(Set {
            family: string("family")?,
            table: Some(string("table")?),
            name: string("name")?,
            complete: known.len() == elements.len(),
            elements: known,
            kind: item.get("type").and_then(kind),
            answers: if is_map { answers } else { Vec::new() },
        })
    };
    bounded(items.iter().filter_map(set).collect())
}

/// `ipv4_addr`, or of a concatenation `ipv4_addr . inet_service`.
fn kind(value: &Value) -> Option<String> {
    match value {
        Value::String(kind) => Some(kind.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" . ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// What a map answers, as nft writes it: a verdict or a value.
fn answer(value: &Value) -> Option<String> {
    let verdict = value.as_object().and_then(|parts| parts.iter().next()).map(|(name, of)| (name.as_str(), of));
    match verdict {
        Some((verdict @ ("jump" | "goto"), of)) => Some(format!("{verdict} {}", of.get("target")?.as_str()?)),
        Some((verdict @ ("accept" | "drop" | "return" | "continue"), _)) => Some(verdict.to_owned()),
        _ => element(value),
    }
}

/// An element as nft writes it; none where it is of a kind that no packet is looked up by here.
fn element(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(parts) => match parts.iter().next()? {
            (kind, of) if kind == "elem" => element(of.get("val")?),
            (kind, of) if kind == "prefix" => {
                Some(format!("{}/{}", element(of.get("addr")?)?, of.get("len")?.as_u64()?))
            }
            (kind, of) if kind == "range" => {
                let ends: Option<Vec<_>> = of.as_array()?.iter().map(element).collect();
                Some(ends?.join("-"))
            }
            (kind, of) if kind == "concat" => {
                let parts: Option<Vec<_>> = of.as_array()?.iter().map(element).collect();
                Some(parts?.join(" . "))
            }
            _ => None,
        },
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}

/// The sets in what `ipset save` prints: `create NAME TYPE family inet …`, `add NAME ELEMENT timeout …`.
pub(super) fn of_ipset(text: &str) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["create", name, kind, rest @ ..] => {
                let six = rest.windows(2).any(|pair| pair == ["family", "inet6"]);
                places.insert(*name, sets.len());
                sets.push(Set {
                    family: if six { "ip6" } else { "ip" }.to_owned(),
                    table: None,
                    name: (*name).to_owned(),
                    elements: Vec::new(),
                    complete: true,
                    kind: Some((*kind).to_owned()),
                    answers: Vec::new(),
                });
            }
            ["add", name, element, rest @ ..] => {
                let Some(set) = places.get(name).and_then(|place| sets.get_mut(*place)) else { continue };
                // `nomatch` takes an exception out of a network.
                if set.elements.len() < MOST_OF_ONE && !rest.contains(&"nomatch") {
                    set.elements.push((*element).to_owned());
                } else {
                    set.complete = false;
                }
            }
            _ => {}
        }
    }
    bounded(sets)
}

/// No more elements than are kept of all.
fn bounded(mut sets: Vec<Set>) -> Vec<Set> {
    let mut room = MOST_OF_ALL;
    for set in &mut sets {
        set.complete &= set.elements.len() <= room;
        set.elements.truncate(room);
        set.answers.truncate(room);
        room -= set.elements.len();
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_of_nfts_sets_are_told_as_nft_takes_them() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"table": {"family": "ip", "name": "fw", "handle": 1}},
            {"set": {"family": "ip", "name": "closed", "table": "fw", "type": "ipv4_addr", "handle": 2, "flags": ["interval"],
             "elem": ["10.0.0.1", {"prefix": {"addr": "10.1.0.0", "len": 16}}, {"range": ["10.2.0.1", "10.2.0.9"]},
             {"elem": {"val": "10.0.0.7", "timeout": 60, "expires": 5}}]}},
            {"set": {"family": "inet", "name": "pairs", "table": "fw", "type": ["ipv4_addr", "inet_service"], "handle": 3,
             "elem": [{"concat": ["10.0.0.1", 22]}, {"what": "ever"}]}},
            {"set": {"family": "ip", "name": "empty", "table": "fw", "type": "ipv4_addr", "handle": 4}}]}"#;
        let sets = super::super::nft::parse(json, "").unwrap().1;
        assert_eq!(sets[0].elements, ["10.0.0.1", "10.1.0.0/16", "10.2.0.1-10.2.0.9", "10.0.0.7"]);
        assert_eq!((sets[0].family.as_str(), sets[0].table.as_deref(), sets[0].complete), ("ip", Some("fw"), true));
        assert_eq!((sets[1].elements.as_slice(), sets[1].complete), (["10.0.0.1 . 22".to_owned()].as_slice(), false));
        assert_eq!((sets[2].name.as_str(), sets[2].elements.len(), sets[2].complete), ("empty", 0, true));
    }

    #[test]
    fn the_elements_of_ipsets_sets_are_told_as_ipset_takes_them() {
        let text = "create closed hash:ip family inet hashsize 1024 maxelem 65536 timeout 0 bucketsize 12 initval 0x1\n\
            add closed 10.0.0.1 timeout 0\nadd closed 10.0.0.2\n\
            create six hash:net family inet6 hashsize 1024 maxelem 65536\nadd six 2001:db8::/32\nadd six 2001:db8::1 nomatch\n\
            add unknown 10.0.0.3\n";
        let sets = of_ipset(text);
        assert_eq!(
            (sets[0].elements.as_slice(), sets[0].complete),
            (["10.0.0.1", "10.0.0.2"].map(str::to_owned).as_slice(), true)
        );
        assert_eq!((sets[1].family.as_str(), sets[1].elements.len(), sets[1].complete), ("ip6", 1, false));
        assert_eq!((sets.len(), &sets[0].table), (2, &None));
    }

    #[test]
    fn endless_sets_are_cut_and_say_so() {
        let mut lines: Vec<String> = (0..20).map(|set| format!("create s{set} hash:net family inet\n")).collect();
        lines.extend((0..100_000).map(|n| format!("add s{} 10.{}.{}.0/24\n", n % 20, n / 256 % 256, n % 256)));
        let sets = of_ipset(&lines.concat());
        assert!(sets.iter().all(|set| set.elements.len() <= MOST_OF_ONE && !set.complete));
        assert_eq!(sets.iter().map(|set| set.elements.len()).sum::<usize>(), MOST_OF_ALL);
    }
}
