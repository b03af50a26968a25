//! Files that others write, read with a bound.

use std::fs;
use std::io::Read as _;
use std::path::Path;

/// The first `most` bytes of a file as text. `None`: it is not there, or it is no plain file: a pipe would hold us up.
pub(super) fn read(path: &Path, most: u64) -> Option<String> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
