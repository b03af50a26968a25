//! What has to be counted so that a filter selects flows and changes no verdict.
//!
//! A packet bears other addresses, ports, tags and MAC addresses further on (NAT, routing, tunnels), and what befell it may be
//! reported by another packet: ARP and neighbour discovery, an ICMP error, the tunnel packet around it. So the kernel side
//! asks only for what no stage changes, the protocol, and lets those others pass; the flows themselves are selected from the
//! report, by their packets as they entered.

use super::expression::{Expression, Side, Test};
use kvmtrace_common::flow::Family;

/// UDP ports of tunnels: VXLAN by IANA and as Linux has it, GENEVE, `WireGuard` as it is usually set, `IPsec` behind NAT.
const TUNNEL_PORTS: [u16; 5] = [4789, 8472, 6081, 51820, 4500];
/// IP protocols that carry others: IPIP, SIT, GRE, ESP; ICMP and ICMPv6 for errors and neighbour discovery.
const CARRIERS: [u8; 6] = [1, 4, 41, 47, 50, 58];
const UDP: u8 = 17;

/// A bound of an expression, from above or from below.
enum Bound {
    Always,
    Never,
    If(Expression),
}

/// The tests that let all packets pass which belong to what is asked for; none where that is everything.
pub(super) fn followed(expression: &Expression) -> Option<Expression> {
    let own = match bound(expression, true) {
        Bound::Always => return None,
        Bound::Never => None,
        Bound::If(expression) => Some(expression),
    };
    let arp = Test::Family(Family::ARP);
    let carriers = CARRIERS.into_iter().map(|number| Test::Protocol { family: None, number });
    let tunnels = TUNNEL_PORTS.into_iter().map(|port| Test::Port {
        side: Side::Destination,
        protocol: Some(UDP),
        low: port,
        high: port,
    });
    let others = std::iter::once(arp).chain(carriers).chain(tunnels).map(Expression::Test);
    own.into_iter().chain(others).reduce(Expression::or)
}

/// The weakest (`above`) or strongest expression of lasting tests that the given one implies, or is implied by.
fn bound(expression: &Expression, above: bool) -> Bound {
    match expression {
        Expression::Test(test) if lasts(*test) => Bound::If(Expression::Test(*test)),
        Expression::Test(_) => {
            if above {
                Bound::Always
            } else {
                Bound::Never
            }
        }
        Expression::Not(inner) => match bound(inner, !above) {
            Bound::Always => Bound::Never,
            Bound::Never => Bound::Always,
            Bound::If(inner) => Bound::If(Expression::Not(Box::new(inner))),
        },
        Expression::And(left, right) => match (bound(left, above), bound(right, above)) {
            (Bound::Never, _) | (_, Bound::Never) => Bound::Never,
            (Bound::Always, other) | (other, Bound::Always) => other,
            (Bound::If(left), Bound::If(right)) => Bound::If(left.and(right)),
        },
        Expression::Or(left, right) => match (bound(left, above), bound(right, above)) {
            (Bound::Always, _) | (_, Bound::Always) => Bound::Always,
            (Bound::Never, other) | (other, Bound::Never) => other,
            (Bound::If(left), Bound::If(right)) => Bound::If(left.or(right)),
        },
    }
}

/// No stage of the packet path changes what it asks for.
fn lasts(test: Test) -> bool {
    match test {
        Test::Family(_) | Test::Protocol { .. } | Test::EtherType(_) => true,
        Test::Address { .. } | Test::Port { .. } | Test::Vlan { .. } | Test::Mac { .. } => false,
    }
}
