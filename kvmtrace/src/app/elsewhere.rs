//! Guests of other network namespaces: not traced from here, but whoever looks for them is told the command that does.

use crate::diagnose::shell::quote;
use crate::host::path::ScopeError;
use crate::host::{self, OtherNamespace};
use std::collections::BTreeSet;

/// Names told of one namespace.
const NAMES: usize = 4;
/// Namespaces told of: each is a line.
const NAMESPACES: usize = 32;

/// A line for each other namespace with guests: who is there, and how `command` is run there.
pub(super) fn hints(command: &str) -> Vec<String> {
    let told = |(way, names): (_, BTreeSet<String>)| {
        let more = if names.len() > NAMES { format!(" and {} more", names.len() - NAMES) } else { String::new() };
        let named: Vec<String> = names.into_iter().take(NAMES).collect();
        format!("{}{more}: in another network namespace, `{} {command}`", named.join(", "), enter(&way))
    };
    host::guests_elsewhere().into_iter().take(NAMESPACES).map(told).collect()
}

/// The error, unless it is of a guest that another namespace has: then the way there.
pub(super) fn explained(error: anyhow::Error) -> anyhow::Error {
    let Some(ScopeError::NoGuest(wanted)) = error.downcast_ref() else { return error };
    let found = host::guests_elsewhere().into_iter().find(|(_, names)| names.contains(wanted));
    match found {
        Some((way, _)) => anyhow::anyhow!(
            "{wanted}: no such guest in this network namespace, but in another: put `{}` before the command",
            enter(&way)
        ),
        None => error,
    }
}

/// What, put before a command, runs it there (ip-netns(8), nsenter(1)).
fn enter(way: &OtherNamespace) -> String {
    match way {
        OtherNamespace::Named(name) => format!("ip netns exec {}", quote(name)),
        OtherNamespace::Process(pid) => format!("nsenter --target {pid} --net"),
    }
}
