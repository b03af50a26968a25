//! A packet's way through the chains of one hook (`nft_do_chain`, `ipt_do_table`, `ebt_do_table`).

use super::fact::{Place, State};
use super::ruling::{At, Fate, Known, Ruling};
use super::test::{Answers, Fit, NOT_LISTED, NOT_UNDERSTOOD, Subject};
use crate::event::ruleset::{Assignment, Hook, Layer, MarkSource, RuleReference, Side, Statement, Verdict};
use crate::forward::packet::{Connection, Packet};
use crate::topology::Topology;
use crate::topology::rules::Base;

/// Chains call chains so deep at most (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// Rules that are looked at at most: chains that call each other twice each would take for ever.
const MOST_RULES: usize = 1_000_000;

/// The state of an evaluation.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) subject: Subject<'a>,
    taken: Vec<RuleReference>,
    /// What may have ended the packet in the chain that is asked.
    outcomes: Vec<Outcome>,
    fate: Fate,
    looked_at: usize,
}

/// A possible end of the packet's way through a base chain.
#[derive(Clone, Debug)]
struct Outcome {
    end: End,
    by: RuleReference,
    /// What is not known, and in which rule, where the packet comes here only maybe.
    doubt: Option<Doubt>,
}

type Doubt = (RuleReference, &'static str);

/// How a chain ends a packet's way.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    Accept,
    Drop,
    Reject,
    Queue(u16, bool),
    /// It goes on with these addresses.
    Translated(Box<Packet>),
    /// What happens to it is not modelled.
    Taken(String),
}

/// Whether a packet comes out of a chain again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    /// It may.
    Returns,
    /// Each way through the chain ends in it.
    Ends,
}

impl<'a> Run<'a> {
    pub(super) fn new(topology: &'a Topology<'a>, at: &At, packet: &Packet) -> Self {
        let place = Place::new(topology, *at, Known::ALL);
        // The first packet's connection has no mark but what rules of this host give it.
        let first = packet.connection == Some(Connection::New) && matches!(at.hook, Hook::Prerouting | Hook::Output);
        let unmarked = first || topology.rules.connection_mark_is_zero();
        let mut run = Self {
            subject: Subject {
                place,
                packet: packet.clone(),
                state: State { tracked: true, connection_mark: unmarked.then_some(0) },
                filled: Vec::new(),
            },
            taken: Vec::new(),
            outcomes: Vec::new(),
            fate: Fate::Accepted,
            looked_at: 0,
        };
        run.subject.state.tracked = !run.starts_untracked();
        run
    }

    /// Conntrack has not seen the packet as it comes to this hook; at a device's own hook it never has.
    pub(super) fn starts_untracked(&self) -> bool {
        match (self.subject.place.at.layer, self.subject.place.at.hook) {
            (Layer::Device, hook) => hook == Hook::Ingress,
            (Layer::Arp, _) => true,
            (Layer::Ipv4 | Layer::Ipv6 | Layer::Bridge, hook) => matches!(hook, Hook::Prerouting | Hook::Output),
        }
    }

    /// Conntrack looks at the packet.
    pub(super) fn track(&mut self) {
        if !matches!(self.subject.place.at.layer, Layer::Device | Layer::Arp) {
            self.subject.state.tracked = true;
        }
    }

    /// The base chain is one of the device that the packet is at.
    pub(super) fn is_of(&self, base: &Base) -> bool {
        let Some(devices) = &base.devices else { return true };
        let at = self.subject.place.at;
        let device = if at.hook == Hook::Egress { at.output } else { at.input.or(at.input_port) };
        let name = device.and_then(|device| self.subject.place.topology.link(device)).map(|link| link.name.as_str());
        name.is_some_and(|name| {
            // nft 1.1 takes names with an asterisk.
            devices.iter().any(|own| own.strip_suffix('*').map_or(own == name, |beginning| name.starts_with(beginning)))
        })
    }

