//! The live view: a screen over a running trace or a recording. The only importer of ratatui.
//!
//! Data goes one way. A feed folds events into [`Snapshot`]s; the screen's thread shows the newest one. A key becomes
//! an [`Action`], [`update`] turns it into a new [`State`] and into [`Effect`]s, and one place carries those out.
//! Drawing only reads.
#![forbid(unsafe_code)]

mod action;
mod choice;
mod draw;
mod errand;
mod fault;
mod feed;
pub mod fixture;
mod group;
mod history;
mod keep;
mod layout;
mod listing;
mod log;
mod path;
mod player;
mod players;
mod proposal;
mod rates;
mod run;
mod series;
mod snapshot;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod time;
mod turns;
pub mod update;
mod view;

pub use action::{Action, BINDINGS, Binding, Key, Scope};
pub use draw::draw;
pub use errand::{Errand, Packet, Runner, Target};
pub use fault::{Fault, FaultSource};
pub use feed::Feed;
pub use group::{GroupKeys, Grouping};
pub use history::{GuestHistory, HISTORY_LENGTH, History};
pub use keep::{Form, Keep, Saver};
pub use layout::SMALLEST;
pub use listing::{Group, Head, Listing};
pub use log::{Log, LogEntry, LogKind};
pub use path::{Device, Devices};
pub use players::Players;
pub use rates::FlowRates;
pub use run::{Error, Options, Recorder, run_live, run_replay};
pub use series::{Bucket, Series};
pub use snapshot::{Cost, FaultText, FlowFacts, GuestFacts, Hosts, Replay, Snapshot, Status};
pub use state::{Focus, List, Prompt, Screen, State, Zoom};
pub use terminal::{Unfit, check};
pub use theme::{Palette, Theme};
pub use update::{Command, Effect};
pub use view::{FlowColumn, GuestColumn, Sort};
