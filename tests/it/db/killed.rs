//! Whatever is killed at whatever moment: the next run works, and nothing stays.

use std::path::Path;
use std::time::{Duration, Instant};

use postern::{Migrations, TestDb};

use super::sandbox::{Running, Sandbox};
use super::{PLAYERS, add_player, migrations, players};

/// How often processes are killed; more of it by hand.
const KILLS: &str = "POSTERN_TEST_KILLS";

fn kills() -> u64 {
    std::env::var(KILLS).map_or(10, |text| text.parse().unwrap())
}

/// The child's side: templates, clones, copies ahead, one after another until it is killed.
pub(super) async fn churn() {
    for round in 0.. {
        let recipe = format!("{PLAYERS} -- {} {}", std::process::id(), round / 3);
        let db = TestDb::builder(Migrations::sql(recipe))
            .warm(1)
            .build()
            .await
            .unwrap();
        add_player(&db, 1).await;
        assert_eq!(players(&db).await, 1);
    }
}

/// The child's side: one database, in use until its server ends.
pub(super) async fn hold() {
    let db = TestDb::new(migrations()).await.unwrap();
    println!("\ntold");
    sqlx::query("select pg_sleep(3600)")
        .execute(db.pool())
        .await
        .unwrap();
}

fn kill(mut child: Running) {
    child.0.kill().unwrap();
    child.0.wait().unwrap();
}

/// Databases on a server that belong to nobody any more.
fn abandoned(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.postern(&["db", "list"]);
    listed
        .lines()
        .filter(|line| line.contains("abandoned") || line.contains("in use"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn processes_that_are_killed_leave_nothing() {
    let sandbox = Sandbox::new();
    let mut moment = 7_u64;
    for _ in 0..kills() {
        let [one, two] = [(); 2].map(|()| sandbox.child("churn"));
        // Not a wait for something to happen: the moment of the kill is what varies. Starting
        // the server, building, copying and dropping all lie within this time.
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis((moment >> 33) % 700));
        kill(one);
        // The other one lives: it is not swept, and finds what it needs.
        sandbox.child("where").told();
        kill(two);
        assert!(
            sandbox
                .child("where")
                .told()
                .ends_with(|c: char| c.is_ascii_digit())
        );
    }
    // One that holds the server while others sweep.
    let holder = sandbox.child("churn");
    sandbox.child("where").told();
    kill(holder);
    sandbox.postern(&["db", "sweep"]);
    let left = abandoned(&sandbox);
    assert!(left.is_empty(), "{left:?}");
    sandbox.assert_goes();
}

/// The process that runs in a folder, by the file in which it tells its number.
fn kill_named(file: &Path) {
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    if let Some(Ok(pid)) = text.lines().next().map(str::parse) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

#[test]
fn a_server_and_its_supervisor_that_are_killed_are_replaced_and_swept() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.child("hold");
    holder.tells();
    let folders = sandbox.folders();
    assert_eq!(folders.len(), 1, "{folders:?}");
    kill_named(&folders[0].join("supervisor"));
    kill_named(&folders[0].join("data/postmaster.pid"));
    // It fails without its server.
    assert!(!holder.output().status.success());
    sandbox.child("where").told();
    // What is left of the first one's supervisor goes first, then the folder, by the next sweep.
    let begun = Instant::now();
    while folders[0].exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{folders:?}");
        sandbox.postern(&["db", "sweep"]);
    }
    sandbox.assert_goes();
}

#[test]
fn a_server_whose_folder_is_removed_ends() {
    let sandbox = Sandbox::new();
    // Named: nobody is there, and still it runs.
    sandbox.postern(&["db", "--name", "dev"]);
    let folder = sandbox.folders().pop().unwrap();
    let number = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let first = text.lines().next().unwrap();
        nix::unistd::Pid::from_raw(first.parse().unwrap())
    };
    let processes = [number("supervisor"), number("data/postmaster.pid")];
    std::fs::remove_dir_all(&folder).unwrap();
    // Postgres itself looks for its folder once a minute. It may have been ended already.
    let _ = nix::sys::signal::kill(processes[1], nix::sys::signal::Signal::SIGKILL);
    let begun = Instant::now();
    let runs = |process: &nix::unistd::Pid| nix::sys::signal::kill(*process, None).is_ok();
    while processes.iter().any(runs) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{processes:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_a_restart_of_the_machine_leaves_confuses_nobody() {
    let sandbox = Sandbox::new();
    sandbox.child("where").told();
    sandbox.assert_goes();
    // The pointer leads to a folder that was in memory, or to one that nobody supervises.
    let pointer = std::fs::read_dir(sandbox.cache.path().join("servers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_none())
        .unwrap();
    let gone = std::path::PathBuf::from(std::fs::read_to_string(&pointer).unwrap());
    sandbox.child("where").told();
    sandbox.assert_goes();
    std::fs::create_dir_all(gone.join("data")).unwrap();
    std::fs::set_permissions(&gone, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        let account = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        nix::unistd::chown(&gone, Some(account.uid), Some(account.gid)).unwrap();
    }
    std::fs::write(gone.join("guard"), "").unwrap();
    nix::unistd::mkfifo(&gone.join("life"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(&pointer, gone.to_string_lossy().as_bytes()).unwrap();
    sandbox.child("where").told();
    assert!(!gone.exists(), "{}", gone.display());
    sandbox.assert_goes();
}

/// The child's side: as many databases as it is told, each alone.
pub(super) async fn many() {
    let count: i32 = std::env::var("POSTERN_TEST_COUNT")
        .unwrap()
        .parse()
        .unwrap();
    for id in 0..count {
        let db = TestDb::new(migrations()).await.unwrap();
        assert_eq!(players(&db).await, 0, "somebody else was here");
        add_player(&db, id).await;
        assert_eq!(players(&db).await, 1);
    }
    println!("\ntold {count}");
}

#[test]
fn many_processes_at_once_each_have_their_own() {
    let sandbox = Sandbox::new();
    let children: Vec<Running> = (0..12)
        .map(|_| {
            let process = sandbox
                .command(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "db::a_process_that_uses_databases",
                    "--nocapture",
                ])
                .env("POSTERN_TEST_DB", "many")
                .env("POSTERN_TEST_COUNT", "5")
                .spawn()
                .unwrap();
            Running(process)
        })
        .collect();
    for child in children {
        assert_eq!(child.told(), "5");
    }
    sandbox.assert_goes();
}
