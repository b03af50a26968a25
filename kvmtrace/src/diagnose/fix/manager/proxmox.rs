//! Proxmox VE's firewall: what a guest may send and get stands in /etc/pve/firewall/VMID.fw, from which `pve-firewall`
//! writes its chains anew every ten seconds.

use super::super::accept::accept;
use super::super::conversation::{Conversation, Port};
use crate::diagnose::facts::firewall::protection::{Protection, protection};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::event::host::{Chain, Rule};

/// The guest and direction of a chain: `tap100i0-OUT`, `veth101i0-IN`.
pub(super) fn guest(chain: &Chain) -> Option<(&str, &str)> {
    let (interface, direction) = chain.name.rsplit_once('-')?;
    let rest = ["tap", "veth", "fwln", "fwpr"].iter().find_map(|kind| interface.strip_prefix(kind))?;
    let (id, number) = rest.split_once('i')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (matches!(direction, "IN" | "OUT") && digits(id) && digits(number)).then_some((id, direction))
}

/// The file comes first; a rule of ours lasts for some seconds, which is enough to see that it helps.
pub(super) fn fixes(
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    wanted: &Conversation,
    rule: Option<&Rule>,
) -> Vec<Fix> {
    let (id, direction) = guest(chain).unwrap_or(("VMID", "OUT"));
    let file = format!("/etc/pve/firewall/{id}.fw");
    let text = rule.map_or("", |rule| rule.text.as_str());
    if text.contains("--mac-source") || text.contains("ether saddr") {
        return vec![
            Fix::advice(format!(
                "Proxmox' MAC filter lets guest {id} send by its own MAC address only. If it is meant to have others (nested guests, VRRP): write \"macfilter: 0\" under [OPTIONS] of {file}."
            ))
            .risk("The guest may then send with any MAC address, another guest's among them."),
        ];
    }
    if rule.and_then(protection) == Some(Protection::Source) || text.contains("ipfilter") {
        return vec![
            Fix::advice(format!(
                "Proxmox' IP filter lets guest {id} send from its own addresses only. If {} is meant to be one of them: add it to [IPSET ipfilter-net0] of {file}; else give the guest the address that it may have.",
                wanted.source.map_or_else(|| "this source".to_owned(), |source| source.to_string())
            ))
            .risk("The guest may then send from this address."),
        ];
    }
    let ends = [("-source", wanted.source), ("-dest", wanted.destination)];
    let ends = ends.into_iter().filter_map(|(flag, address)| Some(format!("{flag} {}", address?)));
    let protocol = wanted.service.over_ip().map(|protocol| format!("-p {protocol}"));
    let port = wanted.port.map(|port| match port {
        Port::Destination(port) => format!("-dport {port}"),
        Port::Source(port) => format!("-sport {port}"),
    });
    let words: Vec<String> =
        [format!("{direction} ACCEPT")].into_iter().chain(ends).chain(protocol).chain(port).collect();
    let line = words.join(" ");
    let own = Fix::advice(format!("Let {}, by the line \"{line}\" under [RULES] of {file}.", wanted.text()));
    let at_once = accept(scene, chain, stage, wanted, rule)
        .persist(format!("pve-firewall writes its chains anew every ten seconds: what is to stay belongs in {file}."));
    vec![own.risk(wanted.risk()), at_once]
}
