//! `kvmtrace explain`

use super::alone::host_alone;
use super::color::colored;
use super::outcome::Outcome;
use super::question;
use crate::cli::{self, Cli};
use crate::diagnose;
use crate::diagnose::report::EndReport;
use crate::forward;
use crate::host;
use crate::host::path::Scope;
use crate::sink;
use crate::topology::Topology;
use std::io::Write as _;

/// Reads the host, walks the packet and prints its way. Sends and traces nothing.
pub(super) async fn explain(cli: &Cli, options: &cli::Explain) -> anyhow::Result<Outcome> {
    host::settle().await?;
    let host = host::snapshot().await?;
    let asked = question::asked(&host, &options.packet).await?;
    let pipeline = host_alone(host, Scope::default());
    let explanation = diagnose::explain::explain(pipeline.track(), &asked, &|host, packet, entry| {
        forward::walk(&Topology::new(host), packet, entry)
    });
    let mut out = std::io::stdout().lock();
    if options.json {
        sink::explain::json(&explanation, &mut out)?;
    } else {
        sink::explain::text(&explanation, cli.common.verbose > 0, colored(cli, &std::io::stdout()), &mut out)?;
    }
    out.flush()?;
    Ok(match explanation.result.outcome {
        EndReport::Delivered | EndReport::Leaves => Outcome::Clean,
        EndReport::Stops => Outcome::Faults,
        EndReport::Unknown => Outcome::Unknown,
    })
}
