//! Where this machine keeps `initdb` and `postgres`.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::shown;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::cache::{self, Cache};

/// Names the folder with the programs, ahead of every search.
const VARIABLE: &str = "POSTERN_PG_BIN";

/// Where packages put them: a folder, what its versions start with, and what follows.
const PLACES: &[(&str, &str, &str)] = &[
    // Debian and Ubuntu
    ("/usr/lib/postgresql", "", "bin"),
    // Red Hat and its relatives
    ("/usr", "pgsql-", "bin"),
    // Homebrew on Apple silicon, on Intel, and on Linux
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    // Postgres.app
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    // Built from source
    ("/usr/local", "pgsql", "bin"),
];

/// The newest usable pair of programs.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    /// As they state it themselves, for example `15.18` or `18beta1`.
    pub(super) version: String,
}

impl Binaries {
    /// Takes the folder given, else the one that the environment names, else searches.
    ///
    /// A folder that was named is never replaced by another one.
    pub(super) fn find(given: Option<&Path>) -> Result<Self> {
        if let Some(folder) = given {
            return Self::named(folder, "the folder given for the Postgres programs");
        }
        if let Some(folder) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            return Self::named(Path::new(&folder), VARIABLE);
        }
        candidates(std::env::var_os("PATH").as_deref())
            .iter()
            .filter_map(|folder| Self::read(folder))
            // The first of equals: PATH before the usual places.
            .reduce(|best, next| {
                if order(&next.version) > order(&best.version) {
                    next
                } else {
                    best
                }
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Engine,
                    "no Postgres server programs (`initdb`, `postgres`) found on this machine",
                )
                .note("looked in PATH, in `pg_config --bindir` and in the usual places of Debian, Red Hat, Homebrew and Postgres.app")
                .help(format!(
                    "install a Postgres server (Debian: `apt-get install postgresql`), or name its folder in {VARIABLE}"
                ))
            })
    }

    /// Whether the environment names a folder.
    pub(super) fn is_named() -> bool {
        std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
    }

    /// The same, without running any program where nothing changed since the last time.
    pub(super) fn find_again(given: Option<&Path>) -> Result<Self> {
        let Ok(programs) = Cache::open().and_then(|cache| cache.folder("programs")) else {
            return Self::find(given);
        };
        let path = std::env::var_os("PATH");
        let mut looked = vec![format!("{:?}", (given, std::env::var_os(VARIABLE)))];
        let folders: Vec<PathBuf> = given
            .map(Path::to_owned)
            .into_iter()
            .chain(places(path.as_deref()))
            .collect();
        for folder in folders {
            for program in ["postgres", "pg_config"] {
                let file = folder.join(program);
                looked.push(format!("{file:?} {:?}", stamp(&file)));
            }
        }
        let key = cache::key(looked.iter().map(String::as_bytes));
        let file = programs.join(key);
        if let Some(known) = Self::remembered(&file) {
            return Ok(known);
        }
        let found = Self::find(given)?;
        if let Some(folder) = found.folder.to_str() {
            let stamp = stamp(&found.postgres()).unwrap_or_default();
            // Without it the next start looks again.
            let _ = cache::write_whole(&file, &format!("{}\n{stamp}\n{folder}", found.version));
        }
        Ok(found)
    }

    fn remembered(file: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let mut lines = text.splitn(3, '\n');
        let version = lines.next()?.to_owned();
        let before = lines.next()?;
        let found = Self {
            folder: lines.next()?.into(),
            version,
        };
        let is_same = stamp(&found.postgres()).is_some_and(|now| now == before);
        (is_same && found.initdb().is_file()).then_some(found)
    }

    fn named(folder: &Path, by: &str) -> Result<Self> {
        Self::read(folder).ok_or_else(|| {
            let lacking: Vec<&str> = ["initdb", "postgres"]
                .into_iter()
                .filter(|name| !folder.join(name).is_file())
                .collect();
            let what = if lacking.is_empty() {
                "`postgres` in it does not run".to_owned()
            } else {
                format!("it holds no `{}`", lacking.join("` and no `"))
            };
            Error::new(
                ErrorKind::Engine,
                format!("{by} is `{}`, but {what}", folder.display()),
            )
            .help(format!(
                "name the folder that holds both programs, for example /usr/lib/postgresql/17/bin, or leave {VARIABLE} unset to search for it"
            ))
        })
    }

    fn read(folder: &Path) -> Option<Self> {
        // A relative path would be taken from the folder that a child starts in.
        let folder = std::path::absolute(folder).ok()?;
        if !folder.join("initdb").is_file() {
            return None;
        }
        let said = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(Self {
            folder: behind_links(&folder),
            version: version(&String::from_utf8_lossy(&said.stdout))?,
        })
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// Whether the account that will run them may read them: a folder inside root's home may not.
    pub(super) fn check_runs_as(&self, account: &Account) -> Result<()> {
        let Some(name) = &account.name else {
            return Ok(());
        };
        let mut command = Command::new(self.postgres());
        command.arg("--version").current_dir("/");
        account.run(&mut command);
        match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Engine,
                format!(
                    "user `{name}` may not run `{}`, and Postgres refuses to run as root",
                    shown(&self.postgres())
                ),
            )
            .help(
                "install Postgres where every user may run it, or start Postern as another user",
            )),
        }
    }
}

