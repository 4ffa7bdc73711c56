//! Locks that the system takes back when their holder ends, in whatever way.
//!
//! The one truth about who is there: a file that says so may lie, a lock cannot.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// A lock on a file, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds it. The file is made if need be, and never removed.
    pub(crate) fn exclusive(path: &Path) -> Result<Self> {
        let file = open(path).map_err(|error| failed(path, &error))?;
        file.lock().map_err(|error| failed(path, &error))?;
        Ok(Self { _file: file })
    }

    /// Shares the lock of a file that is there and stays there; `None` when it is gone, or goes
    /// before it could be locked.
    pub(crate) fn shared_if_present(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        file.lock_shared().ok()?;
        is_still(&file, path).then_some(Self { _file: file })
    }

    /// Takes the lock of a file that is there, if nobody holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        file.try_lock().ok()?;
        is_still(&file, path).then_some(Self { _file: file })
    }

    /// Makes a locked file under a name that is not taken: nobody ever sees it unlocked while
    /// its maker lives.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Self::create_with(path, File::try_lock)
    }

    /// The same, and others may share it.
    pub(crate) fn create_shared(path: &Path) -> Result<Self> {
        Self::create_with(path, File::try_lock_shared)
    }

    fn create_with(
        path: &Path,
        lock: impl Fn(&File) -> std::result::Result<(), TryLockError>,
    ) -> Result<Self> {
        let draft = path.with_extension("draft");
        let made = || {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&draft)?;
            match lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(std::io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            std::fs::rename(&draft, path)?;
            Ok(file)
        };
        let file = made().map_err(|error| failed(path, &error))?;
        Ok(Self { _file: file })
    }
}

/// Whether a living process holds the lock of this file; a file that is gone is held by nobody.
pub(crate) fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Whether the path still leads to this very file.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => place(held) == place(named),
        _ => false,
    }
}

/// Elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn is_still(_file: &File, path: &Path) -> bool {
    path.exists()
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io("lock", path, error)
        .with_kind(ErrorKind::Engine)
        .help("the file system must know locks; POSTERN_CACHE names another folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_once_its_holder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_held(&path));
        let held = Lock::create(&path).unwrap();
        assert!(is_held(&path));
        assert!(Lock::try_exclusive(&path).is_none());
        drop(held);
        assert!(!is_held(&path));
        assert!(Lock::try_exclusive(&path).is_some());
    }

    #[test]
    fn a_file_that_was_removed_while_it_was_awaited_is_not_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let sweeper = Lock::create(&path).unwrap();
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || Lock::shared_if_present(&path).is_some())
        };
        std::fs::remove_file(&path).unwrap();
        drop(sweeper);
        assert!(!waiter.join().unwrap());
    }
}
