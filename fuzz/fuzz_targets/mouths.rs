//! What others have written on this host, and what comes from packets and from the command line: each reader takes any bytes. The
//! first byte says which of them reads the rest.
#![no_main]

use kvmtrace::filter::Filter;
use kvmtrace::host::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((mouth, rest)) = bytes.split_first() else { return };
    if *mouth < 0x80 {
        fuzz::run(bytes);
    } else {
        let text = String::from_utf8_lossy(rest);
        drop(Filter::parse(&text));
    }
});