/// Folders that may hold the programs, in order of preference, each once.
fn candidates(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = path
        .map(|path| std::env::split_paths(path).collect())
        .unwrap_or_default();
    folders.extend(pg_config_folder());
    folders.extend(usual_places());
    let mut seen = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_absolute()) {
        let real = behind_links(folder);
        if !seen.contains(&real) {
            seen.push(real);
        }
    }
    seen
}

/// The folders that are looked at without running anything.
fn places(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = path
        .map(|path| std::env::split_paths(path).collect())
        .unwrap_or_default();
    folders.extend(usual_places());
    folders
}

/// Changes when a program is replaced; `None` where there is none.
fn stamp(file: &Path) -> Option<String> {
    let meta = std::fs::metadata(file).ok()?;
    Some(format!(
        "{} {}.{}",
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}

fn usual_places() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix, rest) in PLACES {
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        let mut found: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(rest))
            .collect();
        found.sort();
        folders.append(&mut found);
    }
    folders
}

/// The folder that the programs really live in: packages put links to them elsewhere.
fn behind_links(folder: &Path) -> PathBuf {
    let real = folder.join("postgres").canonicalize().ok();
    real.as_deref()
        .and_then(Path::parent)
        .filter(|real| real.join("initdb").is_file())
        .unwrap_or(folder)
        .to_owned()
}

fn pg_config_folder() -> Option<PathBuf> {
    let said = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|folder| folder.is_absolute())
}

/// `15.18` of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("(PostgreSQL) ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Major and minor number; a development version counts as its major's start.
fn order(version: &str) -> (u32, u32) {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some("15.18"), (15, 18))]
    #[case("postgres (PostgreSQL) 9.6.24", Some("9.6.24"), (9, 6))]
    #[case("postgres (PostgreSQL) 18beta1", Some("18beta1"), (18, 0))]
    #[case("something else", None, (0, 0))]
    fn a_version_is_read(
        #[case] said: &str,
        #[case] expected: Option<&str>,
        #[case] numbers: (u32, u32),
    ) {
        let read = version(said);
        assert_eq!(read.as_deref(), expected);
        assert_eq!(order(&read.unwrap_or_default()), numbers);
    }

    #[test]
    fn a_relative_folder_of_the_path_is_not_searched() {
        let found = candidates(Some(OsStr::new("bin:/usr/bin")));
        assert!(found.iter().all(|folder| folder.is_absolute()), "{found:?}");
    }
}
