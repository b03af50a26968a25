//! What kvmtrace itself uses, under the names that Prometheus' clients have for it.

use crate::sink::metrics::Process;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{SysconfVar, sysconf};

/// As it is now; what /proc does not tell is left out.
pub(super) fn process() -> Process {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let (stat, system) = (file("self/stat"), file("stat"));
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u32::try_from(ticks).ok());
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
    // The name in brackets may hold anything; fields are counted from behind it, and proc(5) counts it as the second.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let boot = system.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<u64>().ok());
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    Process {
        cpu_seconds: usage.map(|usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6),
        resident_bytes: field(24).zip(page).map(|(pages, size)| pages * size),
        virtual_bytes: field(23),
        threads: field(20),
        // The directory itself is open while it is counted.
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        start_seconds: boot
            .zip(field(22))
            .zip(ticks)
            .map(|((boot, start), ticks)| boot as f64 + start as f64 / f64::from(ticks)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::clock::Clock;

    #[test]
    fn it_is_this_process() {
        let process = process();
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds > 0.0 && seconds < 1e6), "{process:?}");
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20 && bytes < 1 << 36), "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.open_fds.is_some_and(|files| files >= 3) && process.open_fds <= process.max_fds, "{process:?}");
        let now = Clock::read().now().0 as f64 / 1e9;
        assert!(process.start_seconds.is_some_and(|start| start <= now + 1.0 && start > now - 86_400.0), "{process:?}");
    }
}
