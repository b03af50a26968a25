//! Firewalls that write their chains themselves: a cure is theirs to give, for what is changed behind their back is
//! gone at their next reload. They are known by the names of their chains and tables.

pub(in crate::diagnose) mod bans;
pub mod firewalld;
mod libvirt;
mod nwfilter;
mod proxmox;

use self::bans::Banner;
use super::accept::accept;
use super::conversation::{Conversation, Port, Service};
use crate::diagnose::facts::firewall::protection::{Protection, protection};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell;
use crate::event::HostState;
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
    /// Proxmox VE: chains `PVEFW-…` and, per interface of a guest, `tap100i0-IN`, `tap100i0-OUT`; nft's tables
    /// `proxmox-firewall…`.
    Proxmox,
    /// OpenStack Neutron: chains `neutron-…`.
    Neutron,
    /// Incus and LXD: nft's tables `incus` and `lxd`, with chains `fwd.NAME.DEVICE`.
    Incus,
    /// Kubernetes: chains `KUBE-…`, nft's table `kube-proxy`.
    Kubernetes,
    /// Calico: chains `cali-…`, nft's table `calico`.
    Calico,
    /// Cilium: chains `CILIUM_…`.
    Cilium,
    /// A program that bans addresses for what they did.
    Banner(Banner),
}

impl Manager {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Docker => "Docker",
            Self::Libvirt | Self::LibvirtFilter => "libvirt",
            Self::Proxmox => "Proxmox",
            Self::Neutron => "Neutron",
            Self::Incus => "Incus",
            Self::Kubernetes => "Kubernetes",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::Banner(banner) => banner.name(),
        }
    }

    /// It filters what a bridge forwards by the IP rules that br_netfilter shows it.
    fn filters_bridged(self) -> bool {
        !matches!(self, Self::Firewalld | Self::Libvirt | Self::Banner(_))
    }
}

/// Who filters bridged frames by IP rules on this host: without `bridge-nf-call-iptables` all of that is off.
pub(in crate::diagnose) fn filters_bridged(host: &HostState) -> Option<&'static str> {
    let chains = &host.netfilter.chains;
    let by_ip = |chain: &&Chain| matches!(chain.family.as_str(), "ip" | "ip6" | "inet");
    let managers = chains.iter().filter(by_ip).filter_map(|chain| manager_of(chains, chain, chain.rules.first()));
    let found = managers.into_iter().find(|manager| manager.filters_bridged()).map(Manager::name);
    let by_port = |rule: &Rule| rule.text.contains("--physdev-");
    found.or_else(|| {
        chains.iter().any(|chain| chain.rules.iter().any(by_port)).then_some("A rule that asks for a port of a bridge")
    })
}

