//! What a database of one's own costs, beside what it would cost by hand, in one run.
//!
//! `cargo bench --bench db`, or `cargo bench --bench db -- ROUNDS`. Ratios are what counts: every
//! pair is measured in turns, and medians are compared. Containers take part where
//! `POSTERN_DOCKER_IMAGE` names an image that is there.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[cfg(unix)]
mod measure {
    use std::fmt::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use postern::migrate::{History, Replayer};
    use postern::pg::{EngineChoice, Server, ServerOptions};
    use postern::sql;
    use postern::sql::Ident;
    use postern::{Migrations, TestDb};
    use sqlx::postgres::{PgConnectOptions, PgConnection};
    use sqlx::{ConnectOptions, Connection};

    const TABLES: usize = 50;

    pub(crate) async fn all(rounds: usize) {
        let folder = migrations();
        let disk = disk();
        for (name, data_dir) in [("RAM disk", None), ("disk", Some(disk.path().to_owned()))] {
            let options = ServerOptions {
                engine: EngineChoice::Local,
                data_dir,
                ..ServerOptions::default()
            };
            println!("\n{name}, {TABLES} tables, medians of {rounds} rounds");
            clones(folder.path(), &options, rounds).await;
            servers(&options, rounds).await;
        }
        println!("\nper test, from nothing to the first answer, RAM disk");
        side_by_side(folder.path(), rounds).await;
        println!("\nfirst ever run on a machine: nothing kept, initdb and measuring included");
        first(folder.path());
    }

    /// The child's side of `first`.
    pub(crate) async fn first_run(folder: &Path) {
        let begun = Instant::now();
        let db = TestDb::new(Migrations::folder(folder)).await.unwrap();
        answer(db.pool()).await;
        row("one database", begun.elapsed(), None);
        let begun = Instant::now();
        let db = TestDb::new(Migrations::folder(folder)).await.unwrap();
        answer(db.pool()).await;
        row("the next one", begun.elapsed(), None);
    }

    fn first(folder: &Path) {
        let cache = tempfile::tempdir().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .arg("first")
            .arg(folder)
            .env("POSTERN_CACHE", cache.path())
            .env("POSTERN_LINGER", "0")
            .status()
            .unwrap();
        assert!(status.success());
    }

    async fn clones(folder: &Path, options: &ServerOptions, rounds: usize) {
        let recipe = || TestDb::builder(Migrations::folder(folder)).server(options.clone());
        let one = recipe().build().await.unwrap();
        println!("  {}", one.server());
        let mut session = maintenance(&one).await;
        let template: String = sqlx::query_scalar(
            "select datname::text from pg_database where datistemplate and datname like 'postern%' \
             order by oid desc limit 1",
        )
        .fetch_one(&mut session)
        .await
        .unwrap();
        let [mut file_copy, mut wal_log, mut ours, mut drops] = [(); 4].map(|()| Vec::new());
        for _ in 0..rounds {
            for (times, strategy) in [
                (&mut file_copy, sql!("file_copy")),
                (&mut wal_log, sql!("wal_log")),
            ] {
                let create = sql!(
                    "create database by_hand template {} strategy {}",
                    Ident::new(&*template),
                    strategy
                );
                let begun = Instant::now();
                sqlx::query(create).execute(&mut session).await.unwrap();
                times.push(begun.elapsed());
                sqlx::query("drop database by_hand")
                    .execute(&mut session)
                    .await
                    .unwrap();
            }
            let begun = Instant::now();
            let db = recipe().build().await.unwrap();
            ours.push(begun.elapsed());
            answer(db.pool()).await;
            let begun = Instant::now();
            drop(db);
            drops.push(begun.elapsed());
        }
        let best = median(&mut file_copy).min(median(&mut wal_log));
        row("CREATE DATABASE, file_copy", median(&mut file_copy), None);
        row("CREATE DATABASE, wal_log", median(&mut wal_log), None);
        row(
            "TestDb",
            median(&mut ours),
            Some((best, "the best raw one")),
        );
        row("dropping a TestDb that was used", median(&mut drops), None);
        let mut warm = Vec::new();
        for _ in 0..rounds {
            // Ready copies, as there are while tests do something else.
            let held = recipe().warm(1).build().await.unwrap();
            wait_for_warm(&mut session).await;
            let begun = Instant::now();
            let db = recipe().warm(1).build().await.unwrap();
            warm.push(begun.elapsed());
            drop((held, db));
        }
        row("TestDb, copied ahead", median(&mut warm), None);
    }

