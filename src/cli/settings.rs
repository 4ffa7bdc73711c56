//! `postern.toml`: what a project has settled once, so that commands need no flags.
//!
//! Found in the working directory or the nearest parent; paths in it count from its own folder.
//! A flag outranks the environment, the environment outranks this file, this file outranks the
//! defaults; what a target says outranks what the whole file says. A password may stand in it,
//! and is shown nowhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Errors, nearest, one_of};
use crate::gate::fields::Age;
use crate::gate::mask::Pattern;
use crate::gate::size::Size;
use crate::pg::{Address, EngineChoice};
use crate::report::FailOn;
use crate::source::{Problem, SourceFile, Table, Vars, parse_document, read, read_vars};

const FILE: &str = "postern.toml";

/// What `postern.toml` says; everything is empty where there is none.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The project's folder, as seen from the working directory; empty for that itself.
    root: PathBuf,
    /// What holds whatever the target.
    pub(super) run: RunSettings,
    /// Where throwaway servers come from.
    pub(super) engine: Option<EngineChoice>,
    /// Variables of the definitions.
    pub(super) vars: Vars,
    /// The columns whose values stay in the database.
    pub(super) masked: Vec<Pattern>,
    /// The scenario that is rehearsed when none is named.
    pub(super) scenario: Option<String>,
    default_target: Option<String>,
    targets: BTreeMap<String, Target>,
}

/// What a target may say for itself and the file for all.
#[derive(Clone, Debug, Default)]
pub(super) struct RunSettings {
    /// Files of gates and folders of such files.
    pub(super) gates: Option<Vec<PathBuf>>,
    /// The file of failures that are accepted for now.
    pub(super) baseline: Option<PathBuf>,
    /// Which failures make the exit code 1.
    pub(super) fail_on: Option<FailOn>,
    /// How long the whole run may take.
    pub(super) timeout: Option<Age>,
    /// How long one statement may take.
    pub(super) statement_timeout: Option<Age>,
    /// How long a statement may wait for a lock.
    pub(super) lock_timeout: Option<Age>,
    /// How many sessions on one database share the work.
    pub(super) connections: Option<u8>,
    /// How much one gate may read.
    pub(super) max_scan: Option<Size>,
    /// How often a run starts over.
    pub(super) retries: Option<u32>,
    /// Which blocks gates with `sample` look at.
    pub(super) seed: Option<u32>,
}

#[derive(Debug)]
struct Target {
    location: Location,
    run: RunSettings,
}

#[derive(Debug)]
enum Location {
    Given(Box<Address>),
    /// The name of an environment variable, and where the file names it.
    Environment(String, SourceFile, Range<usize>),
}

/// The fields at the top of the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Top {
    /// The target that is checked when none is named.
    default_target: Option<String>,
    #[expect(dead_code, reason = "read word by word, before the fields as a whole")]
    engine: Option<String>,
    gates: Option<Vec<PathBuf>>,
    baseline: Option<PathBuf>,
    fail_on: Option<FailOn>,
    timeout: Option<Age>,
    statement_timeout: Option<Age>,
    lock_timeout: Option<Age>,
    #[schemars(range(min = 1, max = 64))]
    connections: Option<u8>,
    max_scan: Option<Size>,
    retries: Option<u32>,
    seed: Option<u32>,
}

/// `[target.NAME]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TargetFields {
    #[expect(dead_code, reason = "read word by word, before the fields as a whole")]
    url: Option<String>,
    #[expect(dead_code, reason = "read word by word, before the fields as a whole")]
    url_env: Option<String>,
    gates: Option<Vec<PathBuf>>,
    baseline: Option<PathBuf>,
    fail_on: Option<FailOn>,
    timeout: Option<Age>,
    statement_timeout: Option<Age>,
    lock_timeout: Option<Age>,
    #[schemars(range(min = 1, max = 64))]
    connections: Option<u8>,
    max_scan: Option<Size>,
    retries: Option<u32>,
    seed: Option<u32>,
}

/// `[scenario]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScenarioFields {
    default: Option<String>,
}

/// How many sessions may share the work.
const CONNECTIONS: std::ops::RangeInclusive<u8> = 1..=64;

/// `[mask]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MaskFields {
    /// The columns whose values stay in the database.
    #[serde(default)]
    columns: Vec<Pattern>,
}

const TABLES: [&str; 4] = ["mask", "scenario", "target", "vars"];

