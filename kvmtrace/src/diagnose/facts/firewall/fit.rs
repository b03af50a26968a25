//! Whether a rule speaks for or against a packet that was dropped, as far as the flow and its drop tell.

use super::stage::Stage;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::scene::Scene;
use crate::event::host::Chain;
use crate::event::ruleset::{
    Condition, Hook, IpField, Key, Layer, Meta, Names, Rule, RuleReference, Statement, Verdict,
};
use crate::event::{FlowKey, IfIndex, PacketRecord};
use crate::forward::firewall::{At, Fit, Known, Question};
use crate::forward::packet::{Fragment, Packet, TcpFlags, Transport};

/// A dropped packet at the hook of a base chain.
#[derive(Debug)]
pub(super) struct Asked<'p> {
    /// By the device that it surely came in by, then by others that it may have come by.
    questions: Vec<Question<'p>>,
    rules: &'p crate::topology::rules::Rules,
}

impl<'p> Asked<'p> {
    pub(super) fn new(scene: &'p Scene<'_>, stage: &Stage, key: &FlowKey, drop: &Dropped<'_>, base: &Chain) -> Self {
        let topology = scene.topology();
        let layer = match stage.family {
            "ip6" => Layer::Ipv6,
            "bridge" => Layer::Bridge,
            "arp" => Layer::Arp,
            "netdev" => Layer::Device,
            _ => Layer::Ipv4,
        };
        let hook = Hook::named(stage.hook).unwrap_or(Hook::Forward);
        let input = drop.example().and_then(|example| example.input_device);
        // A frame that a bridge forwards is the outgoing port's already (`__br_forward` sets `skb->dev` before the hook).
        let leaves = layer == Layer::Bridge && hook == Hook::Forward && drop.device() != input && input.is_some();
        let inputs = if hook == Hook::Egress {
            vec![None]
        } else if leaves {
            vec![input]
        } else {
            inputs(scene, layer, input, drop.device())
        };
        let output = drop.device().filter(|_| hook == Hook::Egress || leaves);
        let known = Known {
            input: inputs.first().is_some_and(Option::is_some),
            output: leaves || matches!(hook, Hook::Ingress | Hook::Prerouting | Hook::Input | Hook::Egress),
            ports: false,
        };
        let packet = packet(key, drop);
        let priority = base.priority.unwrap_or(0);
        let question = |device: Option<IfIndex>| {
            let at = At { layer, hook, input: device, output, input_port: None, output_port: None, next_hop: None };
            Question::new(topology, at, known, priority, packet.clone())
        };
        Self { questions: inputs.into_iter().map(question).collect(), rules: &topology.rules }
    }

    fn rule(&self, rule: RuleReference) -> Option<&'p Rule> {
        self.rules.chain(rule.chain)?.rules.get(rule.rule?)
    }

    /// Whether the rule matches. A device that the packet may have come by only makes a rule possible.
    pub(super) fn fit(&self, rule: RuleReference) -> Fit {
        let Some(rule) = self.rule(rule) else { return Fit::Not };
        let mut fits = self.questions.iter().map(|question| question.fit(rule));
        let first = fits.next().unwrap_or(Fit::Not);
        if first == Fit::Not && asks_for_fragments(rule) {
            return Fit::Maybe("which fragment was dropped is not known");
        }
        if first != Fit::Not || spares_a_device(rule) {
            return first;
        }
        if fits.any(|fit| fit != Fit::Not) { Fit::Maybe("by which device it came is not known") } else { Fit::Not }
    }

    /// Whether a rule matches a packet that came in by the device that is surely right.
    fn first_fit(&self, rule: &Rule) -> Fit {
        self.questions.first().map_or(Fit::Not, |question| question.fit(rule))
    }

    /// What the rule may do with the packet.
    pub(super) fn verdicts(&self, rule: RuleReference) -> Vec<Verdict> {
        let Some(rule) = self.rule(rule) else { return Vec::new() };
        let mut verdicts: Vec<Verdict> = Vec::new();
        for verdict in self.questions.iter().flat_map(|question| question.verdicts(rule)) {
            if !verdicts.contains(&verdict) {
                verdicts.push(verdict);
            }
        }
        verdicts
    }
}

/// A bridge's port and the bridge are one to IP. For certain a packet came by the bridge to IP, and by the port to the bridge
/// and to the device's own hook.
fn inputs(scene: &Scene<'_>, layer: Layer, input: Option<IfIndex>, dropped: Option<IfIndex>) -> Vec<Option<IfIndex>> {
    let Some(input) = input else { return vec![None] };
    let bridge = scene.bridge_of(input).map(|bridge| bridge.index);
    let routed = matches!(layer, Layer::Ipv4 | Layer::Ipv6);
    let mut inputs = vec![Some(bridge.filter(|_| routed).unwrap_or(input))];
    for device in [Some(input), bridge, dropped] {
        if device.is_some() && !inputs.contains(&device) {
            inputs.push(device);
        }
    }
    inputs
}

/// The rule asks for the fragment offset. A packet that a tunnel has wrapped may be cut up behind it, whatever the flow inside shows.
fn asks_for_fragments(rule: &Rule) -> bool {
    rule.statements.iter().any(|statement| {
        matches!(statement, Statement::Test(Condition::Is { keys, .. })
            if keys.iter().any(|key| matches!(key.key, Key::Ip(_, IpField::FragmentOffset))))
    })
}

