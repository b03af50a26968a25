//! A fix: a command with its undo, what it changes, and what the model expects of it.

use super::cause::Cause;
use super::conversation::Conversation;
use super::origin::Origin;
use crate::forward::effect::Effect;
use serde::Serialize;

/// A fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The host that the command is for.
    #[serde(flatten)]
    pub origin: Origin,
    /// One line for `sh -c` on this host; null where the cure lies in the guest or beyond the host.
    pub command: Option<String>,
    /// The line that takes it back.
    pub undo: Option<String>,
    /// What it does and why it cures; at least ten characters.
    pub why: String,
    /// Which traffic or setting it opens or changes, in words; null for advice.
    pub scope: Option<String>,
    /// What else it touches.
    pub risk: Option<String>,
    /// How to make it survive a reboot.
    pub persist: Option<String>,
    /// What the model expects of it; null for advice.
    pub prediction: Option<Prediction>,
    /// What it sets, for telling where this host keeps that.
    #[serde(skip)]
    pub setting: Option<Setting>,
    /// What it changes in the host's tables; empty where the model does not know.
    #[serde(skip)]
    pub effects: Vec<Effect>,
    /// The conversations that it lets past a chain.
    #[serde(skip)]
    pub accepts: Option<Accept>,
}

/// Conversations that are let past a chain of the firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The chain, by its index among the host's.
    pub chain: usize,
    /// The rule that they are let past, by its index in the chain; none for the whole chain.
    pub before: Option<usize>,
    /// The conversations, each in one direction.
    pub ways: Vec<Conversation>,
}

/// The model's expectation of a fix: the walk of these packets over a copy of the host in which the fix is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// Whether these packets then pass.
    pub outcome: Outcome,
    /// The cause that stops them next.
    pub obstacle: Option<Cause>,
    /// The expectation in words, or why there is none.
    pub reason: String,
    /// Traffic beside this flow that then passes, too; null for none that the model tried.
    pub opens: Option<String>,
    /// Ids of flows that were delivered in this trace and would no longer be.
    pub breaks: Vec<String>,
}

impl Prediction {
    /// None, and why.
    pub fn unknown(reason: String) -> Self {
        Self { outcome: Outcome::Unknown, obstacle: None, reason, opens: None, breaks: Vec::new() }
    }
}

/// What a fix is expected to do for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The flow passes.
    Restores,
    /// Something else stops the flow then.
    NextObstacle,
    /// The model can't say.
    Unknown,
}

impl Fix {
    /// A command and the one that takes it back.
    pub fn run(command: String, undo: String, why: impl Into<String>) -> Self {
        Self { command: Some(command), undo: Some(undo), ..Self::advice(why) }
    }

    /// Nothing to run here: the cure lies in the guest, in the wiring, beyond the host.
    pub fn advice(why: impl Into<String>) -> Self {
        Self {
            origin: Origin::default(),
            command: None,
            undo: None,
            why: why.into(),
            scope: None,
            risk: None,
            persist: None,
            prediction: None,
            setting: None,
            effects: Vec::new(),
            accepts: None,
        }
    }

    /// With a change of the host's tables that its command makes.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// With changes of the host's tables.
    #[must_use]
    pub fn effects(mut self, effects: impl IntoIterator<Item = Effect>) -> Self {
        self.effects.extend(effects);
        self
    }

    /// With what else it touches.
    #[must_use]
    pub fn risk(self, risk: impl Into<String>) -> Self {
        Self { risk: Some(risk.into()), ..self }
    }

    /// With what it sets (`fix::persist::complete` then adds where this host keeps it).
    #[must_use]
    pub fn setting(self, setting: Setting) -> Self {
        Self { setting: Some(setting), ..self }
    }

    /// With how to make it last.
    #[must_use]
    pub fn persist(self, persist: impl Into<String>) -> Self {
        Self { persist: Some(persist.into()), ..self }
    }
}

/// What a cure sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Something of a device.
    Device {
        /// Its name.
        device: String,
        /// What of it.
        what: DeviceSetting,
    },
    /// A sysctl, by its dotted name.
    Sysctl {
        /// As the kernel's files name it.
        name: String,
        /// Its new value.
        value: String,
    },
}

/// What can be set of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSetting {
    /// It is brought up.
    Up,
    /// Its MTU.
    Mtu(u32),
    /// The bridge that it is a port of.
    Bridge(String),
    /// A flag of a bridge's port: `isolated`, `learning`, `flood`, …
    Port {
        /// As iproute2 names it.
        flag: String,
        /// On or off.
        on: bool,
    },
    /// Large receive offload is switched off.
    LargeReceiveOff,
    /// An option of a bridge: `stp_state`, …
    Option {
        /// As iproute2 names it.
        option: String,
        /// Its value.
        value: String,
    },
}
