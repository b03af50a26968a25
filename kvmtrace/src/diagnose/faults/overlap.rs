//! `address-overlap`: two networks of this host have the same addresses. Of two routes the longer one counts, of two as long the
//! first (`fib_table_lookup`, `net/ipv4/fib_trie.c`), so this host looks for a guest where it is not.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::own_network;
use crate::diagnose::facts::standing::Standing;
use crate::diagnose::fix::route::renumber;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::shell::quote;
use crate::event::host::{Link, Network, Route};
use crate::event::names::RouteKind;
use crate::event::{Address, IfIndex};
use crate::forward::effect::Effect;
use crate::topology::routing::MAIN;
use std::net::IpAddr;

/// This host waits for an address on a device, and it is a guest's on a network of another one. `what` does: "3 packets wait".
pub fn overlap(case: &Case<'_>, what: &str, asked_on: IfIndex, to: IpAddr) -> Option<Judgement> {
    let scene = case.scene;
    let guest = scene.guest_by_address(Address::Ip(to)).or(case.group.device)?;
    let home = scene.bridge_of(guest).or_else(|| scene.link(guest))?;
    let (here, asked) = (own_network(home, to)?, scene.link(asked_on).filter(|link| link.index != home.index)?);
    let there = own_network(asked, to)?;
    let name = scene.guest_name(guest).unwrap_or_else(|| home.name.clone());
    let (home_name, asked_name) = (&home.name, &asked.name);
    let explanation = format!(
        "{what} for {to} on {asked_name}, where nobody has it: {name} has it, on {home_name}. The two networks overlap ({there} on {asked_name}, {here} on {home_name}), and this host looks on {asked_name} alone for what both have."
    );
    let by_host = (scene.standing(guest, to) > Standing::Claimed).then(|| host_route(home, &asked.name, to));
    Some(
        Judgement::dropped(Cause::AddressOverlap, at(scene, asked_on, Point::Neighbour), explanation)
            .evidence([format!("{there} on {}, {here} on {}", asked.name, home.name)])
            .fixes(by_host)
            .fix(renumber(&home.name)),
    )
}

fn host_route(home: &Link, asked: &str, to: IpAddr) -> Fix {
    let prefix = if to.is_ipv6() { 128 } else { 32 };
    let (family, name) = (if to.is_ipv6() { " -6" } else { "" }, quote(&home.name));
    let route = Route {
        destination: Network { address: to, prefix },
        gateway: None,
        device: Some(home.index),
        source: None,
        table: MAIN,
        metric: if to.is_ipv6() { 1024 } else { 0 },
        kind: RouteKind::Unicast,
        mtu: None,
    };
    let command = |verb: &str| format!("ip{family} route {verb} {to}/{prefix} dev {name}");
    Fix::run(command("add"), command("del"), format!("Leads {to}, and no other address, to {}.", home.name))
        .risk(format!("A machine on {asked} with the same address gets no packets of this host then."))
        .effect(Effect::RouteAdd(route))
}