    async fn wait_for_warm(session: &mut PgConnection) {
        const ASK: &str = "select count(*) from pg_database where datname like 'postern\\_w\\_%'";
        while sqlx::query_scalar::<_, i64>(ASK)
            .fetch_one(&mut *session)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
    }

    async fn servers(options: &ServerOptions, rounds: usize) {
        let hand = ByHand::prepare(options).await;
        let [mut ours, mut theirs] = [(); 2].map(|()| Vec::new());
        for _ in 0..rounds {
            theirs.push(hand.run().await);
            let begun = Instant::now();
            let server = Server::start(options).await.unwrap();
            let mut session = server.maintenance().options().connect().await.unwrap();
            select_one(&mut session).await;
            ours.push(begun.elapsed());
            drop(session);
            server.stop().await.unwrap();
        }
        let by_hand = median(&mut theirs);
        row(
            "private server by hand: copy, exec, first query",
            by_hand,
            None,
        );
        row(
            "private server",
            median(&mut ours),
            Some((by_hand, "by hand")),
        );
    }

    /// A server as one would start it in a script: `cp -a`, `postgres`, ask until it answers.
    struct ByHand {
        folder: tempfile::TempDir,
        postgres: PathBuf,
        user: Option<nix::unistd::User>,
    }

    impl ByHand {
        async fn prepare(options: &ServerOptions) -> Self {
            let base = options.data_dir.clone().unwrap_or("/dev/shm".into());
            let folder = tempfile::tempdir_in(base).unwrap();
            let server = Server::start(options).await.unwrap();
            let described = server.describe().to_owned();
            server.stop().await.unwrap();
            let (_, rest) = described.split_once(" from ").unwrap();
            let bin = PathBuf::from(rest.split_once(", data in").unwrap().0);
            let is_root = nix::unistd::Uid::effective().is_root();
            let user = is_root
                .then(|| nix::unistd::User::from_name("postgres").unwrap())
                .flatten();
            let hand = Self {
                postgres: bin.join("postgres"),
                folder,
                user,
            };
            std::fs::set_permissions(&hand.folder, PermissionsExt::from_mode(0o777)).unwrap();
            let status = hand
                .command(&bin.join("initdb"))
                .args([
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "--no-sync",
                    "--wal-segsize=1",
                    "-D",
                ])
                .arg(hand.folder.path().join("made"))
                .status()
                .unwrap();
            assert!(status.success());
            hand
        }

