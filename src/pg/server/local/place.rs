//! Where servers keep their data: in memory if there is room.

use std::fmt;
use std::path::{Path, PathBuf};

use super::account::Account;
use crate::error::{Error, ErrorKind, Result};

/// Names the folder for the data, ahead of every search.
const VARIABLE: &str = "POSTERN_DATA";

/// The RAM disk that Linux has.
const MEMORY: &str = "/dev/shm";

/// A RAM disk with less room than this is left to others: Docker gives containers 64 MB.
const ROOM_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Where servers keep their data.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) base: PathBuf,
    pub(super) is_in_memory: bool,
    /// Whether somebody asked for this very folder.
    pub(super) is_named: bool,
    /// Why it is not in memory, where that was wanted.
    fallback: Option<String>,
}

impl Place {
    /// The folder given, else the one that the environment names, else a RAM disk with room, else
    /// the temporary folder.
    ///
    /// A folder that was named is never replaced by another one.
    pub(super) fn choose(given: Option<&Path>, account: &Account) -> Result<Self> {
        if let Some(folder) = given {
            return Self::named(folder, "the folder given for the data", account);
        }
        if let Some(folder) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            return Self::named(Path::new(&folder), VARIABLE, account);
        }
        let memory = Path::new(MEMORY);
        let fallback = match room(memory) {
            None => format!("there is no RAM disk at {MEMORY}"),
            Some(room) if room < ROOM_BYTES_MIN => format!(
                "the RAM disk {MEMORY} has only {} MB of room, not {}",
                room >> 20,
                ROOM_BYTES_MIN >> 20
            ),
            Some(_) if !account.may_use(memory) => {
                format!("the RAM disk {MEMORY} may not be written to")
            }
            Some(_) => {
                return Ok(Self {
                    base: memory.to_owned(),
                    is_in_memory: true,
                    is_named: false,
                    fallback: None,
                });
            }
        };
        let temporary = std::env::temp_dir();
        for base in [temporary.as_path(), Path::new("/tmp")] {
            if account.may_use(base) {
                return Ok(Self {
                    base: base.to_owned(),
                    is_in_memory: is_memory(base),
                    is_named: false,
                    fallback: Some(fallback),
                });
            }
        }
        Err(Error::new(
            ErrorKind::Engine,
            format!(
                "no place for a private server: `{}` cannot be used by the user that runs Postgres",
                temporary.display()
            ),
        )
        .help(format!(
            "point TMPDIR or {VARIABLE} to a folder that this user may write to"
        )))
    }

    fn named(folder: &Path, by: &str, account: &Account) -> Result<Self> {
        let failed = |error: &std::io::Error| {
            Error::io("find the folder", folder, error).with_kind(ErrorKind::Engine)
        };
        let base = std::path::absolute(folder).map_err(|error| failed(&error))?;
        if account.may_use(&base) {
            return Ok(Self {
                is_in_memory: is_memory(&base),
                is_named: true,
                base,
                fallback: None,
            });
        }
        Err(Error::new(
            ErrorKind::Engine,
            format!(
                "{by} is `{}`, but the user that runs Postgres cannot write there",
                folder.display()
            ),
        )
        .help(match &account.name {
            Some(name) => format!("name a folder that user `{name}` can reach and write to"),
            None => "name a folder that exists and may be written to".to_owned(),
        }))
    }

    /// The place where a server has its folder already.
    pub(super) fn of(folder: &Path) -> Self {
        let base = folder.parent().unwrap_or(folder);
        Self {
            base: base.to_owned(),
            is_in_memory: is_memory(base),
            is_named: false,
            fallback: None,
        }
    }

    /// Every folder in which earlier runs may have left something.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.base.clone()];
        for other in [MEMORY.into(), std::env::temp_dir(), "/tmp".into()] {
            if !all.contains(&other) {
                all.push(other);
            }
        }
        all
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = if self.is_in_memory { " (RAM)" } else { "" };
        write!(f, "{}{memory}", self.base.display())?;
        match &self.fallback {
            Some(why) => write!(f, " because {why}"),
            None => Ok(()),
        }
    }
}

/// What to do when a disk with data is full.
pub(crate) fn help_for_room(place: &Path) -> String {
    let room = match room(place) {
        Some(bytes) => format!("{} MB are left; ", bytes >> 20),
        None => String::new(),
    };
    format!(
        "the disk of {} is full: {room}free some room (`postern db sweep` removes what nobody uses), or name a folder on another disk in {VARIABLE}",
        place.display()
    )
}

/// Bytes that an unprivileged user may still write there; `None` when the system does not tell.
fn room(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    // The types differ between systems.
    #[allow(clippy::useless_conversion)]
    Some(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}

#[cfg(target_os = "linux")]
fn is_memory(path: &Path) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

/// Other systems have no RAM disk at a known place, and do not tell.
#[cfg(not(target_os = "linux"))]
fn is_memory(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_is_never_replaced() {
        let account = Account::own();
        let error = Place::choose(Some(Path::new("/nowhere/at/all")), &account).unwrap_err();
        assert!(error.message().contains("/nowhere/at/all"), "{error:?}");
        let folder = tempfile::tempdir().unwrap();
        let place = Place::choose(Some(folder.path()), &account).unwrap();
        assert_eq!(place.base, folder.path());
    }

    #[test]
    fn the_reason_for_a_fallback_is_told() {
        let place = Place {
            base: "/tmp".into(),
            is_in_memory: false,
            is_named: false,
            fallback: Some("there is no RAM disk at /dev/shm".into()),
        };
        assert_eq!(
            place.to_string(),
            "/tmp because there is no RAM disk at /dev/shm"
        );
    }

    #[test]
    fn help_for_a_full_disk_says_how_much_is_left() {
        let help = help_for_room(Path::new("/"));
        assert!(help.contains(" MB are left"), "{help}");
    }
}
