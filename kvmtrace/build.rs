//! Embeds the BPF object that `cargo xtask ebpf` built, so that the binary stands alone.
//!
//! Sets `KVMTRACE_BPF_OBJECT` for `include_bytes_aligned!(env!(…))`. Without an object the crate compiles with
//! `cfg(no_bpf)`: what needs no kernel builds, lints and tests anywhere.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(no_bpf)");
    println!("cargo::rerun-if-env-changed=KVMTRACE_BPF_OBJECT");
    let object = std::env::var_os("KVMTRACE_BPF_OBJECT").map_or_else(built_by_xtask, PathBuf::from);
    if object.is_file() {
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-env=KVMTRACE_BPF_OBJECT={}", object.display());
    } else {
        println!("cargo::rustc-cfg=no_bpf");
    }
}

/// Where `cargo xtask ebpf` leaves the object.
fn built_by_xtask() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/object");
    // Watching a file that does not exist means to run again at every build; a directory can be watched for it.
    if std::fs::create_dir_all(&directory).is_ok() {
        println!("cargo::rerun-if-changed={}", directory.display());
    } else {
        println!("cargo::rerun-if-changed=build.rs");
    }
    directory.join("kvmtrace.bpf.o")
}
