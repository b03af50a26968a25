//! `kvmtrace explain`: a walk for a person at three in the morning. A line for each stage at which something decided, beneath it the
//! rule, route or entry; then the answer's way in short; then the result in one sentence.

use super::escape::escape;
use super::incident::fixes;
use super::json::line;
use super::lines::indented;
use super::style::Style;
use crate::diagnose::explain::report::{Explanation, Leg, NextHopReport, OutcomeReport, Owner, StepReport};
use crate::diagnose::report::{EndReport, Severity};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns of a stage's name.
const STAGE: usize = 11;
/// Columns of a device's name (`IFNAMSIZ - 1`).
const DEVICE: usize = 15;

/// Writes the explanation as one JSON object.
pub fn json(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    line(explanation, out)
}

/// Writes the explanation as text. `verbose`: also the stages at which nothing decided, and the kernel's functions.
pub fn text(explanation: &Explanation, verbose: bool, color: bool, out: &mut impl Write) -> io::Result<()> {
    let style = Style { color };
    let guest = &explanation.guest;
    let title = format!("{} ({}): {}", escape(&guest.name), escape(&guest.device), escape(&explanation.packet.text));
    writeln!(out, "{}", style.bold(&title))?;
    if let Some(hop) = &explanation.next_hop {
        indented("  ", &next_hop(hop), WIDTH, out)?;
    }
    if let Some(first) = &explanation.first {
        short_or_whole("first", first, verbose, style, out)?;
    }
    if explanation.first.as_ref().is_none_or(|first| first.outcome != EndReport::Stops) {
        writeln!(out)?;
        leg(&explanation.leg, verbose, style, out)?;
        if let Some(reply) = &explanation.reply {
            short_or_whole("answer", reply, verbose, style, out)?;
        }
    }
    writeln!(out)?;
    result(explanation, style, out)
}

fn next_hop(hop: &NextHopReport) -> String {
    let mac = hop.mac.map_or_else(|| ", MAC address not known here".to_owned(), |mac| format!(" ({mac})"));
    match (hop.owner, &hop.guest) {
        (Owner::Host, _) => format!("next hop {}: this host{mac}", hop.address),
        (Owner::Guest, Some(guest)) => format!("next hop {}: {guest}{mac}", hop.address),
        (Owner::Guest | Owner::Beyond, _) => format!("next hop {}, beyond this host{mac}", hop.address),
    }
}

/// A leg that gets through in one line; another step by step.
fn short_or_whole(label: &str, leg: &Leg, verbose: bool, style: Style, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    let packet = leg.packet.as_ref().map(|packet| packet.text.as_str()).unwrap_or_default();
    let passes = matches!(leg.outcome, EndReport::Delivered | EndReport::Leaves);
    if passes && !verbose {
        let mut devices: Vec<&str> = ways(leg).filter_map(|step| step.device.as_deref()).collect();
        devices.dedup();
        let label = format!("{} {label:<7} ", style.severity(Severity::Ok, "✓"));
        indented(&label, packet, WIDTH, out)?;
        return indented("          ", &format!("{}, {}", devices.join(" → "), leg.summary), WIDTH, out);
    }
    writeln!(out, "{}", style.bold(&format!("{label}: {}", escape(packet))))?;
    self::leg(leg, verbose, style, out)
}

fn ways(leg: &Leg) -> impl Iterator<Item = &StepReport> {
    leg.way.iter().filter_map(|index| leg.steps.get(*index))
}

fn leg(leg: &Leg, verbose: bool, style: Style, out: &mut impl Write) -> io::Result<()> {
    let shown = shown(leg, verbose);
    let name = |step: &StepReport| step.device.as_deref().map_or_else(|| "this host".to_owned(), escape);
    let width = shown.iter().map(|step| name(step).width()).max().unwrap_or(0).min(DEVICE);
    let indent = format!("{}· ", " ".repeat(width + STAGE + 6));
    let mut before = String::new();
    for step in shown {
        let name = name(step);
        let ends = matches!(step.outcome, OutcomeReport::Arrives | OutcomeReport::Stops | OutcomeReport::Unknown);
        // A device is named where the packet comes to it, and where the packet ends.
        let device = if name == before && !ends { String::new() } else { name.clone() };
        before = name;
        row(step, &device, width, style, out)?;
        for decision in &step.decisions {
            dimmed(&indent, decision.text(), style, out)?;
        }
        if let Some(others) = &step.others {
            dimmed(&indent, &format!("other copies: {others}"), style, out)?;
        }
        if verbose && !step.own_functions.is_empty() {
            dimmed(&indent, &format!("in {}", step.own_functions.join(", ")), style, out)?;
        }
    }
    Ok(())
}