/// The rule is for all but some incoming devices.
fn spares_a_device(rule: &Rule) -> bool {
    rule.statements.iter().any(|statement| {
        matches!(statement, Statement::Test(Condition::Is { keys, negated: true, .. })
            if keys.iter().any(|key| matches!(key.key, Key::Meta(Meta::Input | Meta::InputName))))
    })
}

/// The packet, as the flow and the drop's example tell.
fn packet(key: &FlowKey, drop: &Dropped<'_>) -> Packet {
    let mut packet = Packet::of_flow(key, drop.example().map_or(0, |example| example.length));
    if let Some((source, destination)) = drop.macs() {
        (packet.source_mac, packet.destination_mac) = (Some(source), Some(destination));
    }
    let counters = || drop.flow.places.values();
    let opens = counters().any(|counters| counters.packets > 0)
        && counters().all(|counters| u64::from(counters.tcp_syn) >= counters.packets);
    if let Some(ip) = packet.ip_mut() {
        if let Transport::Tcp { flags, .. } = &mut ip.transport {
            *flags = opens.then_some(TcpFlags { syn: true, ack: false, fin: false, rst: false });
        }
        // A flow without ports is one of later fragments.
        if ip.transport.ports() == Some((None, None)) || drop.example().is_some_and(is_later_fragment) {
            ip.fragment = Fragment::Later;
        }
    }
    packet
}

/// An IPv4 packet whose fragment offset is not zero (RFC 791). Where a device's own hook drops, the record may begin at either layer.
fn is_later_fragment(example: &PacketRecord) -> bool {
    let starts = if example.ethernet { [14, 0] } else { [0, 14] };
    let at = |start: usize| example.header.get(start..).unwrap_or_default();
    let is_ipv4 = |header: &&[u8]| header.first().is_some_and(|byte| (0x45..=0x4f).contains(byte));
    // The first that fits: at the second place an IPv4 header has a part of its source address, which may look like one.
    let header = starts.into_iter().map(at).find(is_ipv4);
    let offset = header.and_then(|header| header.get(6..8)).and_then(|bytes| bytes.try_into().ok());
    offset.map(u16::from_be_bytes).is_some_and(|offset| offset & 0x1fff != 0)
}

/// The answers to the packet may meet the rule as well: it asks for no device that they came in by, for no MAC address (theirs are
/// not known), and for nothing that they don't have.
pub(in crate::diagnose) fn may_take_answers(
    scene: &Scene<'_>,
    stage: &Stage,
    key: &FlowKey,
    drop: &Dropped<'_>,
    listed: &crate::event::host::Rule,
    base: &Chain,
) -> bool {
    // Base and chain are of one table, in which names mean the same.
    let rule = Names::new(&scene.host.netfilter).rule(base, listed);
    let is_of_one_side = |key: &Key| {
        matches!(
            key,
            Key::Ether(_)
                | Key::Meta(Meta::Input | Meta::InputName | Meta::InputPort | Meta::InputBridge | Meta::InputKind)
        )
    };
    let one_sided = rule.statements.iter().any(|statement| match statement {
        Statement::Test(Condition::Is { keys, .. }) | Statement::Map(keys, _) => {
            keys.iter().any(|expression| is_of_one_side(&expression.key))
        }
        Statement::Test(_)
        | Statement::Verdict(_)
        | Statement::Perhaps(_)
        | Statement::Mark(_)
        | Statement::ConnectionMark(_)
        | Statement::NoTrack
        | Statement::Fill(_)
        | Statement::SetMac(..)
        | Statement::Nat(_)
        | Statement::Unknown(_) => false,
    });
    !one_sided && Asked::new(scene, stage, &key.reverse(), drop, base).first_fit(&rule) != Fit::Not
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Address, PacketCause, Protocol};

    fn record(ethernet: bool, header: &[u8]) -> PacketRecord {
        let key = FlowKey {
            protocol: Protocol::Tcp,
            source: Address::Ip([172, 16, 71, 1].into()),
            source_port: Some(29_269),
            destination: Address::Ip([172, 16, 71, 11].into()),
            destination_port: Some(52_762),
            vlan: None,
        };
        PacketRecord {
            cause: PacketCause::First,
            flow: key,
            place: None,
            input_device: None,
            count: 1,
            length: header.len() as u32,
            gso_size: 0,
            segments: 1,
            ether_type: 0x0800,
            ethernet,
            header: header.to_vec(),
        }
    }

    /// 172.16.71.1:29269 to 172.16.71.11: the third byte of the address reads like the beginning of an IPv4 header, and the
    /// port like the offset of a fragment.
    const WHOLE: [u8; 24] =
        [0x45, 0, 0, 0x3c, 0, 0, 0x40, 0, 0x40, 6, 0x54, 0x8f, 172, 16, 71, 1, 172, 16, 71, 11, 0x72, 0x55, 0xce, 0x1a];

    #[test]
    fn no_address_makes_a_fragment_of_a_whole_packet() {
        assert!(!is_later_fragment(&record(false, &WHOLE)));
        let frame = [&[2; 12][..], &[8, 0], &WHOLE].concat();
        assert!(!is_later_fragment(&record(true, &frame)));
    }

    #[test]
    fn a_later_fragment_is_known_at_either_layer() {
        let mut later = WHOLE;
        later[6..8].copy_from_slice(&[0x20, 0xb9]);
        assert!(is_later_fragment(&record(false, &later)));
        let frame = [&[2; 12][..], &[8, 0], &later].concat();
        // A device's own hook: the record begins with the frame and is not called one.
        assert!(is_later_fragment(&record(false, &frame)) && is_later_fragment(&record(true, &frame)));
    }
}
