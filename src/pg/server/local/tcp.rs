//! A way over TCP, for clients that know no other: on the loopback interface, with a password.
//!
//! The port is the socket's too, in Postgres; a link keeps the socket under the name that it has
//! on every other server.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::account::Account;
use super::folder::Folder;
use super::shared::failed;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::owner::random_hex;

/// Whoever may use the socket's folder is let in; over TCP, anybody on the machine could try.
const RULES: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// A port that was free, and the password of every role that may log in there.
#[derive(Clone)]
pub(crate) struct Tcp {
    port: u16,
    password: String,
}

impl Tcp {
    /// Takes a port that nobody listens on now.
    pub(crate) fn choose() -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let free = free.map_err(|error| {
            Error::new(
                ErrorKind::Engine,
                format!("no port can be had on 127.0.0.1: {error}"),
            )
        })?;
        Ok(Self {
            port: free.port(),
            password: format!("{}{}", random_hex(), random_hex()),
        })
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The server's own database.
    pub(crate) fn address(&self) -> Address {
        Address::from_options(
            PgConnectOptions::new_without_pgpass()
                .host("127.0.0.1")
                .port(self.port)
                .username("postgres")
                .password(&self.password)
                .database("postgres")
                .ssl_mode(PgSslMode::Disable),
        )
    }

    /// Lays out what the server needs for it, and returns its settings.
    pub(super) fn set_up(
        &self,
        folder: &Folder,
        account: &Account,
    ) -> Result<[(String, String); 3]> {
        let rules = folder.path.join("rules");
        fs::write(&rules, RULES)
            .and_then(|()| account.give(&rules))
            .map_err(|error| failed("write", &rules, &error))?;
        let socket = folder.socket();
        symlink(format!(".s.PGSQL.{}", self.port), &socket)
            .map_err(|error| failed("make", &socket, &error))?;
        Ok([
            ("listen_addresses".into(), Ipv4Addr::LOCALHOST.to_string()),
            ("port".into(), self.port.to_string()),
            ("hba_file".into(), rules.to_string_lossy().into_owned()),
        ])
    }
}
