//! Which files hold definitions.

use std::path::{Path, PathBuf};

use crate::error::{Error, Errors, Result};

/// The definition files below `paths`: a file as it is, a folder with every `.toml` and `.sql`
/// file in it, at any depth, in the order of their names.
///
/// Hidden files and folders are left out, and so are mapping files (`NAME.mapping.toml`) that lie among
/// gates, and a file named twice. A path that does not
/// exist is an error: a gate folder that is silently missing is a gate that never fails.
pub fn discover(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Errors> {
    let mut files = Vec::new();
    let mut errors = Errors::default();
    for path in paths {
        if let Err(error) = collect(path, &mut files, true) {
            errors.0.push(error);
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(std::fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    errors.into_result().map(|()| files)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>, named: bool) -> Result<()> {
    let kind = std::fs::metadata(path).map_err(|e| {
        let error = Error::io("read", path, &e);
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::usage(format!("there is no file or folder `{}`", path.display()))
                    .help("name a gate file or a folder of gates with --gates PATH")
            }
            _ => error,
        }
    })?;
    if kind.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io("list", path, &e))?;
        let mut children = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", path, &e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with('.') && !name.ends_with(".mapping.toml") {
                children.push(entry.path());
            }
        }
        children.sort();
        for child in children {
            collect(&child, files, false)?;
        }
        return Ok(());
    }
    let is_definition = path
        .extension()
        .is_some_and(|extension| extension == "toml" || extension == "sql");
    if is_definition {
        files.push(path.to_path_buf());
    } else if named {
        return Err(Error::usage(format!(
            "`{}` is neither a `.toml` nor a `.sql` file",
            path.display()
        )));
    }
    Ok(())
}
