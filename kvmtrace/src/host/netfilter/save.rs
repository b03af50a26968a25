//! What the `iptables-save` family prints.

use crate::event::host::{Backend, Chain, Rule};

/// A table.
#[derive(Debug, Default)]
pub(super) struct Table {
    name: String,
    chains: Vec<Saved>,
}

#[derive(Debug)]
struct Saved {
    name: String,
    /// `None` for a chain that is only jumped to.
    policy: Option<String>,
    packets: Option<u64>,
    rules: Vec<(String, Option<u64>)>,
}

/// The tables, in order. Lines that make no sense are left out.
pub(super) fn parse(text: &str) -> Vec<Table> {
    let mut tables = Vec::<Table>::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table { name: name.trim().to_owned(), chains: Vec::new() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            table.chains.extend(parse_chain(chain));
        } else if let Some((chain, text, packets)) = parse_rule(line)
            && let Some(chain) = table.chains.iter_mut().find(|found| found.name == chain)
        {
            chain.rules.push((text.to_owned(), packets));
        }
    }
    tables
}

/// What `ebtables-legacy -L --Lc` and `arptables-legacy -nvL` print: their `-save` scripts ask the tools of the nft back
/// end on Debian, and so tell nothing.
pub(super) fn parse_listing(table: &str, text: &str) -> Table {
    let mut chains = Vec::<Saved>::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // `Bridge chain: FORWARD, entries: 1, policy: ACCEPT`, `Chain INPUT (policy DROP 3 packets, 84 bytes)`
        let header = line.strip_prefix("Bridge chain: ").or_else(|| line.strip_prefix("Chain "));
        if let Some(header) = header {
            let name = header.split([',', ' ']).next().unwrap_or_default().to_owned();
            let policy = header
                .split_once("policy")
                .and_then(|(_, rest)| rest.split([':', ' ', ')']).find(|word| !word.is_empty()));
            chains.push(Saved { name, policy: policy.map(str::to_ascii_lowercase), packets: None, rules: Vec::new() });
        } else if let Some(chain) = chains.last_mut() {
            let (rule, count) = line.split_once(", pcnt").unwrap_or((line, ""));
            let packets = count.split(['=', ' ']).find(|word| !word.is_empty()).and_then(|count| count.parse().ok());
            // `-v` spells out that any device will do, in a form that the tool would not take back.
            let rule = rule.trim_end().replace(" -i *", "").replace(" -o *", "");
            chain.rules.push((format!("-A {} {rule}", chain.name), packets));
        }
    }
    Table { name: table.to_owned(), chains }
}

/// `FORWARD DROP [3:30]`, `DOCKER-USER - [0:0]`; ebtables tells a policy for every chain and no counters.
fn parse_chain(text: &str) -> Option<Saved> {
    let mut words = text.split_whitespace();
    let name = words.next()?.to_owned();
    let policy = words.next().filter(|&policy| policy != "-").map(str::to_ascii_lowercase);
    let packets = words.next().and_then(counters);
    Some(Saved { name, policy, packets, rules: Vec::new() })
}

/// `[7:70] -A FORWARD -i vnet0 -j DROP`: the chain, the text from `-A` on, the packets. Older ebtables and arptables
/// write `-c 7 70` or `, pcnt=7` at the end.
fn parse_rule(line: &str) -> Option<(&str, &str, Option<u64>)> {
    let (packets, text) = match line.split_once(' ') {
        Some((first, rest)) if first.starts_with('[') => (counters(first), rest),
        _ => (None, line),
    };
    let chain = text.strip_prefix("-A ")?.split_whitespace().next()?;
    let packets = packets.or_else(|| {
        let (_, count) = text.rsplit_once(" -c ")?;
        count.split_whitespace().next()?.parse().ok()
    });
    Some((chain, text.trim_end(), packets))
}

fn counters(text: &str) -> Option<u64> {
    text.strip_prefix('[')?.split_once(':')?.0.parse().ok()
}

