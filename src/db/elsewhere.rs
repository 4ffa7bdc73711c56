//! Test databases where there is no local Postgres to share: in a container, or on a server that
//! somebody named. One server per process; templates as on a shared one, for this process. On a
//! named server only from the second database of a recipe on: nobody is there to remove one when the process has ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::recipe::Recipe;
use crate::error::Result;
use crate::pg::{Database, EngineChoice, Server, ServerOptions, close};

/// A server that this process started, and the templates on it.
pub(super) struct Elsewhere {
    server: Server,
    recipes: Mutex<HashMap<String, Arc<Made>>>,
}

/// What was made of a recipe.
#[derive(Default)]
struct Made {
    /// Whether a database was asked for before.
    was_asked: AtomicBool,
    template: OnceCell<Database>,
}

impl Elsewhere {
    pub(super) async fn start(options: &ServerOptions) -> Result<Self> {
        Ok(Self {
            server: Server::start(options).await?,
            recipes: Mutex::default(),
        })
    }

    pub(super) fn summary(&self) -> &str {
        self.server.describe()
    }

    pub(super) async fn hand_over(&self, recipe: &Recipe, label: &str) -> Result<Database> {
        let made = {
            let mut recipes = self.recipes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(recipes.entry(recipe.key().to_owned()).or_default())
        };
        let is_named = self.server.engine() == EngineChoice::Url;
        if is_named && !made.was_asked.swap(true, Ordering::Relaxed) {
            return self.make(recipe, label).await;
        }
        let template = made
            .template
            .get_or_try_init(|| async {
                let template = self.make(recipe, "template").await?;
                template.close_to_sessions().await?;
                Ok(template)
            })
            .await?;
        self.server.clone_database(template, label).await
    }

    /// A database of this recipe, without a template.
    pub(super) async fn make(&self, recipe: &Recipe, label: &str) -> Result<Database> {
        let database = self.server.create_database(label).await?;
        let mut session = database.connect().await?;
        let applied = recipe.apply(&mut session, database.address()).await;
        close(session).await;
        match applied {
            Ok(()) => Ok(database),
            Err(error) => {
                database.remove().await?;
                Err(error)
            }
        }
    }
}
