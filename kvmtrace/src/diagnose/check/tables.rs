//! Tables of the kernel's that are nearly full: what is new finds no room in them.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::sysctl;
use crate::diagnose::report::{Cause, Finding, Label, Point, Severity, Where};
use crate::event::names::NeighbourState;

/// A table counts as nearly full at so many parts in a hundred.
const NEARLY_FULL: u64 = 90;

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let neighbours = [("net.ipv4.neigh.default.gc_thresh3", false), ("net.ipv6.neigh.default.gc_thresh3", true)];
    let neighbours = neighbours.into_iter().filter_map(|(limit, v6)| neighbours_of(scene, limit, v6));
    connections(scene).into_iter().chain(neighbours).collect()
}

fn connections(scene: &Scene<'_>) -> Option<Finding> {
    let table = Table {
        cause: Cause::ConntrackFull,
        point: Point::NetfilterPrerouting,
        what: "connection tracking table",
        then: "soon new connections are dropped",
    };
    let limit = "net.netfilter.nf_conntrack_max";
    table.judge(scene, value(scene, "net.netfilter.nf_conntrack_count")?, limit)
}

/// Beyond the limit no neighbour is made (`neigh_alloc`); entries that are set by hand do not count.
fn neighbours_of(scene: &Scene<'_>, limit: &str, v6: bool) -> Option<Finding> {
    let counts = scene
        .host
        .neighbours
        .iter()
        .filter(|entry| entry.address.is_ipv6() == v6 && entry.state != NeighbourState::Permanent);
    let table = Table {
        cause: Cause::NeighbourUnresolved,
        point: Point::Neighbour,
        what: if v6 { "neighbour table of IPv6" } else { "ARP table" },
        then: "soon this host finds no new neighbour",
    };
    table.judge(scene, counts.count() as u64, limit)
}

fn value(scene: &Scene<'_>, name: &str) -> Option<u64> {
    scene.host.sysctl(name).and_then(|value| value.parse().ok())
}

struct Table {
    cause: Cause,
    point: Point,
    what: &'static str,
    then: &'static str,
}

impl Table {
    fn judge(self, scene: &Scene<'_>, count: u64, limit: &str) -> Option<Finding> {
        let max = value(scene, limit).filter(|max| *max > 0)?;
        (count.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL)).then(|| Finding {
            label: Label::default(),
            cause: self.cause,
            severity: Severity::Warning,
            guest: None,
            place: Some(Where { device: None, point: self.point, function: None, reason: None }),
            count: Some(count),
            explanation: format!("The {} holds {count} of {max} entries: {}.", self.what, self.then),
            evidence: vec![format!("{count} entries, {limit} = {max}")],
            fixes: vec![sysctl::set(scene.host, limit, &max.saturating_mul(2).to_string(), "Doubles the table.")],
        })
    }
}
