//! Programs that ban an address for what it did: a ban is lifted by whoever set it, for its rules and sets are written anew.

use crate::diagnose::fix::conversation::Conversation;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::host::{Chain, Rule};

/// Which program bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banner {
    /// fail2ban: chains `f2b-JAIL`; nft's table `f2b-table` with sets `addr-set-JAIL`, ipsets `f2b-JAIL`.
    Fail2ban,
    /// The bouncer of `CrowdSec`: nft's tables `crowdsec` and `crowdsec6`, chains `CROWDSEC_…`, ipsets `crowdsec-…`.
    CrowdSec,
    /// sshguard: nft's table, the chain or the set `sshguard`.
    Sshguard,
}

impl Banner {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail2ban => "fail2ban",
            Self::CrowdSec => "CrowdSec",
            Self::Sshguard => "sshguard",
        }
    }
}

/// Who bans by this rule.
pub(in crate::diagnose) fn banner(chain: &Chain, rule: Option<&Rule>) -> Option<Banner> {
    let set = |name: &str| {
        let words = rule.map(|rule| rule.text.split_whitespace()).into_iter().flatten();
        words.map(|word| word.trim_start_matches('@')).any(|word| word.starts_with(name))
    };
    let (table, name) = (chain.table.as_str(), chain.name.as_str());
    if table == "f2b-table" || name.starts_with("f2b-") || set("f2b-") {
        return Some(Banner::Fail2ban);
    }
    if matches!(table, "crowdsec" | "crowdsec6") || name.starts_with("CROWDSEC_") || set("crowdsec-") {
        return Some(Banner::CrowdSec);
    }
    (table == "sshguard" || name == "sshguard" || set("sshguard")).then_some(Banner::Sshguard)
}

/// How to see why an address is banned, and to lift that.
pub(in crate::diagnose) fn fix(banner: Banner, chain: &Chain, wanted: &Conversation, rule: Option<&Rule>) -> Fix {
    let text = rule.map_or("", |rule| rule.text.as_str());
    let by_receiver = ["daddr", " -d ", " dst"].iter().any(|word| text.contains(word));
    let by_sender = ["saddr", " -s ", " src"].iter().any(|word| text.contains(word));
    let banned = if by_receiver && !by_sender { wanted.destination } else { wanted.source };
    let address = banned.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string());
    let (look, lift) = match banner {
        Banner::Fail2ban => {
            let words = || text.split_whitespace().chain([chain.name.as_str()]);
            let jail = words().find_map(|word| {
                let word = word.trim_start_matches('@');
                // The nft action has one chain for all jails.
                let chain = word.strip_prefix("f2b-").filter(|name| !matches!(*name, "chain" | "table"));
                word.strip_prefix("addr-set-").or_else(|| word.strip_prefix("addr6-set-")).or(chain)
            });
            let jail = jail.map_or_else(|| "JAIL".to_owned(), quote);
            (format!("fail2ban-client status {jail}"), format!("fail2ban-client set {jail} unbanip {address}"))
        }
        Banner::CrowdSec => {
            (format!("cscli decisions list --ip {address}"), format!("cscli decisions delete --ip {address}"))
        }
        Banner::Sshguard => (
            "journalctl -t sshguard".to_owned(),
            format!("add {address} to sshguard's whitelist, and restart it, which empties its set"),
        ),
    };
    Fix::advice(format!(
        "{} has banned {address} for what it did: see why ({look}). If that was no attack, lift the ban: {lift}. A rule past it would let an attacker through as well.",
        banner.name()
    ))
}
