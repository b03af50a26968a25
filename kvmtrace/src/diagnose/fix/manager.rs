//! Firewalls that write their chains themselves: a cure is theirs to give, for what is changed behind their back is
//! gone at their next reload. They are known by the names of their chains and tables.

use super::netfilter::accept;
use crate::diagnose::report::Fix;
use crate::diagnose::rules::netfilter_stage::Stage;
use crate::diagnose::scene::Scene;
use crate::event::host::{Backend, Chain, Rule};
use std::net::IpAddr;

/// Who writes a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// ufw: chains `ufw-…`, `ufw6-…`, which the built-in chains jump to.
    Ufw,
    /// firewalld: nft's table `firewalld`; with its iptables back end chains `…_ZONES`.
    Firewalld,
    /// Docker: chains `DOCKER…`, and FORWARD's policy.
    Docker,
    /// libvirt: chains `LIBVIRT_…`, nft's table `libvirt_network`.
    Libvirt,
    /// Proxmox VE: chains `PVEFW-…`.
    Proxmox,
}

/// The manager of what drops in `chain`: a rule, or the chain's policy.
pub fn manager(chains: &[Chain], chain: &Chain, rule: Option<&Rule>) -> Option<Manager> {
    let name = chain.name.as_str();
    match chain.table.as_str() {
        "firewalld" => return Some(Manager::Firewalld),
        "libvirt_network" => return Some(Manager::Libvirt),
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

/// The manager's own way of letting a conversation through; none where it has none for this.
pub(super) fn fix(
    manager: Manager,
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    (source, destination): (Option<IpAddr>, Option<IpAddr>),
) -> Option<Fix> {
    match manager {
        Manager::Ufw => ufw(chain, stage, source?, destination?),
        Manager::Firewalld => firewalld(stage, source?),
        Manager::Docker => {
            let user = scene.host.netfilter.chains.iter().find(|other| {
                other.name == "DOCKER-USER"
                    && (other.backend, &other.family, &other.table) == (chain.backend, &chain.family, &chain.table)
            })?;
            let fix = accept(scene, user, stage, source, destination);
            Some(Fix { why: format!("{} DOCKER-USER is the chain that Docker leaves to you.", fix.why), ..fix }.persist(
                "Docker keeps DOCKER-USER while it runs, not over a reboot: run the command from a unit that starts after docker.service.",
            ))
        }
        Manager::Libvirt => {
            let fix = accept(scene, chain, stage, source, destination);
            let why = format!("{} libvirt lets nobody outside open connections to guests of a NAT network.", fix.why);
            Some(Fix { why, ..fix }.persist(
                "libvirt makes its chains anew when the network starts: run the command from /etc/libvirt/hooks/network, or set <forward mode='open'/> (no rules by libvirt) in the network's XML.",
            ))
        }
        Manager::Proxmox => None,
    }
}

/// User rules come after ufw's own "before" chains and before its policy; `prepend` puts one before other user rules.
fn ufw(chain: &Chain, stage: &Stage, source: IpAddr, destination: IpAddr) -> Option<Fix> {
    if chain.name.contains("before") || chain.name.contains("not-local") {
        return None;
    }
    let (prefix, direction) = match stage.hook {
        "forward" => ("route ", ""),
        "input" => ("", ""),
        "output" => ("", "out "),
        _ => return None,
    };
    let rule = format!("allow {direction}from {source} to {destination}");
    let fix = Fix::run(
        format!("ufw {prefix}prepend {rule}"),
        format!("ufw {prefix}delete {rule}"),
        format!("Lets {source} open connections to {destination}, by ufw, which writes this host's rules."),
    );
    Some(
        fix.risk("All ports are let through; add `proto tcp` and `port` to the rule for those that are needed.")
            .persist("ufw keeps the rule itself."),
    )
}

/// The zone `trusted` accepts whatever comes from a source, to the host and through it.
fn firewalld(stage: &Stage, source: IpAddr) -> Option<Fix> {
    if !matches!(stage.hook, "forward" | "input" | "prerouting") {
        return None;
    }
    let command = |verb: &str| format!("firewall-cmd --zone=trusted --{verb}-source={source}");
    let fix = Fix::run(
        command("add"),
        command("remove"),
        format!("Lets {source} open connections, by firewalld, which writes this host's rules."),
    );
    Some(
        fix.risk(format!("Whatever {source} sends is accepted, to this host as well as through it."))
            .persist(format!("firewall-cmd --permanent --zone=trusted --add-source={source}")),
    )
}

/// How to make a change last in chains that a manager writes.
pub(super) fn persist(manager: Manager) -> &'static str {
    match manager {
        Manager::Ufw => "Change it in /etc/ufw/before.rules (IPv6: before6.rules), from where ufw loads it.",
        Manager::Firewalld => {
            "Change it by firewall-cmd --permanent: firewalld writes these chains anew at each reload."
        }
        Manager::Docker => "Docker writes these chains anew when it starts; what is to stay belongs in DOCKER-USER.",
        Manager::Libvirt => {
            "libvirt makes its chains anew when the network starts: run it from /etc/libvirt/hooks/network."
        }
        Manager::Proxmox => {
            "pve-firewall writes these chains anew every ten seconds: allow it in the guest's firewall (/etc/pve/firewall/VMID.fw) instead."
        }
    }
}

#[cfg(test)]
mod tests;
