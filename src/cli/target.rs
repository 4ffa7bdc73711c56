//! The flags that say which database a command is about.

use clap::Args;

use crate::error::{Error, one_of};
use crate::pg::Address;

use super::settings::{RunSettings, Settings};

#[derive(Debug, Args)]
pub(super) struct TargetArguments {
    /// The database, as postgres://USER@HOST:PORT/DATABASE; a password in the environment
    /// (PGPASSWORD) or in the password file stays out of the list of processes. [default:
    /// DATABASE_URL, else the default target of postern.toml]
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    url: Option<String>,
    /// The database, by its name in postern.toml.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

impl TargetArguments {
    /// The database and what is settled for it: flag, then environment, then file.
    pub(super) fn choose(&self, settings: &Settings) -> crate::Result<(Address, RunSettings)> {
        if let Some(name) = &self.target {
            return settings.target(name);
        }
        if let Some(url) = &self.url {
            return Ok((Address::parse(url)?, settings.run.clone()));
        }
        if let Some(url) = std::env::var_os("DATABASE_URL") {
            let address = Address::parse(&url.to_string_lossy());
            let address = address.map_err(|error| error.context("DATABASE_URL"))?;
            return Ok((address, settings.run.clone()));
        }
        if let Some(name) = settings.default_target() {
            return settings.target(name);
        }
        let error = Error::usage("no target database is named");
        let names: Vec<&str> = settings.targets().collect();
        Err(match names.as_slice() {
            [] => error
                .help("give --url URL, set DATABASE_URL, or define [target.NAME] in postern.toml"),
            names => error.help(format!(
                "give --target with {}, or set default_target in postern.toml",
                one_of(names.iter().copied())
            )),
        })
    }
}
