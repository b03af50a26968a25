//! From what was typed to packets: one, or what a guest can be expected to reach.

use super::super::question;
use crate::cli::{PacketWords, Probe};
use crate::event::HostState;
use crate::event::host::GuestInterface;
use crate::forward::asked::{Asked, guest_named};

/// What was asked for.
#[derive(Debug)]
pub(super) struct Ask {
    /// The packets; never empty.
    pub(super) packets: Vec<Asked>,
    /// The operator named the target.
    pub(super) named: bool,
}

/// Reads the command line; asks the resolver for names.
pub(super) async fn ask(host: &HostState, options: &Probe) -> anyhow::Result<Ask> {
    let typed = &options.packet;
    let has_target = typed.words.first().is_some_and(|word| word == "to");
    if has_target || typed.from.is_some() {
        return Ok(Ask { packets: vec![question::asked(host, typed).await?], named: true });
    }
    if typed.words.first().is_some_and(|word| word == "dhcp") {
        // A discovery asks whoever serves.
        return Ok(Ask {
            packets: vec![question::asked(host, &towards(typed, "255.255.255.255")).await?],
            named: true,
        });
    }
    // What is not known of these is left out; one at least must be known.
    let mut packets: Vec<Asked> = Vec::new();
    let mut refusal = None;
    let usual = ["gateway".to_owned(), "host".to_owned()].into_iter().chain(neighbour(host, &typed.guest));
    for target in usual {
        match question::asked(host, &towards(typed, &target)).await {
            Ok(asked) if packets.iter().any(|known| known.packet == asked.packet) => {}
            Ok(asked) => packets.push(asked),
            Err(error) => drop(refusal.get_or_insert(error)),
        }
    }
    match refusal {
        Some(error) if packets.is_empty() => Err(error),
        Some(_) | None => Ok(Ask { packets, named: false }),
    }
}

/// The same packet, to a target.
fn towards(typed: &PacketWords, target: &str) -> PacketWords {
    let target = ["to", target].map(str::to_owned);
    PacketWords { words: [target.as_slice(), &typed.words].concat(), ..typed.clone() }
}

/// Another guest of the same bridge, the first that runs and has an address here.
fn neighbour(host: &HostState, guest: &str) -> Option<String> {
    let (own, _) = guest_named(host, guest)?;
    let bridge = |interface: &GuestInterface| host.link(interface.device).and_then(|link| link.master);
    let bridges: Vec<_> = own.interfaces.iter().filter_map(bridge).collect();
    let is_near = |interface: &GuestInterface| {
        !interface.addresses.is_empty() && bridge(interface).is_some_and(|bridge| bridges.contains(&bridge))
    };
    let other = host.guests.iter().find(|other| {
        other.name != own.name && other.pid.is_some() && !other.stopped && other.interfaces.iter().any(is_near)
    })?;
    Some(other.name.clone())
}