impl Table {
    /// The chains as the model has them.
    pub(super) fn into_chains(self, backend: Backend, family: &str) -> Vec<Chain> {
        let names: Vec<_> = self.chains.iter().map(|chain| chain.name.clone()).collect();
        let table = self.name;
        let chain = |saved: Saved| {
            let base = hook(&saved.name).filter(|_| is_built_in(&table, &saved.name));
            let rules = saved.rules.into_iter().zip(1..).map(|((text, packets), number)| {
                let verdict = verdict(&text, &names);
                Rule { handle: None, number, text, packets, verdict }
            });
            Chain {
                backend,
                family: family.to_owned(),
                table: table.clone(),
                hook: base.map(str::to_owned),
                kind: base.map(|hook| kind(&table, hook).to_owned()),
                priority: base.map(|hook| priority(family, &table, hook)),
                policy: saved.policy.filter(|_| base.is_some()),
                policy_packets: saved.packets.filter(|_| base.is_some()),
                device: None,
                rules: rules.collect(),
                name: saved.name,
            }
        };
        self.chains.into_iter().map(chain).collect()
    }
}

/// A chain that the kernel calls, of a table that the iptables family knows.
pub(super) fn is_built_in(table: &str, chain: &str) -> bool {
    matches!(table, "filter" | "nat" | "mangle" | "raw" | "security" | "broute") && hook(chain).is_some()
}

fn hook(chain: &str) -> Option<&'static str> {
    match chain {
        "PREROUTING" | "BROUTING" => Some("prerouting"),
        "INPUT" => Some("input"),
        "FORWARD" => Some("forward"),
        "OUTPUT" => Some("output"),
        "POSTROUTING" => Some("postrouting"),
        _ => None,
    }
}

fn kind(table: &str, hook: &str) -> &'static str {
    match (table, hook) {
        ("nat", _) => "nat",
        ("mangle", "output") => "route",
        _ => "filter",
    }
}

/// `NF_IP_PRI_*`, `NF_BR_PRI_*`
fn priority(family: &str, table: &str, hook: &str) -> i32 {
    match (family, table, hook) {
        ("bridge", "nat", "prerouting") => -300,
        ("bridge", "nat", "output") => 100,
        ("bridge", "nat", _) => 300,
        ("bridge", "broute", _) => -1000,
        ("bridge", ..) => -200,
        (_, "raw", _) => -300,
        (_, "mangle", _) => -150,
        (_, "nat", "prerouting" | "output") => -100,
        (_, "nat", _) => 100,
        (_, "security", _) => 50,
        _ => 0,
    }
}

/// What the rule's `-j` or `-g` does; `chains` are those of its table.
fn verdict(text: &str, chains: &[String]) -> Option<String> {
    let words = words(text);
    let after = |options: [&str; 2]| {
        words.windows(2).find(|pair| options.contains(&pair[0].as_str())).map(|pair| pair[1].as_str())
    };
    if let Some(chain) = after(["-g", "--goto"]) {
        return Some(format!("goto {chain}"));
    }
    let target = after(["-j", "--jump"])?;
    if chains.iter().any(|chain| chain == target) {
        return Some(format!("jump {target}"));
    }
    match target {
        "ACCEPT" | "DROP" | "REJECT" | "RETURN" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" | "QUEUE" => {
            Some(target.to_ascii_lowercase())
        }
        "NFQUEUE" => Some("queue".to_owned()),
        // ebtables
        "snat" | "dnat" | "redirect" => Some(target.to_owned()),
        // LOG, MARK, TCPMSS, CT, … change or tell something and go on.
        _ => None,
    }
}

/// Words as the shell would split them, so that a comment is one.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => {
                quoted = !quoted;
                continue;
            }
            ' ' if !quoted => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9 on Mon Nov 23 22:26:05 2026
