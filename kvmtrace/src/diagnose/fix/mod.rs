//! Cures: commands with this host's names, safe to paste into a root shell, each with its undo.

pub mod accept;
pub mod accept_many;
pub mod bond;
pub mod conversation;
pub mod device;
#[cfg(test)]
mod hostile;
pub mod machine;
pub mod manager;
pub mod masquerade;
pub mod namespace;
pub mod netfilter;
pub mod persist;
pub mod port;
pub mod route;
pub mod scope;
mod set;
pub mod stack;
pub mod stop;
pub mod switch;
pub mod sysctl;
pub mod vlan;
