//! The kernel's version.

use std::fmt;

/// A kernel version; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 6 of 6.18.44.
    pub major: u32,
    /// 18 of 6.18.44.
    pub minor: u32,
    /// 44 of 6.18.44.
    pub patch: u32,
}

/// The oldest kernel with all that the programs cannot do without: BTF, the ring buffer and typed tracepoints that may
/// read memory under `CAP_BPF`.
pub const OLDEST: Version = Version { major: 5, minor: 10, patch: 0 };
/// tcx: links that die with the process (v6.6, `kernel/bpf/tcx.c`).
pub const TCX: Version = Version { major: 6, minor: 6, patch: 0 };
/// Test runs of XDP programs whose frames go on into the stack (v5.18, `bpf_test_run_xdp_live` in `net/bpf/test_run.c`).
pub const LIVE_FRAMES: Version = Version { major: 5, minor: 18, patch: 0 };
/// Tables of nftables that die with the process that made them (v5.12, `net/netfilter/nf_tables_api.c`, `NFT_TABLE_F_OWNER`).
pub const TABLE_OWNER: Version = Version { major: 5, minor: 12, patch: 0 };

/// This kernel can't be traced.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// Below [`OLDEST`].
    #[error("kernel {0} is too old: kvmtrace needs {OLDEST} or later")]
    TooOld(Version),
    /// `uname` said something strange.
    #[error("uname says {0:?}, which is no Linux kernel version")]
    Unreadable(String),
}

impl Version {
    /// The running kernel's, if it can be traced.
    pub fn running() -> Result<Self, VersionError> {
        let release = release();
        let version = Self::parse(&release).ok_or(VersionError::Unreadable(release))?;
        if version < OLDEST { Err(VersionError::TooOld(version)) } else { Ok(version) }
    }

    /// From a release: `6.1.0-32-amd64` is 6.1.0.
    pub fn parse(release: &str) -> Option<Self> {
        let numbers: &str = release.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        let patch = parts.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// `uname -r`.
pub fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        let version = |text| Version::parse(text).map(|v| (v.major, v.minor, v.patch));
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18, 44)));
        assert_eq!(version("6.1.0-32-amd64"), Some((6, 1, 0)));
        assert_eq!(version("5.10.0"), Some((5, 10, 0)));
        assert_eq!(version("7.2-rc1"), Some((7, 2, 0)));
        assert_eq!(version("plan9"), None);
        assert!(Version::parse("5.4.300") < Some(OLDEST));
    }
}
