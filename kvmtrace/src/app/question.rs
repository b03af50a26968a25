//! A packet in words, as `explain` and `probe` take it, read into a question for the model.

use crate::cli::PacketWords;
use crate::event::{HostState, MacAddress};
use crate::forward::asked::{Asked, Kind, Question, QuestionError, Target, resolve};
use crate::host::path::ScopeError;
use anyhow::{Context as _, bail};
use std::net::IpAddr;
use std::time::Duration;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The packet that was asked for.
pub(super) async fn asked(host: &HostState, typed: &PacketWords) -> anyhow::Result<Asked> {
    let (target, kind) = words(&typed.words).map_err(anyhow::Error::msg)?;
    let target = match target {
        Some(word) => Some(match Target::parse(host, word) {
            Some(target) => target,
            None => Target::Addresses(addresses(word).await?),
        }),
        None => None,
    };
    let mac: Option<MacAddress> = typed.mac.as_deref().map(str::parse).transpose().context("--mac")?;
    let question = Question {
        guest: typed.guest.clone(),
        target,
        kind,
        size: typed.size,
        dont_fragment: typed.df,
        from: typed.from,
        source: typed.source,
        mac,
        via: typed.via,
    };
    resolve(host, &question).map_err(|error| {
        if let QuestionError::NoGuest(guest) = error {
            // Another network namespace may have it.
            return ScopeError::NoGuest(guest).into();
        }
        error.into()
    })
}

/// All addresses of a name.
async fn addresses(name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    let unknown = || format!("{name}: no address, no guest and no name that resolves on this host");
    let found = found.with_context(unknown)?.with_context(unknown)?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("{}", unknown());
    }
    Ok(addresses)
}

/// `[to TARGET] [PROTOCOL [PORT]]`
fn words(words: &[String]) -> Result<(Option<&str>, Kind), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (target, rest) = match words.as_slice() {
        ["to"] => return Err("to where? name a target: an address, a name, a guest, `gateway` or `host`".to_owned()),
        ["to", target, rest @ ..] => (Some(*target), rest),
        rest => (None, rest),
    };
    let port = |text: &str| {
        text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| format!("{text:?} is no port; 1 to 65535 are"))
    };
    let kind = match rest {
        [] | ["icmp"] => Kind::Icmp,
        ["tcp", text] => Kind::Tcp(port(text)?),
        ["udp", text] => Kind::Udp(port(text)?),
        ["arp"] => Kind::Arp,
        ["dhcp"] => Kind::Dhcp,
        ["nd"] => Kind::Nd,
        [protocol @ ("tcp" | "udp")] => return Err(format!("{protocol} needs a port, as in `{protocol} 443`")),
        [word, ..] if target.is_none() => return Err(format!("say `to` before the target: to {word}")),
        [word @ ("icmp" | "tcp" | "udp" | "arp" | "dhcp" | "nd"), ..] => {
            return Err(format!("too many words after {word}"));
        }
        [word, ..] => {
            return Err(format!("unknown protocol {word:?}; icmp, tcp PORT, udp PORT, arp, dhcp and nd are known"));
        }
    };
    Ok((target, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(line: &str) -> Result<(Option<String>, Kind), String> {
        let typed: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words(&typed).map(|(target, kind)| (target.map(str::to_owned), kind))
    }

    #[rstest]
    #[case("to 10.0.0.1", Some("10.0.0.1"), Kind::Icmp)]
    #[case("to db1 tcp 443", Some("db1"), Kind::Tcp(443))]
    #[case("to to udp 53", Some("to"), Kind::Udp(53))]
    #[case("to gateway arp", Some("gateway"), Kind::Arp)]
    #[case("to host dhcp", Some("host"), Kind::Dhcp)]
    #[case("tcp 22", None, Kind::Tcp(22))]
    #[case("", None, Kind::Icmp)]
    fn a_packet_is_read_from_words(#[case] line: &str, #[case] target: Option<&str>, #[case] kind: Kind) {
        assert_eq!(read(line), Ok((target.map(str::to_owned), kind)));
    }

    #[rstest]
    #[case("to", "name a target")]
    #[case("10.0.0.1", "say `to` before the target: to 10.0.0.1")]
    #[case("to db1 tcp", "tcp needs a port")]
    #[case("to db1 tcp http", "no port")]
    #[case("to db1 tcp 0", "no port")]
    #[case("to db1 sctp 1", "unknown protocol \"sctp\"")]
    #[case("to db1 icmp 8", "too many words after icmp")]
    fn nonsense_is_refused_with_the_way_out(#[case] line: &str, #[case] told: &str) {
        let error = read(line).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}
