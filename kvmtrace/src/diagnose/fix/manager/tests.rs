//! Chains as these firewalls really write them (ufw 0.36, Docker 27, firewalld 2, libvirt 9 and 10, pve-firewall 5),
//! shortened to what matters.

use super::{Manager, manager_of};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::Suspect;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::{Conversation, Port, Service};
use crate::diagnose::fix::netfilter;
use crate::diagnose::report::{Cause, Fix};
use crate::event::host::{Backend, Chain, Rule};
use crate::event::{Event, EventKind, HostState, Timestamp};
use crate::track::Track;
use rstest::rstest;

/// What an `iptables-save` of the table `filter` tells.
fn saved(text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [name, policy, ..] if name.starts_with(':') => chains.push(Chain {
                backend: Backend::IptablesNft,
                family: "ip".to_owned(),
                table: "filter".to_owned(),
                name: name[1..].to_owned(),
                hook: (*policy != "-").then(|| name[1..].to_lowercase()),
                kind: None,
                priority: None,
                policy: (*policy != "-").then(|| policy.to_lowercase()),
                policy_packets: None,
                device: None,
                rules: Vec::new(),
            }),
            ["-A", name, ..] => {
                let target = words[words.iter().position(|word| *word == "-j").unwrap() + 1];
                let verdict = match target {
                    "DROP" | "REJECT" | "ACCEPT" | "RETURN" => target.to_lowercase(),
                    chain => format!("jump {chain}"),
                };
                let chain = chains.iter_mut().find(|chain| chain.name == *name).unwrap();
                let number = u32::try_from(chain.rules.len()).unwrap() + 1;
                let text = line.to_owned();
                chain.rules.push(Rule { handle: None, number, text, packets: None, verdict: Some(verdict) });
            }
            _ => {}
        }
    }
    chains
}

const UFW: &str = ":INPUT DROP [0:0]
    :FORWARD DROP [0:0]
    :ufw-before-forward - [0:0]
    :ufw-user-forward - [0:0]
    :ufw-user-input - [0:0]
    -A INPUT -j ufw-user-input
    -A FORWARD -j ufw-before-forward
    -A FORWARD -s 10.9.9.9/32 -j DROP
    -A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
    -A ufw-before-forward -j ufw-user-forward
    -A ufw-user-forward -s 10.0.0.0/24 -j DROP";

const DOCKER: &str = ":INPUT ACCEPT [0:0]
    :FORWARD DROP [0:0]
    :DOCKER - [0:0]
    :DOCKER-ISOLATION-STAGE-2 - [0:0]
    :DOCKER-USER - [0:0]
    -A FORWARD -j DOCKER-USER
    -A FORWARD -o docker0 -j DOCKER
    -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    -A DOCKER-USER -s 10.0.0.7/32 -j DROP";

const LIBVIRT: &str = ":FORWARD ACCEPT [0:0]
    :LIBVIRT_FWI - [0:0]
    -A FORWARD -j LIBVIRT_FWI
    -A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp-port-unreachable";

const FIREWALLD: &str = ":FORWARD ACCEPT [0:0]
    :FORWARD_IN_ZONES - [0:0]
    :FWDI_public - [0:0]
    -A FORWARD -j FORWARD_IN_ZONES
    -A FORWARD -j REJECT --reject-with icmp-host-prohibited
    -A FWDI_public -j DROP";

const PROXMOX: &str = ":FORWARD ACCEPT [0:0]
    :PVEFW-FORWARD - [0:0]
    :tap100i0-OUT - [0:0]
    -A FORWARD -j PVEFW-FORWARD
    -A tap100i0-OUT -m mac ! --mac-source 52:54:00:aa:00:01 -j DROP
    -A PVEFW-FORWARD -m conntrack --ctstate INVALID -j DROP";

const NEUTRON: &str = ":FORWARD ACCEPT [0:0]
    :neutron-openvswi-sg-chain - [0:0]
    :neutron-openvswi-sg-fallback - [0:0]
    :neutron-openvswi-s1f2e3d4c-5 - [0:0]
    :KUBE-FORWARD - [0:0]
    :cali-FORWARD - [0:0]
    -A neutron-openvswi-sg-chain -m conntrack --ctstate INVALID -j DROP
    -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
    -A cali-FORWARD -s 10.0.0.0/24 -j DROP
    -A neutron-openvswi-sg-fallback -j DROP
    -A neutron-openvswi-s1f2e3d4c-5 -j DROP";

