//! kvmtrace's BPF object without kvmtrace: for tests and measurements of the programs alone.

use anyhow::{Context as _, Result, anyhow};
use aya::maps::Array;
use aya::{Ebpf, EbpfLoader};
use kvmtrace_common::config::HOT_SHIFT;
use kvmtrace_common::names;
use std::path::Path;

/// Which of the two tables counts flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The hot table, with room for each CPU.
    Hot,
    /// The map, for the hot table has room for next to nobody.
    Map,
}

/// Both.
pub const TABLES: [Table; 2] = [Table::Hot, Table::Map];

/// Loads the object; its programs are still to be loaded, and count nothing before [`switch`].
///
/// # Errors
/// When the file or the kernel is not as needed.
pub fn load(path: &Path, table: Table) -> Result<Ebpf> {
    let entries = match table {
        Table::Hot => {
            let cpus = aya::util::online_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
            (cpus.into_iter().max().unwrap_or(0) + 1) << HOT_SHIFT
        }
        Table::Map => 1,
    };
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(names::HOT, entries);
    loader.load_file(path).with_context(|| format!("can't load {}", path.display()))
}

/// Lets the programs count the packets of devices with an index below this.
///
/// # Errors
/// When the object has no such switch.
pub fn switch(ebpf: &mut Ebpf, limit: u32) -> Result<()> {
    let map = ebpf.map_mut(names::GATE).context("the object has no switch")?;
    Array::<_, u32>::try_from(map)?.set(0, limit, 0)?;
    Ok(())
}
