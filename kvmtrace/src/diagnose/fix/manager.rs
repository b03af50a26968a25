//! Firewalls that write their chains themselves: a cure is theirs to give, for what is changed behind their back is
//! gone at their next reload. They are known by the names of their chains and tables.

pub mod firewalld;
mod nwfilter;

use super::accept::{accept, accept_ways};
use super::conversation::{Conversation, Port};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::event::host::{Backend, Chain, Rule};

/// Who writes a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// ufw: chains `ufw-…`, `ufw6-…`, which the built-in chains jump to.
    Ufw,
    /// firewalld: nft's table `firewalld`; with its iptables back end chains `…_ZONES`.
    Firewalld,
    /// Docker: chains `DOCKER…`, and FORWARD's policy; nft's table `docker-bridges`.
    Docker,
    /// libvirt: chains `LIBVIRT_…`, nft's table `libvirt_network`.
    Libvirt,
    /// libvirt's filters of a guest's interface: `libvirt-I-vnet0`, `I-vnet0-…`, `FI-vnet0`.
    LibvirtFilter,
    /// Proxmox VE: chains `PVEFW-…`.
    Proxmox,
}

/// The manager of what drops in `chain`: a rule, or the chain's policy.
pub fn manager_of(chains: &[Chain], chain: &Chain, rule: Option<&Rule>) -> Option<Manager> {
    let name = chain.name.as_str();
    match chain.table.as_str() {
        "firewalld" => return Some(Manager::Firewalld),
        "libvirt_network" => return Some(Manager::Libvirt),
        "docker-bridges" => return Some(Manager::Docker),
        _ if chain.backend == Backend::Nft => return None,
        _ => {}
    }
    let beside = |other: &str| {
        chains.iter().any(|chain_| {
            chain_.name == other
                && (chain_.backend, &chain_.family, &chain_.table) == (chain.backend, &chain.family, &chain.table)
        })
    };
    // `DOCKER-USER` is the administrator's.
    if name.starts_with("DOCKER") && name != "DOCKER-USER" {
        return Some(Manager::Docker);
    }
    if name.starts_with("ufw-") || name.starts_with("ufw6-") {
        return Some(Manager::Ufw);
    }
    if name.starts_with("LIBVIRT_") {
        return Some(Manager::Libvirt);
    }
    let filters = ["libvirt-I-", "libvirt-O-", "libvirt-in"];
    let has_filters = || {
        let same = |other: &&Chain| other.table == chain.table && other.family == chain.family;
        chains.iter().filter(same).any(|other| filters.iter().any(|prefix| other.name.starts_with(prefix)))
    };
    if nwfilter::owns(chain) && has_filters() {
        return Some(Manager::LibvirtFilter);
    }
    if name.starts_with("PVEFW-") || name.starts_with("GROUP-") && beside("PVEFW-FORWARD") {
        return Some(Manager::Proxmox);
    }
    let zones = |name: &str| beside(&format!("{name}_ZONES")) || beside(&format!("{name}_IN_ZONES"));
    let zone_chain = ["IN_", "FWD_", "FWDI_", "FWDO_"].iter().any(|prefix| name.starts_with(prefix));
    if zones(name) || zone_chain && zones("FORWARD") {
        return Some(Manager::Firewalld);
    }
    // A rule that somebody wrote into a built-in chain is nobody's; the policy is whose chains it ends.
    let jumps = |prefixes: &[&str]| {
        chain
            .rules
            .iter()
            .filter_map(|rule| rule.verdict.as_deref()?.strip_prefix("jump "))
            .any(|target| prefixes.iter().any(|prefix| target.starts_with(prefix)))
    };
    match rule {
        None if jumps(&["ufw-", "ufw6-"]) => Some(Manager::Ufw),
        None if jumps(&["DOCKER"]) && beside("DOCKER-USER") => Some(Manager::Docker),
        _ => None,
    }
}

/// The manager's own ways of letting a conversation through, the narrowest first; none where it has none for this.
pub(in crate::diagnose) fn fixes(
    manager: Manager,
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    wanted: &Conversation,
) -> Vec<Fix> {
    match manager {
        Manager::Ufw => ufw(chain, stage, wanted).into_iter().collect(),
        Manager::Firewalld => firewalld::fixes(scene, chain, stage, wanted),
        Manager::Docker => docker(scene, chain, stage, wanted).into_iter().collect(),
        Manager::Libvirt => vec![libvirt(scene, chain, wanted)],
        Manager::LibvirtFilter => vec![nwfilter::fix(scene, chain, wanted)],
        Manager::Proxmox => Vec::new(),
    }
}

