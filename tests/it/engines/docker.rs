//! The `docker` engine. Without Docker or its image these tests say so and end; with
//! `POSTERN_TEST_DOCKER=require` they fail.
#![cfg(all(unix, feature = "docker"))]

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use postern::pg::{EngineChoice, Server, ServerOptions};
use rstest::rstest;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::ContainerSummary;
use testcontainers::bollard::query_parameters::ListContainersOptionsBuilder;

use super::{number, owner, owner_with, run};

pub(super) fn options() -> ServerOptions {
    ServerOptions {
        engine: EngineChoice::Docker,
        ..ServerOptions::default()
    }
}

/// A server in a container, or the reason why there is none, printed.
async fn server() -> Option<Server> {
    match Server::start(&options()).await {
        Ok(server) => Some(server),
        Err(error) => {
            let is_required = std::env::var("POSTERN_TEST_DOCKER").as_deref() == Ok("require");
            assert!(!is_required, "POSTERN_TEST_DOCKER=require, but {error:?}");
            // Past the test runner's capture: a skipped test must be seen.
            let _ = writeln!(std::io::stderr(), "skipped, no Docker engine here: {error}");
            None
        }
    }
}

/// The containers that a process owns, or all of Postern's that have this label.
async fn containers(label: &str) -> Vec<String> {
    let client = Docker::connect_with_defaults().unwrap();
    let filters = std::collections::HashMap::from([("label", vec![label])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let found = loop {
        match client.list_containers(Some(options.clone())).await {
            // Podman's word for a container that is about to be gone is none of Docker's.
            Err(Error::JsonDataError { .. }) => {}
            found => break found.unwrap(),
        }
    };
    found
        .into_iter()
        .filter_map(|container| container.id)
        .collect()
}

async fn container_of(server: &Server) -> String {
    let options = server.maintenance().options();
    container_at(options.get_host(), options.get_port()).await
}

/// The container that publishes this port, or has this address.
async fn container_at(host: &str, port: u16) -> String {
    let client = Docker::connect_with_defaults().unwrap();
    let found = client
        .list_containers(None::<testcontainers::bollard::query_parameters::ListContainersOptions>)
        .await
        .unwrap();
    let is_it = |container: &ContainerSummary| {
        let ports = container.ports.as_deref().unwrap_or_default();
        let networks = container.network_settings.iter();
        let mut networks = networks.flat_map(|settings| settings.networks.iter().flatten());
        ports
            .iter()
            .any(|binding| binding.public_port == Some(port))
            || networks.any(|(_, network)| network.ip_address.as_deref() == Some(host))
    };
    let container = found.into_iter().find(is_it);
    container
        .and_then(|container| container.id)
        .expect("a running server has its container")
}

async fn exists(id: &str) -> bool {
    containers("org.postern.session")
        .await
        .iter()
        .any(|other| other == id)
}

async fn assert_goes(id: &str) {
    let begun = Instant::now();
    while exists(id).await {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "container {id} is still there"
        );
    }
}

#[tokio::test]
async fn a_container_serves_databases_and_goes_when_stopped() {
    let Some(server) = server().await else { return };
    assert_eq!(server.engine(), EngineChoice::Docker);
    assert!(
        server.describe().starts_with("docker container of "),
        "{}",
        server.describe()
    );
    let id = container_of(&server).await;
    let template = server.create_database("template").await.unwrap();
    let mut session = template.connect().await.unwrap();
    run(
        &mut session,
        "create table t as select generate_series(1, 7) as x",
    )
    .await;
    let copy = server.clone_database(&template, "copy").await.unwrap();
    let mut session = copy.connect().await.unwrap();
    assert_eq!(number(&mut session, "select count(*) from t").await, 7);
    let (fsync, data): (String, String) =
        sqlx::query_as("select current_setting('fsync'), current_setting('data_directory')")
            .fetch_one(&mut session)
            .await
            .unwrap();
    assert_eq!((fsync.as_str(), data.as_str()), ("off", "/postern/data"));
    server.stop().await.unwrap();
    assert!(!exists(&id).await);
}

#[tokio::test]
async fn the_container_of_a_command_goes_before_its_exit_code_is_told() {
    if server().await.is_none() {
        return;
    }
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--engine", "docker", "--", "sh", "-c"])
        .arg("echo $PGHOST $PGPORT; read -r line; exit 7")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut told = BufReader::new(process.stdout.take().unwrap());
    told.read_line(&mut line).unwrap();
    let (host, port) = line.trim().split_once(' ').unwrap();
    let id = container_at(host, port.parse().unwrap()).await;
    drop(process.stdin.take());
    assert_eq!(process.wait().unwrap().code(), Some(7));
    assert!(!exists(&id).await);
}

#[tokio::test]
async fn the_password_is_shown_nowhere() {
    let Some(server) = server().await else { return };
    let secret = server.maintenance().to_secret_url();
    let password = secret
        .split_once("//postgres:")
        .and_then(|(_, rest)| rest.split_once('@'))
        .map(|(password, _)| password.to_owned())
        .unwrap();
    assert_eq!(password.len(), 32, "random, not a word");
    let database = server.create_database("x").await.unwrap();
    for shown in [
        server.describe().to_owned(),
        format!("{server:?}"),
        database.address().to_string(),
        format!("{:?}", database.address()),
    ] {
        assert!(!shown.contains(&password), "{shown}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_leaves_no_container() {
    let Some(server) = server().await else { return };
    let id = container_of(&server).await;
    let task = tokio::spawn(async move {
        let _held = server;
        panic!("the test's own panic");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(!exists(&id).await);
}

#[test]
fn a_server_outlives_the_runtime_it_was_started_in() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let Some(server) = first.block_on(server()) else {
        return;
    };
    drop(first);
    let second = tokio::runtime::Runtime::new().unwrap();
    let id = second.block_on(async {
        let database = server.create_database("later").await.unwrap();
        let mut session = database.connect().await.unwrap();
        assert_eq!(number(&mut session, "select 1::bigint").await, 1);
        container_of(&server).await
    });
    // Outside any runtime.
    drop(server);
    assert!(!second.block_on(exists(&id)));
}

#[tokio::test]
async fn sigkill_of_the_owner_leaves_no_container() {
    let Some(server) = server().await else { return };
    server.stop().await.unwrap();
    let mut owner = owner("docker");
    let id = owner.told.clone();
    assert!(exists(&id).await);
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    // Without a sweep: its life line is cut.
    assert_goes(&id).await;
}

/// The child's side of the test above.
pub(super) async fn tell_container() -> Server {
    let server = Server::start(&options()).await.unwrap();
    println!("\ntold {}", container_of(&server).await);
    server
}

#[rstest]
#[case::by_the_next_start(false)]
#[case::by_the_command(true)]
#[tokio::test]
async fn a_container_of_a_dead_owner_is_swept(#[case] is_by_command: bool) {
    let Some(server) = server().await else { return };
    let id = container_of(&server).await;
    let client = Docker::connect_with_defaults().unwrap();
    let seen = client
        .inspect_container(
            &id,
            None::<testcontainers::bollard::query_parameters::InspectContainerOptions>,
        )
        .await
        .unwrap();
    let config = seen.config.unwrap();
    let mut labels = config.labels.unwrap();
    let owner = labels.get_mut("org.postern.owner").unwrap();
    // No process has this number: Linux and macOS end far below.
    *owner = owner.replace(&format!("pid={}", std::process::id()), "pid=2147483646");
    let body = testcontainers::bollard::models::ContainerCreateBody {
        image: config.image,
        labels: Some(labels),
        ..Default::default()
    };
    let left = client
        .create_container(
            None::<testcontainers::bollard::query_parameters::CreateContainerOptions>,
            body,
        )
        .await
        .unwrap()
        .id;
    assert!(exists(&left).await);
    if is_by_command {
        let mut sweep = std::process::Command::new(env!("CARGO_BIN_EXE_postern"));
        assert!(sweep.args(["db", "sweep"]).status().unwrap().success());
    } else {
        let next = Server::start(&options()).await.unwrap();
        next.stop().await.unwrap();
    }
    assert!(!exists(&left).await, "the dead owner's container is swept");
    assert!(exists(&id).await, "a living owner's container is not");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_said_plainly() {
    let Some(server) = server().await else { return };
    server.stop().await.unwrap();
    let error = Server::start(&ServerOptions {
        // Nobody can register this name: it is reserved.
        image: Some("registry.invalid/postgres:0".into()),
        ..options()
    })
    .await
    .unwrap_err();
    let shown = error.render(false);
    assert!(
        shown.contains(
            "the image registry.invalid/postgres:0 is not on Docker's host and cannot be pulled"
        ),
        "{shown}"
    );
    assert!(shown.contains("POSTERN_DOCKER_IMAGE"), "{shown}");
}

/// The child's side of the two tests below: it has a DOCKER_HOST of its own.
pub(super) async fn tell_error() {
    let error = Server::start(&options()).await.unwrap_err();
    println!(
        "\ntold {} / {}",
        error.message(),
        error.help_text().unwrap_or_default()
    );
}

#[test]
fn a_machine_without_docker_is_said_plainly() {
    let mut child = owner_with(
        "docker error",
        &[("DOCKER_HOST", "unix:///nowhere/docker.sock")],
    );
    assert!(child.process.wait().unwrap().success());
    assert_eq!(
        child.told,
        "there is no Docker here: no socket at /nowhere/docker.sock / \
         install Docker, start it, or set DOCKER_HOST; Podman works through DOCKER_HOST too"
    );
}

#[test]
fn a_stopped_docker_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    // A socket that nobody listens on, as a daemon leaves it.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let host = format!("unix://{}", socket.display());
    let mut child = owner_with("docker error", &[("DOCKER_HOST", &host)]);
    assert!(child.process.wait().unwrap().success());
    let expected = format!("Docker at {host} does not answer: ");
    assert!(child.told.starts_with(&expected), "{}", child.told);
    assert!(child.told.contains("Connection refused"), "{}", child.told);
    assert!(
        child
            .told
            .ends_with("/ start the Docker daemon, or set DOCKER_HOST to one that runs")
    );
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_ends_the_start_with_its_own_words() {
    let Some(server) = server().await else { return };
    server.stop().await.unwrap();
    let error = Server::start(&ServerOptions {
        settings: vec![("shared_buffers".into(), "a lot".into())],
        ..options()
    })
    .await
    .unwrap_err();
    let shown = error.render(false);
    assert!(shown.contains("Postgres ended in its container"), "{shown}");
    assert!(
        shown.contains("invalid value for parameter \"shared_buffers\""),
        "{shown}"
    );
}