    /// Asks a base chain; true when nothing behind it sees the packet.
    pub(super) fn base(&mut self, index: usize, base: &Base) -> bool {
        self.outcomes.clear();
        let before = base.nat.then(|| self.subject.packet.clone());
        if self.chain(index, None, 0) == Out::Returns {
            let end = if base.drops { End::Drop } else { End::Accept };
            self.outcomes.push(Outcome { end, by: RuleReference { chain: index, rule: None }, doubt: None });
        }
        let outcomes = std::mem::take(&mut self.outcomes);
        if let Some(before) = before {
            return self.settle_nat(&outcomes, before);
        }
        self.settle(&outcomes, base)
    }

    /// What all outcomes of a base chain come to.
    fn settle(&mut self, outcomes: &[Outcome], base: &Base) -> bool {
        // The last is what comes for certain where nothing before it did.
        let Some(last) = outcomes.last() else { return false };
        let is_dead = |outcome: &Outcome| matches!(outcome.end, End::Drop | End::Reject);
        if base.routes && outcomes.iter().any(is_dead) {
            self.doubt(last.by, "the frame may be handed to IP instead of the bridge");
            return false;
        }
        if outcomes.iter().all(is_dead) {
            self.fate = if last.end == End::Reject { Fate::Rejected(last.by) } else { Fate::Dropped(last.by) };
            return true;
        }
        if outcomes.iter().all(|outcome| outcome.end == End::Accept) {
            return false;
        }
        let alike = outcomes.iter().all(|outcome| outcome.end == last.end);
        if let End::Queue(number, bypass) = last.end
            && alike
        {
            if self.fate == Fate::Accepted {
                self.fate = Fate::Queued(last.by, number, bypass);
            }
            return true;
        }
        if let End::Taken(what) = &last.end
            && alike
        {
            self.doubt(last.by, what);
            return false;
        }
        self.open(outcomes, last);
        false
    }

    /// Names the rule that may decide, with what is not known there.
    fn open(&mut self, outcomes: &[Outcome], last: &Outcome) {
        let open = outcomes.iter().find(|outcome| outcome.end != End::Accept).unwrap_or(last);
        // Where the doubtful rule lets the packet pass and the certain one does not, the doubtful one decides.
        let doubtful =
            if open.doubt.is_some() { Some(open) } else { outcomes.iter().find(|outcome| outcome.doubt.is_some()) };
        let doubtful = doubtful.unwrap_or(last);
        self.doubt(doubtful.by, doubtful.doubt.map_or(NOT_UNDERSTOOD, |(_, why)| why));
    }

    /// The first doubt stands, unless something behind it ends the packet anyway.
    fn doubt(&mut self, by: RuleReference, why: &str) {
        if self.fate == Fate::Accepted {
            self.fate = Fate::Unknown(by, why.to_owned());
        }
    }

    /// What NAT's chains come to: one translation for certain, or none.
    fn settle_nat(&mut self, outcomes: &[Outcome], before: Packet) -> bool {
        let Some(last) = outcomes.last() else { return false };
        if outcomes.iter().all(|outcome| matches!(outcome.end, End::Drop | End::Reject)) {
            self.fate = Fate::Dropped(last.by);
            return true;
        }
        if outcomes.iter().all(|outcome| outcome.end == End::Accept) {
            return false;
        }
        self.subject.packet = before;
        let alike = outcomes.iter().all(|outcome| outcome.end == last.end);
        match &last.end {
            End::Translated(_) if alike && self.subject.packet.connection.is_none() => {
                self.doubt(last.by, "whether the packet is the first of its connection is not known");
            }
            End::Translated(packet) if alike => self.subject.packet = (**packet).clone(),
            End::Taken(what) if alike => self.doubt(last.by, what),
            End::Accept | End::Drop | End::Reject | End::Queue(..) | End::Translated(_) | End::Taken(_) => {
                self.open(outcomes, last);
            }
        }
        false
    }