/// The policy has to be passed both ways: only what belongs to containers is let back by Docker itself.
fn docker(scene: &Scene<'_>, chain: &Chain, stage: &Stage, wanted: &Conversation) -> Option<Fix> {
    let user = scene.host.netfilter.chains.iter().find(|other| {
        other.name == "DOCKER-USER"
            && (other.backend, &other.family, &other.table) == (chain.backend, &chain.family, &chain.table)
    })?;
    let fix = accept(scene, user, stage, wanted);
    let why = format!("{} DOCKER-USER is the chain that Docker leaves to you.", fix.why);
    Some(Fix { why, ..fix }.persist(
        "Docker keeps DOCKER-USER while it runs, not over a reboot: run the command from a unit that starts after docker.service.",
    ))
}

/// libvirt lets answers through by itself.
fn libvirt(scene: &Scene<'_>, chain: &Chain, wanted: &Conversation) -> Fix {
    let fix = accept_ways(scene, chain, &[Some(*wanted)]);
    let why = format!("{} libvirt lets nobody outside open connections to guests of a NAT network.", fix.why);
    Fix { why, ..fix }.persist(
        "libvirt makes its chains anew when the network starts: run the command from /etc/libvirt/hooks/network, or set <forward mode='open'/> (no rules by libvirt) in the network's XML.",
    )
}

/// User rules come after ufw's own "before" chains and before its policy; `prepend` puts one before other user rules.
fn ufw(chain: &Chain, stage: &Stage, wanted: &Conversation) -> Option<Fix> {
    if chain.name.contains("before") || chain.name.contains("not-local") {
        return None;
    }
    let (prefix, direction) = match stage.hook {
        "forward" => ("route ", ""),
        "input" => ("", ""),
        "output" => ("", "out "),
        _ => return None,
    };
    let (source, destination) = (wanted.source?, wanted.destination?);
    // ufw knows ports of these, and no ICMP.
    let protocol = wanted.protocol.filter(|protocol| matches!(*protocol, "tcp" | "udp"));
    let with = protocol.map(|protocol| format!("proto {protocol} ")).unwrap_or_default();
    let (from, to) = match wanted.port.filter(|_| protocol.is_some()) {
        Some(Port::Destination(port)) => (String::new(), format!(" port {port}")),
        Some(Port::Source(port)) => (format!(" port {port}"), String::new()),
        None => (String::new(), String::new()),
    };
    let rule = format!("allow {direction}{with}from {source}{from} to {destination}{to}");
    let fix = Fix::run(
        format!("ufw {prefix}prepend {rule}"),
        format!("ufw {prefix}delete {rule}"),
        format!("Lets {}, by ufw, which writes this host's rules.", wanted.text()),
    );
    let risk = if protocol.is_some() {
        wanted.risk()
    } else {
        "All protocols are let through between the two: ufw has no narrower rule for this one.".to_owned()
    };
    Some(fix.risk(risk).persist("ufw keeps the rule itself."))
}

/// How to make a change last in chains that a manager writes.
pub(in crate::diagnose) fn persist(manager: Manager) -> &'static str {
    match manager {
        Manager::Ufw => "Change it in /etc/ufw/before.rules (IPv6: before6.rules), from where ufw loads it.",
        Manager::Firewalld => {
            "Change it by firewall-cmd --permanent: firewalld writes these chains anew at each reload."
        }
        Manager::Docker => "Docker writes these chains anew when it starts; what is to stay belongs in DOCKER-USER.",
        Manager::Libvirt => {
            "libvirt makes its chains anew when the network starts: run it from /etc/libvirt/hooks/network."
        }
        Manager::LibvirtFilter => "libvirt makes these chains anew when the guest starts, from its filter.",
        Manager::Proxmox => {
            "pve-firewall writes these chains anew every ten seconds: allow it in the guest's firewall (/etc/pve/firewall/VMID.fw) instead."
        }
    }
}

#[cfg(test)]
mod tests;
