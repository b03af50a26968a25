//! `kvmtrace check` from outside: silent on healthy hosts, and each fault of a configuration is told where it is.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that can't go on has failed; a skip is told")]

mod machine;

use anyhow::{Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::{Lab, can_test};
use kvmtrace_tests::product::{Product, Verdict};

/// A lab with two guests, and kvmtrace; none, told, without root.
fn setup(topology: Topology) -> Result<Option<(Lab, Product)>> {
    if !can_test("check")? {
        return Ok(None);
    }
    let options = Options { topology, guests: 2, ..Options::default() };
    Ok(Some((Lab::drawn(&options, Seed::choose()?, "check")?, Product::find()?)))
}

fn check(lab: &Lab, product: &Product, more: &[&str]) -> Result<Verdict> {
    let verdict = Verdict::of(&product.run(&lab.host, &[&["check", "--json"], more].concat())?)?;
    ensure!(verdict.json["flows"].as_array().is_some_and(Vec::is_empty), "check tells of flows");
    Ok(verdict)
}

/// Cause and device of each fault; what is only said for information is none.
fn faults(verdict: &Verdict) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    verdict
        .items()
        .filter(|item| item["severity"] != "info")
        .map(|item| (text(&item["cause"]), text(&item["where"]["device"])))
        .collect()
}

#[test]
fn healthy_hosts_are_passed_in_silence() -> Result<()> {
    for (topology, name, _) in Topology::ALL {
        let Some((lab, product)) = setup(topology)? else { return Ok(()) };
        let verdict = check(&lab, &product, &[])?;
        assert_eq!((faults(&verdict), verdict.code), (vec![], 0), "{name}");
    }
    Ok(())
}

#[test]
fn faults_of_a_bridged_host_are_told_where_they_are_and_the_cure_silences_them() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Bridge)? else { return Ok(()) };
    let (tap, other) = (lab.plan.guests[0].tap.clone(), lab.plan.guests[1].tap.clone());
    let links = lab.host.check("ip -o link show master $(ip -o link show type bridge | cut -d: -f2 | tr -d ' ')")?;
    let ports = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let uplink = ports.into_iter().find(|port| *port != tap && *port != other).unwrap().to_owned();
    let mac = &lab.plan.guests[0].port.mac;
    let (own, bridge) = (lab.plan.host.addresses.v4, lab.plan.bridge.as_str());
    let cases = [
        (format!("ip link set {uplink} mtu 1300"), "bridge-mtu-exceeded", uplink.as_str()),
        (format!("ip link set {uplink} nomaster"), "bridge-port-detached", &uplink),
        (format!("ip link set {uplink} down"), "link-down", &uplink),
        (format!("ip link set {tap} down"), "link-down", &tap),
        (format!("ip link set {tap} nomaster"), "bridge-port-detached", &tap),
        (format!("bridge link set dev {tap} state 0"), "bridge-port-blocked", &tap),
        (
            // It may have been learned before.
            format!(
                "bridge link set dev {tap} flood off learning off; bridge fdb del {mac} dev {tap} master 2>/dev/null; true"
            ),
            "bridge-flood-disabled",
            &tap,
        ),
        (format!("ip link set {tap} txqueuelen 8"), "guest-not-reading", &tap),
        (format!("bridge link set dev {tap} bcast_flood off"), "bridge-flood-disabled", &tap),
        (
            // It may have been learned before, and would be again.
            format!(
                "bridge link set dev {tap} locked on learning off; bridge fdb del {mac} dev {tap} master 2>/dev/null; true"
            ),
            "bridge-port-locked",
            &tap,
        ),
        (format!("bridge link set dev {tap} hairpin on"), "bridge-loop", &tap),
        (format!("bridge link set dev {uplink} hairpin on"), "bridge-loop", &uplink),
        (
            format!("bridge link set dev {tap} isolated on && bridge link set dev {uplink} isolated on"),
            "bridge-port-isolated",
            &uplink,
        ),
        (
            format!("ip addr add {own}/24 dev {uplink} && ip addr del {own}/24 dev {bridge}"),
            "neighbour-unresolved",
            &uplink,
        ),
    ];
    for (line, cause, device) in cases {
        let cure = prove(&lab, &product, &line, cause, device)?;
        // Only the guest that has to do with it.
        let narrowed = faults(&check(&lab, &product, &["-i", &other])?);
        let is_alone = device == tap || cause == "bridge-port-isolated";
        assert_eq!(narrowed.is_empty(), is_alone, "{line}: {narrowed:?}");
        lab.host.check(&cure)?;
        lab.host
            .check(&format!("sh -c 'bridge link set dev {tap} isolated off; bridge link set dev {tap} learning on'"))?;
    }
    // Which traffic is meant to pass only its owner knows: no command opens the whole chain.
    lab.host.check(
        "nft 'add table bridge fw; add chain bridge fw c { type filter hook forward priority 0; policy drop; }'",
    )?;
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("netfilter-bridge".to_owned(), bridge.to_owned())]);
    assert!(verdict.json["findings"][0]["fixes"][0]["command"].is_null());
    lab.host.check("nft delete table bridge fw")?;
    // Time would mend it, too.
    lab.host.check(&format!(
        "ip link set {bridge} type bridge stp_state 1 forward_delay 1500 && ip link set {tap} nomaster && ip link set {tap} master {bridge}"
    ))?;
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("bridge-port-blocked".to_owned(), tap.clone())]);
    lab.host.check(verdict.json["findings"][0]["fixes"][0]["command"].as_str().unwrap())?;
    assert_eq!(faults(&check(&lab, &product, &[])?), []);
    Ok(())
}

