//! What lines are about, and how much of each was told.

use crate::event::{DropSite, FlowKey, Place};
use crate::track::remembered::Remembered;

/// Subjects that are remembered.
const REMEMBERED: usize = 1 << 18;

/// Something that is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    /// What a site drops of a flow.
    Drop(FlowKey, DropSite),
    /// What a site drops of flows that are too many to be listed.
    Unlisted(DropSite),
    /// A flow's packets that are fragments, at the place that had most.
    Fragments(FlowKey),
    /// ICMP errors of one sender about one flow, at the place that had most.
    Error(FlowKey),
    /// Packets of a flow that have another source MAC address.
    Mac(FlowKey, Place),
}

impl Subject {
    /// The flow.
    pub(super) fn flow(&self) -> Option<FlowKey> {
        match self {
            Self::Drop(flow, _) | Self::Fragments(flow) | Self::Error(flow) | Self::Mac(flow, _) => Some(*flow),
            Self::Unlisted(_) => None,
        }
    }

    /// It is about packets that were lost.
    pub(super) fn is_drop(&self) -> bool {
        matches!(self, Self::Drop(..) | Self::Unlisted(_))
    }
}

/// How many packets of each subject were told.
#[derive(Debug)]
pub(super) struct Told(Remembered<Subject, u64>);

impl Default for Told {
    fn default() -> Self {
        Self(Remembered::new(REMEMBERED))
    }
}

impl Told {
    /// Some of these packets were not told.
    pub(super) fn is_news(&self, subject: &Subject, so_far: u64) -> bool {
        self.0.get(subject).is_none_or(|told| *told < so_far)
    }

    /// How many of them were not; they are now.
    pub(super) fn news(&mut self, subject: &Subject, so_far: u64) -> u64 {
        let told = self.0.get(subject).copied().unwrap_or_default();
        if told < so_far {
            self.0.insert(subject.clone(), so_far);
        }
        so_far.saturating_sub(told)
    }
}
