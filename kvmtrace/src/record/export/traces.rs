//! The events of several recordings in the order of time, each with what is known of its trace.

use super::growth::Growth;
use super::lookup::Devices;
use super::seen::{Seen, Trace};
use crate::diagnose::report::FlowReport;
use crate::event::{Event, FlowKey};
use crate::record::progress::Progress;
use crate::record::{ReadError, Recording};
use crate::selection::{Passage, Window};
use std::collections::VecDeque;

/// What the events of a trace have said so far.
#[derive(Default)]
pub(super) struct State {
    devices: Devices,
    growth: Growth,
}

impl State {
    /// Of a trace whose devices the report names with this prefix.
    pub(super) fn new(prefix: String) -> Self {
        Self { devices: Devices::new(prefix), growth: Growth::default() }
    }

    /// The next event of the trace.
    pub(super) fn see<'a>(
        &'a mut self,
        event: &'a Event,
        host: &'a str,
        flow: impl Fn(FlowKey) -> Option<&'a FlowReport>,
    ) -> Seen<'a> {
        self.devices.learn(event);
        let new = self.growth.step(event);
        Seen { event, host, devices: &self.devices, flow: event.flow().and_then(flow), new }
    }
}

/// One recording while it is read.
struct Reading {
    recording: Recording,
    passage: Passage,
    progress: Progress,
    /// Events that were read and not yet given.
    ready: VecDeque<Event>,
    trace: Trace,
    state: State,
}

impl Reading {
    /// Reads on until an event is ready, if there is another.
    fn fill(&mut self) -> Result<(), ReadError> {
        while self.ready.is_empty() && !self.passage.has_ended() {
            let Some(event) = self.recording.next_event()? else { break };
            self.ready.extend(self.passage.take(event));
            self.progress.step(&self.recording);
        }
        Ok(())
    }
}

/// All recordings.
pub(super) struct Traces(Vec<Reading>);

impl Traces {
    /// From their beginning; `several` hosts have names that stand before those of devices.
    pub(super) fn new(
        recordings: Vec<Recording>,
        traces: Vec<Trace>,
        several: bool,
        window: Window,
        quiet: bool,
    ) -> Result<Self, ReadError> {
        let readings = recordings.into_iter().zip(traces).map(|(recording, trace)| {
            let recording = recording.again()?;
            let prefix = if several { format!("{}/", trace.host) } else { String::new() };
            Ok(Reading {
                passage: window.passage(),
                progress: Progress::new(&recording, quiet),
                ready: VecDeque::new(),
                state: State::new(prefix),
                recording,
                trace,
            })
        });
        readings.collect::<Result<_, _>>().map(Self)
    }

    /// The next event, and the number of its trace.
    pub(super) fn next_event(&mut self) -> Result<Option<(usize, Event)>, ReadError> {
        for reading in &mut self.0 {
            reading.fill()?;
        }
        let next = self.0.iter_mut().enumerate().filter(|(_, reading)| !reading.ready.is_empty());
        let first = next.min_by_key(|(number, reading)| (reading.ready.front().map(|event| event.time), *number));
        Ok(first.and_then(|(number, reading)| Some((number, reading.ready.pop_front()?))))
    }

    /// The event with what is known of it.
    pub(super) fn seen<'a>(
        &'a mut self,
        number: usize,
        event: &'a Event,
        flow: impl Fn(FlowKey) -> Option<&'a FlowReport>,
    ) -> Option<Seen<'a>> {
        let reading = self.0.get_mut(number)?;
        Some(reading.state.see(event, &reading.trace.host, flow))
    }

    /// What is missing from the recordings, a line each.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.0.iter().filter_map(|reading| reading.recording.complaint()).collect()
    }
}
