//! Which way arrows point.

use std::collections::BTreeMap;

use crate::{code, files, read, report};

/// The floors, from the ground up. A module imports from lower floors and from itself; on the floors marked so, also
/// from its own floor.
const FLOORS: &[(&str, bool, &[&str])] = &[
    ("ground", false, &["sync"]),
    (
        "pure",
        true,
        &[
            "panic",
            "state/word",
            "admission",
            "retry/backoff",
            "retry/jitter",
            "retry/histogram",
            "run/stages",
            "supervise/restart",
            "supervise/schedule",
            "queue/state",
            "queue/store",
            "queue/waiters",
            "rate",
            "fan_out/crew",
            "fan_out/lanes",
            "fan_out/ordered",
            "limit/aimd",
            "limit/gcra",
            "limit/permits",
            "limit/waiters",
            "sorted_map",
        ],
    ),
    (
        "base",
        true,
        &[
            "watched", "state", "context", "detail", "pulse", "smallest", "cancel", "time",
            "observe", "calm", "trace", "root", "runtime", "shield",
        ],
    ),
    ("rooms", false, &["group", "queue", "retry", "limit"]),
    (
        "upper",
        false,
        &[
            "bridge",
            "run",
            "fan_out",
            "supervise",
            "single_flight",
            "workers",
            "inspect",
        ],
    ),
    ("kit", false, &["testing"]),
    ("front", true, &["lib", "guide"]),
];

fn floor(module: &str) -> Option<(usize, bool)> {
    FLOORS
        .iter()
        .enumerate()
        .find(|(_, (_, _, modules))| modules.contains(&module))
        .map(|(floor, (_, same, _))| (floor, *same))
}

/// `src/group/handle.rs` and `src/group.rs` are both `group`; a file that has a floor of its own is itself.
fn module(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    if floor(inside).is_some() {
        return inside;
    }
    inside.split('/').next().unwrap_or(inside)
}

/// The modules named after `crate::`, with the line, also in `use crate::{a::B, c}`.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in text.match_indices("crate::") {
        if text[..at].ends_with('$') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + start.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut heads = vec![String::new()];
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => heads.push(String::new()),
                    _ if depth == 0 => heads.last_mut().expect("a head").push(c),
                    _ => {}
                }
            }
            found.extend(heads.iter().map(|head| (line, target(head.trim()))));
        } else {
            found.push((line, target(rest)));
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The module that a path leads to: `state` or, where that has a floor of its own, `state/word`.
fn target(path: &str) -> String {
    let mut names = path.split("::").map(|name| {
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
        &name[..end.unwrap_or(name.len())]
    });
    let first = names.next().unwrap_or_default();
    let both = format!("{first}/{}", names.next().unwrap_or_default());
    if floor(&both).is_some() {
        both
    } else {
        first.to_owned()
    }
}

#[test]
fn imports_point_down() {
    let mut complaints = Vec::new();
    let mut arrows: BTreeMap<(String, String), String> = BTreeMap::new();
    for path in files("src", "rs") {
        let from = module(&path).to_owned();
        if floor(&from).is_none() {
            complaints.push(format!(
                "{path}: give `{from}` a floor in tests/house/layers.rs"
            ));
            continue;
        }
        for (line, to) in named(&code(&read(&path))) {
            let is_inside = from
                .strip_prefix(to.as_str())
                .is_some_and(|rest| rest.starts_with('/'));
            if to != from && !(is_inside && floor(&from) == floor(&to)) {
                arrows
                    .entry((from.clone(), to))
                    .or_insert_with(|| format!("{path}:{line}"));
            }
        }
    }
    for ((from, to), place) in arrows {
        let (Some((here, same)), Some((there, _))) = (floor(&from), floor(&to)) else {
            // A macro or an item of the front page, named through the crate root.
            complaints.push(format!(
                "{place}: `crate::{to}`: name the module, not the re-export"
            ));
            continue;
        };
        if there > here || (there == here && !same) {
            complaints.push(format!(
                "{place}: {from} → {to}: {} may not import from {}",
                FLOORS[here].0, FLOORS[there].0
            ));
        }
    }
    report(
        "imports point down (the table is in tests/house/layers.rs and docs/ARCHITECTURE.md):",
        &complaints,
    );
}

#[test]
fn the_pure_floor_does_not_wait() {
    let mut complaints = Vec::new();
    let is_pure =
        |path: &String| floor(module(path)).is_some_and(|(floor, _)| FLOORS[floor].0 == "pure");
    for path in files("src", "rs").into_iter().filter(is_pure) {
        for (number, line) in code(&read(&path)).lines().enumerate() {
            if ["async fn", "async move", "async {", ".await", "tokio"]
                .iter()
                .any(|word| line.contains(word))
            {
                complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(
        "the pure floor decides and does not wait; move this up:",
        &complaints,
    );
}
