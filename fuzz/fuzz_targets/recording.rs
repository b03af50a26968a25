//! A recording of any bytes: reader, decoder, pipeline and the exporters never panic, and keep to the memory
//! that `cargo xtask fuzz` allows.
//!
//! The fuzzer's bytes are read three times: as a file; as a file whose checksums are right; and as the payload of an
//! events block.
#![no_main]

use kvmtrace::record::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz::run(bytes);
    let repaired = fuzz::repaired(bytes);
    if repaired != bytes {
        fuzz::run(&repaired);
    }
    fuzz::run(&fuzz::events_file(bytes));
});
