//! The tables of `docs/counterparts` name tests of ours that exist, and each test of theirs once.

use std::collections::BTreeSet;

use crate::{contract::promises, files, read, report};

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A name of one of our tests, by its form: `family::sentence_like_name`.
fn is_ours(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.split_once("::").is_some_and(|(family, test)| {
        test.contains('_') && family.chars().chain(test.chars()).all(is_word)
    })
}

#[test]
fn every_counterpart_is_a_test_of_the_contract() {
    let promised = promises();
    let mut complaints = Vec::new();
    for page in files("docs/counterparts", "md") {
        for (number, line) in read(&page).lines().enumerate() {
            let Some((_, ours)) = line
                .strip_prefix("| ")
                .and_then(|row| row.strip_suffix(" |"))
                .and_then(|row| row.rsplit_once(" | "))
            else {
                continue;
            };
            for name in quoted(ours).filter(|name| is_ours(name)) {
                if !promised.contains_key(name) {
                    complaints.push(format!("{page}:{}: no test `{name}`", number + 1));
                }
            }
        }
    }
    report(
        "these counterparts are not in docs/contract.md; name the test that asserts it now:",
        &complaints,
    );
}

#[test]
fn every_table_has_as_many_tests_as_its_heading_says() {
    let mut complaints = Vec::new();
    for page in files("docs/counterparts", "md") {
        let text = read(&page);
        for section in text.split("\n## ").skip(1) {
            let heading = section.lines().next().unwrap_or_default();
            let count = heading
                .strip_suffix(" tests")
                .and_then(|start| start.rsplit(' ').next())
                .and_then(|count| count.parse::<usize>().ok());
            let Some(count) = count else { continue };
            let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
            let theirs: Vec<&str> = rows
                .filter_map(|row| row.split_once(" | "))
                .flat_map(|(theirs, _)| quoted(theirs))
                .collect();
            let once: BTreeSet<&str> = theirs.iter().copied().collect();
            if (theirs.len(), once.len()) != (count, count) {
                complaints.push(format!(
                    "{page}: {heading}: {} names, {} of them different",
                    theirs.len(),
                    once.len()
                ));
            }
        }
    }
    report(
        "each test of theirs stands in one row of its table:",
        &complaints,
    );
}
