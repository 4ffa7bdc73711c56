//! One server that all processes of a user share while any of them is there.
//!
//! ```text
//! CACHE/servers/KEY            where the server of these programs and settings is
//! CACHE/servers/KEY.lock       held while one is looked for and started
//! FOLDER/life                  a named pipe into the supervisor: the server runs while anybody
//!                              holds it open, and a while longer
//! FOLDER/guard                 a lock that all who are there share; who sweeps must have it alone
//! FOLDER/users/ID              a lock that one process holds: databases named after it are its
//! ```
//!
//! Pipe and locks are the system's: they go with their process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use super::account::Account;
use super::binaries::Binaries;
use super::cluster::Cluster;
use super::folder::{self, Folder};
use super::place::Place;
pub(crate) use super::tcp::Tcp;
use super::{Ground, Process, apart};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::ServerOptions;
use crate::pg::cache::{self, Cache};
use crate::pg::lock::Lock;
use crate::pg::owner::random_hex;

/// What the folder of a shared server is named after; the user, the key and a random part follow.
const PREFIX: &str = "postern-shared-";

const LIFE: &str = "life";
const GUARD: &str = "guard";
/// Holds the path of the cache that it was started from.
const CACHE: &str = "cache";
const CLOSING: &str = "closing";
/// Names the folder of the socket, where it is apart.
const SOCKETS: &str = "sockets";

/// Holds a locked file per process: databases named after it are that process's.
pub(crate) const USERS: &str = "users";
/// Holds a file per template: locked while it is built, touched when it is used.
pub(crate) const TEMPLATES: &str = "templates";
/// Holds a file per database that a failed test kept. The supervisor looks at it.
pub(crate) const KEPT: &str = "kept";
/// Holds a file per database that somebody named. The supervisor looks at it.
pub(crate) const NAMED: &str = "named";

/// How long a server waits for somebody else once nobody is there.
const LINGER_S: u64 = 30;

/// Changes that time, in seconds.
const LINGER_VARIABLE: &str = "POSTERN_LINGER";

/// A test process may have many sessions, and many processes share the server.
const CONNECTIONS_MAX: (&str, &str) = ("max_connections", "1000");

/// How long somebody waits for a supervisor that is making up its mind.
const DECISION_TIMEOUT: Duration = Duration::from_secs(20);

/// A part in a shared server: it runs at least as long as this value lives.
pub(crate) struct Share {
    folder: Folder,
    maintenance: Address,
    /// Names this process on the server.
    user: String,
    summary: String,
    /// The key of the cluster: programs and version.
    programs: String,
    place: Place,
    // In this order: all ends of the life line go before a server of one's own is closed.
    _life_line: File,
    _guard: Lock,
    _user: Lock,
    /// The supervisor of a server of one's own.
    own: Option<Mutex<Process>>,
}

impl Share {
    /// Joins the server of these options, or starts it.
    pub(crate) async fn join(options: &ServerOptions) -> Result<Self> {
        let options = options.clone();
        let found = apart(move || Search::new(&options)?.join()).await?;
        let (pointer, building, started) = match found {
            Found::Running(share) => return Ok(*share),
            Found::Started(pointer, building, started) => (pointer, building, started),
        };
        let (share, mut process) = started.ready().await?;
        cache::write_whole(&pointer, &share.folder.path.to_string_lossy())?;
        drop(building);
        // It stays for others; its supervisor knows when to end it.
        process.is_left_alone = true;
        Ok(share)
    }

    /// Starts a server that nobody else finds. It goes with this value, unless something on it
    /// is marked to be kept.
    ///
    /// With `tcp`, it listens on the loopback interface too.
    pub(crate) async fn own(options: &ServerOptions, tcp: Option<Tcp>) -> Result<Self> {
        let options = options.clone();
        let started = apart(move || {
            let mut search = Search {
                linger_s: 0,
                ..Search::new(&options)?
            };
            search.prepare()?;
            search.tcp = tcp;
            search.start()
        })
        .await?;
        let (mut share, process) = started.ready().await?;
        share.summary = format!("own {}", share.summary);
        share.own = Some(Mutex::new(process));
        Ok(share)
    }

