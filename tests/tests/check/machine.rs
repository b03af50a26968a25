//! What needs a kernel that has it, and a machine of its own: run in one by `cargo xtask kernels`.

use super::{check, faults, prove_and_mend, setup};
use anyhow::{Result, ensure};
use kvmtrace_tests::lab::plan::Topology;
use kvmtrace_tests::lab::{Lab, lab_binary};
use kvmtrace_tests::product::Product;
use std::process::Command;

/// What the machine says to a command line; empty where it fails.
fn told(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A NIC of this machine's whose large receive offload can be switched.
fn switchable() -> Option<String> {
    let names = told("modprobe -q vmxnet3; for nic in /sys/class/net/*/device; do basename $(dirname $nic); done");
    let switch = |name: &&str| {
        let line = told(&format!("ethtool -k '{name}' | grep large-receive-offload"));
        !line.is_empty() && !line.contains("[fixed]")
    };
    names.lines().find(switch).map(str::to_owned)
}

/// Takes it into the lab's host; it comes back when that ends.
fn take(lab: &Lab, nic: &str) -> Result<()> {
    let status = Command::new("ip").args(["link", "set", nic, "netns", lab.host.name()]).status()?;
    ensure!(status.success(), "{nic} can't be moved");
    lab.host.check(&format!("ip link set {nic} mtu {} up", lab.plan.mtu)).map(drop)
}

/// One lab for all: in a machine that is emulated, building it takes longest.
#[test]
fn on_a_machine_of_its_own_the_rest_is_told_too() -> Result<()> {
    let Some((lab, product)) = setup(Topology::Bridge)? else { return Ok(()) };
    vlans(&lab, &product)?;
    nearly_full(&lab, &product)?;
    large_receive(&lab, &product)
}

fn vlans(lab: &Lab, product: &Product) -> Result<()> {
    let (tap, bridge, uplink) = (&lab.plan.guests[0].tap, &lab.plan.bridge, &lab.plan.uplink.device);
    if lab.host.check(&format!("ip link set {bridge} type bridge vlan_filtering 1")).is_err() {
        println!("SKIP: this kernel's bridges filter no VLANs");
        return Ok(());
    }
    let other = format!("bridge vlan add vid 20 dev {tap} pvid untagged && bridge vlan del vid 1 dev {tap}");
    prove_and_mend(lab, product, &other, "bridge-vlan-filtered", uplink)
}

/// The limit is the machine's: where others run, it is left alone.
fn nearly_full(lab: &Lab, product: &Product) -> Result<()> {
    if told("hostname") != "kvmtrace-vm" {
        println!("SKIP: the limit of the connection table is for all of this machine");
        return Ok(());
    }
    let tools = lab_binary()?;
    told("modprobe -q nf_conntrack_netlink; sysctl -qw net.netfilter.nf_conntrack_max=1000");
    lab.host.run(&format!("{} program conntrack-entries 950 | conntrack -R /dev/stdin", tools.display()))?;
    let verdict = check(lab, product, &[])?;
    assert_eq!(faults(&verdict), [("conntrack-full".to_owned(), String::new())]);
    let fix = &verdict.json["findings"][0]["fixes"][0];
    told(fix["command"].as_str().unwrap());
    assert_eq!(faults(&check(lab, product, &[])?), [], "{fix}");
    told(fix["undo"].as_str().unwrap());
    assert_eq!(told("sysctl -n net.netfilter.nf_conntrack_max"), "1000", "{fix}");
    lab.host.check("conntrack -F").map(drop)
}

/// The host routes from here on, by a NIC whose large receive offload can be switched.
fn large_receive(lab: &Lab, product: &Product) -> Result<()> {
    let Some(nic) = switchable() else {
        println!("SKIP: no NIC here has a large receive offload that can be switched");
        return Ok(());
    };
    take(lab, &nic)?;
    let on = format!("ethtool -K {nic} lro on");
    lab.host.check(&format!("ip link set {} nomaster && ip link set {0} down", lab.plan.uplink.device))?;
    // In the network of carriers: who is behind it may know the way back.
    lab.host.check(&format!(
        "ip addr add 100.64.255.2/24 dev {nic} && ip route replace default dev {nic} && sysctl -qw net.ipv4.ip_forward=1"
    ))?;
    prove_and_mend(lab, product, &on, "route-mtu-exceeded", &nic)
}
