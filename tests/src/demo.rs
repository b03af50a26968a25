//! kvmtrace's story on a lab: a fault, what a ping says of it, what kvmtrace says, the fix, the ping again.

use crate::lab::Lab;
use crate::lab::draw::Seed;
use crate::lab::netns::Namespace;
use crate::lab::plan::{Options, Topology};
use crate::product::Product;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

/// Tells the story on `out`. The lab is gone afterwards.
pub fn run(kvmtrace: &Path, out: &mut impl Write) -> Result<()> {
    let options = Options { topology: Topology::Bridge, mtu: Some(9000), guests: 1, ..Options::default() };
    let name = format!("ktdemo{}", Seed::choose()?.draw("demo").hex(4));
    writeln!(
        out,
        "Building a small KVM host out of network namespaces: a guest \"web1\" on the tap vnet0, a bridge br0, the NIC eth0."
    )?;
    let lab = Lab::fixed(&name, &options)?;
    let guest = &lab.guests[0];
    let target = lab.plan.lan.addresses.v4;
    let ping = format!("ping -n -c 3 -i 0.3 -W 1 -M do -s 3000 {target}");
    writeln!(out, "\nThe guest's network uses jumbo frames (MTU 9000). Somebody set the NIC back to 1500:\n")?;
    told(out, "host", &lab.host, "ip link set dev eth0 mtu 1500")?;
    writeln!(out, "\nSmall pings still pass, so the network looks well. Large packets vanish, and nobody says why:\n")?;
    told(out, "guest", &guest.namespace, &format!("ping -n -c 1 -W 1 {target}"))?;
    told(out, "guest", &guest.namespace, &ping)?;
    writeln!(out, "\nkvmtrace watches the guest's packets while the ping runs:\n")?;
    let inside = format!("ip netns exec {} {ping}", guest.namespace.name());
    writeln!(out, "host# kvmtrace verdict --cmd '{ping}'")?;
    out.flush()?;
    let product = Product::at(kvmtrace);
    let quiet = format!("{inside} >/dev/null");
    let text = product.run(&lab.host, &["verdict", "--color", "never", "--cmd", &quiet])?;
    ensure!(text.code() == 1, "kvmtrace found no fault (exit {}): {}{}", text.code(), text.stdout, text.stderr);
    writeln!(out, "{}", text.stdout.trim_end())?;
    let output = product.run(&lab.host, &["verdict", "--json", "--cmd", &quiet])?;
    let report: Value = serde_json::from_str(&output.stdout).context("kvmtrace's JSON")?;
    let fixes = report["flows"][0]["fixes"].as_array().cloned().unwrap_or_default();
    let fix = fixes.iter().find_map(|fix| fix["command"].as_str()).context("kvmtrace proposed no fix")?;
    writeln!(out, "\nThe proposed fix, pasted:\n")?;
    told(out, "host", &lab.host, fix)?;
    let again = told(out, "guest", &guest.namespace, &ping)?;
    ensure!(again, "the fix did not restore the traffic");
    writeln!(out, "\nThe packets pass again. The lab is taken down; your own network was not touched.")?;
    Ok(())
}

/// Shows a command and what it says; whether it succeeded.
fn told(out: &mut impl Write, prompt: &str, namespace: &Namespace, line: &str) -> Result<bool> {
    writeln!(out, "{prompt}# {line}")?;
    out.flush()?;
    let output = namespace.run(line)?;
    let said = output.stdout.lines().chain(output.stderr.lines()).filter(|line| !line.is_empty());
    for line in said {
        writeln!(out, "  {line}")?;
    }
    Ok(output.status.success())
}
