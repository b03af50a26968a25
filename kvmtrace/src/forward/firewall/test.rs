//! Whether a test holds: surely, maybe, or not.

use super::fact::{Fact, Place, State};
use crate::event::ruleset::{Condition, Elements, Expression, Operand, Range};
use crate::forward::packet::Packet;

/// Three values of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It holds.
    Surely,
    /// It holds or not: what is not known.
    Maybe(&'static str),
    /// It does not hold.
    Not,
}

/// Elements of a set that are looked at one by one, where a value is not known.
const MOST_COMPARED: usize = 4096;
/// Keys that are put together at most (`NFT_REG32_COUNT` holds no more of them).
const MOST_KEYS: usize = 8;

pub(super) const NOT_LISTED: &str = "the elements of the set are not known";
pub(super) const NOT_UNDERSTOOD: &str = "a part of the rule is not understood";

/// The answers of a map.
#[derive(Debug, PartialEq)]
pub(super) enum Answers<T> {
    /// This one.
    One(T),
    /// None: the rule ends.
    None,
    /// One of these, or none.
    Perhaps(Vec<T>, &'static str),
}

/// What is tested: a packet at its place, with what rules have changed there.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) place: Place<'a>,
    pub(super) packet: Packet,
    pub(super) state: State,
    /// Named sets that a rule has added to or taken from.
    pub(super) filled: Vec<String>,
}

impl Subject<'_> {
    /// A test of the packet as it is now.
    pub(super) fn test(&self, condition: &Condition) -> Fit {
        match condition {
            Condition::Is { keys, negated, set } => match (self.is_in(keys, set), negated) {
                // What the packet does not have neither is nor is not in a set.
                (None, _) | (Some(Fit::Surely), true) | (Some(Fit::Not), false) => Fit::Not,
                (Some(Fit::Surely), false) | (Some(Fit::Not), true) => Fit::Surely,
                (Some(maybe), _) => maybe,
            },
            Condition::Any(conditions) => {
                let mut fit = Fit::Not;
                for condition in conditions {
                    match self.test(condition) {
                        Fit::Surely => return Fit::Surely,
                        Fit::Maybe(why) => fit = Fit::Maybe(why),
                        Fit::Not => {}
                    }
                }
                fit
            }
            // A packet of a new flow is below every limit.
            Condition::Limit { over: true } | Condition::Constant(false) => Fit::Not,
            Condition::Limit { over: false } | Condition::Constant(true) => Fit::Surely,
            Condition::Unknown(_) => Fit::Maybe(NOT_UNDERSTOOD),
        }
    }

    /// None where the packet lacks one of the values.
    fn is_in(&self, keys: &[Expression], set: &Operand) -> Option<Fit> {
        match set {
            Operand::Ranges(ranges) => {
                let within = |value: u128| {
                    if ranges.iter().any(|range| range.contains(value)) { Fit::Surely } else { Fit::Not }
                };
                self.one(keys.first()?, within)
            }
            Operand::Set(set) => self.in_set(keys, set),
            Operand::Named(name, set) => {
                let listed = set.as_ref().filter(|_| !self.filled.iter().any(|filled| filled == name));
                match listed {
                    Some(set) => self.in_set(keys, set),
                    None if keys.iter().any(|key| self.value(key) == Fact::Absent) => None,
                    None => Some(Fit::Maybe(NOT_LISTED)),
                }
            }
        }
    }

    /// One value, asked whether it is `within`.
    fn one(&self, key: &Expression, within: impl Fn(u128) -> Fit) -> Option<Fit> {
        Some(match self.value(key) {
            Fact::Absent => return None,
            Fact::Number(value) => within(value),
            Fact::Unknown(why) => Fit::Maybe(why),
            Fact::OneOf(values, why) => {
                let mask = key.mask.unwrap_or(u128::MAX);
                let mut fits = values.iter().map(|value| within(value & mask));
                let first = fits.next()?;
                if fits.all(|fit| fit == first) { first } else { Fit::Maybe(why) }
            }
        })
    }

    fn in_set(&self, keys: &[Expression], set: &Elements<()>) -> Option<Fit> {
        let find = |values: &[u128]| match set.find(values) {
            Some(()) => Fit::Surely,
            None if set.complete => Fit::Not,
            None => Fit::Maybe(NOT_LISTED),
        };
        if let [key] = keys {
            return self.one(key, |value| find(&[value]));
        }
        let (facts, count) = self.values(keys)?;
        let facts = facts.get(..count)?;
        Some(match known(facts) {
            Ok(values) => find(values.get(..count)?),
            Err(_)
                if set.complete
                    && set.len() <= MOST_COMPARED
                    && !set.iter().any(|(element, ())| may_be(facts, &element)) =>
            {
                Fit::Not
            }
            Err(why) => Fit::Maybe(why),
        })
    }

    /// The map's answer for the packet.
    pub(super) fn answers<'m, T: PartialEq>(&self, keys: &[Expression], map: &'m Elements<T>) -> Answers<&'m T> {
        let Some((facts, count)) = self.values(keys) else { return Answers::None };
        let facts = facts.get(..count).unwrap_or_default();
        let why = match known(facts) {
            Ok(values) => match map.find(values.get(..count).unwrap_or_default()) {
                Some(answer) => return Answers::One(answer),
                None if map.complete => return Answers::None,
                None => NOT_LISTED,
            },
            Err(why) => why,
        };
        let mut possible: Vec<&T> = Vec::new();
        for (element, answer) in map.iter().take(MOST_COMPARED) {
            if may_be(facts, &element) && !possible.contains(&answer) {
                possible.push(answer);
            }
        }
        if possible.is_empty() && map.complete && map.len() <= MOST_COMPARED {
            return Answers::None;
        }
        Answers::Perhaps(possible, why)
    }

    /// The facts behind several keys; none where the packet lacks one of them, or there are more than rules can have.
    fn values(&self, keys: &[Expression]) -> Option<([Fact; MOST_KEYS], usize)> {
        let mut facts = [Fact::Absent; MOST_KEYS];
        for (place, key) in keys.iter().enumerate() {
            let fact = self.value(key);
            *facts.get_mut(place)? = if fact == Fact::Absent { return None } else { fact };
        }
        Some((facts, keys.len()))
    }

    /// The value of an expression, with its mask.
    pub(super) fn value(&self, expression: &Expression) -> Fact {
        let fact = self.place.fact(&self.packet, self.state, &expression.key, expression.mask);
        match (fact, expression.mask) {
            (Fact::Number(value), Some(mask)) => Fact::Number(value & mask),
            (fact, _) => fact,
        }
    }
}

/// The values, where all are known.
fn known(facts: &[Fact]) -> Result<[u128; MOST_KEYS], &'static str> {
    let mut values = [0; MOST_KEYS];
    for (value, fact) in values.iter_mut().zip(facts) {
        *value = match fact {
            Fact::Number(value) => *value,
            Fact::Unknown(why) | Fact::OneOf(_, why) => return Err(why),
            Fact::Absent => return Err(NOT_UNDERSTOOD),
        };
    }
    Ok(values)
}

/// What is known of the values does not speak against the element.
fn may_be(facts: &[Fact], element: &[Range]) -> bool {
    facts.len() == element.len()
        && facts.iter().zip(element).all(|(fact, range)| match fact {
            Fact::Number(value) => range.contains(*value),
            Fact::OneOf(values, _) => values.iter().any(|value| range.contains(*value)),
            Fact::Unknown(_) => true,
            Fact::Absent => false,
        })
}
