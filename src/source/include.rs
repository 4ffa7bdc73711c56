//! Which files an `include` names.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::Error;

use super::SourceFile;

/// The definition files that an entry of `include` names, from the folder of the file it stands in,
/// in the order of their names; the file itself is left out.
///
/// `*`, `?`, `[…]` and `**` match as in a shell, hidden files excepted. What names no file is an
/// error: a suite that is silently missing is one that never fails.
pub fn included(
    file: &SourceFile,
    entry: &str,
    span: &Range<usize>,
) -> Result<Vec<PathBuf>, Error> {
    let wrong = |message: String| file.error(span.clone(), message, "");
    let folder = file.path.parent().unwrap_or(Path::new(""));
    if !entry.contains(['*', '?', '[']) {
        let path = folder.join(entry);
        if path.is_dir() {
            return Err(wrong(format!("`{entry}` is a folder")).help(format!(
                "name its files: \"{}/*.toml\"",
                entry.trim_end_matches('/')
            )));
        }
        if !path.is_file() {
            return Err(wrong(format!("there is no file `{entry}`"))
                .help("a file is named from the folder of the file that includes it"));
        }
        if !is_definition(&path) {
            return Err(wrong(format!(
                "`{entry}` is neither a `.toml` nor a `.sql` file"
            )));
        }
        return Ok(vec![as_named(&path)]);
    }
    let pattern = match folder.to_string_lossy() {
        here if here.is_empty() => entry.to_owned(),
        folder => format!("{}/{entry}", Pattern::escape(&folder)),
    };
    let options = MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    let paths = glob::glob_with(&pattern, options)
        .map_err(|error| wrong(format!("`{entry}` is no pattern: {}", error.msg)))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            Error::io("read", error.path(), error.error()).at(file.excerpt(span.clone(), ""))
        })?;
        if path.is_file() && is_definition(&path) && !is_same(&path, &file.path) {
            files.push(as_named(&path));
        }
    }
    if files.is_empty() {
        return Err(wrong(format!("`{entry}` matches no other file of gates"))
            .help("a pattern is matched from the folder of the file that includes it"));
    }
    Ok(files)
}

fn is_definition(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "toml" || extension == "sql")
}

fn is_same(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

/// The path as a person would write it, unless a link on the way makes that another file.
fn as_named(path: &Path) -> PathBuf {
    let plain = plain_path(path);
    match is_same(&plain, path) {
        true => plain,
        false => path.to_owned(),
    }
}

/// The path without `.` and without `a/..`, so that reports name files as a person would.
pub fn plain_path(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        let is_folder = matches!(plain.components().next_back(), Some(Component::Normal(_)));
        match part {
            Component::CurDir => {}
            Component::ParentDir if is_folder => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("fixtures/a/../../gates", "gates")]
    #[case("./a/./b", "a/b")]
    #[case("../a/../b", "../b")]
    #[case("/x/../y", "/y")]
    fn a_path_is_named_plainly(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(plain_path(Path::new(path)), Path::new(expected));
    }
}
