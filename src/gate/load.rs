//! All gates of a run: the files that were named, those that these include, and what must hold of
//! the whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Errors};
use crate::source::{SourceFile, Vars, discover, included};

use super::Gate;
use super::build::{Head, Loaded, head, sql_gate, suite};
use super::readiness::Readiness;

/// What definitions may refer to.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Variables that override those of the suites.
    pub vars: Vars,
}

/// All gates of a run, in the order of their files and lines; those of an included file stand before
/// those of the file that includes it.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// The gates.
    pub gates: Vec<Gate>,
    /// What it takes for the whole to be ready, where a suite says so.
    pub readiness: Option<Readiness>,
    /// The files, in order, those without a gate included.
    pub files: Vec<DefinitionFile>,
}

/// One file of definitions, as far as it is more than its gates.
#[derive(Clone, Debug)]
pub struct DefinitionFile {
    /// The file.
    pub file: SourceFile,
    /// Whether it defines anything.
    pub is_empty: bool,
    /// Variables of its `[vars]` that no gate uses, its own or of a file that includes it, and
    /// where they stand.
    pub unused_vars: Vec<(String, Range<usize>)>,
}

/// Loads every gate below `paths` and of the files that they include, each file once; on any
/// mistake, all mistakes of all files and no gate.
///
/// No gate at all is a mistake too: nothing is proved by nothing.
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Result<Definitions, Errors> {
    let mut loader = Loader {
        options,
        known: HashMap::new(),
        above: Vec::new(),
        files: Vec::new(),
        gates: Vec::new(),
        readiness: None,
        errors: Vec::new(),
    };
    for path in discover(paths)? {
        loader.file(path);
    }
    let files = loader.definition_files();
    let Loader {
        gates,
        readiness,
        mut errors,
        ..
    } = loader;
    errors.extend(duplicates(&gates));
    // With gates missing because of their mistakes, tags would be missed that are there.
    if let Some(readiness) = readiness.as_ref().filter(|_| errors.is_empty()) {
        errors.extend(
            readiness
                .check(&gates)
                .err()
                .into_iter()
                .flat_map(|errors| errors.0),
        );
    }
    if errors.is_empty() && gates.is_empty() {
        let named: Vec<String> = paths
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        errors.push(
            Error::new(
                ErrorKind::Definition,
                format!("there is no gate in {}", named.join(", ")),
            )
            .help("a run without gates proves nothing; write a [[gate]] or name another folder with --gates PATH"),
        );
    }
    Errors(errors).into_result().map(|()| Definitions {
        gates,
        readiness,
        files,
    })
}

/// Reads files and what they include, each one once.
struct Loader<'o> {
    options: &'o LoadOptions,
    /// Where in `files` one is, by its path without links; `None` for one that cannot be read.
    known: HashMap<PathBuf, Option<usize>>,
    /// The files whose includes are being read, the outermost first.
    above: Vec<(PathBuf, SourceFile)>,
    files: Vec<Read>,
    gates: Vec<Gate>,
    readiness: Option<Readiness>,
    errors: Vec<Error>,
}

/// A file that was read.
struct Read {
    file: SourceFile,
    is_empty: bool,
    /// What an including file sees: its variables and those of the files that it includes itself.
    visible: Visible,
    own_vars: Vec<(String, Range<usize>)>,
    used_vars: BTreeSet<String>,
    includes: Vec<usize>,
}

/// Variables with the file that defines them.
type Visible = BTreeMap<String, (String, PathBuf)>;

