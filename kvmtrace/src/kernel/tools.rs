//! Where this system's own programs are.

/// Directories in which only root installs programs: the distribution's, then the operator's (as in sudo's `secure_path`),
/// then where NixOS has its own.
pub const DIRECTORIES: [&str; 7] =
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/run/current-system/sw/bin"];

/// The same as a `PATH`, for the shell that runs a command of kvmtrace's.
pub fn path() -> String {
    DIRECTORIES.join(":")
}
