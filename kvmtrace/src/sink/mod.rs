//! Where verdicts go: text, JSON, and more.
#![forbid(unsafe_code)]

pub mod escape;
pub mod guests;
pub mod json;
pub mod style;
pub mod text;
