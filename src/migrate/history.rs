//! A folder of migrations, checked as a whole.
//!
//! `NNN_name.up.sql` with `NNN_name.down.sql`, or `NNN_name.sql`, which has no down. The comments
//! before the first statement may hold directives:
//!
//! ```sql
//! -- postern: irreversible: drops the legacy schemas
//! -- postern: no-transaction
//! ```
//!
//! Knows nothing of connections.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::script::{Script, sql_files};
use crate::error::{Error, ErrorKind, Errors, nearest, one_of};

/// The migrations of a folder, in the order of their versions. There is at least one.
#[derive(Clone, Debug)]
pub struct History {
    folder: PathBuf,
    migrations: Vec<Migration>,
}

/// One migration: what brings it about and what takes it back.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The number its files begin with.
    pub version: u64,
    /// The number and name as written: `003_outcome_sync`.
    pub id: String,
    /// The name alone: `outcome_sync`.
    pub name: String,
    /// What brings it about.
    pub up: Script,
    /// What takes it back; absent exactly when it is irreversible.
    pub down: Option<Script>,
    /// Why it cannot be taken back.
    pub irreversible: Option<String>,
    /// Whether the up runs in one transaction.
    pub transactional: bool,
    /// Whether the down runs in one transaction.
    pub down_transactional: bool,
}

impl History {
    /// Reads a folder. All mistakes found are reported together, in the order of the file names.
    pub fn discover(folder: &Path) -> Result<Self, Errors> {
        Self::read(folder, Downs::Required)
    }

    fn read(folder: &Path, downs: Downs) -> Result<Self, Errors> {
        let mut errors = Errors::default();
        let mut found: BTreeMap<u64, Found> = BTreeMap::new();
        for file in sql_files(folder)? {
            match FileName::parse(&file) {
                Ok(name) => found.entry(name.version).or_default().add(name, file),
                Err(error) => errors.0.push(error),
            }
        }
        if found.is_empty() && errors.0.is_empty() {
            let message = format!("`{}` holds no migration", folder.display());
            errors.0.push(
                Error::new(ErrorKind::Definition, message)
                    .help("name the files `001_name.up.sql` and `001_name.down.sql`"),
            );
        }
        let mut migrations = Vec::new();
        for found in found.into_values() {
            match found.check(downs) {
                Ok(migration) => migrations.push(migration),
                Err(more) => errors.0.extend(more.0),
            }
        }
        errors.into_result()?;
        Ok(Self {
            folder: folder.to_owned(),
            migrations,
        })
    }

    /// The folder, as it was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The migrations by version.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// Where a migration stands in the order, by its number (`014` or `14`), its name, or both.
    pub fn position(&self, named: &str) -> Option<usize> {
        self.migrations.iter().position(|migration| {
            migration.id == named
                || migration.name == named
                || named.parse() == Ok(migration.version)
        })
    }
}

/// The ups of a folder in order, for somebody who takes nothing back. An empty folder has none.
pub(crate) fn ups_of(folder: &Path) -> Result<Vec<Migration>, Errors> {
    if sql_files(folder)?.is_empty() {
        return Ok(Vec::new());
    }
    let history = History::read(folder, Downs::Ignored)?;
    Ok(history.migrations)
}

/// What is asked of the downs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Downs {
    /// Every up has one, or says why not.
    Required,
    /// They are not read.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Up,
    Down,
}

/// `003_outcome_sync.up.sql`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct FileName {
    version: u64,
    id: String,
    name: String,
    role: Role,
}