const PLAIN: &str = ":FORWARD DROP [0:0]
    :mine - [0:0]
    -A FORWARD -j mine
    -A mine -s 10.0.0.7/32 -j DROP";

#[rstest]
#[case::policy_of_ufw(UFW, "FORWARD", None, Some(Manager::Ufw))]
#[case::rule_that_somebody_added(UFW, "FORWARD", Some(2), None)]
#[case::rule_of_a_ufw_chain(UFW, "ufw-user-forward", Some(1), Some(Manager::Ufw))]
#[case::policy_of_docker(DOCKER, "FORWARD", None, Some(Manager::Docker))]
#[case::rule_of_docker(DOCKER, "DOCKER-ISOLATION-STAGE-2", Some(1), Some(Manager::Docker))]
#[case::the_administrators_rule(DOCKER, "DOCKER-USER", Some(1), None)]
#[case::input_beside_docker(DOCKER, "INPUT", None, None)]
#[case::libvirt(LIBVIRT, "LIBVIRT_FWI", Some(2), Some(Manager::Libvirt))]
#[case::forward_beside_libvirt(LIBVIRT, "FORWARD", None, None)]
#[case::firewalld_end_of_the_chain(FIREWALLD, "FORWARD", Some(2), Some(Manager::Firewalld))]
#[case::firewalld_zone(FIREWALLD, "FWDI_public", Some(1), Some(Manager::Firewalld))]
#[case::proxmox(PROXMOX, "PVEFW-FORWARD", Some(1), Some(Manager::Proxmox))]
#[case::interface_of_a_guest(PROXMOX, "tap100i0-OUT", Some(1), Some(Manager::Proxmox))]
#[case::neutron(NEUTRON, "neutron-openvswi-sg-chain", Some(1), Some(Manager::Neutron))]
#[case::kubernetes(NEUTRON, "KUBE-FORWARD", Some(1), Some(Manager::Kubernetes))]
#[case::calico(NEUTRON, "cali-FORWARD", Some(1), Some(Manager::Calico))]
#[case::nobody(PLAIN, "FORWARD", None, None)]
#[case::own_chain(PLAIN, "mine", Some(1), None)]
fn chains_tell_who_writes_them(
    #[case] text: &str,
    #[case] chain: &str,
    #[case] rule: Option<u32>,
    #[case] expected: Option<Manager>,
) {
    let chains = saved(text);
    let chain = chains.iter().find(|known| known.name == chain).unwrap();
    let rule = rule.map(|number| chain.rules.iter().find(|rule| rule.number == number).unwrap());
    assert_eq!(manager_of(&chains, chain, rule), expected);
}

#[rstest]
#[case("firewalld", "inet", "filter_FORWARD", Some(Manager::Firewalld))]
#[case("libvirt_network", "ip", "guest_input", Some(Manager::Libvirt))]
#[case("incus", "bridge", "fwd.web1.eth0", Some(Manager::Incus))]
#[case("proxmox-firewall-guests", "bridge", "vm-in", Some(Manager::Proxmox))]
#[case("filter", "inet", "forward", None)]
fn tables_of_nft_tell_it_too(
    #[case] table: &str,
    #[case] family: &str,
    #[case] name: &str,
    #[case] expected: Option<Manager>,
) {
    assert_eq!(manager_of(&[], &nft(table, family, name), None), expected);
}

fn nft(table: &str, family: &str, name: &str) -> Chain {
    let rule = Rule {
        handle: Some(9),
        number: 1,
        text: "reject".to_owned(),
        packets: None,
        verdict: Some("reject".to_owned()),
    };
    let [table, family, name] = [table, family, name].map(str::to_owned);
    let (hook, kind, priority, policy) = (None, None, None, None);
    Chain {
        backend: Backend::Nft,
        family,
        table,
        name,
        hook,
        kind,
        priority,
        policy,
        policy_packets: None,
        device: None,
        rules: vec![rule],
    }
}

