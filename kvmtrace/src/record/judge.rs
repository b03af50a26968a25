//! From a recording to its report.

use super::join::Judged;
use super::progress::Progress;
use super::reader::ReadError;
use super::recording::Recording;
use crate::diagnose::report::Report;
use crate::pipeline::Pipeline;

/// Judges a recording as the live run would have.
pub fn judge(recording: &mut Recording, quiet: bool) -> Result<Report, ReadError> {
    read(recording, quiet).map(|pipeline| pipeline.report())
}

/// Judges a recording, and keeps what [`super::join`] needs to join it with others.
pub fn judge_for_joining(recording: &mut Recording, quiet: bool) -> Result<Judged, ReadError> {
    read(recording, quiet).map(|pipeline| Judged::new(pipeline.report(), pipeline.track()))
}

fn read(recording: &mut Recording, quiet: bool) -> Result<Pipeline, ReadError> {
    let mut progress = Progress::new(recording, quiet);
    let mut pipeline = Pipeline::default();
    while let Some(event) = recording.next_event()? {
        pipeline.take(&event);
        progress.step(recording);
    }
    Ok(pipeline)
}
