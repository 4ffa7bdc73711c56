//! Databases on a server that the user names. The server itself is never touched.

use super::{Engine, EngineChoice, Pending, ServerOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::owner::Owner;
use crate::pg::throwaway;

pub(super) struct Url {
    maintenance: Address,
    summary: String,
}

pub(super) async fn start(options: &ServerOptions) -> Result<Url> {
    let Some(address) = &options.url else {
        return Err(Error::usage("the `url` engine needs the URL of a server")
            .help("name a server whose role may create databases"));
    };
    if !options.settings.is_empty() {
        return Err(
            Error::usage("server settings cannot be given to a server that already runs")
                .help("leave them out, or use the `local` or the `docker` engine"),
        );
    }
    let version = check(address).await?;
    sweep(address).await?;
    Ok(Url {
        summary: format!("databases on {address} (PostgreSQL {version})"),
        maintenance: address.clone(),
    })
}

/// The server's version, if databases can be created there.
async fn check(address: &Address) -> Result<String> {
    const ASK: &str = "select current_user::text, \
         pg_catalog.pg_is_in_recovery(), \
         coalesce((select rolcreatedb or rolsuper from pg_catalog.pg_roles \
                   where rolname = current_user), false), \
         split_part(pg_catalog.current_setting('server_version'), ' ', 1)";
    let mut session = throwaway::connect(address).await?;
    let (role, is_standby, may_create, version): (String, bool, bool, String) = sqlx::query_as(ASK)
        .fetch_one(&mut session)
        .await
        .map_err(|error| address.error(&error).with_sql(ASK))?;
    throwaway::close(session).await;
    if is_standby {
        return Err(Error::new(
            ErrorKind::Engine,
            format!("{address} is a standby: no database can be created there"),
        )
        .help("name the primary, or another server"));
    }
    if !may_create {
        return Err(Error::new(
            ErrorKind::Engine,
            format!("role `{role}` may not create databases on {address}"),
        )
        .help(format!(
            "let a superuser run `ALTER ROLE {} CREATEDB`, or name another role",
            crate::sql!("{}", crate::sql::Ident::new(&*role))
        )));
    }
    Ok(version)
}

/// Removes databases whose owner has certainly ended: marked, of this machine, not in use.
///
/// One that cannot be removed, for example because it belongs to another role, stays for
/// whoever may.
async fn sweep(address: &Address) -> Result<()> {
    const ASK: &str = "select datname::text, \
         pg_catalog.shobj_description(oid, 'pg_database') \
         from pg_catalog.pg_database d \
         where datname like 'postern\\_%' \
         and not exists (select from pg_catalog.pg_stat_activity a where a.datid = d.oid) \
         order by 1";
    let mut session = throwaway::connect(address).await?;
    let found: Vec<(String, Option<String>)> = sqlx::query_as(ASK)
        .fetch_all(&mut session)
        .await
        .map_err(|error| address.error(&error).with_sql(ASK))?;
    for (name, comment) in found {
        match comment {
            Some(comment) => {
                let is_abandoned = comment.starts_with(throwaway::MARK)
                    && Owner::parse(&comment).is_some_and(|owner| owner.is_gone());
                if is_abandoned {
                    let _ = throwaway::remove_marked(&mut session, address, &name).await;
                }
            }
            // Its maker was killed between making and marking it, or somebody took the mark away.
            None if throwaway::is_of_gone_owner(&name) => {
                let _ = throwaway::remove_unmarked(&mut session, address, &name).await;
            }
            None => {}
        }
    }
    throwaway::close(session).await;
    Ok(())
}

impl Engine for Url {
    fn choice(&self) -> EngineChoice {
        EngineChoice::Url
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }

    fn maintenance(&self) -> &Address {
        &self.maintenance
    }

    fn stop<'a>(&'a mut self, databases: &'a [String]) -> Pending<'a, ()> {
        Box::pin(async move {
            if databases.is_empty() {
                return Ok(());
            }
            let mut session = throwaway::connect(&self.maintenance).await?;
            let mut result = Ok(());
            for name in databases {
                let removed = throwaway::remove_marked(&mut session, &self.maintenance, name).await;
                // One that resists does not keep the others.
                result = result.and(removed);
            }
            throwaway::close(session).await;
            result
        })
    }
}
