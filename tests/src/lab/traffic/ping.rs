//! `ping`, and what it says in the end.

use super::Facts;
use crate::lab::netns::Namespace;
use crate::lab::process;
use anyhow::{Context as _, Result};
use std::net::IpAddr;
use std::time::Duration;

/// Pings `address` from a namespace.
pub(super) fn ping(
    from: &Namespace,
    address: IpAddr,
    size: u32,
    count: u32,
    interval: u64,
    df: Option<bool>,
) -> Result<Facts> {
    let mut command = from.command("ping");
    let seconds = format!("{}.{:03}", interval / 1000, interval % 1000);
    command.args(["-n", "-q", "-W", "1", "-i", &seconds, "-c", &count.to_string(), "-s", &size.to_string()]);
    if let Some(df) = df {
        command.args(["-M", if df { "do" } else { "dont" }]);
    }
    let output = process::run(command.arg(address.to_string()), Duration::from_secs(30))?;
    // A local error ("message too long", "network is unreachable") is a failed ping, too.
    Ok(summary(&output.stdout).unwrap_or(Facts { sent: count, ..Facts::default() }))
}

/// Reads `4 packets transmitted, 4 received, …`.
fn summary(text: &str) -> Result<Facts> {
    let line = text.lines().find(|line| line.contains("packets transmitted")).context("no summary")?;
    let mut numbers = line.split(", ").filter_map(|part| part.split_whitespace().next()?.parse().ok());
    let (sent, received) = (numbers.next().context("no count")?, numbers.next().context("no count")?);
    Ok(Facts { sent, received, connected: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_counts_also_when_ping_tells_of_errors() {
        let text = "--- 10.0.0.1 ping statistics ---\n4 packets transmitted, 1 received, +3 errors, 75% packet loss, time 612ms\n";
        assert_eq!(summary(text).unwrap(), Facts { sent: 4, received: 1, connected: 0 });
        assert!(summary("ping: connect: Network is unreachable").is_err());
    }
}
