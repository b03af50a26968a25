//! From a recording to its report.

use super::join::Judged;
use super::progress::Progress;
use super::reader::ReadError;
use super::recording::Recording;
use crate::diagnose::report::Report;
use crate::pipeline::Pipeline;
use crate::selection::Selection;

/// Judges the selected stretch of a recording as a live run would have. What else is selected is for [`Selection::narrow`].
pub fn judge(recording: &mut Recording, selection: &mut Selection, quiet: bool) -> Result<Report, ReadError> {
    read(recording, selection, quiet).map(|pipeline| pipeline.report())
}

/// Judges a recording, and keeps what [`super::join`] needs to join it with others.
pub fn judge_for_joining(
    recording: &mut Recording,
    selection: &mut Selection,
    quiet: bool,
) -> Result<Judged, ReadError> {
    read(recording, selection, quiet).map(|pipeline| Judged::new(pipeline.report(), pipeline.track()))
}

fn read(recording: &mut Recording, selection: &mut Selection, quiet: bool) -> Result<Pipeline, ReadError> {
    let mut progress = Progress::new(recording, quiet);
    let mut pipeline = Pipeline::default();
    let mut passage = selection.window.passage();
    while let Some(event) = recording.next_event()? {
        passage.take(event).iter().for_each(|event| pipeline.take(event));
        progress.step(recording);
        if passage.has_ended() {
            break;
        }
    }
    selection.learn(pipeline.track());
    Ok(pipeline)
}