impl Settings {
    /// Reads the file that is named, or the nearest one from the working directory upwards.
    ///
    /// On any mistake all mistakes of it; one that is named must be there.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Errors> {
        let file = match named {
            Some(file) => file.to_owned(),
            None => match nearest_file() {
                Some(file) => file,
                None => return Ok(Self::default()),
            },
        };
        let root = file.parent().unwrap_or(Path::new("")).to_owned();
        let source = SourceFile::load(file)?;
        let document = parse_document(&source).map_err(Errors)?.into_inner();
        Reader {
            file: &source,
            root,
            errors: Vec::new(),
        }
        .read(document)
    }

    /// A path that counts from the project's folder.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The target that is checked when neither flag nor environment names one.
    ///
    /// A single one needs no `default_target`.
    pub(super) fn default_target(&self) -> Option<&str> {
        let mut names = self.targets.keys();
        match (&self.default_target, names.next(), names.next()) {
            (Some(name), _, _) => Some(name),
            (None, Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// The names of the targets, in order.
    pub(super) fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().map(String::as_str)
    }

    /// Where a target is, and its settings over those of the whole file.
    pub(super) fn target(&self, name: &str) -> Result<(Address, RunSettings), Error> {
        let Some(target) = self.targets.get(name) else {
            let error = Error::usage(format!("there is no target `{name}`"));
            return Err(match nearest(name, self.targets()) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None if self.targets.is_empty() => error.help(format!(
                    "define it in {FILE}: [target.{name}] with url or url_env"
                )),
                None => error.help(format!("the targets are {}", one_of(self.targets()))),
            });
        };
        let address = match &target.location {
            Location::Given(address) => Address::clone(address),
            Location::Environment(variable, file, span) => {
                let url = std::env::var(variable).map_err(|_| {
                    file.error(
                        span.clone(),
                        format!("the environment variable `{variable}` is not set"),
                        format!("the URL of target `{name}`"),
                    )
                })?;
                Address::parse(&url).map_err(|error| error.context(format!("`{variable}`")))?
            }
        };
        let run = target.run.clone();
        Ok((
            address,
            RunSettings {
                gates: run.gates.or_else(|| self.run.gates.clone()),
                baseline: run.baseline.or_else(|| self.run.baseline.clone()),
                fail_on: run.fail_on.or(self.run.fail_on),
                timeout: run.timeout.or(self.run.timeout),
                statement_timeout: run.statement_timeout.or(self.run.statement_timeout),
                lock_timeout: run.lock_timeout.or(self.run.lock_timeout),
                connections: run.connections.or(self.run.connections),
                max_scan: run.max_scan.or(self.run.max_scan),
                retries: run.retries.or(self.run.retries),
                seed: run.seed.or(self.run.seed),
            },
        ))
    }
}

/// The nearest file, as a relative path: reports name files the same way on every machine.
fn nearest_file() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let mut relative = PathBuf::new();
    for folder in here.ancestors() {
        if folder.join(FILE).is_file() {
            return Some(relative.join(FILE));
        }
        relative.push("..");
    }
    None
}