/// Breaks the host, sees that told, that the cure silences it and that its undo brings it back; gives the cure.
fn prove(lab: &Lab, product: &Product, line: &str, cause: &str, device: &str) -> Result<String> {
    lab.host.check(line)?;
    let wanted = (cause.to_owned(), device.to_owned());
    let is_told = |verdict: &Verdict, after: &str| {
        let found = faults(verdict);
        let only = !found.is_empty() && found.iter().all(|found| *found == wanted);
        assert!(only && verdict.code == 1, "{after}: {found:?}, exit {}", verdict.code);
    };
    let verdict = check(lab, product, &[])?;
    is_told(&verdict, line);
    let fix = &verdict.json["findings"][0]["fixes"][0];
    let (command, undo) = (fix["command"].as_str().unwrap(), fix["undo"].as_str().unwrap());
    lab.host.check(command)?;
    // At once: that the kernel tells the bridge of a port's carrier a moment later is not told as a fault.
    assert_eq!(faults(&check(lab, product, &[])?), [], "{line}, then {command}");
    lab.host.check(undo)?;
    is_told(&check(lab, product, &[])?, &format!("{line}, then {command}, then {undo}"));
    Ok(command.to_owned())
}

/// The same, and mends it.
fn prove_and_mend(lab: &Lab, product: &Product, line: &str, cause: &str, device: &str) -> Result<()> {
    let cure = prove(lab, product, line, cause, device)?;
    lab.host.check(&cure).map(drop)
}

#[test]
fn what_a_host_that_routes_does_not_let_through_is_told_and_its_cure_has_an_undo() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Routed)? else { return Ok(()) };
    let (bridge, uplink) = (&lab.plan.bridge, &lab.plan.uplink.device);
    let guest = lab.plan.guests[0].port.addresses.v4;
    let forwarding = format!("sysctl -qw net/ipv4/conf/{bridge}/forwarding=0");
    prove_and_mend(&lab, &product, &forwarding, "forwarding-disabled", bridge)?;
    let filter = format!("sysctl -qw net/ipv4/conf/{bridge}/rp_filter=1 && ip route add {guest}/32 dev {uplink}");
    prove_and_mend(&lab, &product, &filter, "reverse-path-filter", bridge)?;
    lab.host.check(&format!("ip route del {guest}/32 dev {uplink}"))?;
    // Documentation's addresses stand for the world's: 2000::/3.
    let advertised = format!(
        "ip addr add 2001:db8:1::1/64 dev {bridge} nodad && ip addr add 2001:db8:2::2/64 dev {uplink} nodad && \
         sysctl -qw net/ipv6/conf/{uplink}/accept_ra=1"
    );
    prove_and_mend(&lab, &product, &advertised, "no-route", uplink)?;
    let forbidden = format!("ip rule add from {guest}/24 priority 100 prohibit");
    prove_and_mend(&lab, &product, &forbidden, "route-prohibited", bridge)?;
    let twice = format!("ip addr add {}/24 dev {uplink}", lab.plan.guest_net.host(77).v4);
    lab.host.check(&twice)?;
    // Numbering a network anew is no command. The bridge's route is the older one.
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("address-overlap".to_owned(), bridge.clone())]);
    assert!(verdict.json["findings"][0]["fixes"][0]["command"].is_null());
    lab.host.check(&twice.replace(" add ", " del "))?;
    assert_eq!(faults(&check(&lab, &product, &[])?), []);
    // Established connections and other devices do not let the guests begin one.
    let policy = "nft 'add table inet fw; add chain inet fw c { type filter hook forward priority 0; policy drop; }; \
                  add rule inet fw c ct state established,related accept; add rule inet fw c iifname \"docker0\" accept'";
    prove_and_mend(&lab, &product, policy, "netfilter-forward", bridge)
}

#[test]
fn a_tunnel_that_does_not_fit_its_device_is_told() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Vxlan)? else { return Ok(()) };
    let short = format!("ip link set {} mtu {}", lab.plan.uplink.device, lab.plan.mtu + 49);
    prove_and_mend(&lab, &product, &short, "tunnel-mtu-exceeded", &lab.plan.vxlan)
}