impl Loader<'_> {
    /// Reads a file, unless it was read before.
    fn file(&mut self, path: PathBuf) -> Option<usize> {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(index) = self.known.get(&real) {
            return *index;
        }
        let index = match SourceFile::load(path) {
            Ok(file) if file.path.extension().is_some_and(|end| end == "sql") => {
                let loaded = sql_gate(&file, &self.options.vars);
                Some(self.keep(file, loaded))
            }
            Ok(file) => self.suite(&real, file),
            Err(error) => {
                self.errors.push(error);
                None
            }
        };
        self.known.insert(real, index);
        index
    }

    fn suite(&mut self, real: &std::path::Path, file: SourceFile) -> Option<usize> {
        let Head {
            root,
            vars: own,
            places,
            includes,
            errors,
        } = match head(&file, &self.options.vars) {
            Ok(head) => head,
            Err(errors) => {
                self.errors.extend(errors);
                return None;
            }
        };
        self.errors.extend(errors);
        self.above.push((real.to_owned(), file.clone()));
        let (visible, read) = self.includes(&file, &own, &includes);
        self.above.pop();

        let inherited = visible.iter();
        let mut vars: Vars = inherited
            .map(|(name, (value, _))| (name.clone(), value.clone()))
            .collect();
        vars.extend(own.clone());
        vars.extend(self.options.vars.clone());
        let mut used_vars = BTreeSet::new();
        let loaded = suite(&file, &root, &vars, &mut used_vars);
        let path = file.path.clone();
        let index = self.keep(file, loaded);
        let found = &mut self.files[index];
        found.is_empty &= includes.is_empty();
        found.visible = visible;
        let own = own.into_iter();
        found
            .visible
            .extend(own.map(|(name, value)| (name, (value, path.clone()))));
        found.own_vars = places;
        found.used_vars = used_vars;
        found.includes = read;
        Some(index)
    }

    /// What the entries of `include` bring: variables, and which files they are.
    fn includes(
        &mut self,
        file: &SourceFile,
        own: &Vars,
        entries: &[(String, Range<usize>)],
    ) -> (Visible, Vec<usize>) {
        let (mut visible, mut read) = (Visible::new(), Vec::new());
        for (entry, span) in entries {
            let paths = match included(file, entry, span) {
                Ok(paths) => paths,
                Err(error) => {
                    self.errors.push(error);
                    continue;
                }
            };
            for path in paths {
                if let Some(error) = self.cycle(file, &path, span) {
                    self.errors.push(error);
                    continue;
                }
                let Some(index) = self.file(path) else {
                    continue;
                };
                read.push(index);
                for (name, (value, from)) in self.files[index].visible.clone() {
                    let is_settled =
                        own.contains_key(&name) || self.options.vars.contains_key(&name);
                    match visible.get(&name) {
                        Some((other, first)) if *other != value && !is_settled => {
                            let message = format!("the variable `{name}` has two values");
                            let note = format!(
                                "it is defined in {} and in {}",
                                first.display(),
                                from.display()
                            );
                            let error = file.error(span.clone(), message, "").note(note);
                            self.errors.push(error.help(format!(
                                "say under [vars] here which one holds: {name} = \"…\""
                            )));
                        }
                        _ => {
                            visible.insert(name, (value, from));
                        }
                    }
                }
            }
        }
        (visible, read)
    }

    /// The mistake of a file that includes one of those that include it.
    fn cycle(
        &self,
        file: &SourceFile,
        path: &std::path::Path,
        span: &Range<usize>,
    ) -> Option<Error> {
        let real = path.canonicalize().ok()?;
        let start = self.above.iter().position(|(above, _)| *above == real)?;
        let way = self.above[start..]
            .iter()
            .map(|(_, file)| file.path.as_path())
            .chain([path])
            .map(|path| format!("`{}`", path.display()))
            .collect::<Vec<_>>();
        Some(
            file.error(span.clone(), "these files include each other", "")
                .note(format!("the way round: {}", way.join(" includes ")))
                .help("put what both need into a file that includes neither"),
        )
    }

    fn keep(&mut self, file: SourceFile, loaded: Result<Loaded, Vec<Error>>) -> usize {
        let loaded = loaded.unwrap_or_else(|errors| {
            self.errors.extend(errors);
            Loaded::default()
        });
        self.files.push(Read {
            file,
            is_empty: loaded.gates.is_empty() && loaded.readiness.is_none(),
            visible: Visible::new(),
            own_vars: Vec::new(),
            used_vars: BTreeSet::new(),
            includes: Vec::new(),
        });
        self.gates.extend(loaded.gates);
        match (&self.readiness, loaded.readiness) {
            (Some(first), Some(again)) => self.errors.push(again.again(first)),
            (None, more) => self.readiness = more,
            (Some(_), None) => {}
        }
        self.files.len() - 1
    }

    fn definition_files(&self) -> Vec<DefinitionFile> {
        // What a file uses, each file that it includes may have defined; those stand before it.
        let mut used: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); self.files.len()];
        for (index, read) in self.files.iter().enumerate().rev() {
            used[index].extend(read.used_vars.iter().map(String::as_str));
            for below in &read.includes {
                let more = used[index].clone();
                used[*below].extend(more);
            }
        }
        let files = self.files.iter().zip(used);
        files
            .map(|(read, used)| {
                let (unused, needed): (Vec<_>, Vec<_>) = read
                    .own_vars
                    .iter()
                    .cloned()
                    .partition(|(name, _)| !used.contains(name.as_str()));
                DefinitionFile {
                    file: read.file.clone(),
                    is_empty: read.is_empty && needed.is_empty(),
                    unused_vars: unused,
                }
            })
            .collect()
    }
}

fn duplicates(gates: &[Gate]) -> Vec<Error> {
    let mut first: HashMap<&str, &Gate> = HashMap::new();
    let mut errors = Vec::new();
    for gate in gates {
        match first.get(gate.id.as_str()) {
            Some(earlier) => errors.push(
                gate.origin
                    .file
                    .error(
                        gate.origin.fields.span("id"),
                        format!("the id `{}` is taken", gate.id),
                        "",
                    )
                    .note(format!("the first gate of that id is at {}", earlier.place)),
            ),
            None => {
                first.insert(&gate.id, gate);
            }
        }
    }
    errors
}
