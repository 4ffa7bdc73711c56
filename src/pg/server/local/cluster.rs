//! Clusters that `initdb` made once, kept, and copied for every server.
//!
//! A list of the files is written with them. A copy that does not match it, for example after a
//! power failure, is never started from: the cluster is made anew.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::account::Account;
use super::binaries::Binaries;
use super::folder::Folder;
use super::place::{Place, help_for_room};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::cache::{self, Cache};
use crate::pg::lock::Lock;
use crate::pg::owner::random_hex;

/// Changes when what is kept has another form.
const FORM: &[u8] = b"1";

/// C.UTF-8 knows upper and lower case beyond ASCII; not every system has it.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// 1 MB segments, because a server copies at least one and is copied itself.
const ARGUMENTS: &[&str] = &[
    "-U",
    "postgres",
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--no-sync",
    "--no-instructions",
    "--wal-segsize=1",
];

const LIST: &str = "files";

/// A cluster in the cache, ready to be copied.
#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    /// Names everything that the cluster was made from.
    pub(super) key: String,
    list: List,
}

/// What a cluster consists of.
#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    folders: Vec<String>,
    /// Path and size.
    files: Vec<(String, u64)>,
}

impl Cluster {
    /// The cluster of these programs, made now if this is the first time.
    pub(super) fn obtain(binaries: &Binaries, account: &Account, place: &Place) -> Result<Self> {
        let cache = Cache::open()?;
        let key = key(binaries);
        let clusters = cache.folder("clusters")?;
        let folder = clusters.join(&key);
        if let Some(cluster) = Self::open(&folder, &key) {
            return Ok(cluster);
        }
        let _building = Lock::exclusive(&clusters.join(format!("{key}.lock")))?;
        if let Some(cluster) = Self::open(&folder, &key) {
            return Ok(cluster);
        }
        // Drafts of this name belong to builders that were killed: the lock is ours.
        let prefix = format!("{key}.draft-");
        for entry in fs::read_dir(&clusters).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_dir_all(&folder);
        let draft = clusters.join(format!("{prefix}{}", random_hex()));
        let kept = make(binaries, account, place)
            .and_then(|made| made.keep(&draft))
            .and_then(|()| {
                fs::rename(&draft, &folder).map_err(|error| failed("make", &folder, &error))
            });
        if let Err(error) = kept {
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
        Self::open(&folder, &key).ok_or_else(|| {
            Error::new(
                ErrorKind::Engine,
                format!("the cluster kept in `{}` cannot be read", folder.display()),
            )
            .help("remove that folder, or name another one in POSTERN_CACHE")
        })
    }

    fn open(folder: &Path, key: &str) -> Option<Self> {
        let list = List::parse(&fs::read_to_string(folder.join(LIST)).ok()?)?;
        Some(Self {
            folder: folder.to_owned(),
            key: key.to_owned(),
            list,
        })
    }

    /// Copies what a server needs to start. The rest follows by [`Cluster::copy_rest`], while it
    /// starts already.
    pub(super) fn copy_base(&self, to: &Path, account: &Account) -> Result<()> {
        let folders = self.list.folders.iter().map(String::as_str);
        make_folders(to, std::iter::once("").chain(folders), account)?;
        self.copy(to, account, |path| !self.is_late(path))
    }

    /// Copies the databases that nothing reads until they are cloned.
    pub(super) fn copy_rest(&self, to: &Path, account: &Account) -> Result<()> {
        self.copy(to, account, |path| self.is_late(path))
    }

    /// Whether a file belongs to `template0` or `template1`: all databases except the newest,
    /// which is `postgres`.
    fn is_late(&self, path: &str) -> bool {
        let number = |path: &str| {
            path.strip_prefix("base/")
                .and_then(|rest| rest.split('/').next())
                .and_then(|oid| oid.parse::<u32>().ok())
        };
        let newest = self
            .list
            .folders
            .iter()
            .filter_map(|path| number(path))
            .max();
        number(path).is_some_and(|oid| Some(oid) != newest)
    }

    fn copy(&self, to: &Path, account: &Account, is_asked: impl Fn(&str) -> bool) -> Result<()> {
        let from = self.folder.join("data");
        let files: Vec<(&str, u64)> = self
            .list
            .files
            .iter()
            .map(|(path, size)| (path.as_str(), *size))
            .filter(|(path, _)| is_asked(path))
            .collect();
        let copied = copy_files(&from, to, &files, Some(account));
        if let Err(Failure::Changed(path)) = &copied {
            // Found out now, made anew by the next start.
            let _ = fs::remove_file(self.folder.join(LIST));
            return Err(Error::new(
                ErrorKind::Engine,
                format!("`{path}` of the kept cluster has another size than when it was made"),
            )
            .note("a power failure may do that")
            .help("try again: the cluster is made anew"));
        }
        copied.map_err(|failure| failure.explain(to))
    }
}

/// A cluster fresh from `initdb`, in a private folder that goes with this value.
struct Made(Folder);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Made {
    /// Copies it to a folder of the cache, the list of files last.
    fn keep(&self, draft: &Path) -> Result<()> {
        let data = self.0.path.join("data");
        let list = List::of(&data).map_err(|error| failed("read", &data, &error))?;
        let to = draft.join("data");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(draft)
            .map_err(|error| failed("make", draft, &error))?;
        let own = Account::own();
        let folders = list.folders.iter().map(String::as_str);
        make_folders(&to, std::iter::once("").chain(folders), &own)?;
        let files: Vec<(&str, u64)> = list.files.iter().map(|(p, s)| (p.as_str(), *s)).collect();
        copy_files(&data, &to, &files, None).map_err(|failure| failure.explain(draft))?;
        let file = draft.join(LIST);
        fs::write(&file, list.to_string()).map_err(|error| failed("write", &file, &error))
    }
}

/// Runs `initdb` to its end, in less than a second.
fn make(binaries: &Binaries, account: &Account, place: &Place) -> Result<Made> {
    let made = Made(Folder::create_in(place, account)?);
    let data = made.0.path.join("data");
    let mut words = String::new();
    for locale in LOCALES {
        let mut command = Command::new(binaries.initdb());
        command
            .arg("-D")
            .arg(&data)
            .args(ARGUMENTS)
            .arg(format!("--locale={locale}"))
            .stdin(Stdio::null());
        super::prepare(&mut command, account);
        let output = command
            .output()
            .map_err(|error| failed("run", &binaries.initdb(), &error))?;
        if output.status.success() {
            return Ok(made);
        }
        words = String::from_utf8_lossy(&output.stderr).into_owned();
        let _ = fs::remove_dir_all(&data);
    }
    let mut error = Error::new(ErrorKind::Engine, "initdb could not make a cluster");
    if let Some(words) = crate::pg::server::last_words(&words) {
        error = error.note(words);
    }
    Err(match words.contains("No space left on device") {
        true => error.help(help_for_room(made.0.base())),
        false => error.help("`docker` and `url` are the other engines"),
    })
}

/// Names what a cluster is made from: the programs and how `initdb` is told.
fn key(binaries: &Binaries) -> String {
    let stamp = fs::metadata(binaries.initdb())
        .map(|meta| format!("{} {}", meta.len(), meta.mtime()))
        .unwrap_or_default();
    let folder = binaries.folder.as_os_str().as_encoded_bytes();
    let parts = [FORM, binaries.version.as_bytes(), folder, stamp.as_bytes()];
    let arguments = ARGUMENTS.iter().chain(&LOCALES).map(|text| text.as_bytes());
    cache::key(parts.into_iter().chain(arguments))
}

fn make_folders<'a>(
    to: &Path,
    folders: impl Iterator<Item = &'a str>,
    account: &Account,
) -> Result<()> {
    for folder in folders {
        let path = to.join(folder);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| account.give(&path))
            .map_err(|error| failed("make", &path, &error))?;
    }
    Ok(())
}