        fn command(&self, program: &Path) -> Command {
            let mut command = Command::new(program);
            if let Some(user) = &self.user {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            command
                .current_dir("/")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        }

        async fn run(&self) -> Duration {
            let data = self.folder.path().join("data");
            let begun = Instant::now();
            let copied = Command::new("cp")
                .arg("-a")
                .arg(self.folder.path().join("made"))
                .arg(&data)
                .status()
                .unwrap();
            assert!(copied.success());
            let mut child: Child = self
                .command(&self.postgres)
                .arg("-D")
                .arg(&data)
                .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
                .arg(self.folder.path())
                .spawn()
                .unwrap();
            let options = PgConnectOptions::new_without_pgpass()
                .socket(self.folder.path())
                .username("postgres");
            let mut session = loop {
                match options.connect().await {
                    Ok(session) => break session,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            select_one(&mut session).await;
            let time = begun.elapsed();
            drop(session);
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).unwrap();
            child.wait().unwrap();
            std::fs::remove_dir_all(&data).unwrap();
            time
        }
    }

    async fn side_by_side(folder: &Path, rounds: usize) {
        let [mut ours, mut replayed, mut contained] = [(); 3].map(|()| Vec::new());
        let local = ServerOptions {
            engine: EngineChoice::Local,
            ..ServerOptions::default()
        };
        let server = Server::start(&local).await.unwrap();
        let has_image = std::env::var_os("POSTERN_DOCKER_IMAGE").is_some();
        for _ in 0..rounds {
            let begun = Instant::now();
            let db = TestDb::new(Migrations::folder(folder)).await.unwrap();
            answer(db.pool()).await;
            ours.push(begun.elapsed());
            drop(db);
            replayed.push(replay(&server, folder, Instant::now()).await);
        }
        for _ in 0..if has_image { rounds.min(3) } else { 0 } {
            let begun = Instant::now();
            let container = Server::start(&ServerOptions {
                engine: EngineChoice::Docker,
                ..ServerOptions::default()
            })
            .await
            .unwrap();
            contained.push(replay(&container, folder, begun).await);
            container.stop().await.unwrap();
        }
        server.stop().await.unwrap();
        let ours = median(&mut ours);
        row("TestDb", ours, None);
        let replayed = median(&mut replayed);
        row(
            "an empty database, all migrations (as #[sqlx::test])",
            replayed,
            Some((ours, "TestDb")),
        );
        match has_image {
            true => {
                let contained = median(&mut contained);
                row(
                    "a container, all migrations",
                    contained,
                    Some((ours, "TestDb")),
                );
            }
            false => println!("  a container: skipped, POSTERN_DOCKER_IMAGE names none"),
        }
    }

    async fn replay(server: &Server, folder: &Path, begun: Instant) -> Duration {
        let history = History::discover(folder).unwrap();
        let database = server.create_database("replayed").await.unwrap();
        let mut session = database.connect().await.unwrap();
        let mut nobody = ();
        Replayer::new(&mut session, database.address(), &mut nobody)
            .apply_all(&history)
            .await
            .unwrap();
        select_one(&mut session).await;
        let time = begun.elapsed();
        session.close().await.unwrap();
        database.remove().await.unwrap();
        time
    }

    async fn maintenance(db: &TestDb) -> PgConnection {
        let options = db.address().options().clone().database("postgres");
        options.connect().await.unwrap()
    }

    async fn answer(pool: &sqlx::PgPool) {
        let one: i32 = sqlx::query_scalar("select 1")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(one, 1);
    }

    async fn select_one(session: &mut PgConnection) {
        let one: i32 = sqlx::query_scalar("select 1")
            .fetch_one(session)
            .await
            .unwrap();
        assert_eq!(one, 1);
    }

    fn median(times: &mut [Duration]) -> Duration {
        times.sort();
        times[times.len() / 2]
    }

    fn row(what: &str, time: Duration, beside: Option<(Duration, &str)>) {
        let ms = time.as_secs_f64() * 1e3;
        let mut line = format!("  {what:<52} {ms:>9.1} ms");
        if let Some((other, name)) = beside {
            let ratio = time.as_secs_f64() / other.as_secs_f64();
            write!(line, "   {ratio:.2} times {name}").unwrap();
        }
        println!("{line}");
    }

    /// A schema of middling size: tables with keys, indexes, a comment each.
    fn migrations() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=TABLES {
            let mut sql = format!(
                "-- postern: irreversible: a benchmark\n\
                 create table t{number} (id bigint generated always as identity primary key, \
                 parent bigint, name text not null, made timestamptz not null default now(), amount numeric(12, 2));\n\
                 create index on t{number} (name);\n\
                 insert into t{number} (name, amount) select 'row ' || i, i from generate_series(1, 20) i;\n"
            );
            if number > 1 {
                let other = number - 1;
                writeln!(
                    sql,
                    "alter table t{number} add foreign key (parent) references t{other} (id);"
                )
                .unwrap();
            }
            std::fs::write(folder.path().join(format!("{number:03}_t.sql")), sql).unwrap();
        }
        folder
    }

    /// A folder on a disk that every user may write to.
    fn disk() -> tempfile::TempDir {
        let folder = tempfile::Builder::new()
            .permissions(PermissionsExt::from_mode(0o777))
            .tempdir_in("/var/tmp")
            .unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        folder
    }
}

#[cfg(unix)]
#[tokio::main]
async fn main() {
    // cargo passes `--bench`; a number or `first FOLDER` may follow.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    match words.next().as_deref() {
        Some("first") => {
            let folder = words.next().unwrap();
            measure::first_run(folder.as_ref()).await;
        }
        rounds => measure::all(rounds.map_or(15, |text| text.parse().unwrap())).await,
    }
}

#[cfg(not(unix))]
fn main() {}
