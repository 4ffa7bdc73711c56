//! The private folder of a local server, and the account that owns it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User};

use super::shown;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::owner::Owner;

const PREFIX: &str = "postern-";

/// Names the folder's owner, for the sweep of a later run.
const OWNER: &str = "owner";

/// Holds the number of the supervisor's process.
const SUPERVISOR: &str = "supervisor";

/// A RAM disk with less room than this is left to others: Docker gives containers 64 MB.
const ROOM_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// The shortest limit of a socket's path among the systems (macOS; Linux has 108).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// What Postgres appends to the socket folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// Who runs Postgres.
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

    /// Makes a command run under this account.
    pub(super) fn run(&self, command: &mut Command) {
        if self.name.is_some() {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Whether this account may make and remove a folder here, judged by owner and mode.
    fn may_use(&self, place: &Path) -> bool {
        let Ok(place) = place.canonicalize() else {
            return false;
        };
        if self.name.is_none() {
            return place.is_dir();
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

/// A folder that only its account may enter.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Where the socket is: the folder itself, or a shorter one beside it.
    pub(super) sockets: PathBuf,
    pub(super) is_in_memory: bool,
    /// For people: `/dev/shm (RAM)`.
    pub(super) place: String,
}

impl Folder {
    /// On a RAM disk with room, else in the temporary folder.
    pub(super) fn create(account: &Account) -> Result<Self> {
        let (base, is_in_memory) = choose(account)?;
        let path = make(&base, account)?;
        let mut folder = Self {
            sockets: path.clone(),
            path,
            is_in_memory,
            place: match is_in_memory {
                true => format!("{} (RAM)", base.display()),
                false => shown(&base),
            },
        };
        if folder.socket().as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            match make(Path::new("/tmp"), account) {
                Ok(sockets) => folder.sockets = sockets,
                Err(error) => {
                    folder.remove();
                    return Err(error);
                }
            }
        }
        Ok(folder)
    }

    pub(super) fn base(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn socket(&self) -> PathBuf {
        self.sockets.join(SOCKET)
    }

    pub(super) fn has_socket(&self) -> bool {
        self.socket().exists()
    }

    /// The text of a file in the folder, if it is there.
    pub(super) fn read(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.path.join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Removes what the supervisor could not.
    pub(super) fn remove(&self) {
        for path in [&self.path, &self.sockets] {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn choose(account: &Account) -> Result<(PathBuf, bool)> {
    let memory = Path::new("/dev/shm");
    if room(memory) > ROOM_BYTES_MIN && account.may_use(memory) {
        return Ok((memory.to_owned(), true));
    }
    let temporary = std::env::temp_dir();
    for base in [temporary.as_path(), Path::new("/tmp")] {
        if account.may_use(base) {
            return Ok((base.to_owned(), false));
        }
    }
    Err(Error::new(
        ErrorKind::Engine,
        format!(
            "no place for a private server: `{}` cannot be used by the user that runs Postgres",
            temporary.display()
        ),
    )
    .help("point TMPDIR to a folder that this user may write to"))
}

/// Bytes that an unprivileged user may still write there; 0 when the system does not tell.
#[cfg(target_os = "linux")]
fn room(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |stat| {
        stat.blocks_available().saturating_mul(stat.fragment_size())
    })
}

/// Other systems have no RAM disk at a known place.
#[cfg(not(target_os = "linux"))]
fn room(_path: &Path) -> u64 {
    0
}

fn make(base: &Path, account: &Account) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| {
        Error::io("make a private folder in", base, error).with_kind(ErrorKind::Engine)
    };
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(base)
        .map_err(|error| failed(&error))?;
    let owner = folder.path().join(OWNER);
    fs::write(&owner, Owner::current().to_string()).map_err(|error| failed(&error))?;
    if account.name.is_some() {
        for path in [owner.as_path(), folder.path()] {
            std::os::unix::fs::chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
                .map_err(|error| failed(&error))?;
        }
    }
    // From here on the supervisor removes it.
    Ok(folder.keep())
}

/// Removes folders that both their owner and their supervisor left, for example because
/// somebody killed them all.
pub(super) fn sweep(account: &Account) {
    for base in [
        Path::new("/dev/shm"),
        &std::env::temp_dir(),
        Path::new("/tmp"),
    ] {
        let Ok(entries) = fs::read_dir(base) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
                && fs::symlink_metadata(entry.path())
                    .is_ok_and(|meta| meta.is_dir() && meta.uid() == account.uid.as_raw());
            if is_ours && is_abandoned(&entry.path()) {
                kill_server(&entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    let owner = fs::read_to_string(folder.join(OWNER))
        .ok()
        .and_then(|text| Owner::parse(&text));
    owner.is_some_and(|owner| owner.is_gone()) && !is_supervised(folder)
}

/// Whether the supervisor still works there; removing what it works on leaves shared memory.
fn is_supervised(folder: &Path) -> bool {
    let Some(pid) = fs::read_to_string(folder.join(SUPERVISOR))
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
    else {
        return false;
    };
    if nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
        == Err(nix::errno::Errno::ESRCH)
    {
        return false;
    }
    // The number may belong to somebody else by now: a supervisor's command line has the folder.
    // Where the system does not tell, it counts as the supervisor.
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| {
        String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy())
    })
}

/// Ends the Postgres that still runs in an abandoned folder, if it is certainly that one.
fn kill_server(folder: &Path) {
    let data = folder.join("data");
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let mut lines = text.lines();
    let (pid, named) = (lines.next(), lines.next());
    // The number may belong to somebody else by now: its working folder tells.
    let works_there =
        |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    if let (Some(Ok(pid)), Some(named)) = (pid.map(str::parse::<i32>), named)
        && Path::new(named) == data
        && works_there(pid)
    {
        let postmaster = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGQUIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_living_process_is_not_swept() {
        let account = Account::for_postgres().unwrap();
        let folder = Folder::create(&account).unwrap();
        sweep(&account);
        assert!(folder.path.join(OWNER).exists());
        folder.remove();
        assert!(!folder.path.exists());
    }

    #[test]
    fn a_folder_of_a_dead_process_is_swept() {
        let account = Account::for_postgres().unwrap();
        let folder = Folder::create(&account).unwrap();
        let text = folder.read(OWNER).unwrap();
        let pid = format!("pid={}", std::process::id());
        // No process has this number: Linux and macOS end far below.
        fs::write(
            folder.path.join(OWNER),
            text.replace(&pid, "pid=2147483646"),
        )
        .unwrap();
        sweep(&account);
        assert!(!folder.path.exists());
    }

    #[test]
    fn a_folder_whose_supervisor_still_works_is_not_swept() {
        let account = Account::for_postgres().unwrap();
        let folder = Folder::create(&account).unwrap();
        let text = folder.read(OWNER).unwrap();
        let pid = format!("pid={}", std::process::id());
        let dead = text.replace(&pid, "pid=2147483646");
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1/supervisor\"; echo; read -r _", "test"])
            .arg(&folder.path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It has told its number once it says anything.
        let mut said = [0];
        let output = supervisor.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut said).unwrap();
        // Last: the other tests sweep too.
        fs::write(folder.path.join(OWNER), dead).unwrap();
        sweep(&account);
        assert!(folder.path.exists());
        drop(supervisor.stdin.take());
        supervisor.wait().unwrap();
        sweep(&account);
        assert!(!folder.path.exists());
    }

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
