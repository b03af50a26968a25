//! Whose a flow is, which flows are one, and all that a rule may ask of one.

pub mod attribute;
mod both_ends;
pub mod case;
pub mod frame;
pub mod gather;
pub mod group;
pub mod impostors;
pub mod journey;
pub mod noise;
mod redirected;
