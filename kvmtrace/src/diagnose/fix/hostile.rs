//! Every builder of cures, with the worst names that the kernel takes: what they print is run by a shell whose programs only
//! write down what they were called with.

use super::conversation::{Conversation, Port, Service};
use super::manager::{Manager, fixes as manager_fixes};
use super::masquerade::masquerade;
use super::{device, netfilter, sysctl};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::Suspect;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::persist::tests::link;
use crate::diagnose::report::{Cause, Fix};
use crate::diagnose::shell::quote;
use crate::event::host::{Backend, Chain, Guest, GuestInterface, LinkKind, Network, Qdisc, Route, Rule, Set};
use crate::event::names::RouteKind;
use crate::event::{Event, EventKind, HostState, MacAddress, Timestamp};
use crate::track::Track;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const PROGRAMS: &[&str] = &[
    "arptables-legacy",
    "arptables-nft",
    "bridge",
    "ebtables-legacy",
    "ebtables-nft",
    "firewall-cmd",
    "ip",
    "ip6tables-legacy",
    "ip6tables-nft",
    "ipset",
    "iptables-legacy",
    "iptables-nft",
    "nft",
    "sed",
    "sysctl",
    "tc",
    "touch",
    "ufw",
    "virsh",
];

fn chain(backend: Backend, family: &str, name: &str, text: &str) -> Chain {
    let rule =
        Rule { handle: Some(7), number: 2, text: text.to_owned(), packets: None, verdict: Some("drop".to_owned()) };
    Chain {
        backend,
        family: family.to_owned(),
        table: "filter".to_owned(),
        name: name.to_owned(),
        hook: Some("forward".to_owned()),
        kind: None,
        priority: None,
        policy: Some("drop".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![rule],
    }
}

/// The cures of all builders for devices, chains and a guest of this name.
fn cures(name: &str, guest: &str) -> Vec<Fix> {
    let mut host = HostState::default();
    let (port, other) = (link(4, name, LinkKind::Tun), link(5, "br0", LinkKind::Physical));
    host.links.insert(port.index, port.clone());
    host.links.insert(other.index, other.clone());
    let mac = Some(MacAddress([0x52, 0x54, 0, 0, 0, 1]));
    let interface = GuestInterface::new(port.index, "tap", mac, Vec::new());
    host.guests.push(Guest { name: guest.to_owned(), interfaces: vec![interface], ..Guest::default() });
    // As `xtables_save_string` writes a string; devices, whose names hold no blanks, are written as they are.
    let escaped: String =
        name.chars().flat_map(|c| "\\\"'".contains(c).then_some('\\').into_iter().chain([c])).collect();
    let device = if name.contains(' ') || name.starts_with('"') { "eth0" } else { name };
    // A set's name is written as it is as well (`libxt_set.c`): with a blank in it, nobody can read the rule back.
    let set_name = if device == name { name } else { "blocked" };
    let saved = format!("-A mine -i {device} -m comment --comment \"{escaped}\" -j DROP");
    host.netfilter.chains = vec![
        chain(Backend::IptablesLegacy, "ip", name, &saved),
        chain(Backend::IptablesNft, "ip6", name, &saved),
        chain(Backend::IptablesNft, "bridge", &format!("I-{name}-ipv4-ip"), "-A x -j DROP"),
        chain(Backend::Nft, "inet", name, "drop"),
        chain(Backend::Nft, "firewalld", &format!("filter_IN_{name}"), "reject"),
        chain(Backend::Nft, "ip", "sets", &format!("ip saddr @{name} drop")),
        chain(Backend::IptablesLegacy, "ip", "sets", &format!("-A sets -m set --match-set {set_name} src -j DROP")),
    ];
    let set = |table: Option<&str>| Set {
        family: "ip".to_owned(),
        table: table.map(str::to_owned),
        name: name.to_owned(),
        elements: vec!["10.0.0.7".to_owned()],
        complete: true,
        kind: None,
        answers: Vec::new(),
    };
    host.netfilter.sets = vec![set(Some("filter")), set(None)];
    let mut track = Track::default();
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
    let scene = Scene::new(&track);
    let network = Network { address: [10, 0, 0, 0].into(), prefix: 24 };
    let route = Route {
        destination: network,
        gateway: Some([10, 1, 0, 1].into()),
        device: Some(port.index),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    };
    let before = HostState { routes: vec![route], ..HostState::default() };
    let qdisc = Qdisc {
        device: port.index,
        kind: "tbf".to_owned(),
        handle: "8001:".to_owned(),
        parent: "root".to_owned(),
        drops: 0,
        overlimits: 0,
        backlog: 0,
        setting: None,
        burst: None,
        policers: Vec::new(),
    };
    let mut cures = vec![
        device::up(scene.host, &before, &port),
        device::mtu(&port, 9_000, ""),
        device::enslave(&port, &other, ""),
        device::enslave(&other, &port, ""),
        device::port_flag(&port, "flood", true, ""),
        device::bridge_option(&port, "stp_state", "1", "0", ""),
        device::qdisc_delete(&port, &qdisc, ""),
        sysctl::set(scene.host, &format!("net.ipv4.conf.{name}.rp_filter"), "2", ""),
        masquerade(&scene, &port, network, None),
    ];
    let [source, destination] = [[10, 0, 0, 7], [10, 1, 0, 1]].map(|address| Some(address.into()));
    let wanted =
        Conversation { source, destination, service: Service::Udp, port: Some(Port::Destination(53)), answered: true };
    for chain in &scene.host.netfilter.chains {
        for hook in ["forward", "input"] {
            let stage = Stage { cause: Cause::NetfilterForward, hook, family: "ip", by_nft: Some(true) };
            for rule in [None, chain.rules.first()] {
                let suspect = Suspect { chain: Some(chain), base: None, rule, grown: None, traced: None, gone: false };
                cures.extend(netfilter::fixes(&scene, &stage, &[suspect], &[], &wanted));
            }
            for manager in [
                Manager::Ufw,
                Manager::Firewalld,
                Manager::Docker,
                Manager::Libvirt,
                Manager::LibvirtFilter,
                Manager::Proxmox,
            ] {
                cures.extend(manager_fixes(manager, &scene, chain, &stage, &wanted, chain.rules.first()));
            }
        }
    }
    cures
}

/// What the programs of a command line were called with.
fn calls(line: &str, directory: &Path) -> Result<Vec<Vec<String>>, String> {
    let log = directory.join("log");
    fs::write(&log, "").map_err(|error| error.to_string())?;
    // Files that a cure keeps for its undo go here as well.
    let line = line.replace("/run/", &format!("{}/", directory.display()));
    let output = Command::new("/bin/sh")
        .args(["-c", &line])
        .env_clear()
        .env("PATH", directory)
        .env("LOG", &log)
        .current_dir(directory)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(format!("{line}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    let call = |call: &str| call.split('\u{1}').map(str::to_owned).collect();
    Ok(text.split('\u{2}').filter(|call| !call.is_empty()).map(call).collect())
}

/// A directory of programs that write their words down.
fn programs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let program = "#!/bin/sh\nprintf '%s' \"${0##*/}\" >> \"$LOG\"\nfor word in \"$@\"; do printf '\\001%s' \"$word\" >> \"$LOG\"; done\nprintf '\\002' >> \"$LOG\"\n";
    for name in PROGRAMS {
        let path = directory.path().join(name);
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// No program was called that the cure does not name, and the name came out whole wherever a part of it did.
fn judge(fix: &Fix, name: &str, directory: &Path) -> Result<(), TestCaseError> {
    for line in [fix.command.as_ref(), fix.undo.as_ref()].into_iter().flatten() {
        prop_assert!(!line.contains(char::is_control), "more than a line: {line:?}");
        let calls = calls(line, directory).map_err(TestCaseError::fail)?;
        for call in &calls {
            prop_assert!(call[0] != "touch", "{line} ran what was in a name: {call:?}");
            // A word that begins as the name does is the name, or holds all of it.
            let words = call.iter().skip(1);
            for word in words.filter(|word| word.contains("touch")) {
                prop_assert!(word.contains(name) || word.contains(&quote(name)), "{line} tore a name: {call:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn sets_are_among_what_is_cured() {
    let cures = cures("closed", "web1");
    for command in ["nft 'delete element ip filter closed { 10.0.0.7 }'", "ipset del closed 10.0.0.7"] {
        assert!(cures.iter().any(|fix| fix.command.as_deref() == Some(command)), "{command}");
    }
}

#[test]
fn names_that_a_shell_would_run_are_words() {
    let directory = programs();
    for name in [
        "$(touch x)",
        "`touch x`",
        "a;touch x",
        "-touch",
        "'touch'",
        "\"touch",
        "touch\\",
        "a&touch|b",
        "*touch?",
        "tou ch",
    ] {
        for fix in cures(name, name) {
            judge(&fix, name, directory.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_name_is_one_word(name in "[-a'\"$`\\\\(){}<>|&;*?!#~=%@+:., ]{1,5}touch[-a'\"$`\\\\();&|<>*?# ]{0,5}") {
        let directory = programs();
        for fix in cures(&name, &name) {
            judge(&fix, &name, directory.path())?;
        }
    }
}