/// The steps worth a line: where something decided, and one for each device that the packet passes.
fn shown(leg: &Leg, verbose: bool) -> Vec<&StepReport> {
    let steps: Vec<&StepReport> = ways(leg).collect();
    let mut shown: Vec<&StepReport> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let next = steps.iter().skip(at + 1).find(|step| step.eventful);
        let is_new = shown.last().is_none_or(|last| last.device != step.device)
            && next.is_none_or(|next| next.device != step.device);
        if verbose || step.eventful || step.hook.is_some() && is_new {
            shown.push(step);
        }
    }
    shown
}

fn row(step: &StepReport, device: &str, width: usize, style: Style, out: &mut impl Write) -> io::Result<()> {
    let (mark, severity) = match step.outcome {
        OutcomeReport::Passes | OutcomeReport::Becomes | OutcomeReport::Branches => (" ", None),
        OutcomeReport::Arrives => ("✓", Some(Severity::Ok)),
        OutcomeReport::Stops => ("✗", Some(Severity::Error)),
        OutcomeReport::Unknown => ("?", Some(Severity::Warning)),
    };
    let pad = " ".repeat(width.saturating_sub(device.width()));
    let label = format!("{mark} {device}{pad}  {:<STAGE$}  ", step.label);
    let mut lines = Vec::new();
    indented(&label, &step.text, WIDTH, &mut lines)?;
    let lines = String::from_utf8_lossy(&lines);
    match severity {
        Some(severity) => painted(&lines, |line| style.severity(severity, line), out),
        None => out.write_all(lines.as_bytes()),
    }
}

fn dimmed(indent: &str, text: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Vec::new();
    indented(indent, text, WIDTH, &mut lines)?;
    painted(&String::from_utf8_lossy(&lines), |line| style.dim(line), out)
}

fn painted(lines: &str, paint: impl Fn(&str) -> String, out: &mut impl Write) -> io::Result<()> {
    for line in lines.lines() {
        writeln!(out, "{}", paint(line))?;
    }
    Ok(())
}

