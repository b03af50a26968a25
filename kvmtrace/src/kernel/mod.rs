//! Facts of the running kernel, read once: structure offsets and drop reasons from BTF, function names from kallsyms,
//! its version, its clocks. Nothing here is a table in the source: the numbers move between kernels.

pub mod btf;
pub mod clock;
mod confine;
pub mod privilege;
pub mod symbols;
pub mod tools;
pub mod version;

use crate::event::decode::Resolver;
use crate::event::{Degraded, Timestamp};
use btf::Btf;
use std::collections::BTreeMap;

/// Everything that the probes and the decoder need to know of the kernel.
#[derive(Debug)]
pub struct Kernel {
    /// Its version.
    pub version: version::Version,
    /// Its types.
    pub btf: Btf,
    /// Names of `enum skb_drop_reason`, without the prefix; empty before 5.17.
    pub reasons: BTreeMap<u32, String>,
    /// Its functions.
    pub symbols: symbols::Symbols,
    /// Its clocks.
    pub clock: clock::Clock,
    /// What could not be learnt.
    pub degraded: Vec<Degraded>,
}

/// The kernel can't be traced.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Too old, or unreadable.
    #[error(transparent)]
    Version(#[from] version::VersionError),
    /// No type information.
    #[error(transparent)]
    Btf(#[from] btf::BtfError),
}

impl Kernel {
    /// Reads everything.
    pub fn read() -> Result<Self, KernelError> {
        let version = version::Version::running()?;
        let btf = Btf::read()?;
        let mut degraded = Vec::new();
        let mut reasons: BTreeMap<u32, String> = btf
            .enum_values("skb_drop_reason")
            .into_iter()
            .filter_map(|(name, value)| {
                // SKB_NOT_DROPPED_YET, SKB_CONSUMED and SKB_DROP_REASON_*
                let name = name.strip_prefix("SKB_DROP_REASON_").or_else(|| name.strip_prefix("SKB_"))?;
                Some((value, name.to_owned()))
            })
            .collect();
        if reasons.is_empty() {
            degraded.push(Degraded {
                what: "drop reasons".to_owned(),
                why: format!("kernel {version} has none (they came with 5.17); drops are told by function alone"),
            });
        }
        // Open vSwitch has reasons of its own (`SKB_DROP_REASON_SUBSYS_OPENVSWITCH`), in the kernel or in its module.
        let module = btf.of_module("openvswitch");
        for btf in module.iter().chain([&btf]) {
            let own = btf.enum_values("ovs_drop_reason").into_iter().filter(|(name, _)| name.starts_with("OVS_DROP_"));
            reasons.extend(own.map(|(name, value)| (value, name.to_owned())));
        }
        let symbols = symbols::Symbols::read();
        if symbols.is_empty() {
            degraded.push(Degraded {
                what: "function names".to_owned(),
                why: "/proc/kallsyms shows no addresses; `sysctl kernel.kptr_restrict=1` and CAP_SYSLOG let it"
                    .to_owned(),
            });
        }
        Ok(Self { version, btf, reasons, symbols, clock: clock::Clock::read(), degraded })
    }
}

impl Resolver for Kernel {
    fn reason(&self, number: u32) -> Option<String> {
        if number == kvmtrace_common::event::NO_REASON {
            return None;
        }
        Some(self.reasons.get(&number).cloned().unwrap_or_else(|| format!("UNKNOWN_{number}")))
    }

    fn symbol(&self, address: u64) -> Option<(&str, u32)> {
        self.symbols.resolve(address)
    }

    fn time(&self, monotonic_ns: u64) -> Timestamp {
        self.clock.time(monotonic_ns)
    }
}
