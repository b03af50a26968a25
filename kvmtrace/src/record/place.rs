//! Creates the files that kvmtrace writes. It runs as root, perhaps into a directory where others may write: no link that
//! somebody else may have planted is followed, no other file is emptied, and nobody else may read what is written.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What was opened.
pub(super) enum Place {
    /// A new file that only its owner may read.
    File(File),
    /// A device or a pipe that was there: nothing is lost by writing to it.
    Stream(File),
}

impl Place {
    /// The open file.
    pub(super) fn into_file(self) -> File {
        match self {
            Self::File(file) | Self::Stream(file) => file,
        }
    }
}

/// Opens a place for writing. A file that is there is an error of kind `AlreadyExists` without `force`; with it, a new one
/// takes its name, so that whoever has the old one open, or another name for it, keeps it.
pub(super) fn create(path: &Path, force: bool) -> Result<Place> {
    let path = &followed(path);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => new(path).map(Place::File),
        Err(error) => Err(error),
        Ok(there) if is_stream(&there) => stream(path).map(Place::Stream),
        Ok(there) if there.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) if !force => Err(ErrorKind::AlreadyExists.into()),
        Ok(there) if there.is_file() || there.is_symlink() => replace(path).map(Place::File),
        Ok(_) => Err(Error::other("it is no file")),
    }
}

/// Creates a file that only its owner may read. One that is there is an error of kind `AlreadyExists`.
pub fn new_file(path: &Path) -> Result<File> {
    new(path)
}

/// Whether [`create`] would find something in the way, before there is anything to write.
pub(super) fn check(path: &Path, force: bool) -> Result<()> {
    let path = &followed(path);
    match std::fs::symlink_metadata(path) {
        Ok(there) if is_stream(&there) => Ok(()),
        Ok(there) if there.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) if !force => Err(ErrorKind::AlreadyExists.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => std::fs::metadata(directory(path))
            .and_then(|directory| if directory.is_dir() { Ok(()) } else { Err(ErrorKind::NotADirectory.into()) }),
        Err(error) => Err(error),
    }
}

/// The directory of a path.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A link is followed only where nobody but root and this user can have made it: /dev/stdout is one.
pub(super) fn followed(path: &Path) -> PathBuf {
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink());
    let ours = |directory: &Metadata| is_ours(directory) && directory.mode() & 0o022 == 0;
    if is_link && std::fs::metadata(directory(path)).is_ok_and(|directory| ours(&directory)) {
        std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    } else {
        path.to_owned()
    }
}

fn is_ours(there: &Metadata) -> bool {
    there.uid() == 0 || there.uid() == nix::unistd::geteuid().as_raw()
}

fn is_stream(there: &Metadata) -> bool {
    there.file_type().is_char_device() || there.file_type().is_fifo()
}

/// A name that is free: `O_EXCL` follows no link either.
fn new(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn replace(path: &Path) -> Result<File> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    for number in 0_u8..100 {
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}.{number}", std::process::id()));
        let draft = path.with_file_name(draft);
        let file = match new(&draft) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            file => file?,
        };
        if let Err(error) = std::fs::rename(&draft, path) {
            // Nothing but an empty file of ours is left where this fails too.
            drop(std::fs::remove_file(&draft));
            return Err(error);
        }
        return Ok(file);
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn stream(path: &Path) -> Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NOCTTY;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let there = file.metadata()?;
    let asked = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    match there.file_type() {
        kind if kind.is_char_device() => Ok(file),
        // What stands here is for its reader.
        kind if kind.is_fifo() && (is_ours(&there) || Some(there.uid()) == asked) => Ok(file),
        kind if kind.is_fifo() => Err(Error::new(ErrorKind::PermissionDenied, "it is a pipe of another user's")),
        _ => Err(Error::other("it was replaced while it was opened")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A directory as /tmp is.
    fn shared() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        directory
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let directory = shared();
        let path = directory.path().join("trace");
        for force in [false, true] {
            create(&path, force).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(create(&path, false).err().unwrap().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_planted_link_is_replaced_and_its_target_untouched() {
        let directory = shared();
        let (victim, path) = (directory.path().join("victim"), directory.path().join("trace"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        assert_eq!(create(&path, false).err().unwrap().kind(), ErrorKind::AlreadyExists);
        create(&path, true).unwrap().into_file().write_all(b"trace").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"trace");
        // The same by a hard link.
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        create(&path, true).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "a draft is left");
    }

    #[test]
    fn a_dangling_link_makes_no_file_elsewhere() {
        let directory = shared();
        let (target, path) = (directory.path().join("target"), directory.path().join("trace"));
        symlink(&target, &path).unwrap();
        assert!(create(&path, false).is_err());
        create(&path, true).unwrap();
        assert!(!target.exists());
    }

    #[test]
    fn a_link_of_ones_own_leads_where_it_did() {
        let directory = tempfile::tempdir().unwrap();
        let (target, path) = (directory.path().join("target"), directory.path().join("trace"));
        fs::write(&target, "old").unwrap();
        symlink(&target, &path).unwrap();
        create(&path, true).unwrap().into_file().write_all(b"new").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn devices_are_written_to_and_stay_what_they_are() {
        for force in [false, true] {
            assert!(matches!(create(Path::new("/dev/null"), force), Ok(Place::Stream(_))));
            check(Path::new("/dev/null"), force).unwrap();
        }
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_place_that_can_not_be_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check(directory.path(), true).unwrap_err().kind(), ErrorKind::IsADirectory);
        let nowhere = directory.path().join("no/such/file");
        assert_eq!(check(&nowhere, false).unwrap_err().kind(), ErrorKind::NotFound);
        check(&directory.path().join("new"), false).unwrap();
    }
}