/// The first cure for a packet from 10.0.0.7 to UDP port 53 of 10.1.0.1 that this chain's rule, or its policy, dropped.
fn cure(chains: Vec<Chain>, hook: &'static str, chain: &str, rule: Option<u32>) -> Fix {
    let mut track = Track::default();
    let mut host = HostState::default();
    host.netfilter.chains = chains;
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
    let scene = Scene::new(&track);
    let chain = scene.host.netfilter.chains.iter().find(|known| known.name == chain).unwrap();
    let rule = rule.map(|number| chain.rules.iter().find(|rule| rule.number == number).unwrap());
    let stage = Stage { cause: Cause::NetfilterForward, hook, family: "ip", by_nft: Some(true) };
    let suspect = Suspect { chain: Some(chain), base: None, rule, grown: None, traced: None, gone: false };
    let [source, destination] = [[10, 0, 0, 7], [10, 1, 0, 1]].map(|address| Some(address.into()));
    let (service, port) = (Service::Udp, Some(Port::Destination(53)));
    let wanted = Conversation { source, destination, service, port, answered: true };
    netfilter::fixes(&scene, &stage, &[suspect], &[], &wanted).remove(0)
}

#[rstest]
#[case::ufw_forward(
    cure(saved(UFW), "forward", "FORWARD", None),
    "ufw route prepend allow proto udp from 10.0.0.7 to 10.1.0.1 port 53",
    "ufw route delete allow proto udp from 10.0.0.7 to 10.1.0.1 port 53"
)]
#[case::ufw_input(
    cure(saved(UFW), "input", "INPUT", None),
    "ufw prepend allow proto udp from 10.0.0.7 to 10.1.0.1 port 53",
    "ufw delete allow proto udp from 10.0.0.7 to 10.1.0.1 port 53"
)]
#[case::a_user_rule_can_not_help_against_what_ufw_does_before(
    cure(saved(UFW), "forward", "ufw-before-forward", Some(1)),
    "iptables-nft -t filter -I ufw-before-forward 1 -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT && iptables-nft -t filter -I ufw-before-forward 1 -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT",
    "iptables-nft -t filter -D ufw-before-forward -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT; iptables-nft -t filter -D ufw-before-forward -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT"
)]
#[case::docker(
    cure(saved(DOCKER), "forward", "FORWARD", None),
    "iptables-nft -t filter -I DOCKER-USER -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT && iptables-nft -t filter -I DOCKER-USER -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT",
    "iptables-nft -t filter -D DOCKER-USER -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT; iptables-nft -t filter -D DOCKER-USER -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT"
)]
#[case::firewalld(
    cure(vec![nft("firewalld", "inet", "filter_FORWARD")], "forward", "filter_FORWARD", Some(1)),
    concat!(
        "firewall-cmd --permanent --new-policy=kvmtrace1",
        " && firewall-cmd --permanent --policy=kvmtrace1 --add-ingress-zone=ANY",
        " && firewall-cmd --permanent --policy=kvmtrace1 --add-egress-zone=ANY",
        " && firewall-cmd --permanent --policy=kvmtrace1 --add-rich-rule='rule priority=\"-1\" family=\"ipv4\"",
        " source address=\"10.0.0.7\" destination address=\"10.1.0.1\" port port=\"53\" protocol=\"udp\" accept'",
        " && firewall-cmd --reload"
    ),
    "firewall-cmd --permanent --delete-policy=kvmtrace1 && firewall-cmd --reload"
)]
#[case::firewalld_zone(
    cure(vec![nft("firewalld", "inet", "filter_IN_public")], "input", "filter_IN_public", Some(1)),
    concat!(
        "firewall-cmd --zone=public --add-rich-rule='rule priority=\"-1\" family=\"ipv4\" source address=\"10.0.0.7\"",
        " destination address=\"10.1.0.1\" port port=\"53\" protocol=\"udp\" accept'"
    ),
    concat!(
        "firewall-cmd --zone=public --remove-rich-rule='rule priority=\"-1\" family=\"ipv4\" source address=\"10.0.0.7\"",
        " destination address=\"10.1.0.1\" port port=\"53\" protocol=\"udp\" accept'"
    )
)]
#[case::libvirt(
    cure(saved(LIBVIRT), "forward", "LIBVIRT_FWI", Some(2)),
    "iptables-nft -t filter -I LIBVIRT_FWI -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT",
    "iptables-nft -t filter -D LIBVIRT_FWI -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT"
)]
#[case::nobody(
    cure(saved(PLAIN), "forward", "mine", Some(1)),
    "iptables-nft -t filter -I mine 1 -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT && iptables-nft -t filter -I mine 1 -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT",
    "iptables-nft -t filter -D mine -s 10.0.0.7 -d 10.1.0.1 -p udp --dport 53 -j ACCEPT; iptables-nft -t filter -D mine -s 10.1.0.1 -d 10.0.0.7 -p udp --sport 53 -j ACCEPT"
)]
fn a_manager_is_asked_in_its_own_way(#[case] fix: Fix, #[case] command: &str, #[case] undo: &str) {
    assert_eq!(fix.command.as_deref(), Some(command));
    assert_eq!(fix.undo.as_deref(), Some(undo));
    assert!(fix.risk.is_some() && fix.persist.is_some(), "{fix:?}");
}