    fn new(
        folder: Folder,
        place: Place,
        life_line: File,
        guard: Lock,
        summary: String,
        programs: &str,
    ) -> Result<Self> {
        let user = random_hex()[..10].to_owned();
        let held = Lock::create(&folder.path.join(USERS).join(&user))?;
        Ok(Self {
            maintenance: folder.address(),
            folder,
            user,
            summary,
            programs: programs.to_owned(),
            place,
            _life_line: life_line,
            _guard: guard,
            _user: held,
            own: None,
        })
    }

    pub(crate) fn maintenance(&self) -> &Address {
        &self.maintenance
    }

    pub(crate) fn summary(&self) -> &str {
        &self.summary
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.path
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.place.is_in_memory
    }

    /// What decides how fast databases are copied: the programs and the disk.
    pub(crate) fn speed_key(&self) -> String {
        let base = self.place.base.as_os_str().as_encoded_bytes();
        cache::key([self.programs.as_bytes(), base])
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(own) = self.own.take() else {
            return;
        };
        let mut process = own.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut kept = [KEPT, NAMED]
            .map(|name| self.folder.path.join(name))
            .into_iter();
        process.is_left_alone =
            kept.any(|marks| fs::read_dir(marks).is_ok_and(|mut marks| marks.next().is_some()));
    }
}

/// A server that has been started and has yet to answer.
struct Started {
    share: Share,
    process: Process,
}

impl Started {
    async fn ready(self) -> Result<(Share, Process)> {
        // In this order: on an error the share goes before the process that waits for its end.
        let mut process = self.process;
        let share = self.share;
        process.wait_until_ready(&share.maintenance).await?;
        // From here on the supervisor waits for others.
        let mark = share.folder.path.join("shared");
        fs::write(&mark, "").map_err(|error| failed("write", &mark, &error))?;
        Ok((share, process))
    }
}

enum Found {
    Running(Box<Share>),
    Started(PathBuf, Lock, Box<Started>),
}

struct Search {
    ground: Ground,
    cluster: Cluster,
    settings: Vec<(String, String)>,
    tcp: Option<Tcp>,
    linger_s: u64,
    key: String,
    servers: PathBuf,
}

impl Search {
    fn new(options: &ServerOptions) -> Result<Self> {
        let ground = Ground::find(options)?;
        let cache = Cache::open()?;
        let cluster = Cluster::obtain(&ground.binaries, &ground.account, &ground.place)?;
        let linger_s = linger_s()?;
        let mut settings = vec![(CONNECTIONS_MAX.0.to_owned(), CONNECTIONS_MAX.1.to_owned())];
        settings.extend(options.settings.iter().cloned());
        // Another cache, another server: the locks that guard its start are there.
        let root = cache.root().as_os_str().as_encoded_bytes();
        // What was asked for by name counts; what there is room for changes.
        let base = match ground.place.is_named {
            true => ground.place.base.as_os_str().as_encoded_bytes(),
            false => b"",
        };
        let supervisor = super::SUPERVISOR.as_bytes();
        let parts = [cluster.key.as_bytes(), root, base, supervisor];
        let told = settings
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let key = cache::key(parts.into_iter().chain(told));
        Ok(Self {
            servers: cache.folder("servers")?,
            ground,
            cluster,
            settings,
            tcp: None,
            linger_s,
            key,
        })
    }

    fn join(self) -> Result<Found> {
        let pointer = self.servers.join(&self.key);
        if let Some(share) = self.attach(&pointer)? {
            return Ok(Found::Running(Box::new(share)));
        }
        let building = Lock::exclusive(&self.servers.join(format!("{}.lock", self.key)))?;
        if let Some(share) = self.attach(&pointer)? {
            return Ok(Found::Running(Box::new(share)));
        }
        self.prepare()?;
        let started = self.start()?;
        Ok(Found::Started(pointer, building, Box::new(started)))
    }

    fn prepare(&self) -> Result<()> {
        self.ground.binaries.check_runs_as(&self.ground.account)?;
        folder::sweep(&self.ground.place, &self.ground.account);
        sweep(&self.ground.place, &self.ground.account);
        Ok(())
    }

    /// A part in the server that the pointer names, if that runs.
    fn attach(&self, pointer: &Path) -> Result<Option<Share>> {
        let Ok(named) = fs::read_to_string(pointer) else {
            return Ok(None);
        };
        let path = PathBuf::from(named);
        // Anybody may make a folder of that name on a RAM disk.
        if !self.ground.account.owns(&path) {
            return Ok(None);
        }
        let Some((life_line, guard)) = hold(&path)? else {
            return Ok(None);
        };
        let folder = located(path);
        if !folder.is_listening() {
            // Somebody killed it under its supervisor.
            return Ok(None);
        }
        self.share(folder, life_line, guard).map(Some)
    }