enum Failure {
    /// This file is not as large as it was.
    Changed(String),
    Io(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    fn explain(self, to: &Path) -> Error {
        match self {
            Self::Changed(path) => Error::new(
                ErrorKind::Engine,
                format!("`{path}` changed while it was copied"),
            ),
            Self::Io(error) => {
                let is_full = error.raw_os_error() == Some(nix::libc::ENOSPC);
                let failed = failed("copy a cluster to", to, &error);
                match is_full {
                    true => failed.help(help_for_room(to)),
                    false => failed,
                }
            }
        }
    }
}

/// Copies files of known size, on two threads: most of the time goes into opening and closing.
fn copy_files(
    from: &Path,
    to: &Path,
    files: &[(&str, u64)],
    owner: Option<&Account>,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let Some((path, size)) = files.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return Ok(());
            };
            buffer.clear();
            let opened = File::open(from.join(path));
            let read = opened.and_then(|mut file| file.read_to_end(&mut buffer));
            match read {
                Ok(_) if buffer.len() as u64 == *size => {}
                Ok(_) => return Err(Failure::Changed((*path).to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Failure::Changed((*path).to_owned()));
                }
                Err(error) => return Err(error.into()),
            }
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(to.join(path))?;
            file.write_all(&buffer)?;
            if let Some(account) = owner {
                account.give_file(&file)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let own = work();
        let other = other.join().expect("copying does not panic");
        own.and(other)
    })
}

