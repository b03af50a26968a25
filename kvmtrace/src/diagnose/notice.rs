//! What an onlooker should hear of at once: one line of `kvmtrace watch`.

use crate::event::Timestamp;
use serde::Serialize;

/// One line of `kvmtrace watch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// When.
    #[serde(serialize_with = "super::report::rfc_3339")]
    pub time: Timestamp,
}