fn result(explanation: &Explanation, style: Style, out: &mut impl Write) -> io::Result<()> {
    let result = &explanation.result;
    let (mark, severity) = match result.outcome {
        EndReport::Delivered | EndReport::Leaves => ("✓", Severity::Ok),
        EndReport::Stops => ("✗", Severity::Error),
        EndReport::Unknown => ("?", Severity::Warning),
    };
    let mut lines = Vec::new();
    indented(&format!("{mark} "), &result.explanation, WIDTH, &mut lines)?;
    painted(&String::from_utf8_lossy(&lines), |line| style.severity(severity, line), out)?;
    if let Some(place) = &result.place {
        let device = place.device.as_deref().map(|device| format!("{}, ", escape(device))).unwrap_or_default();
        let function = place.function.as_deref().map(|name| format!(", in {name}")).unwrap_or_default();
        let place = format!("{device}{}{function}", super::id(place.point));
        match result.cause {
            Some(cause) => indented("  cause  ", &format!("{} at {place}", cause.id()), WIDTH, out)?,
            None => indented("  where  ", &place, WIDTH, out)?,
        }
    }
    fixes(&explanation.fixes, WIDTH, style, out)?;
    for note in &explanation.notes {
        let device = note.device.as_deref().map(|device| format!(" at {device}")).unwrap_or_default();
        indented("  note   ", &format!("{}{device}: {}", note.cause.id(), note.explanation), WIDTH, out)?;
    }
    for degraded in &explanation.degraded {
        let word = style.severity(Severity::Warning, "limited");
        indented(&format!("  {word} "), &format!("{}: {}", degraded.what, degraded.why), WIDTH, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{json, text};
    use crate::diagnose::explain::{Explanation, explain};
    use crate::diagnose::report::EndReport;
    use crate::event::bridge::PortState;
    use crate::event::host::{Backend, Chain, HostState, Neighbour, Rule};
    use crate::event::ruleset::RuleReference;
    use crate::event::{Event, EventKind, IfIndex, Timestamp};
    use crate::forward::asked::{Kind, Question, Target, resolve};
    use crate::forward::packet::Packet;
    use crate::forward::step::{Arrival, Decision, Doubt, Hook, Outcome, Stage, Step, Stop, Walk};
    use crate::forward::tests::{BRIDGE, GUEST1, GUEST2, UPLINK, bridged, link, mac, network, route};
    use crate::forward::{Entry, walk};
    use crate::topology::Topology;
    use crate::track::Track;

    fn question(to: &str, kind: Kind) -> Question {
        let target = match to {
            "gateway" => Target::Gateway,
            "host" => Target::Host,
            _ => to.parse().map_or_else(|_| Target::Guest(to.to_owned()), |address| Target::Addresses(vec![address])),
        };
        Question {
            guest: "web1".to_owned(),
            target: Some(target),
            kind,
            size: None,
            dont_fragment: false,
            from: None,
            source: None,
            mac: None,
            via: None,
        }
    }

    fn asked(host: &HostState, question: &Question) -> Explanation {
        let asked = resolve(host, question).unwrap();
        let walker = |host: &HostState, packet: &Packet, entry| walk(&Topology::new(host), packet, entry);
        let explanation = explain(&track(host), &asked, &walker);
        checked(explanation)
    }

    fn track(host: &HostState) -> Track {
        let mut track = Track::default();
        track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host.clone())) });
        track
    }

    /// Keeps the schema, and the text 80 columns.
    fn checked(explanation: Explanation) -> Explanation {
        let mut out = Vec::new();
        json(&explanation, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let schema = serde_json::from_str(include_str!("../../../docs/explain.schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        for verbose in [false, true] {
            for line in printed(&explanation, verbose)
                .lines()
                .filter(|line| !["  fix ", "  undo", "  or  "].iter().any(|label| line.starts_with(label)))
            {
                assert!(unicode_width::UnicodeWidthStr::width(line) <= 80, "{line}");
            }
        }
        explanation
    }

    fn printed(explanation: &Explanation, verbose: bool) -> String {
        let mut out = Vec::new();
        text(explanation, verbose, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// br0 without uplink; eth0 leads out by a gateway.
    fn routed() -> HostState {
        let mut host = bridged();
        let uplink = host.links.get_mut(&UPLINK).unwrap();
        (uplink.master, uplink.port) = (None, None);
        uplink.addresses.push(network("203.0.113.5/24"));
        host.routes.push(route("203.0.113.0/24", None, UPLINK));
        host.routes.push(route("0.0.0.0/0", Some("203.0.113.1"), UPLINK));
        host.neighbours.push(Neighbour {
            address: "203.0.113.1".parse().unwrap(),
            device: UPLINK,
            mac: Some(mac(254)),
            state: crate::event::names::NeighbourState::Reachable,
        });
        host
    }

    #[test]
    fn from_guest_to_guest_on_one_bridge() {
        insta::assert_snapshot!(printed(&asked(&bridged(), &question("web2", Kind::Tcp(22))), false));
    }

    #[test]
    fn a_machine_on_the_lan_whose_mac_address_is_not_known() {
        let explanation = asked(&bridged(), &question("10.0.0.99", Kind::Icmp));
        assert_eq!(explanation.result.outcome, EndReport::Leaves);
        insta::assert_snapshot!(printed(&explanation, false));
    }

    #[test]
    fn a_flood_is_told_by_the_copy_that_matters() {
        let mut host = bridged();
        for number in 20..24 {
            let device = IfIndex(number);
            let mut tap = link(device, &format!("vnet{number}"), host.links[&GUEST1].kind.clone());
            (tap.master, tap.port) = (Some(BRIDGE), host.links[&GUEST1].port.clone());
            host.links.insert(device, tap);
        }
        insta::assert_snapshot!(printed(&asked(&host, &question("gateway", Kind::Arp)), false));
    }

    #[test]
    fn beyond_a_host_that_routes_with_the_kernels_functions() {
        insta::assert_snapshot!(printed(&asked(&routed(), &question("198.51.100.7", Kind::Tcp(443))), true));
    }

    #[test]
    fn a_missing_route() {
        let mut host = routed();
        host.routes.retain(|route| route.destination.prefix != 0);
        let explanation = asked(&host, &question("198.51.100.7", Kind::Tcp(443)));
        assert_eq!(explanation.result.outcome, EndReport::Stops);
        insta::assert_snapshot!(printed(&explanation, false));
    }

    #[test]
    fn a_packet_that_is_too_long_for_the_uplink() {
        let mut host = bridged();
        host.links.get_mut(&UPLINK).unwrap().mtu = 1400;
        let question = Question { size: Some(1500), ..question("10.0.0.99", Kind::Icmp) };
        insta::assert_snapshot!(printed(&asked(&host, &question), false));
    }

    #[test]
    fn a_port_that_spanning_tree_blocks_stops_the_arp_request() {
        let mut host = bridged();
        host.links.get_mut(&GUEST1).unwrap().port.as_mut().unwrap().state = PortState::Blocking;
        let explanation = asked(&host, &question("web2", Kind::Icmp));
        assert_eq!(explanation.result.cause.map(|cause| cause.id()), Some("bridge-port-blocked"));
        insta::assert_snapshot!(printed(&explanation, false));
    }

    fn step(parent: Option<usize>, stage: Stage, device: IfIndex, outcome: Outcome, decisions: Vec<Decision>) -> Step {
        Step { parent, stage, device: Some(device), hook: None, functions: &["nft_do_chain"], decisions, outcome }
    }

    /// A host with one nft chain, whose only rule is this.
    fn with_rule(verdict: &str, text: &str, hook: &str) -> HostState {
        let rule = Rule {
            handle: Some(4),
            number: 1,
            text: text.to_owned(),
            packets: None,
            verdict: Some(verdict.to_owned()),
        };
        let chain = Chain {
            backend: Backend::Nft,
            family: "inet".to_owned(),
            table: "filter".to_owned(),
            name: hook.to_owned(),
            hook: Some(hook.to_owned()),
            kind: Some("filter".to_owned()),
            priority: Some(0),
            policy: Some("accept".to_owned()),
            policy_packets: None,
            device: None,
            rules: vec![rule],
        };
        let mut host = routed();
        host.netfilter.chains.push(chain);
        host
    }

    const RULE: RuleReference = RuleReference { chain: 0, rule: Some(0) };

    /// The same answer for every IP packet; ARP is answered.
    fn by_hand(host: &HostState, to: &str, ways: &dyn Fn(&Packet, Entry) -> Vec<Step>) -> Explanation {
        let asked = resolve(host, &question(to, Kind::Tcp(443))).unwrap();
        let walk = |_: &HostState, packet: &Packet, entry: Entry| {
            let steps = if packet.ip().is_some() {
                ways(packet, entry)
            } else {
                let answered = Outcome::Arrives(Arrival::Answered);
                vec![
                    step(None, Stage::DeviceReceive, GUEST1, Outcome::Passes, Vec::new()),
                    step(Some(0), Stage::NeighbourAnswer, BRIDGE, answered, Vec::new()),
                ]
            };
            Walk { steps, cut: false }
        };
        checked(explain(&track(host), &asked, &walk))
    }

    #[test]
    fn a_rule_that_drops_is_shown_with_its_text_and_chain() {
        let text =
            "iifname \"br0\" ip saddr 10.0.0.0/24 ip daddr 198.51.100.0/24 tcp dport { 80, 443, 8080 } counter drop";
        let host = with_rule("drop", text, "forward");
        let explanation = by_hand(&host, "198.51.100.7", &|_, _| {
            vec![
                step(None, Stage::DeviceReceive, GUEST1, Outcome::Passes, Vec::new()),
                step(Some(0), Stage::BridgeLocal, BRIDGE, Outcome::Passes, Vec::new()),
                step(Some(1), Stage::Firewall(Hook::Forward), UPLINK, Outcome::Stops(Stop::Rule(RULE)), Vec::new()),
            ]
        });
        assert_eq!(explanation.result.cause.map(|cause| cause.id()), Some("netfilter-forward"));
        insta::assert_snapshot!(printed(&explanation, false));
    }

    #[test]
    fn a_translated_packet_shows_what_it_becomes() {
        let host = with_rule("masquerade", "oifname \"eth0\" masquerade", "postrouting");
        let explanation = by_hand(&host, "198.51.100.7", &|packet, entry| {
            if entry != Entry::Guest(GUEST1) {
                return vec![
                    step(None, Stage::DeviceReceive, UPLINK, Outcome::Passes, Vec::new()),
                    step(Some(0), Stage::Guest, GUEST1, Outcome::Arrives(Arrival::Guest(GUEST1)), Vec::new()),
                ];
            }
            let mut translated = packet.clone();
            translated.ip_mut().unwrap().source = "203.0.113.5".parse().unwrap();
            vec![
                step(None, Stage::DeviceReceive, GUEST1, Outcome::Passes, Vec::new()),
                step(Some(0), Stage::Nat, UPLINK, Outcome::Becomes(Box::new(translated)), vec![Decision::Rule(RULE)]),
                step(Some(1), Stage::DeviceTransmit, UPLINK, Outcome::Arrives(Arrival::Uplink(UPLINK)), Vec::new()),
            ]
        });
        insta::assert_snapshot!(printed(&explanation, false));
    }

    #[test]
    fn a_doubt_on_the_way_is_the_result_and_the_rest_is_told_as_if() {
        let host = with_rule("drop", "meta cgroup 7 drop", "forward");
        let explanation = by_hand(&host, "web2", &|_, _| {
            vec![
                step(None, Stage::DeviceReceive, GUEST1, Outcome::Passes, Vec::new()),
                step(
                    Some(0),
                    Stage::Firewall(Hook::Forward),
                    BRIDGE,
                    Outcome::Unknown(Doubt::Rule(RULE, "meta cgroup".to_owned())),
                    Vec::new(),
                ),
                step(Some(1), Stage::Guest, GUEST2, Outcome::Arrives(Arrival::Guest(GUEST2)), Vec::new()),
            ]
        });
        assert_eq!(explanation.result.outcome, EndReport::Unknown);
        insta::assert_snapshot!(printed(&explanation, false));
    }
}
