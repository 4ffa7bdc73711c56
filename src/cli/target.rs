//! The flags that say which database a command is about, and how long it may be kept busy.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use crate::error::{Error, one_of};
use crate::gate::Gate;
use crate::gate::catalog::Side;
use crate::gate::fields::Age;
use crate::pg::{Address, Limits};
use crate::run;

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

/// Other databases that gates compare with.
#[derive(Debug, Args)]
pub(super) struct OtherArguments {
    /// Another database that gates compare with, as NAME=URL, beside the targets of postern.toml.
    /// May be repeated.
    #[arg(long = "other", value_name = "NAME=URL")]
    others: Vec<String>,
}

impl OtherArguments {
    /// The databases that are named here, and those targets of postern.toml that gates read.
    pub(super) fn choose(
        &self,
        settings: &Settings,
        gates: &[Gate],
        errors: &mut Vec<Error>,
    ) -> BTreeMap<Side, Address> {
        let mut targets = BTreeMap::new();
        for text in &self.others {
            match text.split_once('=') {
                Some((name, url)) => match Address::parse(url) {
                    Ok(address) => {
                        targets.insert(Side::Other(name.to_owned()), address);
                    }
                    Err(error) => errors.push(error.context(format!("--other {name}"))),
                },
                None => errors.push(
                    Error::usage("`--other` names no database").help("write --other NAME=URL"),
                ),
            }
        }
        for side in run::sides(gates) {
            let Side::Other(name) = &side else { continue };
            if !targets.contains_key(&side) && settings.targets().any(|known| known == name) {
                match settings.target(name) {
                    Ok((address, _)) => {
                        targets.insert(side, address);
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        targets
    }
}

/// How long statements may take.
#[derive(Debug, Args)]
pub(super) struct LimitArguments {
    /// How long one statement may take, such as 30s. [default: 5m]
    #[arg(long, value_name = "TIME", env = "POSTERN_STATEMENT_TIMEOUT", value_parser = Age::parse)]
    statement_timeout: Option<Age>,
    /// How long a statement may wait for a lock. [default: 5s]
    #[arg(long, value_name = "TIME", env = "POSTERN_LOCK_TIMEOUT", value_parser = Age::parse)]
    lock_timeout: Option<Age>,
}

impl LimitArguments {
    /// Flag or environment, then what is settled for the target, then the default.
    pub(super) fn limits(&self, settled: &RunSettings) -> Limits {
        let defaults = Limits::default();
        let limit = |flag: Option<Age>, settled: Option<Age>, default| {
            let age = flag.or(settled);
            age.map_or(default, |age| Duration::from_secs_f64(age.seconds()))
        };
        Limits {
            statement: limit(
                self.statement_timeout,
                settled.statement_timeout,
                defaults.statement,
            ),
            lock: limit(self.lock_timeout, settled.lock_timeout, defaults.lock),
            ..defaults
        }
    }
}

impl TargetArguments {
    /// The database and what is settled for it: flag, then environment, then file.
    pub(super) fn choose(&self, settings: &Settings) -> crate::Result<(Address, RunSettings)> {
        match self.named(settings)? {
            Some(named) => Ok(named),
            None => Err(Self::unnamed(settings)),
        }
    }

    /// The same; `None` where nothing names a database.
    pub(super) fn named(
        &self,
        settings: &Settings,
    ) -> crate::Result<Option<(Address, RunSettings)>> {
        if let Some(name) = &self.target {
            return settings.target(name).map(Some);
        }
        if let Some(url) = &self.url {
            return Ok(Some((Address::parse(url)?, settings.run.clone())));
        }
        if let Some(url) = std::env::var_os("DATABASE_URL") {
            let address = Address::parse(&url.to_string_lossy());
            let address = address.map_err(|error| error.context("DATABASE_URL"))?;
            return Ok(Some((address, settings.run.clone())));
        }
        settings
            .default_target()
            .map(|name| settings.target(name))
            .transpose()
    }

    /// The error for a command that needs a database and was named none.
    pub(super) fn unnamed(settings: &Settings) -> Error {
        let error = Error::usage("no target database is named");
        let names: Vec<&str> = settings.targets().collect();
        match names.as_slice() {
            [] => error
                .help("give --url URL, set DATABASE_URL, or define [target.NAME] in postern.toml"),
            names => error.help(format!(
                "give --target with {}, or set default_target in postern.toml",
                one_of(names.iter().copied())
            )),
        }
    }
}
