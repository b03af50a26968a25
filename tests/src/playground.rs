//! Labs that a person plays with: kept by a process in the background until `lab down`.

use crate::lab::plan::{Family, Options, Topology};
use crate::lab::process::wait_until;
use crate::lab::{Lab, lab_binary, require_root, state};
use crate::scenario::{Scenario, prepare};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a lab may take to be there.
const PATIENCE: Duration = Duration::from_secs(40);

/// Starts a keeper for the lab; returns what to tell the person.
pub fn up(topic: &str, guests: usize) -> Result<String> {
    require_root()?;
    state::sweep();
    let find = || state::list().into_iter().find(|record| record.topic.as_deref() == Some(topic));
    if let Some(record) = find() {
        return Ok(format!("{topic} is up already.\n{}", record.welcome));
    }
    parts(topic, guests)?;
    let log = std::env::temp_dir().join(format!("kvmtrace-lab-{}.log", std::process::id()));
    let mut command = Command::new(lab_binary()?);
    command.args(["keep", topic, "--guests", &guests.to_string()]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut keeper = command.spawn().context("cannot start the lab's keeper")?;
    wait_until(PATIENCE, || find().is_some() || !matches!(keeper.try_wait(), Ok(None)));
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    std::fs::remove_file(&log).ok();
    if let Some(record) = find() {
        return Ok(record.welcome);
    }
    keeper.kill().ok();
    keeper.wait()?;
    state::sweep();
    bail!("the lab did not come up: {}", said.trim())
}

/// Holds the lab until a signal comes.
pub fn keep(topic: &str, guests: usize) -> Result<()> {
    let signals = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect::<SigSet>();
    signals.thread_block()?;
    let (scenario, options) = parts(topic, guests)?;
    let name = format!("kt-{}", topic.replace('/', "-"));
    let mut lab = Lab::fixed(&name, &options)?;
    if let Some(scenario) = &scenario {
        prepare(&mut lab, scenario)?;
    }
    let text = welcome(&lab, topic, scenario.as_ref());
    lab.publish(topic, text)?;
    signals.wait()?;
    Ok(())
}

/// What a topic stands for.
fn parts(topic: &str, guests: usize) -> Result<(Option<Scenario>, Options)> {
    if let Some((topology, ..)) = Topology::ALL.into_iter().find(|(_, name, _)| *name == topic) {
        return Ok((None, Options { topology, guests, mtu: Some(1500), ..Options::default() }));
    }
    let scenario = Scenario::find(topic).with_context(|| {
        let names: Vec<&str> = Topology::ALL.iter().map(|(_, name, _)| *name).collect();
        format!("no topology ({}) and no scenario (`lab scenarios`) is called {topic}", names.join(", "))
    })?;
    let options = scenario.lab.clone();
    Ok((Some(scenario), options))
}

fn welcome(lab: &Lab, topic: &str, scenario: Option<&Scenario>) -> String {
    let mut lines = Vec::new();
    let mut line = |words: &str| lines.push(words.to_owned());
    let (host, lan) = (lab.host.entrance(), lab.lan.name());
    let family: Family = lab.plan.options.family;
    line(&format!("{topic} is up."));
    if let Some(scenario) = scenario {
        line(&format!("Broken: {}", scenario.about));
    }
    line(&format!("\n  host    {host} bash"));
    for guest in &lab.guests {
        let address = guest.plan.port.addresses.of(family);
        line(&format!(
            "  {:<7} ip netns exec {} bash    # {} on the host, {address}",
            guest.plan.name,
            guest.namespace.name(),
            guest.plan.tap
        ));
    }
    let target = lab.plan.lan.addresses.of(family);
    line(&format!("  LAN     ip netns exec {lan} bash    # {target}"));
    line("\nTry:");
    let guest = lab.guests.first().map_or("", |guest| guest.namespace.name());
    line(&format!("  ip netns exec {guest} ping {target}"));
    line(&format!("  {host} kvmtrace verdict -d 5"));
    line(&format!("  lab down {topic}"));
    lines.join("\n")
}
