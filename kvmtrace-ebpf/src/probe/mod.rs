//! The probe points, one subject each.

pub(crate) mod drop;
pub(crate) mod send;
pub(crate) mod tc;
