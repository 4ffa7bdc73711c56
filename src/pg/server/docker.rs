//! Postgres in a container, through testcontainers.
//!
//! The container keeps its data in memory and ends with its owner in three ways: it is removed
//! on stop and drop; a process inside it waits on a stream from this one and shuts Postgres down
//! when the stream closes, whatever closed it; and the next start removes containers whose
//! labels name an owner that is gone.

mod image;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use testcontainers::bollard::Docker as Client;
use testcontainers::bollard::errors::Error as ClientFailure;
use testcontainers::bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::error::ClientError;
use testcontainers::core::logs::LogFrame;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ImageExt, TestcontainersError};
use tokio::io::AsyncWrite;

use self::image::{HELD, PORT, Postgres};
use super::{Engine, EngineChoice, Pending, ServerOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::owner::{Owner, random_hex};
use crate::pg::throwaway;

/// Marks the containers of one [`Server`](super::Server).
const SESSION: &str = "org.postern.session";

/// Names the owner of a container: host, boot, process.
const OWNER: &str = "org.postern.owner";

/// From the container's start to the first answer.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Docker answers at once or not at all.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A single attempt; an unreachable address may never refuse.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a published port has left once the container answers on its own address.
const GRACE: Duration = Duration::from_secs(1);

const GONE_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs inside the container until its standard input closes; then ends process 1, which is
/// Postgres once the image's entry point has made room for it. `$0` says that it is held.
const LIFE_LINE: &str = ": >\"$0\"; read -r _; while kill -QUIT 1; do sleep 1; done";

pub(super) struct Docker {
    session: Session,
    maintenance: Address,
    summary: String,
}

/// The stream to the process that waits inside the container. It is only ever held.
type LifeLine = Pin<Box<dyn AsyncWrite + Send>>;

pub(super) async fn start(options: &ServerOptions) -> Result<Docker> {
    let client = client().await?;
    sweep(&client).await;
    let image = Postgres::new(options);
    let name = image.full_name();
    let mut session = Session::new();
    let password = format!("{}{}", random_hex(), random_hex());
    let log = Log::default();
    let request = image
        .with_password(&password)
        .with_label(SESSION, &session.label)
        .with_label(OWNER, Owner::current().to_string())
        .with_startup_timeout(READY_TIMEOUT)
        .with_log_consumer({
            let log = log.clone();
            move |frame: &LogFrame| log.add(frame.bytes())
        })
        .with_host_config_modifier(image::adjust_host_config);
    let explain = |error: TestcontainersError| explain_start(&error, &name);
    let container = session
        .container
        .insert(request.start().await.map_err(explain)?);
    session.life_line = hold_life_line(&client, container.id()).await;
    let host = container.get_host().await.map_err(explain)?;
    let port = container.get_host_port_ipv4(PORT).await.map_err(explain)?;
    let way = |host: &str, port| {
        Address::from_options(
            PgConnectOptions::new_without_pgpass()
                .host(host)
                .port(port)
                .username("postgres")
                .password(&password)
                .database("postgres")
                .ssl_mode(PgSslMode::Disable),
        )
    };
    let published = way(&host.to_string(), port);
    let own = own_host(&client, container.id()).await;
    let own = own.map(|host| way(&host, PORT.as_u16()));
    let (maintenance, version) = tokio::select! {
        answer = first_answer(published, own) => answer.map_err(|error| log.explain(error))?,
        () = session.ended(&client) => {
            let error = "Postgres ended in its container before it answered";
            return Err(log
                .explain(Error::new(ErrorKind::Engine, error))
                .help("check the server settings and the image"));
        }
    };
    Ok(Docker {
        session,
        summary: format!("docker container of {name}, PostgreSQL {version}, data in memory"),
        maintenance,
    })
}

/// The way that a real session is answered on, and the server's version: by the published port, or,
/// where that leads nowhere, within the container's own network.
async fn first_answer(published: Address, own: Option<Address>) -> Result<(Address, String)> {
    let published = Box::pin(until_answered(published));
    let Some(own) = own else {
        return published.await;
    };
    match select(published, Box::pin(until_answered(own))).await {
        Either::Left((Ok(answer), _)) => Ok(answer),
        Either::Left((Err(_), own)) => own.await,
        Either::Right((Err(_), published)) => published.await,
        Either::Right((Ok(answer), published)) => {
            // It is ready, so the port answers at once or not at all.
            let preferred = tokio::time::timeout(GRACE, published).await;
            Ok(preferred.ok().and_then(Result::ok).unwrap_or(answer))
        }
    }
}

async fn until_answered(way: Address) -> Result<(Address, String)> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let last = match tokio::time::timeout(CONNECT_TIMEOUT, version(&way)).await {
            Ok(Ok(version)) => return Ok((way, version)),
            Ok(Err(error)) => error.one_line(),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        if begun.elapsed() > READY_TIMEOUT {
            return Err(Error::new(
                ErrorKind::Engine,
                format!("the container runs, but its port cannot be reached from here: {last}"),
            )
            .help(
                "if Docker runs on another host or Postern runs in a container, \
                 set DOCKER_HOST to an address whose published ports are reachable",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

async fn version(way: &Address) -> Result<String> {
    let mut session = throwaway::connect(way).await?;
    let version = sqlx::query_scalar(
        "select split_part(pg_catalog.current_setting('server_version'), ' ', 1)",
    )
    .fetch_one(&mut session)
    .await
    .map_err(|error| way.error(&error))?;
    throwaway::close(session).await;
    Ok(version)
}

/// Where the container is in its own network: the way from a container beside it, and where
/// published ports are not passed on.
async fn own_host(client: &Client, id: &str) -> Option<String> {
    let seen = client.inspect_container(id, None::<InspectContainerOptions>);
    let networks = seen.await.ok()?.network_settings?.networks?;
    let mut hosts = networks
        .into_values()
        .filter_map(|network| network.ip_address);
    hosts.find(|host| !host.is_empty())
}

impl Engine for Docker {
    fn choice(&self) -> EngineChoice {
        EngineChoice::Docker
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }

    fn maintenance(&self) -> &Address {
        &self.maintenance
    }

    fn stop<'a>(&'a mut self, _databases: &'a [String]) -> Pending<'a, ()> {
        Box::pin(self.session.remove())
    }
}

/// The container of one start, and what is known of it.
///
/// Removal goes by label: a start that fails or is given up does not know whether there is a
/// container yet.
struct Session {
    label: String,
    container: Option<ContainerAsync<Postgres>>,
    /// Open for as long as the container may live.
    life_line: Option<Mutex<LifeLine>>,
    is_removed: bool,
}

impl Session {
    fn new() -> Self {
        Self {
            label: random_hex(),
            container: None,
            life_line: None,
            is_removed: false,
        }
    }

    /// Returns when the container has stopped; without one, at once.
    async fn ended(&self, client: &Client) {
        let Some(container) = &self.container else {
            return;
        };
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        // Docker itself says when; where it cannot, the answer is waited for alone.
        let mut waited = client.wait_container(container.id(), Some(options));
        match waited.next().await {
            Some(Ok(_) | Err(ClientFailure::DockerContainerWaitError { .. })) => {}
            Some(Err(error)) if status(&error) == Some(404) => {}
            _ => std::future::pending().await,
        }
    }

    async fn remove(&mut self) -> Result<()> {
        // Once only: what this cannot remove, the next start sweeps.
        self.is_removed = true;
        // Postgres is told to end at once; Podman would ask it to and wait.
        self.life_line = None;
        if let Some(container) = self.container.take() {
            // The result is checked below, by label.
            let _ = container.rm().await;
        }
        let client = client().await?;
        let filter = format!("{SESSION}={}", self.label);
        for (id, _) in labelled(&client, &filter).await? {
            remove(&client, &id).await?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let mut session = Session {
            label: std::mem::take(&mut self.label),
            container: self.container.take(),
            life_line: self.life_line.take(),
            is_removed: false,
        };
        self.is_removed = true;
        // Apart: a container of testcontainers that is dropped outside a runtime panics.
        super::block_apart(async move {
            let _ = session.remove().await;
        });
    }
}

/// A client that has been answered.
async fn client() -> Result<Client> {
    let client = docker_client_instance()
        .await
        .map_err(|error| match &error {
            ClientError::Init(ClientFailure::SocketNotFoundError(socket)) => no_docker(socket),
            other => Error::new(
                ErrorKind::Engine,
                format!("Docker cannot be reached at {}: {other}", docker_host()),
            )
            .help("check DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"),
        })?;
    match tokio::time::timeout(PING_TIMEOUT, client.ping()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(error)) => Err(explain_ping(&error)),
        Err(_) => Err(Error::new(
            ErrorKind::Engine,
            format!(
                "Docker at {} does not answer within {} s",
                docker_host(),
                PING_TIMEOUT.as_secs()
            ),
        )
        .help("restart Docker")),
    }
}

fn no_docker(socket: &str) -> Error {
    Error::new(
        ErrorKind::Engine,
        format!("there is no Docker here: no socket at {socket}"),
    )
    .help("install Docker, start it, or set DOCKER_HOST; Podman works through DOCKER_HOST too")
}

fn explain_ping(error: &ClientFailure) -> Error {
    let host = docker_host();
    // hyper hides the system's error at the end of the chain.
    let chain = chain(error);
    if chain.contains("Permission denied") {
        return Error::new(
            ErrorKind::Engine,
            format!("this user may not use Docker at {host}"),
        )
        .help("add the user to the group `docker`, or use rootless Docker or Podman");
    }
    if chain.contains("No such file") {
        return no_docker(&host);
    }
    Error::new(
        ErrorKind::Engine,
        format!("Docker at {host} does not answer: {chain}"),
    )
    .help("start the Docker daemon, or set DOCKER_HOST to one that runs")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn docker_host() -> String {
    std::env::var("DOCKER_HOST")
        .ok()
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "/var/run/docker.sock".to_owned())
}

fn explain_start(error: &TestcontainersError, image: &str) -> Error {
    let another = "name an image that is there with POSTERN_DOCKER_IMAGE";
    match error {
        TestcontainersError::Client(ClientError::PullImage { err, .. }) => Error::new(
            ErrorKind::Engine,
            format!("the image {image} is not on Docker's host and cannot be pulled: {err}"),
        )
        .help(format!(
            "{another}, or run `docker pull {image}` where the registry can be reached"
        )),
        TestcontainersError::Client(ClientError::StartContainer(err) | ClientError::Init(err)) => {
            Error::new(
                ErrorKind::Engine,
                format!("the container of {image} does not start: {err}"),
            )
            .help(format!(
                "check that it is an image of Postgres, or {another}"
            ))
        }
        other => Error::new(
            ErrorKind::Engine,
            format!("no container of {image}: {}", chain(other)),
        )
        .help(format!("check Docker, or {another}")),
    }
}

/// Starts the waiting process. Without it the container still goes on stop, drop and sweep.
async fn hold_life_line(client: &Client, id: &str) -> Option<Mutex<LifeLine>> {
    let exec = client
        .create_exec(
            id,
            CreateExecOptions {
                attach_stdin: Some(true),
                cmd: Some(vec!["sh", "-c", LIFE_LINE, HELD]),
                user: Some("root"),
                ..CreateExecOptions::default()
            },
        )
        .await
        .ok()?;
    let started = client
        .start_exec(&exec.id, None::<StartExecOptions>)
        .await
        .ok()?;
    match started {
        StartExecResults::Attached { input, .. } => Some(Mutex::new(input)),
        StartExecResults::Detached => None,
    }
}

/// Removes the containers whose owner has certainly ended, if there is Docker, and counts them.
pub(super) async fn sweep_all() -> usize {
    match client().await {
        Ok(client) => sweep(&client).await,
        Err(_) => 0,
    }
}

/// What resists stays for the next run.
async fn sweep(client: &Client) -> usize {
    let mut removed = 0;
    for (id, owner) in labelled(client, OWNER).await.unwrap_or_default() {
        if Owner::parse(&owner).is_some_and(|owner| owner.is_gone()) {
            removed += usize::from(remove(client, &id).await.is_ok());
        }
    }
    removed
}

/// The containers with a label, running or not, and who owns each.
async fn labelled(client: &Client, filter: &str) -> Result<Vec<(String, String)>> {
    let filters = std::collections::HashMap::from([("label", vec![filter])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let begun = Instant::now();
    let found = loop {
        match client.list_containers(Some(options.clone())).await {
            Ok(found) => break found,
            // Podman's word for a container that is about to be gone is none of Docker's.
            Err(ClientFailure::JsonDataError { .. }) if begun.elapsed() < GONE_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(explain_ping(&error)),
        }
    };
    Ok(found
        .into_iter()
        .filter_map(|container| {
            let owner = container.labels.and_then(|mut labels| labels.remove(OWNER));
            Some((container.id?, owner.unwrap_or_default()))
        })
        .collect())
}

/// Removes a container with its volumes and waits until Docker has forgotten it.
async fn remove(client: &Client, id: &str) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let failure = match client.remove_container(id, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // It also removes itself when it ends, and then Docker answers 409 until that is done.
        match status(&failure) {
            Some(404) => return Ok(()),
            Some(409) if begun.elapsed() < GONE_TIMEOUT => {}
            _ => {
                return Err(Error::new(
                    ErrorKind::Engine,
                    format!("container {id} could not be removed: {failure}"),
                )
                .help(format!("run `docker rm -f -v {id}`")));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn status(error: &ClientFailure) -> Option<u16> {
    match error {
        ClientFailure::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the container wrote last; it is gone when one wants to ask.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    const BYTES_MAX: usize = 16 * 1024;

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(Self::BYTES_MAX);
        kept.drain(..surplus);
    }

    fn explain(&self, error: Error) -> Error {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match super::last_words(&String::from_utf8_lossy(&kept)) {
            Some(words) => error.note(words),
            None => error,
        }
    }
}
