//! Where this user keeps what is made once and used often: clusters, measurements, and pointers
//! to servers that are shared.
//!
//! Everything in it may be removed at any time; it is made anew. Files appear whole or not at
//! all, because they are written elsewhere and renamed into place.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::pg::owner::random_hex;

/// Names the folder, ahead of every other place.
const VARIABLE: &str = "POSTERN_CACHE";

/// The folder of this user.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The folder named by `POSTERN_CACHE`, else the user's own for such things, else one in the
    /// temporary folder.
    pub(crate) fn open() -> Result<Self> {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        if let Some(folder) = named(VARIABLE) {
            let folder = PathBuf::from(folder);
            return Self::at(&folder).map_err(|error| {
                error.help(format!(
                    "{VARIABLE} names this folder; name one that may be written to"
                ))
            });
        }
        let usual = usual(named("XDG_CACHE_HOME"), named("HOME"));
        if let Some(cache) = usual.and_then(|folder| Self::at(&folder).ok()) {
            return Ok(cache);
        }
        let folder = std::env::temp_dir().join(format!("postern-cache-{}", user()));
        let cache = Self::at(&folder)?;
        // Anybody may have made a folder of that name there.
        if is_own(&folder) {
            return Ok(cache);
        }
        Err(Error::new(
            ErrorKind::Engine,
            format!("`{}` belongs to somebody else", folder.display()),
        )
        .help(format!("name a folder of your own in {VARIABLE}")))
    }

    fn at(folder: &Path) -> Result<Self> {
        let failed = |error: &std::io::Error| {
            Error::io("make the folder", folder, error).with_kind(ErrorKind::Engine)
        };
        let root = std::path::absolute(folder).map_err(|error| failed(&error))?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&root).map_err(|error| failed(&error))?;
        // A folder on a read-only disk exists and is of no use.
        let probe = root.join(format!(".probe-{}", random_hex()));
        fs::write(&probe, "").map_err(|error| failed(&error))?;
        let _ = fs::remove_file(&probe);
        Ok(Self { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder in it, made if need be.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("make the folder", &folder, &error).with_kind(ErrorKind::Engine))
            }
            _ => Ok(folder),
        }
    }
}

fn usual(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let inside_home = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    xdg.map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(PathBuf::from(home?).join(inside_home)))
        .map(|folder| folder.join("postern"))
        .filter(|folder| folder.is_absolute())
}

/// This user's number, where users have one.
pub(crate) fn user() -> String {
    #[cfg(unix)]
    let user = nix::unistd::Uid::effective().to_string();
    #[cfg(not(unix))]
    let user = std::env::var("USERNAME").unwrap_or_default();
    user
}

fn is_own(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(folder)
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::Uid::effective().as_raw())
    }
    #[cfg(not(unix))]
    folder.is_dir()
}

/// Writes a file that others see whole or not at all.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<()> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(format!(".{}", random_hex()));
    let draft = PathBuf::from(draft);
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, file));
    written.map_err(|error| {
        let _ = fs::remove_file(&draft);
        Error::io("write", file, &error).with_kind(ErrorKind::Engine)
    })
}

/// A name for what these parts make: equal parts, equal name.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length, so that no two lists of parts run together into one text.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    digest[..10]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_make_equal_keys_and_others_do_not() {
        let of = |parts: &[&str]| key(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_eq!(of(&["a"]).len(), 20);
    }

    #[test]
    fn the_users_own_place_is_taken_before_any_other() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            usual(xdg.map(Into::into), home.map(Into::into))
        };
        assert_eq!(of(Some("/x"), Some("/h")), Some("/x/postern".into()));
        // The standard says so: a relative path is as good as none.
        assert!(of(Some("x"), Some("/h")).is_some_and(|folder| folder.starts_with("/h")));
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, Some("relative")), None);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        write_whole(&file, "one").unwrap();
        write_whole(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
