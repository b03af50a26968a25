//! What the programs say of themselves (`-vv`): where records and flows begin to be lost. The counts are told in any case.

use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use log::{Log, Metadata, Record};
use tracing::level_filters::LevelFilter;

/// The frozen level: 0, and the programs hold no code for it, unless somebody listens.
pub(super) fn level() -> u8 {
    if LevelFilter::current() >= LevelFilter::DEBUG { Level::Debug as u8 } else { 0 }
}

/// The ring of messages.
pub(super) struct KernelLog(EbpfLogger<ToTracing>);

impl std::fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelLog")
    }
}

impl KernelLog {
    pub(super) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        if level() == 0 {
            return None;
        }
        match EbpfLogger::init_with_logger(ebpf, ToTracing) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                tracing::debug!(%error, "the programs' messages");
                None
            }
        }
    }

    /// Passes on what has been said.
    pub(super) fn pass_on(&mut self) {
        self.0.flush();
    }
}

/// aya-log speaks `log`, kvmtrace `tracing`.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!("BPF programs: {}", record.args());
    }

    fn flush(&self) {}
}