impl List {
    fn of(data: &Path) -> std::io::Result<Self> {
        let mut list = Self::default();
        let mut open = vec![String::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(data.join(&folder))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = match folder.is_empty() {
                    true => name,
                    false => format!("{folder}/{name}"),
                };
                let meta = entry.metadata()?;
                if meta.is_dir() {
                    // A folder comes before those in it.
                    list.folders.push(path.clone());
                    open.push(path);
                } else {
                    list.files.push((path, meta.len()));
                }
            }
        }
        Ok(list)
    }

    /// `None` unless it is whole.
    fn parse(text: &str) -> Option<Self> {
        let mut list = Self::default();
        for line in text.strip_suffix("end\n")?.lines() {
            match line.split_once(' ')? {
                ("-", folder) => list.folders.push(folder.to_owned()),
                (size, file) => list.files.push((file.to_owned(), size.parse().ok()?)),
            }
        }
        Some(list)
    }
}

impl std::fmt::Display for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for folder in &self.folders {
            writeln!(f, "- {folder}")?;
        }
        for (file, size) in &self.files {
            writeln!(f, "{size} {file}")?;
        }
        writeln!(f, "end")
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(action, path, error).with_kind(ErrorKind::Engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, List) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("base/1")).unwrap();
        fs::create_dir_all(data.join("base/5")).unwrap();
        for (path, text) in [
            ("PG_VERSION", "15\n"),
            ("base/1/10", "late"),
            ("base/5/10", "x"),
        ] {
            fs::write(data.join(path), text).unwrap();
        }
        let list = List::of(&data).unwrap();
        (folder, list)
    }

    #[test]
    fn a_list_is_read_back_and_half_a_list_is_none() {
        let (_folder, list) = sample();
        let text = list.to_string();
        assert_eq!(List::parse(&text), Some(list));
        assert_eq!(List::parse(&text[..text.len() - 1]), None);
        assert_eq!(List::parse(""), None);
    }

    #[test]
    fn the_templates_come_late_and_a_damaged_cluster_is_forgotten() {
        let (folder, list) = sample();
        fs::write(folder.path().join(LIST), list.to_string()).unwrap();
        let cluster = Cluster::open(folder.path(), "k").unwrap();
        let to = folder.path().join("copy");
        let account = Account::own();
        cluster.copy_base(&to, &account).unwrap();
        assert!(to.join("base/5/10").exists() && !to.join("base/1/10").exists());
        fs::write(folder.path().join("data/base/1/10"), "").unwrap();
        let error = cluster.copy_rest(&to, &account).unwrap_err();
        assert!(error.message().contains("base/1/10"), "{error:?}");
        assert!(Cluster::open(folder.path(), "k").is_none());
    }
}
