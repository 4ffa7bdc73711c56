//! What prose cannot hold.

use std::path::Path;

use postern::gate::kinds::KINDS;
use postern::gate::schema;

#[test]
fn the_reference_and_the_schema_are_those_of_the_kinds() {
    // To renew: cargo run -- list --reference > gates/README.md, list --schema > gates/gate.schema.json
    assert_eq!(
        std::fs::read_to_string("gates/README.md").unwrap(),
        schema::reference()
    );
    let written = std::fs::read_to_string("gates/gate.schema.json").unwrap();
    assert_eq!(written, format!("{:#}\n", schema::gate_file()));
}

#[test]
fn every_kind_is_one_file() {
    let mut files: Vec<String> = std::fs::read_dir("src/gate/kinds")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // A large kind keeps its parts in a folder beside its file.
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|stem| stem != "shared")
        .collect();
    files.sort();
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(files, kinds);
}

#[test]
fn the_paths_that_the_architecture_names_exist() {
    let text = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("src/"))
        .collect();
    assert!(named.len() > 5, "the architecture names the modules");
    for path in named {
        assert!(
            Path::new(path).exists(),
            "{path} is named and does not exist"
        );
    }
}

/// The rows of "Who knows whom" in the architecture: a module and those that it may use; the
/// command line, which may use all, is left out.
fn who_knows_whom() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    let section = text.split("## Who knows whom").nth(1).unwrap();
    let rows = section.split("```text\n").nth(1).unwrap();
    let rows = rows.split("```").next().unwrap();
    rows.lines()
        .map(|row| {
            let mut words = row.split_whitespace().map(str::to_owned);
            (words.next().unwrap(), words.collect())
        })
        .filter(|(_, used): &(_, Vec<String>)| used.as_slice() != ["all"])
        .collect()
}

/// Every `.rs` file below a path, or at it.
fn sources(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The modules of this crate that a source text names: `crate::a::b`, `crate::{a, b::C}`, `crate::sql!`.
fn named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    // Comments may point anywhere.
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut is_first) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => is_first = true,
                c if c.is_whitespace() => {}
                _ if is_first && depth == 0 => {
                    names.push(word(&group[at..]));
                    is_first = false;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    names
}

#[test]
fn the_reader_of_paths_sees_every_form() {
    let text = "use crate::a::B;\n// crate::no\nuse crate::{b, c::{d, E}, f};\nlet x = crate::sql!(\"\");\n\
                crate::Error::new($crate::g::h())";
    assert_eq!(named(text), ["a", "b", "c", "f", "sql", "g"]);
}

#[test]
fn every_module_uses_only_those_that_the_architecture_allows() {
    let rows = who_knows_whom();
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    let mut modules: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| *module != "cli")
        .collect();
    let mut listed: Vec<&str> = rows.iter().map(|(module, _)| module.as_str()).collect();
    for (index, (module, used)) in rows.iter().enumerate() {
        for name in used {
            assert!(
                listed[..index].contains(&name.as_str()),
                "{module} refers down to {name}"
            );
        }
    }
    modules.sort_unstable();
    listed.sort_unstable();
    assert_eq!(
        modules, listed,
        "src/lib.rs and ARCHITECTURE.md list the same modules"
    );
    let mut wrong = Vec::new();
    for (module, used) in &rows {
        let mut files = Vec::new();
        for path in [format!("src/{module}"), format!("src/{module}.rs")] {
            if Path::new(&path).exists() {
                sources(Path::new(&path), &mut files);
            }
        }
        assert!(!files.is_empty(), "{module} has no source");
        let mut needed = Vec::new();
        for file in files {
            for name in named(&std::fs::read_to_string(&file).unwrap()) {
                if name != *module && modules.contains(&name.as_str()) && !used.contains(&name) {
                    wrong.push(format!("{} uses {name}", file.display()));
                }
                needed.push(name);
            }
        }
        for name in used.iter().filter(|name| !needed.contains(name)) {
            wrong.push(format!("{module} may use {name} and does not"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_gates_of_the_readme_are_right() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let gates = readme
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("readme.toml"), gates).unwrap();
    let loaded = postern::gate::load(
        &[folder.path().to_owned()],
        &postern::gate::LoadOptions::default(),
    )
    .unwrap();
    assert_eq!(loaded.gates.len(), 2);
}

/// The rows of the table from documents to files, each as the words in backticks with what stands
/// before them.
fn realised() -> Vec<Vec<(String, String)>> {
    let text = std::fs::read_to_string("fixtures/README.md").unwrap();
    let table = text
        .split("## From the documents to the files")
        .nth(1)
        .unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    rows.filter_map(|line| line.split('|').nth(2))
        .map(|cell| {
            let parts: Vec<&str> = cell.split('`').collect();
            let words = parts.chunks(2).filter(|chunk| chunk.len() == 2);
            words
                .map(|chunk| (chunk[0].to_owned(), chunk[1].to_owned()))
                .collect()
        })
        .collect()
}

#[test]
fn the_files_that_the_fixtures_name_exist() {
    let mut named = 0;
    for row in realised() {
        let mut folder = String::new();
        for (_, word) in row {
            let is_step = word.len() > 4 && word.as_bytes()[..3].iter().all(u8::is_ascii_digit);
            let path = match word.split('/').next().unwrap() {
                // A further step stands in the folder of the one before it.
                _ if is_step => format!("{folder}/{word}"),
                "gates" if word.contains('/') => word.clone(),
                "consolidation" | "fragmentation" if word.contains('/') => {
                    format!("fixtures/{word}")
                }
                _ => continue,
            };
            folder = path.rsplit_once('/').unwrap().0.to_owned();
            let found = glob::glob(&path).unwrap().count();
            assert!(
                found > 0,
                "fixtures/README.md names `{word}`, and there is no {path}"
            );
            named += 1;
        }
    }
    assert!(named > 30, "the table names files: {named}");
}

#[test]
fn the_gates_that_the_fixtures_name_exist() {
    let options = postern::gate::LoadOptions::default();
    let mut ids = std::collections::BTreeSet::new();
    for scenario in ["consolidation", "fragmentation"] {
        let folder = Path::new("gates").join(scenario);
        let loaded = postern::gate::load(&[folder], &options).unwrap();
        ids.extend(loaded.gates.into_iter().map(|gate| gate.id));
    }
    let mut named = 0;
    for row in realised() {
        let mut is_gate = false;
        for (before, word) in row {
            // "gate `a`", "gates `a`, `b`", "the four checks are the gates `a`"; a `;` ends the list.
            is_gate &= before.trim() == ",";
            is_gate |= before.trim_end().ends_with("gate") || before.trim_end().ends_with("gates");
            if is_gate {
                assert!(
                    ids.contains(&word),
                    "fixtures/README.md names the gate `{word}`"
                );
                named += 1;
            }
        }
    }
    assert!(named > 10, "the table names gates: {named}");
}
