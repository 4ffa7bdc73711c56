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
