//! From what was typed to packets: one, or what a guest can be expected to reach.

use super::super::question;
use crate::cli::{PacketWords, Probe};
use crate::event::HostState;
use crate::forward::asked::Asked;
use crate::host;

/// What was asked for.
#[derive(Debug)]
pub(super) struct Ask {
    /// The packets; never empty.
    pub(super) packets: Vec<Asked>,
    /// The operator named the target.
    pub(super) named: bool,
    /// Targets of which this host knows no address, in words.
    pub(super) unknown: Vec<&'static str>,
}

/// Reads the command line; asks the resolver for names.
pub(super) async fn ask(host: &HostState, options: &Probe) -> anyhow::Result<Ask> {
    let typed = &options.packet;
    let has_target = typed.words.first().is_some_and(|word| word == "to");
    if has_target || typed.from.is_some() {
        return Ok(Ask { packets: vec![question::asked(host, typed).await?], named: true, unknown: Vec::new() });
    }
    if typed.words.first().is_some_and(|word| word == "dhcp") {
        // A discovery asks whoever serves.
        let asked = question::asked(host, &towards(typed, "255.255.255.255")).await?;
        return Ok(Ask { packets: vec![asked], named: true, unknown: Vec::new() });
    }
    usual(host, typed).await
}

/// Packets to all that the guest can be expected to reach. What is not known of these is left out; one at least must be known.
pub(super) async fn usual(host: &HostState, typed: &PacketWords) -> anyhow::Result<Ask> {
    let usual = crate::forward::asked::usual(host, &typed.guest, &host::name_servers());
    let mut packets: Vec<Asked> = Vec::new();
    let mut refusal = None;
    for target in usual.targets {
        match question::asked(host, &towards(typed, &target)).await {
            Ok(asked) if packets.iter().any(|known| known.packet == asked.packet) => {}
            Ok(asked) => packets.push(asked),
            Err(error) => drop(refusal.get_or_insert(error)),
        }
    }
    match refusal {
        Some(error) if packets.is_empty() => Err(error),
        Some(_) | None => Ok(Ask { packets, named: false, unknown: usual.unknown }),
    }
}

/// The same packet, to a target.
fn towards(typed: &PacketWords, target: &str) -> PacketWords {
    let target = ["to", target].map(str::to_owned);
    PacketWords { words: [target.as_slice(), &typed.words].concat(), ..typed.clone() }
}
