//! What this process runs in: how many files it may have open (each hook is one), its namespace, what the kernel keeps
//! from everyone.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many files open as it may: each hook is one.
pub(super) fn raise_file_limit() {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => {
            if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                tracing::debug!(%error, "raising the limit of open files");
            }
        }
        _ => {}
    }
}

/// What to do about it.
pub(super) fn out_of_files() -> String {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or_else(|_| String::new(), |(soft, _)| format!(" of {soft}"));
    format!(
        "the limit{limit} open files (RLIMIT_NOFILE) is reached, and each device takes two: raise it (ulimit -n, \
         LimitNOFILE=), or trace fewer devices (-g, -i)"
    )
}

/// No file can be opened any more. The error that an attempt ends with does not always say so.
pub(super) fn is_out_of_files() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| error.raw_os_error() == Some(nix::libc::EMFILE))
}

/// Secrets of the kernel are kept from everyone, root too (`kernel_lockdown(7)`).
pub(super) fn is_locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| text.contains("[confidentiality]"))
}

/// `net.ns.inum` of this thread: the inode of its namespace (fs/nsfs.c).
pub(super) fn network_namespace() -> nix::Result<u32> {
    let status = nix::sys::stat::stat("/proc/thread-self/ns/net")?;
    Ok(status.st_ino as u32)
}
