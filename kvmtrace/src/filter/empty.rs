//! Filters that no packet can pass: they are refused, for their silence would read like a healthy host's.

use super::expression::{Expression, Side, Test};
use kvmtrace_common::flow::Family;

/// Alternatives that are looked at; a filter with more is taken as it is.
const ALTERNATIVES: usize = 1024;
/// Extension headers of IPv6 (RFC 8200): the protocol of a flow is that of the last header, which they never are.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];

/// Why nothing can pass; none where something may.
pub(super) fn reason(expression: &Expression) -> Option<String> {
    let alternatives = alternatives(expression, true)?;
    let mut reasons = alternatives.iter().map(|tests| contradiction(tests));
    let first = reasons.next()??;
    reasons.all(|reason| reason.is_some()).then_some(first)
}

/// Each alternative as its tests, with whether they are to hold; none where there are too many.
fn alternatives(expression: &Expression, holds: bool) -> Option<Vec<Vec<(Test, bool)>>> {
    match (expression, holds) {
        (Expression::Test(test), _) => Some(vec![vec![(*test, holds)]]),
        (Expression::Not(inner), _) => alternatives(inner, !holds),
        (Expression::And(left, right), true) | (Expression::Or(left, right), false) => {
            let (left, right) = (alternatives(left, holds)?, alternatives(right, holds)?);
            if left.len() * right.len() > ALTERNATIVES {
                return None;
            }
            let both = left.iter().flat_map(|one| right.iter().map(move |other| [one.as_slice(), other].concat()));
            Some(both.collect())
        }
        (Expression::Or(left, right), true) | (Expression::And(left, right), false) => {
            let mut all = alternatives(left, holds)?;
            all.extend(alternatives(right, holds)?);
            (all.len() <= ALTERNATIVES).then_some(all)
        }
    }
}

fn contradiction(tests: &[(Test, bool)]) -> Option<String> {
    for (at, (one, holds)) in tests.iter().enumerate() {
        if *holds && is_extension(*one, tests) {
            return Some("the protocol is that of the last IPv6 header, which an extension header never is".to_owned());
        }
        for (other, others) in tests.iter().take(at) {
            if one == other && holds != others {
                return Some("it asks for something and forbids it".to_owned());
            }
            if let (true, true, Some(what)) = (holds, others, apart(*one, *other)) {
                return Some(format!("no packet has two {what}"));
            }
        }
    }
    None
}

/// It asks for an extension header, in IPv6 alone.
fn is_extension(test: Test, tests: &[(Test, bool)]) -> bool {
    let Test::Protocol { family, number } = test else { return false };
    let of_ipv6 = |family: u8| family == Family::IPV6;
    let six = family.is_some_and(of_ipv6)
        || tests.iter().any(|(other, holds)| *holds && matches!(other, Test::Family(family) if of_ipv6(*family)))
        || tests.iter().any(|(other, holds)| {
            *holds && matches!(other, Test::Address { network, .. } if network.address.is_ipv6())
        });
    six && EXTENSIONS.contains(&number)
}

/// What two tests can't both have.
fn apart(one: Test, other: Test) -> Option<&'static str> {
    let disjoint = |(low, high): (u16, u16), (least, most): (u16, u16)| high < least || most < low;
    match (one, other) {
        (Test::Family(one), Test::Family(other)) => (one != other).then_some("network protocols"),
        (Test::Protocol { number: one, family: first }, Test::Protocol { number: other, family: second }) => {
            let families = first.zip(second).is_some_and(|(first, second)| first != second);
            (one != other || families).then_some("protocols")
        }
        (Test::Vlan { low, high }, Test::Vlan { low: least, high: most }) => {
            disjoint((low, high), (least, most)).then_some("VLAN ids")
        }
        (Test::Port { side, low, high, .. }, Test::Port { side: other, low: least, high: most, .. })
            if side == other =>
        {
            disjoint((low, high), (least, most)).then_some(match side {
                Side::Source => "source ports",
                Side::Destination => "destination ports",
            })
        }
        (Test::Address { network: one, .. }, Test::Address { network, .. })
            if one.address.is_ipv6() != network.address.is_ipv6() =>
        {
            Some("network protocols")
        }
        (Test::Family(family), Test::Address { network, .. })
        | (Test::Address { network, .. }, Test::Family(family)) => {
            // An address of IPv4 stands in ARP, too.
            let six = family == Family::IPV6;
            (six != network.address.is_ipv6()).then_some("network protocols")
        }
        (Test::Address { side, network: one }, Test::Address { side: other, network }) if side == other => {
            let nested = one.contains(network.address) || network.contains(one.address);
            (!nested).then_some(match side {
                Side::Source => "source addresses",
                Side::Destination => "destination addresses",
            })
        }
        (Test::EtherType(one), Test::EtherType(other)) => (one != other).then_some("network protocols"),
        _ => None,
    }
}
