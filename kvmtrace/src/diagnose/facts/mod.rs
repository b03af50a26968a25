//! What was observed, and what this host's configuration says of it: facts that no flow's verdict has touched yet.

pub mod bridge;
pub mod cause_of_stop;
pub mod dropped;
pub mod firewall;
pub mod index;
pub mod layer2;
pub mod machine;
pub mod macvtap;
pub mod nat;
pub mod offload;
pub mod place;
pub mod reasons;
pub mod routes;
pub mod scene;
pub mod senders;
pub mod sites;
pub mod standing;
pub mod trace;
pub mod tunnel;
pub mod xdp;
