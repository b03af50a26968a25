//! One rule, asked about a packet that was dropped: not all of the packet is known, and a limit may have been exceeded.

use super::fact::{Place, State};
use super::ruling::{At, CONNTRACK, Known};
use super::test::{Answers, Fit, Subject};
use crate::event::ruleset::{Condition, Hook, Rule, Statement, Verdict};
use crate::forward::packet::Packet;
use crate::topology::Topology;

/// A packet at a hook, about which single rules are asked.
#[derive(Debug)]
pub struct Question<'a> {
    subject: Subject<'a>,
}

impl<'a> Question<'a> {
    /// About this packet, in a base chain of this priority.
    pub fn new(topology: &'a Topology<'a>, at: At, known: Known, priority: i32, packet: Packet) -> Self {
        let early = matches!(at.hook, Hook::Prerouting | Hook::Output) && priority < CONNTRACK;
        let connection_mark = topology.rules.connection_mark_is_zero().then_some(0);
        let state = State { tracked: !early, connection_mark };
        Self { subject: Subject { place: Place::new(topology, at, known), packet, state, filled: Vec::new() } }
    }

    /// Whether the rule matches the packet.
    pub fn fit(&self, rule: &Rule) -> Fit {
        let mut fit = Fit::Surely;
        for statement in &rule.statements {
            let one = match statement {
                Statement::Test(Condition::Limit { .. } | Condition::Constant(_)) => {
                    Fit::Maybe("how much a limit has let pass is not known")
                }
                Statement::Test(condition) => self.subject.test(condition),
                Statement::Map(keys, map) => match self.subject.answers(keys, map) {
                    Answers::One(_) => Fit::Surely,
                    Answers::None => Fit::Not,
                    Answers::Perhaps(_, why) => Fit::Maybe(why),
                },
                Statement::Unknown(_) | Statement::Perhaps(_) => Fit::Maybe("a part of the rule is not understood"),
                Statement::Verdict(_)
                | Statement::Mark(_)
                | Statement::ConnectionMark(_)
                | Statement::NoTrack
                | Statement::Fill(_)
                | Statement::SetMac(..)
                | Statement::Nat(_) => continue,
            };
            match one {
                Fit::Not => return Fit::Not,
                Fit::Maybe(_) => fit = one,
                Fit::Surely => {}
            }
        }
        fit
    }

    /// What the rule may do with the packet, if it matches.
    pub fn verdicts(&self, rule: &Rule) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for statement in &rule.statements {
            match statement {
                Statement::Verdict(verdict) => verdicts.push(verdict.clone()),
                Statement::Perhaps(possible) => verdicts.extend(possible.iter().cloned()),
                Statement::Map(keys, map) => match self.subject.answers(keys, map) {
                    Answers::One(verdict) => verdicts.push(verdict.clone()),
                    Answers::None => {}
                    Answers::Perhaps(possible, _) => verdicts.extend(possible.into_iter().cloned()),
                },
                Statement::Test(_)
                | Statement::Mark(_)
                | Statement::ConnectionMark(_)
                | Statement::NoTrack
                | Statement::Fill(_)
                | Statement::SetMac(..)
                | Statement::Nat(_)
                | Statement::Unknown(_) => {}
            }
        }
        verdicts
    }
}
