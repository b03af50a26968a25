//! Where verdicts go: text, JSON, and more.
#![forbid(unsafe_code)]

pub mod check;
pub mod escape;
pub mod explain;
pub mod guests;
mod incident;
pub mod json;
mod lines;
pub mod metrics;
pub mod probe;
mod reachability;
pub mod style;
pub mod text;
pub mod watch;

/// The name of a value that JSON shows as a string.
fn id(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
