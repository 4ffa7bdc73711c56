//! What is on shared servers, for people: named databases, lists, sweeping by hand.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::pg::shared::{self, KEPT, NAMED, TEMPLATES, USERS};
use crate::pg::{Address, Lock, ServerOptions, is_held};
use crate::sql;
use crate::sql::Ident;

/// A database on a host, for people.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) address: Address,
    pub(crate) what: What,
    pub(crate) bytes: i64,
    pub(crate) sessions: i64,
}

/// Whose a database is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Named(String),
    InUse,
    Kept,
    Template,
    Warm,
    Abandoned,
}

impl Host {
    /// Every server of this user that runs.
    pub(crate) fn all(options: &ServerOptions) -> Result<Vec<Self>> {
        let shares = shared::visit_all(options)?;
        Ok(shares.into_iter().map(Self::new).collect())
    }

    /// Removes what nobody uses, and what failed tests kept; how many databases that were.
    pub(crate) async fn sweep_all(&self) -> Result<usize> {
        self.sweep(Duration::ZERO).await
    }

    /// The database of this name: the one that is there, or a new one from this recipe. Also
    /// whether one that was there came from another recipe.
    pub(super) async fn named(
        self: &Arc<Self>,
        recipe: &Arc<Recipe>,
        label: &str,
    ) -> Result<(String, bool)> {
        let name = format!("postern_n_{label}");
        let lock = self.mark(TEMPLATES, &format!("named-{label}"));
        let waited = tokio::task::spawn_blocking(move || Lock::exclusive(&lock)).await;
        let _lock = waited.expect("waiting for a lock does not panic")?;
        let mark = self.mark(NAMED, label);
        if self.names(&name.replace('_', "\\_")).await?.contains(&name) {
            let is_other = fs::read_to_string(&mark).is_ok_and(|key| key != recipe.key());
            return Ok((name, is_other));
        }
        let draft = self.hand_over(recipe, label, 0).await?;
        // Marked first: a mark without a database is swept, a database without a mark would go
        // with the server.
        fs::write(&mark, recipe.key()).map_err(|error| Error::io("write", &mark, &error))?;
        let rename = sql!(
            "alter database {} rename to {}",
            Ident::new(&*draft),
            Ident::new(&*name)
        );
        self.run(&[rename]).await?;
        Ok((name, false))
    }

    /// Removes a named database; whether there was one.
    pub(crate) async fn drop_named(&self, label: &str) -> Result<bool> {
        let name = format!("postern_n_{label}");
        let is_there = self.names(&name.replace('_', "\\_")).await?.contains(&name);
        self.remove(&name).await?;
        let _ = fs::remove_file(self.mark(NAMED, label));
        Ok(is_there)
    }

    /// What is on the server.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>> {
        const ASK: &str = "select d.datname::text, pg_catalog.pg_database_size(d.oid), \
             (select count(*) from pg_catalog.pg_stat_activity a where a.datid = d.oid) \
             from pg_catalog.pg_database d where d.datname like 'postern\\_%' order by 1";
        let mut session = self.session().await?;
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(ASK)
            .fetch_all(&mut session)
            .await
            .map_err(|error| self.maintenance().error(&error).with_sql(ASK))?;
        self.give_back(session);
        let mut listed: Vec<Listed> = rows
            .into_iter()
            .map(|(name, bytes, sessions)| Listed {
                address: self.address(&name),
                what: self.what(&name),
                bytes,
                sessions,
            })
            .collect();
        listed
            .sort_by(|a, b| (&a.what, a.address.database()).cmp(&(&b.what, b.address.database())));
        Ok(listed)
    }

    fn what(&self, name: &str) -> What {
        if let Some(label) = name.strip_prefix("postern_n_") {
            return What::Named(label.to_owned());
        }
        if name.starts_with("postern_t_") {
            return What::Template;
        }
        if name.starts_with("postern_w_") {
            return What::Warm;
        }
        let user = name
            .strip_prefix("postern_u")
            .and_then(|rest| rest.split('_').next())
            .unwrap_or_default();
        match (
            is_held(&self.mark(USERS, user)),
            self.mark(KEPT, name).exists(),
        ) {
            (true, _) => What::InUse,
            (false, true) => What::Kept,
            (false, false) => What::Abandoned,
        }
    }
}
