//! The lab and the tests that need one.
