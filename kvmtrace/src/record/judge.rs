//! From a recording to its report.

use super::progress::Progress;
use super::reader::ReadError;
use super::recording::Recording;
use crate::diagnose::report::Report;
use crate::pipeline::Pipeline;

/// Judges a recording as the live run would have.
pub fn judge(recording: &mut Recording, quiet: bool) -> Result<Report, ReadError> {
    let mut progress = Progress::new(recording, quiet);
    let mut pipeline = Pipeline::default();
    while let Some(event) = recording.next_event()? {
        pipeline.take(&event);
        progress.step(recording);
    }
    Ok(pipeline.report())
}