impl FileName {
    fn parse(path: &Path) -> Result<Self, Error> {
        let wrong = || {
            Error::new(
                ErrorKind::Definition,
                format!("`{}` is not named like a migration", path.display()),
            )
            .help("name it `NNN_name.up.sql`, `NNN_name.down.sql` or `NNN_name.sql`")
        };
        let file_name = path.file_name().and_then(|name| name.to_str());
        let stem = file_name.and_then(|name| name.strip_suffix(".sql"));
        let stem = stem.ok_or_else(wrong)?;
        let (id, role) = match stem.rsplit_once('.') {
            Some((id, "up")) => (id, Role::Up),
            Some((id, "down")) => (id, Role::Down),
            Some(_) => return Err(wrong()),
            None => (stem, Role::Up),
        };
        let (digits, name) = id.split_once('_').ok_or_else(wrong)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || name.is_empty() {
            return Err(wrong());
        }
        let version = digits.parse().map_err(|_| {
            let message = format!("the version of `{}` is too large", path.display());
            Error::new(ErrorKind::Definition, message)
                .help(format!("versions go up to {}", u64::MAX))
        })?;
        Ok(Self {
            version,
            id: id.to_owned(),
            name: name.to_owned(),
            role,
        })
    }
}

/// The files of one version.
#[derive(Default)]
struct Found {
    ups: Vec<(FileName, PathBuf)>,
    downs: Vec<(FileName, PathBuf)>,
}

impl Found {
    fn add(&mut self, name: FileName, file: PathBuf) {
        match name.role {
            Role::Up => self.ups.push((name, file)),
            Role::Down => self.downs.push((name, file)),
        }
    }

    fn check(mut self, downs: Downs) -> Result<Migration, Errors> {
        let mut errors = Errors::default();
        if downs == Downs::Ignored {
            self.downs.clear();
        }
        self.check_names(&mut errors);
        let up = collect(&mut errors, self.ups.first(), Part::read);
        let down = collect(&mut errors, self.downs.first(), Part::read);
        for other in self.ups.iter().skip(1).chain(self.downs.iter().skip(1)) {
            collect(&mut errors, Some(other), Part::read);
        }
        if let (Some(up), Some((_, file)), Downs::Required) = (&up, self.ups.first(), downs) {
            check_pair(up, file, &self.downs, &mut errors);
        }
        if let Some(Part {
            script,
            irreversible: Some((_, span)),
            ..
        }) = &down
        {
            let message = "a down cannot be irreversible".to_owned();
            errors.0.push(
                Error::new(ErrorKind::Definition, message)
                    .at(script.excerpt(span.clone(), "move it into the up, and remove this file")),
            );
        }
        errors.into_result()?;
        let (Some(up), false) = (up, self.ups.is_empty()) else {
            // Without an up and without an error nothing was found: versions come from files.
            return Err(Errors::default());
        };
        let (name, _) = self.ups.swap_remove(0);
        Ok(Migration {
            version: name.version,
            id: name.id,
            name: name.name,
            irreversible: up.irreversible.map(|(reason, _)| reason),
            transactional: up.transactional,
            up: up.script,
            down_transactional: down.as_ref().is_none_or(|down| down.transactional),
            down: down.map(|down| down.script),
        })
    }

    fn check_names(&self, errors: &mut Errors) {
        for same in [&self.ups, &self.downs] {
            let [(first, first_file), rest @ ..] = same.as_slice() else {
                continue;
            };
            for (_, file) in rest {
                let message = format!(
                    "version {} is used twice: `{}` and `{}`",
                    first.version,
                    first_file.display(),
                    file.display()
                );
                errors.0.push(
                    Error::new(ErrorKind::Definition, message)
                        .help("give one of them another number; the order would be a guess"),
                );
            }
        }
        for (down, file) in &self.downs {
            if self.ups.iter().any(|(up, _)| up.id == down.id) {
                continue;
            }
            let message = format!("`{}` takes back an up that does not exist", file.display());
            let error = Error::new(ErrorKind::Definition, message);
            errors.0.push(match self.ups.first() {
                Some((up, _)) => error.help(format!(
                    "version {} is named `{}`; name the down `{}.down.sql`",
                    up.version, up.id, up.id
                )),
                None => error.help(format!("add `{}.up.sql` beside it", down.id)),
            });
        }
    }
}

/// Runs a reader, keeping its errors.
fn collect<I, T>(
    errors: &mut Errors,
    input: Option<I>,
    read: impl Fn(I) -> Result<T, Errors>,
) -> Option<T> {
    match read(input?) {
        Ok(value) => Some(value),
        Err(more) => {
            errors.0.extend(more.0);
            None
        }
    }
}

