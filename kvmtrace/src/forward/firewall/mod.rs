//! The one evaluator of firewall rules.

mod fact;
mod nat;
mod question;
mod ruling;
mod run;
mod test;

#[cfg(test)]
mod tests;

pub use question::Question;
pub use ruling::{At, Fate, Known, Ruling};
pub use test::Fit;

use crate::forward::packet::Packet;
use crate::topology::Topology;
use crate::topology::rules::nat_priority;
use ruling::CONNTRACK;
use run::Run;

/// The rules of a hook, asked about a packet.
///
/// Chains are asked in the order of their priorities. `accept` ends its chain only, `drop` is final. Conntrack looks at the packet at
/// its own place (`NF_IP_PRI_CONNTRACK`), and addresses are translated at NAT's (`nat_priority`). A test that can't be answered leaves both
/// outcomes open; where all open outcomes of a chain are alike, that is the answer.
pub fn hook(topology: &Topology<'_>, at: &At, packet: &Packet) -> Ruling {
    let mut run = Run::new(topology, at, packet);
    let (mut conntrack, mut translated) = (!run.starts_untracked(), false);
    let nat = nat_priority(at.hook);
    for index in topology.rules.at(at.layer, at.hook) {
        let Some(base) = topology.rules.chain(*index).and_then(|chain| chain.base.as_ref()) else { continue };
        if !conntrack && base.priority.0 >= CONNTRACK {
            conntrack = true;
            run.track();
        }
        if !translated && base.priority.0 >= nat {
            translated = true;
            run.restore();
        }
        if base.nat && !run.asks_nat() || !run.is_of(base) {
            continue;
        }
        if run.base(*index, base) {
            break;
        }
    }
    if !conntrack {
        run.track();
    }
    if !translated {
        run.restore();
    }
    run.ruling()
}
