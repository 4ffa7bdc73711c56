//! What a database is made from: extensions, migrations, seeds.
//!
//! Two recipes of equal content have one name, wherever their files are. Knows how to apply
//! itself to a connection, and nothing of servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use sqlx::postgres::PgConnection;

use crate::error::{Error, ErrorKind, Errors, Result};
use crate::migrate::{Migration, Pass, Replayer, Script, sql_files, ups_of};
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

/// Everything that a database is made from, and the name of its content.
///
/// Files are split into statements only when a database is made from them, which the first test
/// does; all others need the name alone.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    migrations: Migrations,
    extensions: Vec<String>,
    seeds: Vec<Seed>,
    key: String,
}

/// A recipe as it can be applied.
struct Parsed {
    migrations: Vec<Migration>,
    scripts: Vec<Script>,
}

/// What tells that a file was not touched.
type Stamp = Vec<(PathBuf, u64, SystemTime)>;

impl Recipe {
    /// Reads what there is; a file that this process read before is read again only if it was
    /// touched.
    pub(super) fn read(
        migrations: &Migrations,
        extensions: &[String],
        seeds: &[Seed],
    ) -> Result<Self> {
        static READ: Mutex<BTreeMap<String, (Stamp, String)>> = Mutex::new(BTreeMap::new());
        let mut recipe = Self {
            migrations: migrations.clone(),
            extensions: extensions.to_vec(),
            seeds: seeds.to_vec(),
            key: String::new(),
        };
        let asked = format!("{recipe:?}");
        let stamp = recipe.stamp()?;
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        recipe.key = match read.get(&asked) {
            Some((before, key)) if *before == stamp => key.clone(),
            _ => recipe.content_key()?,
        };
        read.insert(asked, (stamp, recipe.key.clone()));
        Ok(recipe)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = match &self.migrations.0 {
            Source::None | Source::Text(_) => Vec::new(),
            Source::Folder(folder) => sql_files(folder)?,
            Source::Files(files) => files.clone(),
        };
        files.retain(|file| !file.to_string_lossy().ends_with(".down.sql"));
        for seed in &self.seeds {
            if let Seed::File(file) = seed {
                files.push(file.clone());
            }
        }
        Ok(files)
    }

    fn stamp(&self) -> Result<Stamp> {
        let of = |file: PathBuf| {
            let meta =
                std::fs::metadata(&file).map_err(|error| Error::io("read", &file, &error))?;
            let touched = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Ok((file, meta.len(), touched))
        };
        self.files()?.into_iter().map(of).collect()
    }

    fn content_key(&self) -> Result<String> {
        let mut parts: Vec<Vec<u8>> = vec![FORM.to_vec()];
        for extension in &self.extensions {
            parts.extend([b"extension".to_vec(), extension.clone().into_bytes()]);
        }
        for file in self.files()? {
            let name = file.file_name().unwrap_or_default();
            let text = std::fs::read(&file).map_err(|error| Error::io("read", &file, &error))?;
            parts.extend([b"file".to_vec(), name.as_encoded_bytes().to_vec(), text]);
        }
        let text = match &self.migrations.0 {
            Source::Text(text) => Some(text),
            Source::None | Source::Folder(_) | Source::Files(_) => None,
        };
        let seeds = self.seeds.iter().filter_map(|seed| match seed {
            Seed::Text(text) => Some(text),
            Seed::File(_) => None,
        });
        for (kind, text) in text
            .map(|text| ("migrations", text))
            .into_iter()
            .chain(seeds.map(|text| ("seed", text)))
        {
            parts.extend([kind.into(), text.clone().into_bytes()]);
        }
        // How files and texts follow one another.
        parts.push(format!("{:?}", self.order()).into_bytes());
        Ok(content_key(parts.iter().map(Vec::as_slice)))
    }

    fn order(&self) -> Vec<bool> {
        let is_file = |seed: &Seed| matches!(seed, Seed::File(_));
        self.seeds.iter().map(is_file).collect()
    }

    /// The statements of every file, or all mistakes in them.
    fn parse(&self) -> Result<Parsed> {
        let parsed = self.parse_all().map_err(together)?;
        if self.content_key()? == self.key {
            return Ok(parsed);
        }
        Err(Error::new(
            ErrorKind::Definition,
            "the migrations changed while they were read",
        )
        .help("try again"))
    }

    fn parse_all(&self) -> Result<Parsed, Errors> {
        let mut scripts = Vec::new();
        let mut migrations = Vec::new();
        match &self.migrations.0 {
            Source::None => {}
            Source::Folder(folder) => migrations = ups_of(folder)?,
            Source::Files(files) => {
                for file in files {
                    scripts.push(Script::read(file)?);
                }
            }
            Source::Text(text) => scripts.push(Script::parse(Path::new("migrations"), text)?),
        }
        for seed in &self.seeds {
            scripts.push(match seed {
                Seed::File(file) => Script::read(file)?,
                Seed::Text(text) => Script::parse(Path::new("seed"), text)?,
            });
        }
        Ok(Parsed {
            migrations,
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
        let parsed = self.parse()?;
        for extension in &self.extensions {
            let create = sql!("create extension {}", Ident::new(extension));
            sqlx::query(&create)
                .execute(&mut *connection)
                .await
                .map_err(|error| address.error(&error).with_sql(create.as_str()))?;
        }
        let mut nobody = ();
        let mut replayer = Replayer::new(connection, address, &mut nobody);
        for migration in &parsed.migrations {
            replayer.apply(migration, Pass::First).await.map_err(help)?;
        }
        for script in &parsed.scripts {
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
        std::fs::write(two.path().join("1_a.sql"), "select 22;").unwrap();
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
        let recipe = Recipe::read(&Migrations::folder(folder.path()), &[], &[]).unwrap();
        let error = recipe.parse().map(drop).unwrap_err();
        let shown = error.render(false);
        assert!(
            shown.contains("one.sql") && shown.contains("2_b.sql"),
            "{shown}"
        );
    }
}
