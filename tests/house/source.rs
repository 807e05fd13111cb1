//! Who may name what in `src`.

use crate::{code, files, read, report};

const CEILING: usize = 600;

#[test]
fn no_file_has_two_jobs() {
    let complaints: Vec<String> = files("src", "rs")
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > CEILING)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    report(
        &format!("a file of more than {CEILING} lines has two jobs; split it:"),
        &complaints,
    );
}

/// Lines of code outside `home` that hold one of the `words`, with each place.
fn strays(home: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        if home.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in code(&read(&path)).lines().enumerate() {
            if words.iter().any(|word| holds(line, word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

/// Whether `word` stands in `line`, not as a part of a longer name.
fn holds(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

#[test]
fn only_sync_names_atomics_and_locks() {
    let mut complaints = strays(
        &["src/sync.rs"],
        &[
            "sync::atomic",
            "std::sync::Mutex",
            "std::sync::RwLock",
            "std::sync::Condvar",
            "loom",
            "shuttle",
        ],
    );
    // `use std::sync::{Arc, Mutex}`, on one line or on several.
    for path in files("src", "rs")
        .into_iter()
        .filter(|path| path != "src/sync.rs")
    {
        let text = code(&read(&path));
        for (at, _) in text
            .match_indices("std::sync::{")
            .chain(text.match_indices("sync::{"))
        {
            let before = text[..at].trim_end();
            if before.ends_with("crate::") || before.ends_with("tokio::") {
                continue;
            }
            let list = text[at..].split('}').next().unwrap_or_default();
            for word in ["atomic", "Mutex", "MutexGuard", "RwLock", "Condvar"] {
                if holds(list, word) {
                    complaints.push(format!("{path}: `{word}` from std::sync"));
                }
            }
        }
    }
    complaints.retain(|line| !line.contains("cfg(") && !line.contains("cfg_attr("));
    complaints.sort();
    complaints.dedup();
    report(
        "take it from crate::sync, so that loom and shuttle can see it:",
        &complaints,
    );
}

#[test]
fn only_runtime_spawns_tasks() {
    let complaints = strays(
        &["src/runtime.rs"],
        &[
            "tokio::spawn",
            "task::spawn",
            "block_in_place",
            "block_on",
            "JoinSet",
            "Handle::current",
            "Handle::try_current",
            "handle.spawn",
        ],
    );
    report(
        "tasks are spawned and runtimes are found in src/runtime.rs only:",
        &complaints,
    );
}

#[test]
fn the_front_holds_no_logic() {
    let lib = code(&read("src/lib.rs"));
    let complaints: Vec<String> = lib
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim_start()))
        .filter(|(_, line)| {
            [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "impl ",
                "impl<",
                "struct ",
                "pub struct ",
                "enum ",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        })
        .map(|(number, line)| format!("src/lib.rs:{number}: {line}"))
        .collect();
    report("src/lib.rs re-exports; give this a room:", &complaints);
}

/// `.ci/run features` need not try every set of features while this holds.
#[test]
fn no_cfg_names_two_features() {
    let mut complaints = Vec::new();
    for path in files("src", "rs") {
        for (number, line) in code(&read(&path)).lines().enumerate() {
            if line.matches("feature =").count() > 1 {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(
        "try all sets of features in `.ci/run`, or split these:",
        &complaints,
    );
}
