//! The `local` engine: private, and gone whatever ends its owner.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postern::pg::{EngineChoice, Server, ServerOptions};

use super::{number, owner, run};
use crate::support::local;

fn folder(server: &Server) -> PathBuf {
    // The socket's folder is private to this server.
    let describe = server.describe();
    assert!(describe.starts_with("local PostgreSQL"), "{describe}");
    server
        .maintenance()
        .options()
        .get_socket()
        .cloned()
        .expect("a private server is reached through a socket")
}

/// Waits until the folder is gone; the supervisor works after its owner's end.
#[track_caller]
fn assert_goes(folder: &Path) {
    let begun = Instant::now();
    while folder.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} is still there",
            folder.display()
        );
        std::thread::yield_now();
    }
}

/// The process that runs Postgres in that folder.
fn postmaster(folder: &Path) -> i32 {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn is_running(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

#[tokio::test]
async fn postgres_never_runs_as_root() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::start(&local()).await.unwrap();
    let folder = folder(&server);
    let meta = std::fs::metadata(&folder).unwrap();
    assert_ne!(meta.uid(), 0);
    assert_eq!(meta.mode() & 0o777, 0o700, "others may not enter");
    let is_root = nix::unistd::Uid::effective().is_root();
    assert_eq!(
        server.describe().contains("because Postgres refuses root"),
        is_root,
        "{}",
        server.describe()
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_server_leaves_nothing() {
    let server = Server::start(&local()).await.unwrap();
    let folder = folder(&server);
    let pid = postmaster(&folder);
    let database = server.create_database("x").await.unwrap();
    // A session in use does not keep the server alive.
    let mut session = database.connect().await.unwrap();
    assert_eq!(number(&mut session, "select 1::bigint").await, 1);
    server.stop().await.unwrap();
    assert!(!folder.exists());
    assert!(!is_running(pid));
}

#[tokio::test]
async fn a_panic_leaves_nothing() {
    let server = Server::start(&local()).await.unwrap();
    let folder = folder(&server);
    let pid = postmaster(&folder);
    let task = tokio::spawn(async move {
        let _held = server;
        panic!("the test's own panic");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(!folder.exists());
    assert!(!is_running(pid));
}

#[test]
fn a_server_dropped_outside_any_runtime_leaves_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(&local())).unwrap();
    drop(runtime);
    let folder = folder(&server);
    drop(server);
    assert!(!folder.exists());
}

/// Private folders that this process made and that exist now.
fn own_folders() -> Vec<PathBuf> {
    let own = format!(" pid={} ", std::process::id());
    [Path::new("/dev/shm"), &std::env::temp_dir()]
        .into_iter()
        .filter_map(|base| std::fs::read_dir(base).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            std::fs::read_to_string(path.join("owner")).is_ok_and(|owner| owner.contains(&own))
        })
        .collect()
}

#[test]
fn a_start_given_up_halfway_leaves_nothing() {
    // In a process of its own, where no other test makes folders.
    let mut owner = owner("give up");
    assert_eq!(owner.told, "none");
    assert!(owner.process.wait().unwrap().success());
}

pub(super) async fn give_up_at_several_moments() {
    for ms in [1, 20, 80, 200, 400] {
        let options = local();
        // Not a wait for something to happen: the moment of giving up is what varies.
        let _ = tokio::time::timeout(Duration::from_millis(ms), Server::start(&options)).await;
    }
    let begun = Instant::now();
    while !own_folders().is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{:?}",
            own_folders()
        );
        std::thread::yield_now();
    }
    println!("\ntold none");
}

/// The child's side of the tests below.
pub(super) async fn tell_folder() -> Server {
    let server = Server::start(&local()).await.unwrap();
    println!("\ntold {}", folder(&server).display());
    server
}

#[test]
fn sigkill_of_the_owner_leaves_nothing() {
    let mut owner = owner("wait");
    let pid = postmaster(owner.folder());
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    assert_goes(owner.folder());
    assert!(!is_running(pid));
}

#[test]
fn a_terminals_ctrl_c_leaves_nothing() {
    let mut owner = owner("wait");
    let pid = postmaster(owner.folder());
    let process = nix::unistd::Pid::from_raw(i32::try_from(owner.process.id()).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    owner.process.wait().unwrap();
    assert_goes(owner.folder());
    assert!(!is_running(pid));
}

#[test]
fn a_server_in_a_static_goes_with_its_process() {
    let mut owner = owner("exit");
    assert!(owner.process.wait().unwrap().success());
    assert_goes(owner.folder());
}

#[tokio::test]
async fn a_wrong_folder_for_the_programs_is_said_plainly() {
    let empty = tempfile::tempdir().unwrap();
    let error = Server::start(&ServerOptions {
        bin_dir: Some(empty.path().to_owned()),
        ..local()
    })
    .await
    .unwrap_err();
    let shown = error.render(false);
    assert!(
        shown.contains("holds no `initdb` and no `postgres`"),
        "{shown}"
    );
    assert!(shown.contains(&*empty.path().to_string_lossy()), "{shown}");
    assert!(
        error
            .help_text()
            .is_some_and(|help| help.contains("POSTERN_PG_BIN"))
    );
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_shown_in_its_own_words() {
    let error = Server::start(&ServerOptions {
        settings: vec![("shared_buffers".into(), "a lot".into())],
        ..local()
    })
    .await
    .unwrap_err();
    let shown = error.render(false);
    assert!(
        shown.contains("invalid value for parameter \"shared_buffers\""),
        "{shown}"
    );
}

#[tokio::test]
async fn settings_reach_the_server() {
    let server = Server::start(&ServerOptions {
        settings: vec![
            ("work_mem".into(), "7MB".into()),
            // Postern's own setting gives way.
            ("autovacuum".into(), "on".into()),
        ],
        ..local()
    })
    .await
    .unwrap();
    assert_eq!(server.engine(), EngineChoice::Local);
    let database = server.create_database("settings").await.unwrap();
    let mut session = database.connect().await.unwrap();
    let (work_mem, autovacuum): (String, String) =
        sqlx::query_as("select current_setting('work_mem'), current_setting('autovacuum')")
            .fetch_one(&mut session)
            .await
            .unwrap();
    assert_eq!((work_mem.as_str(), autovacuum.as_str()), ("7MB", "on"));
    run(&mut session, "create table t (x int)").await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn letters_beyond_ascii_have_upper_and_lower_case() {
    let database = crate::support::database().await;
    let mut session = database.connect().await.unwrap();
    let lower: String = sqlx::query_scalar("select lower('ÄÖÜ')")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(lower, "äöü");
}
