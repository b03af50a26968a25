//! Running a tool that prints rules, in bounded time and space.

use super::listing::Listing;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

const LONGEST: Duration = Duration::from_secs(5);
/// A ruleset of some hundred thousand rules.
const MOST_BYTES: u64 = 32 << 20;

/// A listing, by a tool that this process starts.
pub(super) async fn direct(listing: &Listing) -> Result<String, String> {
    output(listing.tool(), &listing.arguments()).await
}

/// The tool's standard output, or why there is none.
async fn output(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let path = find(tool).ok_or_else(|| format!("{tool}: not installed"))?;
    let mut child = Command::new(path)
        .args(arguments)
        // iptables would load what XTABLES_LIBDIR of the caller names.
        .env_clear()
        .env("PATH", crate::kernel::tools::path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{tool}: {error}"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(format!("{tool}: no output"));
    };
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let work = async {
        let mut stdout = stdout.take(MOST_BYTES);
        let mut stderr = stderr.take(4096);
        let (read, _) = tokio::join!(stdout.read_to_end(&mut output), stderr.read_to_end(&mut errors));
        read?;
        if stdout.limit() == 0 {
            return Err(std::io::Error::other("more rules than can be read"));
        }
        child.wait().await
    };
    let Ok(status) = timeout(LONGEST, work).await else {
        return Err(format!("{tool}: took more than {} s", LONGEST.as_secs()));
    };
    let status = status.map_err(|error| format!("{tool}: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let errors = String::from_utf8_lossy(&errors);
    Err(format!("{tool}: {}", errors.lines().next().map_or_else(|| status.to_string(), str::to_owned)))
}

/// It is not installed.
pub(super) fn is_absent(tool: &str) -> bool {
    find(tool).is_none()
}

/// Where only root installs programs. `PATH` is not asked: it may lead to anybody's.
fn find(tool: &str) -> Option<PathBuf> {
    crate::kernel::tools::DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(tool))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tool_that_is_not_there_or_fails_says_why() {
        assert_eq!(output("no-such-tool", &[]).await.unwrap_err(), "no-such-tool: not installed");
        assert_eq!(output("sh", &["-c", "echo bad >&2; exit 1"]).await.unwrap_err(), "sh: bad");
        assert_eq!(output("sh", &["-c", "echo good"]).await.unwrap(), "good\n");
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_given_up() {
        assert_eq!(output("sleep", &["60"]).await.unwrap_err(), "sleep: took more than 5 s");
    }
}