/// Turns the document into settings and collects every mistake on the way.
struct Reader<'a> {
    file: &'a SourceFile,
    root: PathBuf,
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn read(mut self, mut document: DeTable<'_>) -> Result<Settings, Errors> {
        let mut parts = TABLES.map(|name| document.remove(name));
        let [mask, scenario, targets, vars] = &mut parts;
        let fields = Table::new("postern.toml", 0..0, &document);
        let scenario = scenario
            .take()
            .and_then(|value| self.table("[scenario]", value))
            .and_then(|(fields, table)| self.fields::<ScenarioFields>(&fields, table, &[]));
        let defined = read_vars(self.file, vars.as_ref());
        self.errors.extend(defined.errors);
        let mask = mask
            .take()
            .and_then(|value| self.table("[mask]", value))
            .and_then(|(fields, table)| self.fields::<MaskFields>(&fields, table, &[]));
        let names: Vec<String> = targets
            .iter()
            .filter_map(|value| value.get_ref().as_table())
            .flat_map(|table| table.keys().map(|name| name.get_ref().to_string()))
            .collect();
        let targets = targets
            .take()
            .map_or_else(BTreeMap::new, |value| self.targets(value));
        // Looked at before the fields as a whole: what is wrong with one must not hide the rest.
        let engine = word(&document, "engine").and_then(|word| match word.parse() {
            Ok(engine) => Some(engine),
            Err(error) => self.refused(&fields, "engine", &error),
        });
        if let Some(name) = word(&document, "default_target")
            && !names.iter().any(|known| known == name)
        {
            let problem = Problem::new("default_target", format!("there is no target `{name}`"));
            let help = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("define it: [target.{name}]"),
            };
            self.problem(&fields, &problem.help(help));
        }
        let top = self.fields::<Top>(&fields, document, &TABLES);
        let mut settings = Settings {
            vars: defined.vars,
            targets,
            engine,
            masked: mask.map_or_else(Vec::new, |mask| mask.columns),
            scenario: scenario.and_then(|scenario| scenario.default),
            ..Settings::default()
        };
        if let Some(top) = top {
            settings.default_target = top.default_target;
            settings.run = RunSettings {
                gates: top.gates.map(|gates| self.paths(&gates)),
                baseline: top.baseline.map(|file| self.root.join(file)),
                fail_on: top.fail_on,
                timeout: top.timeout,
                statement_timeout: top.statement_timeout,
                lock_timeout: top.lock_timeout,
                connections: self.connections(&fields, top.connections),
                max_scan: top.max_scan,
                retries: top.retries,
                seed: top.seed,
            };
        }
        if self.errors.is_empty() {
            settings.root = self.root;
            return Ok(settings);
        }
        self.errors
            .sort_by_key(|error| error.excerpts().first().map(|excerpt| excerpt.span.start));
        Err(Errors(self.errors))
    }

    fn fields<T: DeserializeOwned + JsonSchema + 'static>(
        &mut self,
        fields: &Table,
        table: DeTable<'_>,
        also_known: &[&str],
    ) -> Option<T> {
        match read(self.file, fields, table, also_known) {
            Ok(value) => Some(value),
            Err(found) => {
                self.errors.extend(found);
                None
            }
        }
    }

    fn table<'t>(
        &mut self,
        name: &str,
        value: Spanned<DeValue<'t>>,
    ) -> Option<(Table, DeTable<'t>)> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some((Table::new(name, span, &table), table)),
            _ => {
                let bare = name.trim_matches(['[', ']']);
                self.errors.push(self.file.error(
                    span,
                    format!("`{bare}` is not a table"),
                    format!("expected {name}"),
                ));
                None
            }
        }
    }

    fn targets(&mut self, value: Spanned<DeValue<'_>>) -> BTreeMap<String, Target> {
        let mut targets = BTreeMap::new();
        for (key, value) in self
            .table("[target.NAME]", value)
            .into_iter()
            .flat_map(|(_, table)| table)
        {
            let name = key.get_ref().to_string();
            let target = self
                .table(&format!("[target.{name}]"), value)
                .and_then(|(fields, table)| self.target(&fields, table));
            if let Some(target) = target {
                targets.insert(name, target);
            }
        }
        targets
    }

    fn target(&mut self, fields: &Table, table: DeTable<'_>) -> Option<Target> {
        let location = match (word(&table, "url"), word(&table, "url_env")) {
            (Some(url), None) => match Address::parse(url) {
                Ok(address) => Some(Location::Given(Box::new(address))),
                Err(error) => self.refused(fields, "url", &error),
            },
            (None, Some(variable)) => Some(Location::Environment(
                variable.to_owned(),
                self.file.clone(),
                fields.span("url_env"),
            )),
            (Some(_), Some(_)) => {
                let message = format!("{} has both `url` and `url_env`", fields.what);
                self.problem(fields, &Problem::new("url_env", message).help("keep one"));
                None
            }
            (None, None) => {
                let message = format!("{} does not say where it is", fields.what);
                let help = "write url = \"postgres://…\", or url_env = \"NAME\" for a URL from the environment";
                self.problem(fields, &Problem::new("url", message).help(help));
                None
            }
        };
        let target: TargetFields = self.fields(fields, table, &[])?;
        let connections = self.connections(fields, target.connections);
        Some(Target {
            location: location?,
            run: RunSettings {
                gates: target.gates.map(|gates| self.paths(&gates)),
                baseline: target.baseline.map(|file| self.root.join(file)),
                fail_on: target.fail_on,
                timeout: target.timeout,
                statement_timeout: target.statement_timeout,
                lock_timeout: target.lock_timeout,
                connections,
                max_scan: target.max_scan,
                retries: target.retries,
                seed: target.seed,
            },
        })
    }

    /// How many sessions, as the flag takes them.
    fn connections(&mut self, fields: &Table, wanted: Option<u8>) -> Option<u8> {
        if wanted.is_some_and(|wanted| !CONNECTIONS.contains(&wanted)) {
            let (least, most) = (CONNECTIONS.start(), CONNECTIONS.end());
            let problem = Problem::new(
                "connections",
                format!("expected {least} to {most} connections"),
            );
            self.problem(fields, &problem);
        }
        wanted
    }

    fn paths(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        paths.iter().map(|path| self.root.join(path)).collect()
    }

    /// Tells at a field what was said of its value.
    fn refused<T>(&mut self, fields: &Table, field: &'static str, error: &Error) -> Option<T> {
        let mut problem = Problem::new(field, error.message());
        problem.help = error.help_text().map(str::to_owned);
        self.problem(fields, &problem);
        None
    }

    fn problem(&mut self, fields: &Table, problem: &Problem) {
        self.errors.push(fields.error(self.file, problem));
    }
}

/// The text of a field, if it is text.
fn word<'t>(table: &'t DeTable<'_>, field: &str) -> Option<&'t str> {
    table.get(field)?.get_ref().as_str()
}
