//! The middle with a host and no traffic, for commands that trace nothing.

use crate::event::{Event, EventKind, HostState, Started};
use crate::host::path::Scope;
use crate::pipeline::Pipeline;
use std::sync::Arc;

/// A trace of no time on a host.
pub(super) fn host_alone(host: HostState, scope: Scope) -> Pipeline {
    let started = Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        devices: scope.devices,
        guests: scope.guests,
        all: false,
        filter: String::new(),
        followed: false,
    };
    let time = crate::kernel::clock::Clock::read().now();
    let mut pipeline = Pipeline::default();
    for kind in [EventKind::Started(started), EventKind::Host(Arc::new(host)), EventKind::Ended] {
        pipeline.take(&Event { time, kind });
    }
    pipeline
}
