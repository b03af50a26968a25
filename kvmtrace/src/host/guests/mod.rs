//! stub
use crate::event::HostState;
pub(super) fn read(_state: &mut HostState) {}