#[test]
fn a_policy_that_drops_bridged_frames_is_told() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Bridge)? else { return Ok(()) };
    let present = lab.host.check("sysctl -qw net.bridge.bridge-nf-call-iptables=1").is_ok();
    if !present {
        println!("SKIP: this kernel has no br_netfilter");
        return Ok(());
    }
    // As Docker leaves it.
    let policy = "iptables-nft -P FORWARD DROP && iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT";
    prove_and_mend(&lab, &product, policy, "netfilter-bridged-ip", &lab.plan.bridge)
}

#[test]
fn a_host_that_routes_must_forward_and_translate() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Routed)? else { return Ok(()) };
    lab.host.check("sysctl -qw net.ipv4.ip_forward=0")?;
    assert_eq!(faults(&check(&lab, &product, &[])?), [], "the network may be for the guests and the host alone");
    let bridge = &lab.plan.bridge;
    lab.host.check(&format!("nft 'add table ip meant; add chain ip meant c {{ type filter hook forward priority 9; }}; add rule ip meant c iifname {bridge} accept'"))?;
    let verdict = check(&lab, &product, &[])?;
    lab.host.check("nft delete table ip meant")?;
    assert_eq!(faults(&verdict).first().map(|(cause, _)| cause.as_str()), Some("forwarding-disabled"));
    lab.host.check("sysctl -qw net.ipv4.ip_forward=1")?;
    assert_eq!(faults(&check(&lab, &product, &[])?), []);
    // With a public address of its own, nobody beyond can know the guests' private ones.
    lab.host.check("ip link add ktpub0 type veth peer name ktpub1")?;
    lab.host.check("ip link set ktpub0 up && ip link set ktpub1 up && ip addr add 198.51.100.7/24 dev ktpub0 && ip route replace default dev ktpub0")?;
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("nat-missing".to_owned(), "ktpub0".to_owned())]);
    let command = verdict.json["findings"][0]["fixes"][0]["command"].as_str().unwrap().to_owned();
    lab.host.shell(&command).status()?;
    assert_eq!(faults(&check(&lab, &product, &[])?), [], "{command}");
    let public = "ip addr add 2001:db8:7::7/64 dev ktpub0 nodad && ip -6 route replace default dev ktpub0";
    prove_and_mend(&lab, &product, public, "nat-missing", "ktpub0")
}

#[test]
fn a_macvtap_that_can_hand_its_guest_nothing_is_told() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Macvtap)? else { return Ok(()) };
    let (tap, nic) = (&lab.plan.guests[0].tap, &lab.plan.uplink.device);
    prove_and_mend(&lab, &product, &format!("ip link set {nic} down"), "link-down", nic)?;
    let address = format!("ip link set {tap} address 02:00:00:00:99:01");
    prove(&lab, &product, &address, "mac-spoofed", tap)?;
    let verdict = product.verdict(&lab, &[], || {
        let ping = format!("ping -n -q -c3 -i0.3 -W1 {}", lab.plan.lan.addresses.v4);
        lab.guests[0].namespace.run(&ping)
    })?;
    let flows = verdict.1.json["flows"].as_array().unwrap();
    let told = flows.iter().find(|flow| flow["cause"] == "mac-spoofed").unwrap();
    assert_eq!((&told["direction"], &told["where"]["device"]), (&"to-guest".into(), &tap.as_str().into()));
    Ok(())
}

#[test]
fn addresses_that_two_have_are_told_until_each_has_its_own() -> Result<()> {
    let Some((mut lab, product)) = setup(Topology::Bridge)? else { return Ok(()) };
    let macs = [0, 1].map(|index: usize| lab.plan.guests[index].port.mac.clone());
    let taps = [0, 1].map(|index: usize| lab.plan.guests[index].tap.clone());
    let own = lab.host.check(&format!("cat /sys/class/net/{}/address", lab.plan.bridge))?;
    let of_bridge = |mac: &str| format!("ip link set {} address {mac}", lab.plan.bridge);
    lab.host.check(&of_bridge(&macs[1]))?;
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("mac-conflict".to_owned(), taps[1].clone())]);
    // The cure lies in the guest's definition.
    assert!(verdict.json["findings"][0]["fixes"][0]["command"].is_null());
    lab.host.check(&of_bridge(own.trim()))?;
    assert_eq!(faults(&check(&lab, &product, &[])?), []);
    lab.guests[1].restart_as(&macs[0])?;
    let verdict = check(&lab, &product, &[])?;
    assert_eq!(faults(&verdict), [("mac-conflict".to_owned(), taps[0].clone())]);
    let told = verdict.json["findings"][0]["explanation"].as_str().unwrap();
    assert!(taps.iter().all(|tap| told.contains(tap.as_str())), "{told}");
    lab.guests[1].restart_as(&macs[1])?;
    assert_eq!(faults(&check(&lab, &product, &[])?), []);
    Ok(())
}
