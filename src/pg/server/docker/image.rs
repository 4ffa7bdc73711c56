//! The Postgres image: which one, and how it is run.

use std::borrow::Cow;
use std::collections::HashMap;

use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::{ContainerPort, Mount, WaitFor};
use testcontainers::{ContainerRequest, Image, ImageExt};

use crate::pg::ServerOptions;

/// The image and version, pinned here and nowhere else.
const PINNED: &str = "postgres:17-alpine";

/// Names another image that keeps the official one's contract.
const VARIABLE: &str = "POSTERN_DOCKER_IMAGE";

pub(super) const PORT: ContainerPort = ContainerPort::Tcp(5432);

const MEMORY: &str = "/postern";

/// Appears in a container once its owner holds the stream that ends it.
pub(super) const HELD: &str = "/postern/held";

/// Starts the image's own entry point, and ends the container if nobody holds it within a minute:
/// its owner was killed before it came to that.
const GUARD: &str = "(n=0; until [ -e /postern/held ]; do sleep 1; n=$((n + 1)); \
     [ $n -lt 60 ] || while kill -QUIT 1; do sleep 1; done; done) & exec docker-entrypoint.sh \"$@\"";

/// Without fsync and autovacuum, as the `local` engine; see there for why.
const SETTINGS: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_wal_size=128MB",
    "timezone=UTC",
    "log_timezone=UTC",
    "cluster_name=postern",
];

/// An image that keeps the contract of the official one: `POSTGRES_PASSWORD` and `PGDATA` are
/// honoured, arguments after `postgres` reach the server, port 5432.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    name: String,
    tag: String,
    arguments: Vec<String>,
    mounts: Vec<Mount>,
}

impl Postgres {
    pub(super) fn new(options: &ServerOptions) -> Self {
        let image = options
            .image
            .clone()
            .or_else(|| std::env::var(VARIABLE).ok())
            .filter(|image| !image.is_empty())
            .unwrap_or_else(|| PINNED.to_owned());
        let (name, tag) = split(&image);
        let own = SETTINGS.iter().map(|&setting| setting.to_owned());
        let asked = options.settings.iter().map(|(n, v)| format!("{n}={v}"));
        let arguments = std::iter::once("postgres".to_owned())
            .chain(
                own.chain(asked)
                    .flat_map(|setting| ["-c".to_owned(), setting]),
            )
            .collect();
        Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
            arguments,
            mounts: vec![Mount::tmpfs_mount(MEMORY)],
        }
    }

    /// As a person writes it.
    pub(super) fn full_name(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    pub(super) fn with_password(self, password: &str) -> ContainerRequest<Self> {
        self.with_env_var("POSTGRES_PASSWORD", password)
    }
}

/// `name:tag`; a registry's port is no tag, a digest takes the tag's place, none is `latest`.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

impl Image for Postgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn tag(&self) -> &str {
        &self.tag
    }

    fn ready_conditions(&self) -> Vec<WaitFor> {
        // A line in a log proves little: the entry point starts a first server for its own use.
        Vec::new()
    }

    fn env_vars(
        &self,
    ) -> impl IntoIterator<Item = (impl Into<Cow<'_, str>>, impl Into<Cow<'_, str>>)> {
        [
            ("POSTGRES_USER", "postgres"),
            ("POSTGRES_DB", "postgres"),
            ("PGDATA", "/postern/data"),
            (
                "POSTGRES_INITDB_ARGS",
                "--no-sync -E UTF8 --locale=C.UTF-8 --wal-segsize=1",
            ),
            // Without it initdb compares every file of the time zone database with the clock,
            // which takes seconds in a container.
            ("TZ", "UTC"),
        ]
    }

    fn mounts(&self) -> impl IntoIterator<Item = &Mount> {
        &self.mounts
    }

    fn cmd(&self) -> impl IntoIterator<Item = impl Into<Cow<'_, str>>> {
        ["sh", "-c", GUARD, "postern"]
            .into_iter()
            .chain(self.arguments.iter().map(String::as_str))
    }

    fn expose_ports(&self) -> &[ContainerPort] {
        &[PORT]
    }
}

/// Lets the container remove itself when it ends, and keeps its port off the network where the
/// port is only needed here.
///
/// The port is asked for in so many words: of one that is published because the image exposes it,
/// Podman does not tell the address.
pub(super) fn adjust_host_config(config: &mut HostConfig) {
    config.auto_remove = Some(true);
    let host_ip = if is_docker_here() {
        "127.0.0.1"
    } else {
        "0.0.0.0"
    };
    config.publish_all_ports = Some(false);
    config.port_bindings = Some(HashMap::from([(
        PORT.to_string(),
        Some(vec![PortBinding {
            host_ip: Some(host_ip.to_owned()),
            // Empty: Docker takes a free one.
            host_port: Some(String::new()),
        }]),
    )]));
}

/// Whether this process and Docker share a loopback interface.
fn is_docker_here() -> bool {
    let is_local = match std::env::var("DOCKER_HOST") {
        Ok(host) => host.is_empty() || host.starts_with("unix:"),
        Err(_) => true,
    };
    is_local && !std::path::Path::new("/.dockerenv").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("postgres:17-alpine", "postgres", "17-alpine")]
    #[case("postgres", "postgres", "latest")]
    #[case("registry.example:5000/pg", "registry.example:5000/pg", "latest")]
    #[case("registry.example:5000/pg:16", "registry.example:5000/pg", "16")]
    #[case("postgres@sha256:0123", "postgres@sha256", "0123")]
    fn an_image_is_split_at_its_tag(#[case] image: &str, #[case] name: &str, #[case] tag: &str) {
        assert_eq!(split(image), (name, tag));
    }

    #[test]
    fn a_users_setting_comes_after_posterns_own() {
        let image = Postgres::new(&ServerOptions {
            image: Some("x:1".into()),
            settings: vec![("autovacuum".into(), "on".into())],
            ..ServerOptions::default()
        });
        assert_eq!(
            image.arguments.first().map(String::as_str),
            Some("postgres")
        );
        assert_eq!(
            image.arguments.last().map(String::as_str),
            Some("autovacuum=on")
        );
    }
}
