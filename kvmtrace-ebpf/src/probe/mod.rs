//! The probe points, one subject each.

pub(crate) mod drop;
pub(crate) mod tc;
