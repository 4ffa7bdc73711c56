//! Who runs Postgres: this process's own account, or for root an unprivileged one.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{AccessFlags, Gid, Uid, User, access};

use crate::error::{Error, ErrorKind, Result};

/// Who runs Postgres.
#[derive(Clone, Debug)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    /// The unprivileged user that root hands over to; `None` when nothing changes.
    pub(super) name: Option<String>,
}

impl Account {
    /// This process's own account; for root, whom Postgres refuses, `postgres` or `nobody`.
    pub(super) fn for_postgres() -> Result<Self> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Ok(Self {
                uid,
                gid: Gid::effective(),
                name: None,
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self {
                uid: user.uid,
                gid: user.gid,
                name: Some(user.name),
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Engine,
                    "Postgres refuses to run as root, and there is no user `postgres` or `nobody`",
                )
                .help("create a user `postgres`, or start Postern as another user")
            })
    }

    /// This process's own account, whoever it is.
    pub(super) fn own() -> Self {
        Self {
            uid: Uid::effective(),
            gid: Gid::effective(),
            name: None,
        }
    }

    /// Whether a folder belongs to this account, and to nobody else.
    pub(super) fn owns(&self, folder: &Path) -> bool {
        fs::symlink_metadata(folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == self.uid.as_raw())
    }

    /// Hands a file or folder over to this account, if it is another one.
    pub(super) fn give(&self, path: &Path) -> std::io::Result<()> {
        match self.name {
            Some(_) => chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Hands an open file over to this account, if it is another one.
    pub(super) fn give_file(&self, file: &fs::File) -> std::io::Result<()> {
        match self.name {
            Some(_) => fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Makes a command run under this account.
    pub(super) fn run(&self, command: &mut Command) {
        if self.name.is_some() {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Whether this account may make and remove a folder here, judged by owner and mode.
    pub(super) fn may_use(&self, place: &Path) -> bool {
        let Ok(place) = place.canonicalize() else {
            return false;
        };
        if self.name.is_none() {
            return place.is_dir() && access(&place, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        }
        let allows = |path: &Path, bits: u32| {
            fs::metadata(path).is_ok_and(|meta| {
                let mode = meta.mode();
                mode & bits == bits || meta.uid() == self.uid.as_raw() && (mode >> 6) & bits == bits
            })
        };
        allows(&place, 0o3) && place.ancestors().skip(1).all(|above| allows(above, 0o1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn root_uses_no_place_that_its_deputy_cannot_enter() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let inner = closed.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).unwrap();
        let deputy = Account {
            uid: Uid::from_raw(65_533),
            gid: Gid::from_raw(65_533),
            name: Some("deputy".into()),
        };
        assert!(!deputy.may_use(&inner));
        assert!(deputy.may_use(Path::new("/tmp")));
    }
}
