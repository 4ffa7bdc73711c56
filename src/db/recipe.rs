//! What a database is made from: extensions, migrations, seeds.
//!
//! Two recipes of equal content have one name, wherever their files are. Knows how to apply
//! itself to a connection, and nothing of servers.

use std::path::{Path, PathBuf};

use sqlx::postgres::PgConnection;

use crate::error::{Error, ErrorKind, Errors, Result};
use crate::migrate::{Migration, Pass, Replayer, Script, ups_of};
use crate::pg::{Address, content_key};
use crate::sql;
use crate::sql::Ident;

/// Changes when the same recipe makes another database.
const FORM: &[u8] = b"1";

/// Where a test database's schema comes from.
///
/// Files are read when the database is asked for, relative to the working folder, which under
/// `cargo test` is the package's own.
#[derive(Clone, Debug, Default)]
pub struct Migrations(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    None,
    Folder(PathBuf),
    Files(Vec<PathBuf>),
    Text(String),
}

impl Migrations {
    /// None: an empty database.
    pub fn none() -> Self {
        Self(Source::None)
    }

    /// A folder of `NNN_name.up.sql` or `NNN_name.sql`, applied in the order of their numbers,
    /// each in a transaction unless it begins with `-- no-transaction`. Downs are left alone.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self(Source::Folder(folder.into()))
    }

    /// Files of SQL in the order given, whatever their names, each in a transaction.
    pub fn files(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self(Source::Files(files.into_iter().map(Into::into).collect()))
    }

    /// SQL text, in one transaction.
    pub fn sql(text: impl Into<String>) -> Self {
        Self(Source::Text(text.into()))
    }
}

/// What is applied after the migrations.
#[derive(Clone, Debug)]
pub(super) enum Seed {
    File(PathBuf),
    Text(String),
}

/// Everything that a database is made from, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    extensions: Vec<String>,
    migrations: Vec<Migration>,
    scripts: Vec<Script>,
    key: String,
}

impl Recipe {
    pub(super) fn read(
        migrations: &Migrations,
        extensions: &[String],
        seeds: &[Seed],
    ) -> Result<Self> {
        Self::read_all(migrations, extensions, seeds).map_err(together)
    }

    fn read_all(
        migrations: &Migrations,
        extensions: &[String],
        seeds: &[Seed],
    ) -> Result<Self, Errors> {
        let mut scripts = Vec::new();
        let mut ups = Vec::new();
        match &migrations.0 {
            Source::None => {}
            Source::Folder(folder) => ups = ups_of(folder)?,
            Source::Files(files) => {
                for file in files {
                    scripts.push(Script::read(file)?);
                }
            }
            Source::Text(text) => scripts.push(Script::parse(Path::new("migrations"), text)?),
        }
        for seed in seeds {
            scripts.push(match seed {
                Seed::File(file) => Script::read(file)?,
                Seed::Text(text) => Script::parse(Path::new("seed"), text)?,
            });
        }
        let mut parts: Vec<&[u8]> = vec![FORM];
        for extension in extensions {
            parts.extend([b"extension".as_slice(), extension.as_bytes()]);
        }
        for up in &ups {
            let transaction: &[u8] = if up.transactional { b"up" } else { b"bare up" };
            parts.extend([transaction, up.id.as_bytes(), up.up.text().as_bytes()]);
        }
        for script in &scripts {
            parts.extend([b"script".as_slice(), script.text().as_bytes()]);
        }
        Ok(Self {
            key: content_key(parts),
            extensions: extensions.to_vec(),
            migrations: ups,
            scripts,
        })
    }

    /// Names the content: equal recipes make equal databases.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Applies it to an empty database; stops at the first failure.
    pub(super) async fn apply(
        &self,
        connection: &mut PgConnection,
        address: &Address,
    ) -> Result<()> {
        for extension in &self.extensions {
            let create = sql!("create extension {}", Ident::new(extension));
            sqlx::query(&create)
                .execute(&mut *connection)
                .await
                .map_err(|error| address.error(&error).with_sql(create.as_str()))?;
        }
        let mut nobody = ();
        let mut replayer = Replayer::new(connection, address, &mut nobody);
        for migration in &self.migrations {
            replayer.apply(migration, Pass::First).await.map_err(help)?;
        }
        for script in &self.scripts {
            replayer.apply_script(script).await.map_err(help)?;
        }
        Ok(())
    }
}

/// A role belongs to the whole server, so that a second database meets those of the first.
fn help(error: Error) -> Error {
    let names_a_role = error.message().contains("role ");
    match (error.sqlstate(), names_a_role) {
        (Some("42710"), true) => error.help(
            "roles belong to the whole server, which databases share: create the role only where it is not there, or ask for a server of one's own with `.own_server()`",
        ),
        _ => error,
    }
}

/// The first mistake as the error, the others as its notes.
fn together(errors: Errors) -> Error {
    let mut errors = errors.0.into_iter();
    let first = errors.next().unwrap_or_else(|| {
        Error::new(
            ErrorKind::Definition,
            "the migrations are wrong in an unknown way",
        )
    });
    errors.fold(first, |first, other| first.note(other.render(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(migrations: &Migrations, extensions: &[&str], seeds: &[&str]) -> String {
        let extensions: Vec<String> = extensions.iter().map(|&name| name.to_owned()).collect();
        let seeds: Vec<Seed> = seeds.iter().map(|&s| Seed::Text(s.to_owned())).collect();
        let recipe = Recipe::read(migrations, &extensions, &seeds).unwrap();
        recipe.key().to_owned()
    }

    #[test]
    fn equal_content_has_one_name_wherever_it_is() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for folder in [&one, &two] {
            std::fs::write(folder.path().join("1_a.sql"), "select 1;").unwrap();
        }
        let of = |folder: &tempfile::TempDir| key(&Migrations::folder(folder.path()), &[], &[]);
        assert_eq!(of(&one), of(&two));
        std::fs::write(two.path().join("1_a.sql"), "select 2;").unwrap();
        assert_ne!(of(&one), of(&two));
    }

    #[test]
    fn everything_that_makes_a_database_is_in_its_name() {
        let all = [
            key(&Migrations::none(), &[], &[]),
            key(&Migrations::sql("select 1"), &[], &[]),
            key(&Migrations::none(), &["hstore"], &[]),
            key(&Migrations::none(), &[], &["select 2"]),
            key(&Migrations::none(), &[], &["select 2", "select 2"]),
        ];
        let mut distinct = all.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn every_mistake_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one.sql"), "select 1;").unwrap();
        std::fs::write(folder.path().join("2_b.sql"), "select 'x;").unwrap();
        let error = Recipe::read(&Migrations::folder(folder.path()), &[], &[]).unwrap_err();
        let shown = error.render(false);
        assert!(
            shown.contains("one.sql") && shown.contains("2_b.sql"),
            "{shown}"
        );
    }
}
