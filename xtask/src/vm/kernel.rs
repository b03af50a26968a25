//! Debian's kernels: found in the archive that this machine's apt uses, with a package state of their own, so that the
//! system's sources and lists stay as they are.

use super::{bytes_of, unpacked};
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// `uname -r`.
    pub(super) release: String,
    /// The directory that holds `lib/modules`.
    pub(super) root: PathBuf,
    /// `lib/modules` itself.
    pub(super) modules: PathBuf,
    /// The uncompressed kernel, which starts faster than one that unpacks itself.
    pub(super) image: PathBuf,
}

/// The kernel of this version (`6.1`), fetched where it is not there yet.
pub(super) fn find(cache: &Path, version: &str) -> Result<Kernel> {
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if !version.contains('.') || !version.chars().all(plain) || version.starts_with('.') {
        bail!("{version}: no version of a kernel; 5.10, 6.1 and 6.12 are");
    }
    let directory = cache.join(version);
    if let Ok(kernel) = open(&directory) {
        return Ok(kernel);
    }
    fetch(cache, version, &directory).with_context(|| format!("Linux {version} can't be had"))?;
    open(&directory)
}

fn open(directory: &Path) -> Result<Kernel> {
    let image = directory.join("vmlinux");
    if !image.is_file() {
        bail!("{}: no kernel", directory.display());
    }
    let merged = directory.join("usr");
    let root = if directory.join("lib/modules").is_dir() { directory.to_owned() } else { merged };
    let modules = root.join("lib/modules");
    let release = std::fs::read_dir(&modules)
        .with_context(|| format!("{}: no modules", modules.display()))?
        .filter_map(Result::ok)
        .find_map(|entry| entry.file_name().into_string().ok())
        .with_context(|| format!("{}: no modules", modules.display()))?;
    Ok(Kernel { release, root, modules, image })
}

/// A part of Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suite {
    name: &'static str,
    /// Entries of sources.list: under the mirror, the suite.
    entries: &'static [(&'static str, &'static str)],
}

const SUITES: &[(&str, Suite)] = &[
    ("5.10", Suite { name: "bullseye", entries: &[("debian", "bullseye"), ("debian-security", "bullseye-security")] }),
    ("6.1", Suite { name: "bookworm", entries: &[("debian", "bookworm"), ("debian-security", "bookworm-security")] }),
    ("6.12", Suite { name: "trixie", entries: &[("debian", "trixie")] }),
    ("", Suite { name: "trixie-backports", entries: &[("debian", "trixie-backports")] }),
    ("", Suite { name: "sid", entries: &[("debian", "sid")] }),
];

/// Suites that may have a version: its own, else those whose kernels change.
fn suites(version: &str) -> impl Iterator<Item = Suite> {
    let known = SUITES.iter().any(|(own, _)| *own == version);
    SUITES.iter().filter(move |(own, _)| *own == if known { version } else { "" }).map(|(_, suite)| *suite)
}

fn fetch(cache: &Path, version: &str, directory: &Path) -> Result<()> {
    eprintln!("xtask: fetching Debian's kernel {version}, once");
    let mirror = mirror()?;
    let mut tried = Vec::new();
    for suite in suites(version) {
        let apt = Apt::new(cache, suite, &mirror)?;
        let Some(release) = apt.newest(version)? else {
            tried.push(suite.name);
            continue;
        };
        let packages = cache.join(format!("{version}.packages"));
        let result = apt.download(&release, &packages).and_then(|()| unpack(&packages, &release, directory));
        // Half a kernel is worse than none.
        if result.is_err() {
            std::fs::remove_dir_all(directory).ok();
        }
        std::fs::remove_dir_all(&packages).ok();
        return result;
    }
    bail!("no linux-image-{version}… in {}", tried.join(", "))
}

/// The archive that this machine uses.
fn mirror() -> Result<String> {
    let told = shell::output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]));
    let told = told.context("apt-get does not tell its sources: a Debian machine is needed")?;
    let base = |line: &str| line.strip_suffix("/debian").map(str::to_owned);
    told.lines().map(str::trim).find_map(base).context("no Debian archive among apt's sources")
}

/// apt with a state of its own.
struct Apt {
    state: PathBuf,
}