/// An up has a down or says why not, never both.
fn check_pair(up: &Part, file: &Path, downs: &[(FileName, PathBuf)], errors: &mut Errors) {
    match (&up.irreversible, downs.first()) {
        (Some((_, span)), Some((_, down))) => {
            let message = format!("an irreversible migration has a down, `{}`", down.display());
            errors.0.push(
                Error::new(ErrorKind::Definition, message)
                    .at(up
                        .script
                        .excerpt(span.clone(), "said to be irreversible here"))
                    .help("remove the directive, or the down"),
            );
        }
        (None, None) => {
            let message = format!("`{}` has no down", file.display());
            errors.0.push(Error::new(ErrorKind::Definition, message).help(
                "add the `.down.sql` beside it, or begin it with `-- postern: irreversible: REASON`",
            ));
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}

/// One file with what its directives say.
struct Part {
    script: Script,
    irreversible: Option<(String, std::ops::Range<usize>)>,
    transactional: bool,
}

const DIRECTIVES: [&str; 2] = ["irreversible", "no-transaction"];

impl Part {
    fn read((_, file): &(FileName, PathBuf)) -> Result<Self, Errors> {
        Self::new(Script::read(file)?)
    }

    fn new(script: Script) -> Result<Self, Errors> {
        let mut errors = Errors::default();
        let mut irreversible = None;
        let mut transactional = true;
        for comment in script.comments() {
            let text = script.comment_text(comment);
            let span = comment.span.clone();
            let wrong = |message: String, label: &str| {
                Error::new(ErrorKind::Definition, message).at(script.excerpt(span.clone(), label))
            };
            let Some(directive) = text.strip_prefix("postern:").map(str::trim) else {
                // sqlx reads it only as the very first thing of a file.
                transactional &= !(comment.is_leading && text == "no-transaction");
                continue;
            };
            if !comment.is_leading {
                errors.0.push(
                    wrong(
                        "a directive after the first statement has no effect".into(),
                        "",
                    )
                    .help("move it to the top of the file"),
                );
                continue;
            }
            let (word, value) = directive
                .split_once(':')
                .map_or((directive, ""), |(word, value)| (word.trim(), value.trim()));
            match (word, value) {
                ("irreversible", "") => errors.0.push(
                    wrong("`irreversible` gives no reason".into(), "")
                        .help("write `-- postern: irreversible: REASON`"),
                ),
                ("irreversible", reason) => irreversible = Some((reason.to_owned(), span)),
                ("no-transaction", "") => transactional = false,
                ("no-transaction", _) => {
                    errors
                        .0
                        .push(wrong("`no-transaction` takes no value".into(), ""));
                }
                (other, _) => {
                    let error = wrong(
                        format!("unknown directive `{other}`"),
                        &format!("expected {}", one_of(DIRECTIVES)),
                    );
                    errors.0.push(match nearest(other, DIRECTIVES) {
                        Some(near) => error.help(format!("did you mean `{near}`?")),
                        None => error,
                    });
                }
            }
        }
        if script.statements().is_empty() {
            let message = format!("`{}` holds no statement", script.file().display());
            errors.0.push(
                Error::new(ErrorKind::Definition, message)
                    .help("write `select;` if there is truly nothing to do"),
            );
        }
        if transactional {
            for statement in script.statements() {
                if statement.is_transaction_control() {
                    errors.0.push(
                        Error::new(
                            ErrorKind::Definition,
                            format!(
                                "{} in a migration that runs in a transaction of its own",
                                statement.command()
                            ),
                        )
                        .at(script.excerpt(statement.span.clone(), ""))
                        .help("remove it, or begin the file with `-- postern: no-transaction`"),
                    );
                }
            }
        }
        errors.into_result()?;
        Ok(Self {
            script,
            irreversible,
            transactional,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[track_caller]
    fn discover(files: &[(&str, &str)]) -> Result<History, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        History::discover(folder.path()).map_err(|errors| {
            let rendered: Vec<String> = errors.0.iter().map(|e| e.render(false)).collect();
            rendered
                .join("\n")
                .replace(&format!("{}/", folder.path().display()), "")
                .replace(&folder.path().display().to_string(), "FOLDER")
        })
    }

    #[test]
    fn a_folder_is_read_in_numeric_order() {
        let history = discover(&[
            ("10_c.sql", "-- postern: irreversible: it drops\nselect 1"),
            ("009_b.up.sql", "-- no-transaction\nselect 1; begin; commit"),
            ("009_b.down.sql", "select 1"),
            ("1_a.up.sql", "select 1"),
            (
                "1_a.down.sql",
                "\u{feff}-- postern: no-transaction\r\nselect 1;\r\n",
            ),
            ("README.md", "not SQL"),
        ])
        .unwrap();
        let ids: Vec<&str> = history.migrations().iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["1_a", "009_b", "10_c"]);
        let [a, b, c] = history.migrations() else {
            panic!("there are three")
        };
        assert!(a.transactional && !a.down_transactional);
        assert!(!b.transactional && b.down.is_some());
        assert_eq!(c.irreversible.as_deref(), Some("it drops"));
        assert!(c.down.is_none());
    }

    #[rstest]
    #[case::names("names", &[("a.sql", "select 1"), ("1a.up.sql", ""), ("2_.sql", ""), ("3_x.side.sql", ""), ("99999999999999999999_x.sql", "")], 5)]
    #[case::duplicate("duplicate", &[("1_a.up.sql", "select 1"), ("1_a.down.sql", "select 1"), ("01_b.up.sql", "select 1")], 1)]
    #[case::orphan_down("orphan_down", &[("1_a.down.sql", "select 1")], 1)]
    #[case::other_name("other_name", &[("1_a.down.sql", "select 1"), ("1_b.up.sql", "select 1")], 1)]
    #[case::no_down("no_down", &[("1_a.up.sql", "select 1"), ("2_b.sql", "select 1")], 2)]
    #[case::both("both", &[("1_a.up.sql", "-- postern: irreversible: x\nselect 1"), ("1_a.down.sql", "select 1")], 1)]
    #[case::directives("directives", &[("1_a.sql", "-- postern: ireversible: x\n-- postern: irreversible:\n-- postern: no-transaction: x\nselect 1;\n-- postern: no-transaction")], 4)]
    #[case::down_irreversible("down_irreversible", &[("1_a.up.sql", "select 1"), ("1_a.down.sql", "-- postern: irreversible: x\nselect 1")], 1)]
    #[case::empty("empty", &[("1_a.up.sql", "-- nothing\n"), ("1_a.down.sql", ";")], 2)]
    #[case::transaction("transaction", &[("1_a.up.sql", "begin;\nselect 1;\ncommit;"), ("1_a.down.sql", "rollback to a; rollback")], 3)]
    #[case::none("none", &[("README.md", "x")], 1)]
    #[case::all_at_once("all_at_once", &[("1_a.up.sql", "\\i x"), ("1_a.down.sql", "select '"), ("2_b.sql", "copy a from stdin"), ("x.sql", "")], 4)]
    fn every_mistake_is_reported(
        #[case] name: &str,
        #[case] files: &[(&str, &str)],
        #[case] expected: usize,
    ) {
        let rendered = discover(files).expect_err("it is wrong");
        insta::assert_snapshot!(format!("history_{name}"), rendered);
        assert_eq!(rendered.matches("error:").count(), expected, "{rendered}");
    }

    #[test]
    fn a_file_that_is_not_utf8_names_line_and_byte() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1_a.sql"), b"select 1;\nselect '\xe4'").unwrap();
        let errors = History::discover(folder.path()).expect_err("it is wrong").0;
        assert!(
            errors[0].message().ends_with("line 2 holds the byte 0xE4"),
            "{errors:?}"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let errors = History::discover(Path::new("/nowhere/at/all")).expect_err("it is wrong");
        assert_eq!(errors.0[0].kind(), ErrorKind::Io);
    }
}