    /// Goes through a chain. `doubt`: the packet comes here only maybe.
    fn chain(&mut self, index: usize, doubt: Option<Doubt>, depth: usize) -> Out {
        let topology = self.subject.place.topology;
        let Some(chain) = topology.rules.chain(index) else { return Out::Returns };
        if depth > DEEPEST {
            self.end(
                End::Taken("chains call each other in a circle".to_owned()),
                RuleReference { chain: index, rule: None },
                doubt,
            );
            return Out::Ends;
        }
        let mut may_return = false;
        for (number, rule) in chain.rules.iter().enumerate() {
            self.looked_at += 1;
            if self.looked_at > MOST_RULES {
                let by = RuleReference { chain: index, rule: Some(number) };
                self.end(End::Taken("there are more rules than are looked at".to_owned()), by, doubt);
                return Out::Ends;
            }
            let out = self.rule(RuleReference { chain: index, rule: Some(number) }, &rule.statements, doubt, depth);
            match out {
                After::Next => {}
                After::MayReturn => may_return = true,
                After::Return => return Out::Returns,
                After::End => return if may_return { Out::Returns } else { Out::Ends },
            }
        }
        Out::Returns
    }

    fn rule(&mut self, by: RuleReference, statements: &[Statement], doubt: Option<Doubt>, depth: usize) -> After {
        // The first doubt on the way here, or of this rule.
        let mut own: Option<Doubt> = None;
        for statement in statements {
            match statement {
                Statement::Test(condition) => match self.subject.test(condition) {
                    Fit::Surely => {}
                    Fit::Maybe(why) => {
                        own.get_or_insert((by, why));
                    }
                    Fit::Not => return After::Next,
                },
                Statement::Unknown(_) => {
                    own.get_or_insert((by, NOT_UNDERSTOOD));
                }
                Statement::Verdict(verdict) => return self.verdict(by, verdict, doubt, own, depth),
                Statement::Map(keys, map) => match self.subject.answers(keys, map) {
                    Answers::One(verdict) => return self.verdict(by, verdict, doubt, own, depth),
                    Answers::None => return After::Next,
                    Answers::Perhaps(possible, why) => {
                        let possible: Vec<Verdict> = possible.into_iter().cloned().collect();
                        let complete = map.complete;
                        let own = own.unwrap_or((by, why));
                        if !complete && possible.is_empty() {
                            self.end(End::Taken(NOT_LISTED.to_owned()), by, Some(own));
                        }
                        return self.perhaps(by, &possible, doubt, own, depth);
                    }
                },
                Statement::Perhaps(possible) => {
                    return self.perhaps(by, possible, doubt, own.unwrap_or((by, NOT_UNDERSTOOD)), depth);
                }
                Statement::Nat(nat) => return self.nat(by, nat, doubt, own),
                Statement::Mark(_)
                | Statement::ConnectionMark(_)
                | Statement::NoTrack
                | Statement::Fill(_)
                | Statement::SetMac(..) => self.change(by, statement, doubt.or(own).is_some()),
            }
        }
        After::Next
    }

    /// One of these verdicts, or none of them.
    fn perhaps(
        &mut self,
        by: RuleReference,
        possible: &[Verdict],
        doubt: Option<Doubt>,
        own: Doubt,
        depth: usize,
    ) -> After {
        let mut after = After::Next;
        for verdict in possible {
            if self.verdict(by, verdict, doubt, Some(own), depth) == After::MayReturn {
                after = After::MayReturn;
            }
        }
        after
    }

    /// `doubt`: the packet comes to this rule only maybe; `own`: the rule matches only maybe.
    fn verdict(
        &mut self,
        by: RuleReference,
        verdict: &Verdict,
        doubt: Option<Doubt>,
        own: Option<Doubt>,
        depth: usize,
    ) -> After {
        let either = doubt.or(own);
        let end = match verdict {
            Verdict::Accept => End::Accept,
            Verdict::Drop => End::Drop,
            Verdict::Reject => End::Reject,
            Verdict::Queue { number, bypass } => End::Queue(*number, *bypass),
            Verdict::Taken(what) => End::Taken(what.clone()),
            Verdict::Continue => return After::Next,
            Verdict::Return => {
                self.note(by, either);
                return if own.is_none() { After::Return } else { After::MayReturn };
            }
            Verdict::Jump(None) | Verdict::Goto(None) => End::Taken("the chain is not known".to_owned()),
            Verdict::Jump(Some(target)) => {
                self.note(by, either);
                let out = self.chain(*target, either, depth + 1);
                return if own.is_none() && out == Out::Ends { After::End } else { After::Next };
            }
            Verdict::Goto(Some(target)) => {
                self.note(by, either);
                let out = self.chain(*target, either, depth + 1);
                return match (own, out) {
                    (None, Out::Ends) => After::End,
                    (None, Out::Returns) => After::Return,
                    (Some(_), Out::Ends) => After::Next,
                    (Some(_), Out::Returns) => After::MayReturn,
                };
            }
        };
        self.note(by, either);
        self.end(end, by, either);
        if own.is_none() { After::End } else { After::Next }
    }

