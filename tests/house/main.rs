//! Guards on the house itself. Each one says what is wrong, where, and what to do about it.

mod contract;
mod counterparts;
mod docs;
mod layers;
mod links;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path from the root.
fn read(path: &str) -> String {
    let full = root().join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// All files below a folder with the given ending, as paths from the root, sorted.
fn files(folder: &str, ending: &str) -> Vec<String> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    let mut names: Vec<String> = found
        .iter()
        .map(|path| {
            let inside = path.strip_prefix(root()).expect("a path below the root");
            inside.to_string_lossy().replace('\\', "/")
        })
        .collect();
    names.sort();
    names
}

/// Fails with one line for each complaint.
#[track_caller]
fn report(what_to_do: &str, complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{what_to_do}\n  {}\n",
        complaints.join("\n  ")
    );
}

/// The code of a source file: comments blanked, and the unit tests in it too. Line numbers stay as they are.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut is_test = false;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_cfg_test = line.starts_with("#[cfg(") && line.contains("test");
        if is_cfg_test && lines.peek().is_some_and(|next| *next == "mod tests {") {
            is_test = true;
        }
        if !is_test {
            let kept = line.find("//").map_or(line, |at| &line[..at]);
            out.push_str(kept);
        } else if line == "}" {
            is_test = false;
        }
        out.push('\n');
    }
    out
}
