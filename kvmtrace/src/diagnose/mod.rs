//! From what was seen to what it means: a verdict per flow, findings about devices and the host.
#![forbid(unsafe_code)]

pub mod notice;
pub mod report;

use crate::track::Track;
use report::{Host, Report, SCHEMA, Totals, Window};

/// The verdicts over everything in `track`.
pub fn report(_track: &Track) -> Report {
    Report {
        schema: SCHEMA,
        host: Host { name: String::new(), kernel: String::new(), kvmtrace: env!("CARGO_PKG_VERSION").to_owned() },
        window: Window { start: crate::event::Timestamp(0), end: crate::event::Timestamp(0), seconds: 0.0 },
        degraded: Vec::new(),
        lost: crate::event::Loss::default(),
        totals: Totals::default(),
        guests: Vec::new(),
        flows: Vec::new(),
        findings: Vec::new(),
    }
}
