//! Queueing disciplines, what limits them, and the policers of their filters (`rtnetlink(7)`, `tc(8)`).

use super::netlink::{Attributes, Message, Netlink, read_u32, read_u64};
use crate::event::IfIndex;
use crate::event::host::{Policer, Qdisc};
use nix::libc;
use std::io;

/// `struct tcmsg`
const HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and its like for egress.
const SIDES: [(bool, u32); 2] = [(false, 0xffff_fff2), (true, 0xffff_fff3)];
/// Filters that are read of one side at most.
const FILTERS: usize = 256;

/// Queueing disciplines with their counters.
pub(super) fn qdiscs(netlink: &mut Netlink) -> io::Result<Vec<Qdisc>> {
    let messages = netlink.dump(libc::RTM_GETQDISC, &[0; HEADER])?;
    let mut qdiscs: Vec<Qdisc> = messages.iter().filter_map(qdisc).collect();
    for qdisc in qdiscs.iter_mut().filter(|qdisc| matches!(qdisc.kind.as_str(), "ingress" | "clsact")) {
        // What can't be read has no policers that anybody could name.
        for (egress, parent) in SIDES.into_iter().filter(|(egress, _)| !egress || qdisc.kind == "clsact") {
            qdisc.policers.extend(policers(netlink, qdisc.device, parent, egress).unwrap_or_default());
        }
    }
    Ok(qdiscs)
}

fn qdisc(message: &Message) -> Option<Qdisc> {
    const TCA_STATS2: u16 = 7;
    const TCA_STATS_QUEUE: u16 = 3;
    let (header, attributes) = message.split(HEADER)?;
    // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits.
    let queue = attributes.nested(TCA_STATS2).get(TCA_STATS_QUEUE).unwrap_or_default();
    let counter = |number: usize| queue.get(number * 4..).and_then(read_u32).unwrap_or(0);
    let kind = attributes.text(TCA_KIND)?;
    let options = attributes.get(TCA_OPTIONS).unwrap_or_default();
    let setting = match kind.as_str() {
        "netem" => netem(options),
        "tbf" => tbf(Attributes(options)),
        _ => None,
    };
    let (setting, burst) = setting.map_or((None, None), |(text, burst)| (Some(text), burst));
    Some(Qdisc {
        device: super::links::index(&header[4..])?,
        kind,
        handle: handle(read_u32(&header[8..])?),
        parent: parent(read_u32(&header[12..])?),
        drops: counter(2).into(),
        overlimits: counter(4).into(),
        backlog: counter(0),
        setting,
        burst,
        policers: Vec::new(),
    })
}

/// `struct tc_netem_qopt` (latency, limit, loss, gap, duplicate, jitter), then attributes: `netem_dump`.
fn netem(options: &[u8]) -> Option<(String, Option<u32>)> {
    const QOPT: usize = 24;
    const REORDER: u16 = 3;
    const CORRUPT: u16 = 4;
    const RATE: u16 = 6;
    const LATENCY64: u16 = 10;
    let field = |number: usize| options.get(number * 4..).and_then(read_u32);
    let more = Attributes(options.get(QOPT..)?);
    let share = |value: u32| format!("{}%", (f64::from(value) * 1_000.0 / f64::from(u32::MAX)).round() / 10.0);
    let first = |kind| more.get(kind).and_then(read_u32);
    let delay = more.get(LATENCY64).and_then(read_u64).filter(|ns| *ns > 0);
    let shares =
        [("loss", field(2)), ("duplicate", field(4)), ("reorder", first(REORDER)), ("corrupt", first(CORRUPT))];
    let words = delay
        .map(|ns| format!("delay {}ms", ns as f64 / 1e6))
        .into_iter()
        .chain(shares.into_iter().filter_map(|(word, value)| {
            value.filter(|value| *value > 0).map(|value| format!("{word} {}", share(value)))
        }))
        .chain(first(RATE).filter(|rate| *rate > 0).map(|rate| format!("rate {}bit", u64::from(rate) * 8)));
    let words: Vec<String> = words.collect();
    Some((words.join(" "), None)).filter(|(text, _)| !text.is_empty())
}

/// `struct tc_tbf_qopt` in `TCA_TBF_PARMS`: rate, peak rate, limit, buffer, mtu. The buffer is the time in which the burst is sent, in
/// ticks of 64 ns (`tbf_dump`, `PSCHED_NS2TICKS`).
fn tbf(options: Attributes<'_>) -> Option<(String, Option<u32>)> {
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    let parms = options.get(PARMS)?;
    let rate = options.get(RATE64).and_then(read_u64).or_else(|| rate_of(parms))?;
    let (limit, ticks) = (parms.get(24..).and_then(read_u32)?, parms.get(28..).and_then(read_u32)?);
    let burst = u128::from(rate) * (u128::from(ticks) << 6) / 1_000_000_000;
    // The time is a rounded one.
    let burst = u32::try_from(burst).ok()?.saturating_add(1);
    Some((format!("rate {}bit limit {limit}b", rate * 8), Some(burst)))
}

