//! The private folder of a local server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::Account;
use super::place::{Place, help_for_room};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::owner::Owner;

const PREFIX: &str = "postern-";

/// Names the folder's owner, for the sweep of a later run.
const OWNER: &str = "owner";

/// Holds the number of the supervisor's process.
const SUPERVISOR: &str = "supervisor";

/// Between making a folder and signing it lie microseconds.
pub(super) const UNSIGNED_TIME: Duration = Duration::from_secs(60);

/// The shortest limit of a socket's path among the systems (macOS; Linux has 108).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// What Postgres appends to the socket folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// A folder that only its account may enter.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Where the socket is: the folder itself, or a shorter one beside it.
    pub(super) sockets: PathBuf,
}

impl Folder {
    /// A folder that belongs to this process.
    pub(super) fn create_in(place: &Place, account: &Account) -> Result<Self> {
        let path = make(&place.base, PREFIX, account)?;
        let mut folder = Self {
            sockets: path.clone(),
            path,
        };
        let prepared = folder.sign(account).and_then(|()| {
            if !folder.fits_socket() {
                folder.sockets = make(Path::new("/tmp"), PREFIX, account)?;
                sign(&folder.sockets, account)?;
            }
            Ok(())
        });
        match prepared {
            Ok(()) => Ok(folder),
            Err(error) => {
                folder.remove();
                Err(error)
            }
        }
    }

    fn sign(&self, account: &Account) -> Result<()> {
        sign(&self.path, account)
    }

    pub(super) fn base(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Whether the system takes the path of a socket in it.
    pub(super) fn fits_socket(&self) -> bool {
        self.socket().as_os_str().len() <= SOCKET_PATH_BYTES_MAX
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.sockets.join(SOCKET)
    }

    pub(super) fn has_socket(&self) -> bool {
        self.socket().exists()
    }

    /// Whether somebody answers at the socket. One that is too busy to answer is there.
    pub(super) fn is_listening(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match UnixStream::connect(self.socket()) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ConnectionRefused | NotFound),
        }
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

fn failed(base: &Path, error: &std::io::Error) -> Error {
    let failed = Error::io("make a private folder in", base, error).with_kind(ErrorKind::Engine);
    match error.raw_os_error() {
        Some(nix::libc::ENOSPC) => failed.help(help_for_room(base)),
        _ => failed,
    }
}

/// Makes an empty folder that only the account may enter.
pub(super) fn make(base: &Path, prefix: &str, account: &Account) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| failed(base, error);
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(base)
        .map_err(|error| failed(&error))?;
    account
        .give(folder.path())
        .map_err(|error| failed(&error))?;
    // From here on its supervisor removes it.
    Ok(folder.keep())
}

/// Writes down whose folder it is.
fn sign(folder: &Path, account: &Account) -> Result<()> {
    let owner = folder.join(OWNER);
    fs::write(&owner, Owner::current().to_string())
        .and_then(|()| account.give(&owner))
        .map_err(|error| failed(folder, &error))
}

/// Removes folders that both their owner and their supervisor left, for example because
/// somebody killed them all.
pub(super) fn sweep(place: &Place, account: &Account) {
    for base in place.all() {
        let Ok(entries) = fs::read_dir(base) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
                && account.owns(&entry.path());
            if !is_ours {
                continue;
            }
            if is_abandoned(&entry.path()) {
                kill_server(&entry.path());
                let _ = fs::remove_dir_all(entry.path());
            } else if is_older_than(&entry.path(), UNSIGNED_TIME) {
                // Its maker was killed before it could sign. This fails unless it is empty.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Whether nothing was made or removed in a folder for this long.
pub(super) fn is_older_than(path: &Path, age: Duration) -> bool {
    fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|then| then.elapsed().is_ok_and(|passed| passed > age))
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
pub(super) fn kill_server(folder: &Path) {
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
        let place = Place::choose(None, &account).unwrap();
        let folder = Folder::create_in(&place, &account).unwrap();
        sweep(&place, &account);
        assert!(folder.path.join(OWNER).exists());
        folder.remove();
        assert!(!folder.path.exists());
    }

    #[test]
    fn a_folder_of_a_dead_process_is_swept() {
        let account = Account::for_postgres().unwrap();
        let place = Place::choose(None, &account).unwrap();
        let folder = Folder::create_in(&place, &account).unwrap();
        let text = folder.read(OWNER).unwrap();
        let pid = format!("pid={}", std::process::id());
        // No process has this number: Linux and macOS end far below.
        fs::write(
            folder.path.join(OWNER),
            text.replace(&pid, "pid=2147483646"),
        )
        .unwrap();
        sweep(&place, &account);
        assert!(!folder.path.exists());
    }

    #[test]
    fn a_folder_whose_supervisor_still_works_is_not_swept() {
        let account = Account::for_postgres().unwrap();
        let place = Place::choose(None, &account).unwrap();
        let folder = Folder::create_in(&place, &account).unwrap();
        let text = folder.read(OWNER).unwrap();
        let pid = format!("pid={}", std::process::id());
        let dead = text.replace(&pid, "pid=2147483646");
        let mut supervisor = std::process::Command::new("/bin/sh")
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
        sweep(&place, &account);
        assert!(folder.path.exists());
        drop(supervisor.stdin.take());
        supervisor.wait().unwrap();
        sweep(&place, &account);
        assert!(!folder.path.exists());
    }
}