const ISOLATED: &str = ":FORWARD ACCEPT [0:0]
    :LIBVIRT_FWI - [0:0]
    :LIBVIRT_FWO - [0:0]
    :LIBVIRT_FWX - [0:0]
    -A FORWARD -j LIBVIRT_FWX
    -A FORWARD -j LIBVIRT_FWI
    -A FORWARD -j LIBVIRT_FWO
    -A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT
    -A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable
    -A LIBVIRT_FWO -i virbr1 -j REJECT --reject-with icmp-port-unreachable
    -A LIBVIRT_FWI -o virbr1 -j REJECT --reject-with icmp-port-unreachable
    -A LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT";

#[rstest]
#[case::of_a_network_without_a_way_out(3, false)]
#[case::of_one_that_has_one(2, true)]
fn nothing_is_opened_out_of_a_network_that_libvirt_keeps_to_itself(#[case] rule: u32, #[case] opens: bool) {
    let fix = cure(saved(ISOLATED), "forward", "LIBVIRT_FWO", Some(rule));
    assert_eq!(fix.command.is_some(), opens, "{}", fix.why);
    assert_eq!(fix.why.contains("virbr1 is isolated"), !opens, "{}", fix.why);
}

#[rstest]
#[case::what_no_security_group_allows(
    "neutron-openvswi-sg-fallback",
    "openstack security group rule create --egress --protocol udp --dst-port 53 --remote-ip 10.1.0.1 GROUP"
)]
#[case::a_source_that_is_not_the_ports("neutron-openvswi-s1f2e3d4c-5", "--allowed-address ip-address=10.0.0.7")]
fn neutron_is_asked_for_what_its_chain_is_about(#[case] chain: &str, #[case] words: &str) {
    let fix = cure(saved(NEUTRON), "forward", chain, Some(1));
    assert_eq!(fix.command, None);
    assert!(fix.why.contains(words), "{}", fix.why);
}

const BANS: &str = ":INPUT ACCEPT [0:0]
    :f2b-sshd - [0:0]
    -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
    -A INPUT -m set --match-set crowdsec-blacklists src -j DROP
    -A f2b-sshd -s 10.0.0.7/32 -j REJECT --reject-with icmp-port-unreachable";

#[rstest]
#[case::chain_of_a_jail("f2b-sshd", 1, "fail2ban-client set sshd unbanip 10.0.0.7")]
#[case::a_set("INPUT", 2, "cscli decisions delete --ip 10.0.0.7")]
fn a_ban_is_lifted_by_who_set_it(#[case] chain: &str, #[case] rule: u32, #[case] expected: &str) {
    let cure = cure(saved(BANS), "input", chain, Some(rule));
    assert_eq!(cure.command, None, "no rule of ours lets a banned address in");
    assert!(cure.why.contains(expected), "{}", cure.why);
}

#[rstest]
#[case("ip saddr @addr-set-sshd reject", "f2b-table", "fail2ban-client set sshd unbanip 10.0.0.7")]
#[case("ip saddr @crowdsec-blacklists drop", "crowdsec", "cscli decisions delete --ip 10.0.0.7")]
fn a_ban_in_a_table_of_nft_too(#[case] text: &str, #[case] table: &str, #[case] expected: &str) {
    let mut chain = nft(table, "inet", "chain");
    text.clone_into(&mut chain.rules[0].text);
    let cure = cure(vec![chain], "input", "chain", Some(1));
    assert!(cure.command.is_none() && cure.why.contains(expected), "{}", cure.why);
}
