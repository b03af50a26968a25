//! Where something is: points of the packet path and devices, as a report names them.

use super::dropped::Dropped;
use super::scene::{Role, Scene};
use crate::diagnose::report::{Point, Where};
use crate::event::{Direction, IfIndex, Place};

/// A place on a device.
pub fn at(scene: &Scene<'_>, device: IfIndex, point: Point) -> Where {
    Where { device: Some(scene.name(device)), point, function: None, reason: None }
}

/// Beyond any device of this host.
pub fn beyond(device: Option<String>) -> Where {
    Where { device, point: Point::BeyondHost, function: None, reason: None }
}

impl Where {
    /// With the drop's function and reason.
    #[must_use]
    pub fn of(self, drop: &Dropped<'_>) -> Self {
        Self { function: drop.site.function.clone(), reason: drop.site.reason.clone(), ..self }
    }
}

impl Point {
    /// The point of a tc hook.
    pub fn of(scene: &Scene<'_>, place: Place) -> Self {
        match (scene.role(place.device), place.direction) {
            (Role::Tap, Direction::Ingress) | (Role::Macvtap, Direction::Egress) => Self::TapIngress,
            (Role::Tap, Direction::Egress) | (Role::Macvtap, Direction::Ingress) => Self::TapEgress,
            (Role::Bridge, Direction::Ingress) => Self::HostInput,
            (Role::Bridge, Direction::Egress) => Self::HostOutput,
            (Role::Tunnel, _) => Self::Tunnel,
            (Role::Nic, Direction::Ingress) => Self::NicIngress,
            (Role::Nic, Direction::Egress) => Self::NicEgress,
        }
    }
}
