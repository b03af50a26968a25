//! A recording of any bytes: reader, decoder, pipeline and exporters never panic and keep to the stated memory.
//!
//! The fuzzer's bytes are read twice: as a file, and as the payload of an events block with a right checksum, which no
//! fuzzer would find by itself.
#![no_main]

use kvmtrace::record::format::events_file;
use kvmtrace::record::{Reader, export};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    run(bytes);
    run(&events_file(bytes));
});

fn run(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file, "fuzz") else { return };
    let mut events = Vec::new();
    while let Ok(Some(event)) = reader.next_event() {
        if events.len() < 1000 {
            events.push(event);
        }
    }
    export::fuzz(&events);
}