*nat
:PREROUTING ACCEPT [1:2]
:POSTROUTING ACCEPT [0:0]
[4:400] -A POSTROUTING -s 10.0.0.0/24 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [12:3456]
:DOCKER-USER - [0:0]
[5:500] -A FORWARD -j DOCKER-USER
[7:700] -A FORWARD -i vnet0 -m comment --comment "drop it -j ACCEPT" -j DROP
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
COMMIT
"#;

    #[test]
    fn chains_have_hooks_policies_and_counters() {
        let chains: Vec<_> =
            parse(SAVED).into_iter().flat_map(|table| table.into_chains(Backend::IptablesLegacy, "ip")).collect();
        let forward = chains.iter().find(|chain| chain.name == "FORWARD").unwrap();
        assert_eq!((forward.table.as_str(), forward.hook.as_deref()), ("filter", Some("forward")));
        assert_eq!(
            (forward.policy.as_deref(), forward.policy_packets, forward.priority),
            (Some("drop"), Some(12), Some(0))
        );
        let rules: Vec<_> =
            forward.rules.iter().map(|rule| (rule.number, rule.packets, rule.verdict.as_deref().unwrap())).collect();
        assert_eq!(rules, [(1, Some(5), "jump DOCKER-USER"), (2, Some(7), "drop"), (3, None, "reject")]);
        let own = chains.iter().find(|chain| chain.name == "DOCKER-USER").unwrap();
        assert_eq!((own.hook.as_deref(), own.policy.as_deref(), own.policy_packets), (None, None, None));
        let nat = chains.iter().find(|chain| chain.name == "POSTROUTING").unwrap();
        assert_eq!((nat.kind.as_deref(), nat.priority), (Some("nat"), Some(100)));
        assert_eq!(nat.rules[0].text, "-A POSTROUTING -s 10.0.0.0/24 -j MASQUERADE");
    }

    #[test]
    fn ebtables_and_arptables_are_understood() {
        let text = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n[9:1] -A FORWARD -p ARP -j DROP\n-A INPUT -j DROP -s 10.0.0.1 -c 3 84\n";
        let chains = parse(text).remove(0).into_chains(Backend::IptablesNft, "bridge");
        assert_eq!(chains[1].rules[0].packets, Some(9));
        assert_eq!((chains[1].priority, chains[1].policy.as_deref()), (Some(-200), Some("accept")));
        assert_eq!((chains[0].rules[0].packets, chains[0].rules[0].verdict.as_deref()), (Some(3), Some("drop")));
    }

    #[test]
    fn listings_of_the_legacy_tools_without_a_working_save_are_understood() {
        let text = "Bridge table: filter\n\nBridge chain: INPUT, entries: 0, policy: ACCEPT\n\n\
                    Bridge chain: FORWARD, entries: 1, policy: DROP\n-p ARP -j ACCEPT , pcnt = 7 -- bcnt = 70\n";
        let chains = parse_listing("filter", text).into_chains(Backend::IptablesLegacy, "bridge");
        assert_eq!((chains[1].name.as_str(), chains[1].policy.as_deref()), ("FORWARD", Some("drop")));
        let rule = &chains[1].rules[0];
        assert_eq!((rule.text.as_str(), rule.packets), ("-A FORWARD -p ARP -j ACCEPT", Some(7)));
        let text =
            "Chain INPUT (policy ACCEPT 0 packets, 0 bytes)\n-j DROP -i * -o * -s 10.0.0.1 , pcnt=3 -- bcnt=84\n";
        let chains = parse_listing("filter", text).into_chains(Backend::IptablesLegacy, "arp");
        assert_eq!(chains[0].policy.as_deref(), Some("accept"));
        assert_eq!(chains[0].rules[0].text, "-A INPUT -j DROP -s 10.0.0.1");
        assert_eq!((chains[0].rules[0].packets, chains[0].rules[0].verdict.as_deref()), (Some(3), Some("drop")));
    }

    #[rstest]
    #[case("-A FORWARD -g NEXT", Some("goto NEXT"))]
    #[case("-A FORWARD -j NFQUEUE --queue-num 3", Some("queue"))]
    #[case("-A FORWARD -j LOG --log-prefix \"x -j DROP \"", None)]
    #[case("-A FORWARD -p tcp", None)]
    #[case("-A FORWARD -j", None)]
    fn verdicts(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(verdict(text, &[]).as_deref(), expected);
    }

    #[rstest]
    #[case("")]
    #[case("*")]
    #[case(":FORWARD\n-A FORWARD -j DROP")]
    #[case("*filter\n:\n-A\n[:] -A\n[x] -A NONE -j\n[")]
    fn nonsense_gives_no_rule(#[case] text: &str) {
        let tables = parse(text);
        assert!(tables.iter().flat_map(|table| &table.chains).all(|chain| chain.rules.is_empty()));
    }
}