/// The rate of a `struct tc_ratespec`, in bytes a second.
fn rate_of(spec: &[u8]) -> Option<u64> {
    spec.get(8..).and_then(read_u32).map(u64::from)
}

/// The policers among the filters of one side of a device.
fn policers(netlink: &mut Netlink, device: IfIndex, parent: u32, egress: bool) -> io::Result<Vec<Policer>> {
    let mut request = [0; HEADER];
    request[4..8].copy_from_slice(&device.0.to_ne_bytes());
    request[12..16].copy_from_slice(&parent.to_ne_bytes());
    let messages = netlink.dump(libc::RTM_GETTFILTER, &request)?;
    let policer = |message: &Message| {
        let (_, attributes) = message.split(HEADER)?;
        let kind = attributes.text(TCA_KIND)?;
        let rate = police(&kind, attributes.nested(TCA_OPTIONS))?;
        Some(Policer { egress, filter: kind, rate })
    };
    Ok(messages.iter().take(FILTERS).filter_map(policer).collect())
}

/// The rate in bits a second of the action `police`, as a filter has it: among its actions, or the old way (`tcf_exts_dump`).
fn police(filter: &str, options: Attributes<'_>) -> Option<u64> {
    const TBF: u16 = 1;
    const ACT_KIND: u16 = 1;
    const ACT_OPTIONS: u16 = 2;
    // index, action, limit, burst, mtu, then the rate: struct tc_police.
    const RATE: usize = 20;
    // The filter's attributes for its actions, and for a policer without a kind.
    let (actions, old) = match filter {
        "u32" => (7, Some(6)),
        "matchall" => (2, None),
        "flower" => (3, None),
        "basic" => (3, Some(4)),
        "fw" => (4, Some(2)),
        "flow" => (9, Some(10)),
        "cgroup" => (1, Some(2)),
        _ => return None,
    };
    let rate = |police: Attributes<'_>| {
        let rate = police.get(TBF).and_then(|police| rate_of(police.get(RATE..)?)).unwrap_or(0);
        rate.saturating_mul(8)
    };
    if let Some(police) = old.and_then(|old| options.get(old)) {
        return Some(rate(Attributes(police)));
    }
    let action = |(_, action): (u16, &[u8])| {
        let action = Attributes(action);
        (action.text(ACT_KIND)? == "police").then(|| rate(action.nested(ACT_OPTIONS)))
    };
    options.nested(actions).iter().find_map(action)
}

/// `8001:` or, for a class, `1:10`.
fn handle(handle: u32) -> String {
    match (handle >> 16, handle & 0xffff) {
        (major, 0) => format!("{major:x}:"),
        (major, minor) => format!("{major:x}:{minor:x}"),
    }
}

fn parent(parent: u32) -> String {
    match parent {
        0xffff_ffff => "root".to_owned(),
        // TC_H_INGRESS, which is also TC_H_CLSACT.
        0xffff_fff1 => "ingress".to_owned(),
        class => handle(class),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_read_as_tc_writes_them() {
        assert_eq!(handle(0x8001_0000), "8001:");
        assert_eq!(handle(0x0001_0010), "1:10");
        assert_eq!(parent(0xffff_ffff), "root");
        assert_eq!(parent(0xffff_fff1), "ingress");
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((u16::try_from(value.len()).unwrap() + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn netem_says_what_it_does() {
        let mut options = words(&[0, 1_000, u32::MAX / 10 * 4, 0, 0, 0]);
        options.extend(attribute(4, &words(&[u32::MAX / 2, 0])));
        options.extend(attribute(10, &300_000_000_u64.to_ne_bytes()));
        assert_eq!(netem(&options).unwrap().0, "delay 300ms loss 40% corrupt 50%");
        assert_eq!(netem(&words(&[0, 1_000, 0, 0, 0, 0])), None);
        assert_eq!(netem(&[1]), None);
    }

    #[test]
    fn a_token_bucket_has_a_burst() {
        // 10 Mbit/s; 1,000 bytes take 800,000 ns, 12,500 ticks.
        let parms = words(&[0, 0, 1_250_000, 0, 0, 0, 63_500, 12_500, 0]);
        let options = attribute(1, &parms);
        assert_eq!(tbf(Attributes(&options)), Some(("rate 10000000bit limit 63500b".to_owned(), Some(1_001))));
        assert_eq!(tbf(Attributes(&[])), None);
    }

    #[test]
    fn a_policer_is_found_in_either_place() {
        let police = attribute(1, &words(&[1, 2, 0, 0, 0, 0, 0, 250_000]));
        assert_eq!(police_of("u32", &attribute(6, &police)), Some(2_000_000));
        let action: Vec<u8> = [attribute(1, b"police\0"), attribute(2, &police)].concat();
        assert_eq!(police_of("matchall", &attribute(2, &attribute(1, &action))), Some(2_000_000));
        let drop: Vec<u8> = attribute(1, b"gact\0");
        assert_eq!(police_of("matchall", &attribute(2, &attribute(1, &drop))), None);
        assert_eq!(police_of("bpf", &attribute(2, &attribute(1, &action))), None);
    }

    fn police_of(filter: &str, options: &[u8]) -> Option<u64> {
        police(filter, Attributes(options))
    }
}
