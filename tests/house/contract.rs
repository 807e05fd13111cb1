//! `docs/contract.md` and `tests/contract` say the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files, read, report};

/// The promises of the page, with how often each is made.
pub(super) fn promises() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in read("docs/contract.md").lines() {
        if let Some(rest) = line.strip_prefix("### `") {
            let name = rest.strip_suffix('`').unwrap_or_else(|| {
                panic!("docs/contract.md: the heading `{line}` must be a test name in backticks and nothing else")
            });
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    found
}

/// The tests of one family, in its file and in its folder: functions under an attribute that ends in `test` or
/// `test(…)`.
fn tests(family: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    let (file, folder) = (
        format!("tests/contract/{family}.rs"),
        format!("tests/contract/{family}/"),
    );
    let text: String = files("tests/contract", "rs")
        .iter()
        .filter(|path| **path == file || path.starts_with(&folder))
        .map(|path| read(path))
        .collect();
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(attribute) = line.strip_prefix("#[") {
            let path = attribute.split(['(', ']']).next().unwrap_or_default();
            is_test |= path == "test" || path.ends_with("::test");
        } else if let Some(at) = line.find("fn ") {
            if is_test {
                let name = line[at + 3..].split('(').next().unwrap_or_default();
                found.push(format!("{family}::{name}"));
            }
            is_test = false;
        }
    }
    found
}

fn families() -> Vec<String> {
    files("tests/contract", "rs")
        .iter()
        .filter_map(|path| path.strip_prefix("tests/contract/")?.strip_suffix(".rs"))
        .filter(|family| *family != "main" && !family.contains('/'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_promise_has_a_test_and_every_test_a_promise() {
    let promised: BTreeSet<String> = promises().into_keys().collect();
    let tested: BTreeSet<String> = families().iter().flat_map(|family| tests(family)).collect();
    assert!(
        promised.len() > 100,
        "docs/contract.md has {} headings only: was its form changed?",
        promised.len()
    );
    let untested = promised
        .difference(&tested)
        .map(|name| format!("{name}: promised, no test"));
    let unpromised = tested
        .difference(&promised)
        .map(|name| format!("{name}: tested, not promised"));
    let complaints: Vec<String> = untested.chain(unpromised).collect();
    report(
        "docs/contract.md and tests/contract differ; write the test, or the heading with a sentence under it:",
        &complaints,
    );
}

#[test]
fn every_promise_is_made_once_and_says_something() {
    let mut complaints: Vec<String> = promises()
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(name, times)| format!("{name}: {times} headings"))
        .collect();
    let page = read("docs/contract.md");
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("### `") && lines.peek().is_none_or(|next| next.trim().is_empty()) {
            complaints.push(format!("{line}: no sentence directly below"));
        }
    }
    report(
        "each heading of docs/contract.md stands once, with a sentence below it:",
        &complaints,
    );
}

#[test]
fn every_family_is_listed_in_main() {
    let main = read("tests/contract/main.rs");
    let complaints: Vec<String> = families()
        .into_iter()
        .filter(|family| !main.lines().any(|line| line == format!("mod {family};")))
        .map(|family| format!("tests/contract/{family}.rs is not compiled"))
        .collect();
    report("add `mod …;` to tests/contract/main.rs:", &complaints);
}

#[test]
fn no_test_is_ignored() {
    let complaints: Vec<String> = files("tests", "rs")
        .into_iter()
        .filter(|path| !path.starts_with("tests/house/"))
        .filter(|path| {
            read(path)
                .lines()
                .any(|line| line.trim_start().starts_with("#[ignore"))
        })
        .collect();
    report(
        "a test that is ignored holds nothing; make it fast, or give it a lane:",
        &complaints,
    );
}
