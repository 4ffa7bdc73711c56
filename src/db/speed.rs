//! How databases are best copied on this machine: measured once, then remembered.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use crate::error::Result;
use crate::pg::shared::Share;
use crate::pg::{Cache, content_key, execute, machine, write_whole};
use crate::sql;
use crate::sql::{Ident, Sql};

/// A way to make a database that holds what a template holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// Copies files. The only way before Postgres 15.
    #[default]
    FileCopy,
    /// Copies pages through the log.
    WalLog,
    /// Runs the migrations again.
    Replay,
}

const WAYS: [(Way, &str); 3] = [
    (Way::FileCopy, "file_copy"),
    (Way::WalLog, "wal_log"),
    (Way::Replay, "replay"),
];

/// The first version that knows more than one way.
const STRATEGIES_SINCE: u32 = 150_000;

/// Each way of copying is tried this often, in turns; the best time counts.
const ROUNDS: usize = 3;

impl Way {
    /// What `CREATE DATABASE … TEMPLATE …` ends with.
    pub(super) fn clause(self, version: u32) -> Sql {
        match self {
            _ if version < STRATEGIES_SINCE => sql!(""),
            Self::FileCopy | Self::Replay => sql!(" strategy file_copy"),
            Self::WalLog => sql!(" strategy wal_log"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WAYS.iter().find(|(way, _)| way == self);
        f.write_str(word.expect("every way is listed").1)
    }
}

impl FromStr for Way {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = WAYS.iter().find(|(_, word)| *word == text);
        found.map(|(way, _)| *way).ok_or(())
    }
}

/// What was measured on this machine, for these programs and this disk.
fn file(share: &Share) -> Result<PathBuf> {
    let measured = Cache::open()?.folder("measured")?;
    // A home folder may be on many machines at once.
    let key = content_key([share.speed_key().as_bytes(), machine().as_bytes()]);
    Ok(measured.join(key))
}

/// The best way to copy, if it was measured before.
pub(super) fn known(share: &Share) -> Option<Way> {
    let text = std::fs::read_to_string(file(share).ok()?).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The best way to make databases like this one, which took so long to build.
///
/// Measures the ways of copying where that was never done here. In memory nothing beats copying;
/// elsewhere a few migrations may.
pub(super) async fn choose(
    session: &mut PgConnection,
    share: &Share,
    template: &str,
    built: Duration,
) -> Result<Way> {
    let version = session.server_version_num().unwrap_or_default();
    let mut best = known(share);
    if best.is_none() && version >= STRATEGIES_SINCE {
        let mut times = [(Way::FileCopy, Duration::MAX), (Way::WalLog, Duration::MAX)];
        for _ in 0..ROUNDS {
            for (way, time) in &mut times {
                *time = copy(session, share, template, *way).await?.min(*time);
            }
        }
        times.sort_by_key(|(_, time)| *time);
        let [(first, fast), (second, slow)] = times;
        let text = format!(
            "{first} {:.1} ms, {second} {:.1} ms\n",
            fast.as_secs_f64() * 1e3,
            slow.as_secs_f64() * 1e3
        );
        write_whole(&file(share)?, &text)?;
        best = Some(first);
    }
    let way = best.unwrap_or_default();
    if share.is_in_memory() {
        return Ok(way);
    }
    let copied = copy(session, share, template, way).await?;
    // It has to be clearly better: replaying is work for the processor, too.
    Ok(match built < copied * 4 / 5 {
        true => Way::Replay,
        false => way,
    })
}

/// How long one copy takes.
async fn copy(
    session: &mut PgConnection,
    share: &Share,
    template: &str,
    way: Way,
) -> Result<Duration> {
    let version = session.server_version_num().unwrap_or_default();
    let name = Ident::new(format!("{template}_try"));
    let create = sql!(
        "create database {} template {}{}",
        name,
        Ident::new(template),
        way.clause(version)
    );
    let begun = Instant::now();
    execute(session, share.maintenance(), &create).await?;
    let time = begun.elapsed();
    let drop = sql!("drop database {}", name);
    execute(session, share.maintenance(), &drop).await?;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_back_from_its_word() {
        for (way, word) in WAYS {
            assert_eq!(way.to_string(), word);
            assert_eq!(word.parse(), Ok(way));
        }
        assert_eq!("rename".parse::<Way>(), Err(()));
    }

    #[test]
    fn a_version_without_a_choice_is_not_offered_one() {
        assert_eq!(Way::WalLog.clause(140_012).as_str(), "");
        assert_eq!(Way::WalLog.clause(150_000).as_str(), " strategy wal_log");
    }
}
