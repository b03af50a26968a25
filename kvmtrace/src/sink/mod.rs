//! Where verdicts go: text, JSON, and more.
#![forbid(unsafe_code)]