/// The manager of what drops in `chain`: a rule, or the chain's policy.
pub fn manager_of(chains: &[Chain], chain: &Chain, rule: Option<&Rule>) -> Option<Manager> {
    let name = chain.name.as_str();
    if let Some(banner) = bans::banner(chain, rule) {
        return Some(Manager::Banner(banner));
    }
    match chain.table.as_str() {
        "firewalld" => return Some(Manager::Firewalld),
        "libvirt_network" => return Some(Manager::Libvirt),
        "docker-bridges" => return Some(Manager::Docker),
        "incus" | "lxd" => return Some(Manager::Incus),
        "kube-proxy" => return Some(Manager::Kubernetes),
        "calico" => return Some(Manager::Calico),
        table if table.starts_with("proxmox-firewall") => return Some(Manager::Proxmox),
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
    let prefixes = [
        ("neutron-", Manager::Neutron),
        ("KUBE-", Manager::Kubernetes),
        ("cali-", Manager::Calico),
        ("CILIUM_", Manager::Cilium),
    ];
    if let Some((_, manager)) = prefixes.into_iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some(manager);
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
    if proxmox::guest(chain).is_some() && beside("PVEFW-FORWARD")
        || name.starts_with("PVEFW-")
        || name.starts_with("GROUP-") && beside("PVEFW-FORWARD")
    {
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
    rule: Option<&Rule>,
) -> Vec<Fix> {
    match manager {
        Manager::Ufw => ufw(chain, stage, wanted).into_iter().collect(),
        Manager::Firewalld => firewalld::fixes(scene, chain, stage, wanted),
        Manager::Docker => docker(scene, chain, stage, wanted).into_iter().collect(),
        Manager::Libvirt => vec![libvirt::fix(scene, chain, wanted, rule)],
        Manager::LibvirtFilter => vec![nwfilter::fix(scene, chain, wanted)],
        Manager::Proxmox => proxmox::fixes(scene, chain, stage, wanted, rule),
        Manager::Neutron => vec![neutron(scene, chain, wanted, rule)],
        Manager::Banner(banner) => vec![bans::fix(banner, chain, wanted, rule)],
        // They write their chains from what is allowed elsewhere; a rule of ours lasts until they write them again.
        Manager::Incus | Manager::Kubernetes | Manager::Calico | Manager::Cilium => Vec::new(),
    }
}

/// kube-proxy refuses what is for a service that no pod stands behind: past the rule the packet finds nobody. With iptables the
/// rule's comment names the service (`proxier.go`: "has no endpoints"), with nft all of them share a chain that refuses.
pub(in crate::diagnose) fn without_endpoints(chain: &Chain, rule: &Rule) -> Option<Fix> {
    let comment = rule.text.split('"').find_map(|text| text.strip_suffix(" has no endpoints"));
    let shared = chain.table == "kube-proxy" && chain.name == "reject-chain";
    let of_iptables = chain.name.starts_with("KUBE-") && comment.is_some();
    if !of_iptables && !shared {
        return None;
    }
    let (name, look) = match comment.and_then(|comment| comment.split(':').next()?.split_once('/')) {
        Some((namespace, name)) => {
            let (namespace, name) = (shell::quote(namespace), shell::quote(name));
            (format!("service {namespace}/{name}"), format!("kubectl -n {namespace} get endpoints,pods,service {name}"))
        }
        None => ("service with this address".to_owned(), "kubectl get endpoints -A".to_owned()),
    };
    Some(Fix::advice(format!(
        "Give the Kubernetes {name} a pod that is ready, and whose labels its selector names ({look}): without one kube-proxy refuses what is sent to it, and to pass its rule would lead nowhere."
    )))
}

/// Neutron's ports and security groups are the tenant's, whose credentials this host does not have.
fn neutron(scene: &Scene<'_>, chain: &Chain, wanted: &Conversation, rule: Option<&Rule>) -> Fix {
    // `neutron-openvswi-s` and the port's id: the pairs of addresses that it may send from. `sg-chain` and `sg-fallback`
    // serve all ports.
    let of_port = |prefix: char| {
        let rest = chain.name.strip_prefix("neutron-").and_then(|rest| rest.split_once('-'));
        rest.and_then(|(_, rest)| rest.strip_prefix(prefix)).is_some_and(|id| !id.starts_with("g-"))
    };
    if rule.and_then(protection) == Some(Protection::Source) || of_port('s') {
        let from = wanted.source.map_or_else(|| "ADDRESS".to_owned(), |source| source.to_string());
        return Fix::advice(format!(
            "Neutron keeps the port to its own addresses. If {from} is meant to be the guest's: openstack port set --allowed-address ip-address={from} PORT (with mac-address=MAC where the guest sends by another); else give the guest the address that it may have."
        ));
    }
    let is_guest = |address: Option<std::net::IpAddr>| {
        address.is_some_and(|address| scene.guest_by_address(crate::event::Address::Ip(address)).is_some())
    };
    let inward = of_port('i') || !of_port('o') && is_guest(wanted.destination) && !is_guest(wanted.source);
    let (way, far) = if inward { ("ingress", wanted.source) } else { ("egress", wanted.destination) };
    let protocol = wanted.service.over_ip().map(|protocol| format!(" --protocol {protocol}")).unwrap_or_default();
    let port = match wanted.port {
        Some(Port::Destination(port)) => format!(" --dst-port {port}"),
        Some(Port::Source(_)) | None => String::new(),
    };
    let far = far.map(|far| format!(" --remote-ip {far}")).unwrap_or_default();
    Fix::advice(format!(
        "Let {}, by a rule of the port's security group: openstack security group rule create --{way}{protocol}{port}{far} GROUP (openstack port show PORT lists its groups).",
        wanted.text()
    ))
}

/// The policy has to be passed both ways: only what belongs to containers is let back by Docker itself.
fn docker(scene: &Scene<'_>, chain: &Chain, stage: &Stage, wanted: &Conversation) -> Option<Fix> {
    let user = scene.host.netfilter.chains.iter().find(|other| {
        other.name == "DOCKER-USER"
            && (other.backend, &other.family, &other.table) == (chain.backend, &chain.family, &chain.table)
    })?;
    let fix = accept(scene, user, stage, wanted, None);
    let why = format!("{} DOCKER-USER is the chain that Docker leaves to you.", fix.why);
    Some(Fix { why, ..fix }.persist(
        "Docker keeps DOCKER-USER while it runs, not over a reboot: run the command from a unit that starts after docker.service.",
    ))
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
    let protocol = match wanted.service {
        Service::Tcp => Some("tcp"),
        Service::Udp => Some("udp"),
        Service::AnyIp
        | Service::Sctp
        | Service::Icmp
        | Service::Icmpv6
        | Service::Discovery(_)
        | Service::Ip(_)
        | Service::Arp
        | Service::Frames(..) => None,
    };
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
        Manager::Neutron => "Neutron's agent writes these chains anew: allow it in the port's security group instead.",
        Manager::Incus => {
            "Incus writes these chains anew when the guest starts: run the command from a hook then, or change the device's security.*_filtering or its network ACL."
        }
        Manager::Kubernetes => "kube-proxy writes these chains anew: allow it by a NetworkPolicy, or mend the Service.",
        Manager::Calico => {
            "Calico's agent writes these chains anew: allow it by a NetworkPolicy or GlobalNetworkPolicy."
        }
        Manager::Cilium => "Cilium's agent writes these chains anew: allow it by a CiliumNetworkPolicy.",
        Manager::Banner(_) => "The program that bans writes its rules and sets anew.",
    }
}

#[cfg(test)]
mod tests;