    fn share(&self, folder: Folder, life_line: File, guard: Lock) -> Result<Share> {
        let place = Place::of(&folder.path);
        let summary = format!("shared {}", self.ground.summary_in(&place));
        Share::new(folder, place, life_line, guard, summary, &self.cluster.key)
    }

    /// A new server, of which nobody else knows yet.
    fn start(&self) -> Result<Started> {
        let account = &self.ground.account;
        let prefix = format!("{PREFIX}{}-{}-", cache::user(), self.key);
        let path = folder::make(&self.ground.place.base, &prefix, account)?;
        let guard = Lock::create_shared(&path.join(GUARD));
        let made = guard.and_then(|guard| Ok((lay_out(&path, account)?, guard)));
        let (mut folder, guard) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                return Err(error);
            }
        };
        let cache = folder.path.join(CACHE);
        fs::write(
            &cache,
            self.servers
                .parent()
                .unwrap_or(&self.servers)
                .as_os_str()
                .as_encoded_bytes(),
        )
        .map_err(|error| failed("write", &cache, &error))?;
        if !folder.fits_socket() {
            folder.sockets = apart_sockets(&folder, account)?;
        }
        let life = folder.path.join(LIFE);
        let failed = |error: &std::io::Error| failed("open", &life, error);
        // A reader first, or there is nobody to write to.
        let reader = open(&life, false).map_err(|error| failed(&error))?;
        let writer = open(&life, true).map_err(|error| failed(&error))?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).map_err(|error| failed(&error.into()))?;
        let linger = Some(self.linger_s);
        let mut settings = self.settings.clone();
        if let Some(tcp) = &self.tcp {
            settings.extend(tcp.set_up(&folder, account)?);
        }
        let mut process = Process::spawn(
            &self.ground,
            folder.clone(),
            Stdio::from(reader),
            linger,
            &settings,
        )?;
        let told = writer.try_clone().map_err(|error| failed(&error))?;
        process.fill(&self.cluster, account, Some(told))?;
        let share = self.share(folder, writer, guard)?;
        Ok(Started { share, process })
    }
}

/// What a folder holds beside the data.
fn lay_out(path: &Path, account: &Account) -> Result<Folder> {
    let failed = |path: &Path, error: &std::io::Error| failed("make", path, error);
    for name in [USERS, TEMPLATES, KEPT, NAMED] {
        let inner = path.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&inner);
        made.and_then(|()| account.give(&inner))
            .map_err(|error| failed(&inner, &error))?;
    }
    let life = path.join(LIFE);
    nix::unistd::mkfifo(&life, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(std::io::Error::from)
        .and_then(|()| account.give(&life))
        .map_err(|error| failed(&life, &error))?;
    Ok(Folder {
        sockets: path.to_owned(),
        path: path.to_owned(),
    })
}

/// A shorter folder for the socket, written down before it is made.
fn apart_sockets(folder: &Folder, account: &Account) -> Result<PathBuf> {
    let sockets = Path::new("/tmp").join(format!("postern-socket-{}", random_hex()));
    let note = folder.path.join(SOCKETS);
    fs::write(&note, sockets.to_string_lossy().as_bytes())
        .and_then(|()| fs::DirBuilder::new().mode(0o700).create(&sockets))
        .and_then(|()| account.give(&sockets))
        .map_err(|error| failed("make", &sockets, &error))?;
    Ok(sockets)
}

fn located(path: PathBuf) -> Folder {
    let apart = fs::read_to_string(path.join(SOCKETS)).ok();
    Folder {
        sockets: apart.map_or_else(|| path.clone(), PathBuf::from),
        path,
    }
}