impl Apt {
    fn new(cache: &Path, suite: Suite, mirror: &str) -> Result<Self> {
        let apt = Self { state: cache.join("apt").join(suite.name) };
        for part in ["lists/partial", "cache/archives/partial", "none"] {
            std::fs::create_dir_all(apt.state.join(part))?;
        }
        std::fs::write(apt.state.join("status"), "")?;
        let line = |(part, name): &(&str, &str)| format!("deb [signed-by={KEYRING}] {mirror}/{part} {name} main\n");
        let sources: Vec<String> = suite.entries.iter().map(line).collect();
        std::fs::write(apt.state.join("sources.list"), sources.concat())?;
        shell::run(apt.command("apt-get").arg("update"))
            .with_context(|| format!("{}: is there a network?", suite.name))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-qq");
        let path = |name: &str| self.state.join(name).display().to_string();
        for (option, value) in [
            ("Dir::State", path("")),
            ("Dir::State::lists", path("lists")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", path("none")),
            ("Dir::Etc::preferencesparts", path("none")),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }

    /// The newest release of a version.
    fn newest(&self, version: &str) -> Result<Option<String>> {
        let pattern =
            format!(r"^linux-image-{}(\.[0-9]+)+(-[0-9]+)?(\+deb[0-9]+)?-amd64$", version.replace('.', r"\."));
        let told = bytes_of(self.command("apt-cache").args(["search", "--names-only", &pattern]))?;
        let told = String::from_utf8_lossy(&told).into_owned();
        let releases = told.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("linux-image-"));
        Ok(releases.max_by_key(|release| numbers(release)).map(str::to_owned))
    }

    fn download(&self, release: &str, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        // Since 6.17 the image is a package of dependencies only.
        let split = shell::output(self.command("apt-cache").args(["show", &format!("linux-binary-{release}")]));
        let parts: &[&str] = if split.is_some_and(|told| !told.is_empty()) {
            &["linux-binary", "linux-modules", "linux-base"]
        } else {
            &["linux-image"]
        };
        let packages = parts.iter().map(|part| format!("{part}-{release}"));
        let mut download = self.command("apt-get");
        shell::run(download.arg("download").args(packages).current_dir(to))
    }
}

/// The numbers in a release, so that 6.1.0-49 is newer than 6.1.0-9.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn unpack(packages: &Path, release: &str, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for package in std::fs::read_dir(packages)?.filter_map(Result::ok) {
        shell::run(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(directory))?;
    }
    let root = if directory.join("lib/modules").is_dir() { directory.to_owned() } else { directory.join("usr") };
    shell::run(Command::new("/sbin/depmod").arg("-b").arg(&root).arg(release))?;
    let packed =
        [directory.join(format!("boot/vmlinuz-{release}")), root.join(format!("lib/modules/{release}/vmlinuz"))];
    let packed =
        packed.iter().find(|path| path.is_file()).with_context(|| format!("no kernel in the packages of {release}"))?;
    let kernel = image(&std::fs::read(packed)?, directory).with_context(|| format!("{}", packed.display()))?;
    std::fs::write(directory.join("vmlinux"), kernel)?;
    Ok(())
}

/// The ELF file inside a bzImage (Documentation/arch/x86/boot.rst).
fn image(packed: &[u8], directory: &Path) -> Result<Vec<u8>> {
    let word =
        |at: usize| -> Option<usize> { Some(u32::from_le_bytes(packed.get(at..at + 4)?.try_into().ok()?) as usize) };
    let payload = || -> Option<&[u8]> {
        let sectors = match packed.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(*sectors),
        };
        let start = (sectors + 1) * 512 + word(0x248)?;
        packed.get(start..start.checked_add(word(0x24c)?)?)
    };
    let payload = payload().context("not a bzImage")?;
    let extension = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zst",
        [0xfd, b'7', b'z', b'X', ..] => "xz",
        _ => bail!("packed in a way that is not known"),
    };
    let part = directory.join(format!("payload.{extension}"));
    std::fs::write(&part, payload)?;
    let whole = unpacked_whatever_follows(&part);
    std::fs::remove_file(&part)?;
    let whole = whole?;
    let start = whole.windows(4).position(|bytes| bytes == b"\x7fELF").context("no ELF file inside")?;
    Ok(whole.get(start..).unwrap_or_default().to_vec())
}

/// Unpacks; the four bytes of the size that follow the packed kernel make zstd complain after it has done its work.
fn unpacked_whatever_follows(part: &Path) -> Result<Vec<u8>> {
    if part.extension().is_some_and(|extension| extension == "zst") {
        let output = Command::new("zstd").args(["-dcq"]).arg(part).output().context("can't run zstd")?;
        if output.stdout.is_empty() {
            bail!("zstd: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        return Ok(output.stdout);
    }
    let output = Command::new("xz").args(["-dcq", "--single-stream"]).arg(part).output().context("can't run xz")?;
    if output.stdout.is_empty() { unpacked(part) } else { Ok(output.stdout) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_told_by_number_not_by_letter() {
        let newest =
            ["6.1.0-9-amd64", "6.1.0-49-amd64", "6.1.0-10-amd64"].into_iter().max_by_key(|release| numbers(release));
        assert_eq!(newest, Some("6.1.0-49-amd64"));
    }

    #[test]
    fn a_version_has_its_suite_and_new_ones_are_looked_for_where_kernels_change() {
        assert_eq!(suites("6.1").map(|suite| suite.name).collect::<Vec<_>>(), ["bookworm"]);
        assert_eq!(suites("7.2").map(|suite| suite.name).collect::<Vec<_>>(), ["trixie-backports", "sid"]);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        for bytes in [&[][..], &[0; 0x300]] {
            assert!(image(bytes, Path::new("/nonexistent")).is_err());
        }
        for version in ["", "6", "../6.1", "6.1;reboot"] {
            assert!(find(Path::new("/nonexistent"), version).is_err(), "{version}");
        }
    }
}
