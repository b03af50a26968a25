//! From a trace's steps to what it is asked for: which rule dropped a packet of which flow.
//!
//! The first message of a hook tells the packet's headers and stands in the hook's own chain; those after it bear only
//! the packet's number. A walk through a hook runs on one CPU without a pause, so that few are open at a time; what stays
//! open because its end was lost gives way.

use super::message::{Message, Outcome};
use crate::event::{FlowKey, RuleSite};
use std::collections::VecDeque;

/// Walks that are open at once: more than CPUs that work at a time.
const OPEN: usize = 256;

/// Walks of packets through hooks.
#[derive(Debug, Default)]
pub(super) struct Walks {
    open: VecDeque<Walk>,
}

#[derive(Debug)]
struct Walk {
    id: u32,
    flow: FlowKey,
    family: &'static str,
    table: String,
    base: String,
}

impl Walks {
    /// Takes a step in; gives the rule if the packet ended there.
    pub(super) fn take(&mut self, message: Message) -> Option<(FlowKey, RuleSite)> {
        if message.first {
            self.open.retain(|walk| walk.id != message.id);
            if let Some(flow) = message.flow {
                if self.open.len() >= OPEN {
                    self.open.pop_front();
                }
                self.open.push_back(Walk {
                    id: message.id,
                    flow,
                    family: message.family,
                    table: message.table.clone(),
                    base: message.chain.clone(),
                });
            }
        }
        let position = self
            .open
            .iter()
            .position(|walk| (walk.id, walk.family, &walk.table) == (message.id, message.family, &message.table))?;
        if message.outcome == Outcome::GoesOn {
            return None;
        }
        let walk = self.open.remove(position)?;
        let rule = RuleSite {
            family: walk.family.to_owned(),
            table: walk.table,
            base: walk.base,
            chain: message.chain,
            handle: message.handle,
        };
        (message.outcome == Outcome::Dropped).then_some((walk.flow, rule))
    }
}