/// The life line and the guard of a server that runs and will go on running.
///
/// Whoever joins holds the pipe, writes a line, and then looks for the mark that the server is
/// closing; the supervisor sets the mark and then looks for a line. At least one sees the other.
fn hold(path: &Path) -> Result<Option<(File, Lock)>> {
    let Some(guard) = Lock::shared_if_present(&path.join(GUARD)) else {
        return Ok(None);
    };
    let life = path.join(LIFE);
    let Ok(mut life_line) = open(&life, true) else {
        return Ok(None);
    };
    // A pipe that is full of lines says enough.
    let _ = std::io::Write::write_all(&mut life_line, b"\n");
    let begun = Instant::now();
    while path.join(CLOSING).exists() {
        // Without a reader this fails: the supervisor is gone.
        if open(&life, true).is_err() {
            return Ok(None);
        }
        if begun.elapsed() > DECISION_TIMEOUT {
            let sentence = format!("the shared server in `{}` does not close", path.display());
            return Err(Error::new(ErrorKind::Engine, sentence)
                .help("run `postern db sweep`, or remove that folder"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let is_there = life.exists() && !path.join("ended").exists();
    Ok(is_there.then_some((life_line, guard)))
}

/// Opens a named pipe at once or not at all.
fn open(life: &Path, is_writer: bool) -> std::io::Result<File> {
    OpenOptions::new()
        .read(!is_writer)
        .write(is_writer)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(life)
}

/// Removes the folders of shared servers that nobody is in and that nobody supervises, for
/// example because somebody killed them all.
fn sweep(place: &Place, account: &Account) {
    for path in folders(place, account) {
        if is_supervised(&path) {
            continue;
        }
        let guard = path.join(GUARD);
        let Some(_alone) = Lock::try_exclusive(&guard) else {
            // Without a guard its maker was killed at once, or has not come to it yet.
            if !guard.exists() && folder::is_older_than(&path, folder::UNSIGNED_TIME) {
                let _ = fs::remove_dir(&path);
            }
            continue;
        };
        folder::kill_server(&path);
        let located = located(path.clone());
        if located.sockets != path && account.owns(&located.sockets) {
            let _ = fs::remove_dir_all(&located.sockets);
        }
        let _ = fs::remove_dir_all(&path);
    }
}

/// Whether somebody reads the life line. A number in a file would prove less: it may belong to
/// another process by now.
fn is_supervised(path: &Path) -> bool {
    open(&path.join(LIFE), true).is_ok()
}

/// This user's folders of shared servers.
fn folders(place: &Place, account: &Account) -> Vec<PathBuf> {
    let prefix = format!("{PREFIX}{}-", cache::user());
    place
        .all()
        .into_iter()
        .filter_map(|base| fs::read_dir(base).ok())
        .flat_map(|entries| entries.filter_map(std::result::Result::ok))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .filter(|path| account.owns(path))
        .collect()
}

/// Whether there are Postgres programs here, or somebody said which to use.
pub(crate) fn has_programs(options: &ServerOptions) -> bool {
    options.bin_dir.is_some() || Binaries::is_named() || Binaries::find_again(None).is_ok()
}

/// A part in every server of this user and this cache that runs, after what nobody uses was
/// removed.
#[cfg(feature = "cli")]
pub(crate) fn visit_all(options: &ServerOptions) -> Result<Vec<Share>> {
    let account = Account::for_postgres()?;
    let place = Place::choose(options.data_dir.as_deref(), &account)?;
    folder::sweep(&place, &account);
    sweep(&place, &account);
    let root = Cache::open()?.root().to_owned();
    let mut paths = folders(&place, &account);
    paths
        .retain(|path| fs::read_to_string(path.join(CACHE)).is_ok_and(|it| Path::new(&it) == root));
    paths.sort();
    let mut shares = Vec::new();
    for path in paths {
        if let Some((life_line, guard)) = hold(&path)? {
            let place = Place::of(&path);
            let summary = format!("data in {place}");
            let folder = located(path);
            // Somebody may have killed it under its supervisor.
            if folder.is_listening() {
                shares.push(Share::new(folder, place, life_line, guard, summary, "")?);
            }
        }
    }
    Ok(shares)
}

fn linger_s() -> Result<u64> {
    let Some(text) = std::env::var_os(LINGER_VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(LINGER_S);
    };
    let text = text.to_string_lossy();
    text.parse().map_err(|_| {
        Error::usage(format!(
            "{LINGER_VARIABLE} is `{text}`, which is no number of seconds"
        ))
        .help(format!("leave it unset for {LINGER_S}"))
    })
}

pub(super) fn failed(action: &str, path: &Path, error: &std::io::Error) -> Error {
    let failed = Error::io(action, path, error).with_kind(ErrorKind::Engine);
    match error.raw_os_error() {
        Some(nix::libc::ENOSPC) => failed.help(super::help_for_room(path)),
        _ => failed,
    }
}