    /// The packet surely meets this rule, which does something with it.
    fn note(&mut self, by: RuleReference, doubt: Option<Doubt>) {
        if doubt.is_none() && self.outcomes.is_empty() {
            self.taken.push(by);
        }
    }

    pub(super) fn end(&mut self, end: End, by: RuleReference, doubt: Option<Doubt>) {
        // Later rules repeat what earlier ones may have done; the first of each kind stands for them, and the last for certain.
        let repeats = doubt.is_some() && self.outcomes.iter().any(|outcome| outcome.end == end);
        if !repeats {
            self.outcomes.push(Outcome { end, by, doubt });
        }
    }

    fn nat(
        &mut self,
        by: RuleReference,
        nat: &crate::event::ruleset::Nat,
        doubt: Option<Doubt>,
        own: Option<Doubt>,
    ) -> After {
        let either = doubt.or(own);
        let Some(end) = self.translate(nat) else { return After::Next };
        self.note(by, either);
        self.end(end, by, either);
        if own.is_none() { After::End } else { After::Next }
    }

    /// A statement that changes something and goes on.
    fn change(&mut self, by: RuleReference, statement: &Statement, maybe: bool) {
        let maybe = maybe || !self.outcomes.is_empty();
        match statement {
            Statement::Mark(change) => {
                let mark = changed(*change, self.subject.packet.mark, self.subject.state.connection_mark);
                let known = !maybe || mark == self.subject.packet.mark;
                self.subject.packet.mark = mark.filter(|_| known);
            }
            Statement::ConnectionMark(change) => {
                let mark = changed(*change, self.subject.state.connection_mark, self.subject.packet.mark);
                let known = !maybe || mark == self.subject.state.connection_mark;
                self.subject.state.connection_mark = mark.filter(|_| known);
            }
            Statement::NoTrack if !self.subject.state.tracked => {
                self.subject.packet.connection = (!maybe).then_some(Connection::Untracked);
            }
            Statement::Fill(set) => {
                if !self.subject.filled.contains(set) {
                    self.subject.filled.push(set.clone());
                }
                return;
            }
            Statement::SetMac(side, address) => {
                let place = match side {
                    Side::Source => &mut self.subject.packet.source_mac,
                    Side::Destination => &mut self.subject.packet.destination_mac,
                };
                *place = (!maybe).then_some(*address);
            }
            Statement::Test(_)
            | Statement::Verdict(_)
            | Statement::Map(..)
            | Statement::Perhaps(_)
            | Statement::Nat(_)
            | Statement::NoTrack
            | Statement::Unknown(_) => return,
        }
        if !maybe {
            self.taken.push(by);
        }
    }

    pub(super) fn ruling(self) -> Ruling {
        Ruling { fate: self.fate, packet: self.subject.packet, taken: self.taken }
    }
}

/// What comes after a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The next rule.
    Next,
    /// The next rule, or the chain's caller.
    MayReturn,
    /// The chain's caller.
    Return,
    /// Nothing.
    End,
}

fn changed(change: Assignment, own: Option<u32>, other: Option<u32>) -> Option<u32> {
    if change.clear == u32::MAX && change.from == MarkSource::Own {
        return Some(change.toggle);
    }
    match change.from {
        MarkSource::Own => own.map(|mark| change.apply(mark)),
        MarkSource::Other => other.map(|mark| change.apply(mark)),
        MarkSource::Unknown => None,
    }
}
