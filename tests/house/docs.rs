//! The pages are compiled, and the change log is kept.

use crate::{code, files, read, report};

#[test]
fn every_page_is_part_of_the_guide() {
    let guide = read("src/guide.rs");
    let complaints: Vec<String> = files("docs", "md")
        .into_iter()
        .filter(|page| page.matches('/').count() == 1)
        .filter(|page| !guide.contains(&format!("include_str!(\"../{page}\")")))
        .collect();
    report(
        "add these pages to src/guide.rs, so that their programs are compiled:",
        &complaints,
    );
    assert!(
        guide.contains("include_str!(\"../README.md\")"),
        "src/guide.rs must include README.md, so that its programs are compiled"
    );
}

#[test]
fn no_program_in_a_page_is_left_out() {
    let mut complaints = Vec::new();
    let mut pages = files("docs", "md");
    pages.push("README.md".to_owned());
    pages.extend(files("src", "rs"));
    for page in pages {
        for (number, line) in read(&page).lines().enumerate() {
            let line = line
                .trim_start()
                .trim_start_matches("//!")
                .trim_start_matches("///")
                .trim_start();
            if line
                .strip_prefix("```")
                .is_some_and(|info| info.contains("ignore"))
            {
                complaints.push(format!("{page}:{}", number + 1));
            }
        }
    }
    report(
        "`ignore` hides a program that does not compile; run it, or say `no_run` or `text`:",
        &complaints,
    );
}

#[test]
fn every_example_is_in_the_cookbook_and_is_run() {
    let (cookbook, steps) = (read("docs/cookbook.md"), read(".ci/run"));
    let runs = steps.lines().filter_map(|line| {
        let run = line.trim().strip_prefix("cargo run --locked --example ")?;
        run.split(' ').next()
    });
    let runs: Vec<&str> = runs.collect();
    let mut complaints = Vec::new();
    for file in files("examples", "rs") {
        let path = file.trim_start_matches("examples/");
        let Some(name) = path.strip_suffix("/main.rs").or(path.strip_suffix(".rs")) else {
            continue;
        };
        if name.contains('/') {
            continue;
        }
        if !cookbook.contains(&format!("`{name}`")) {
            complaints.push(format!("{name}: not in docs/cookbook.md"));
        }
        // It looks at another process; a test of the chat runs it.
        if name != "pstree" && !runs.contains(&name) {
            complaints.push(format!("{name}: not in .ci/run"));
        }
    }
    report("show these programs, and run them:", &complaints);
}

#[test]
fn every_decision_has_context_decision_and_consequences() {
    let complaints: Vec<String> = files("docs/decisions", "md")
        .into_iter()
        .filter(|page| {
            let text = read(page);
            !["## Context", "## Decision", "## Consequences"]
                .iter()
                .all(|heading| text.lines().any(|line| line == *heading))
        })
        .collect();
    report(
        "a decision is a page with the headings Context, Decision, Consequences:",
        &complaints,
    );
}

/// What the page says of others was seen in the versions that it names.
#[test]
fn the_comparison_names_the_versions_that_were_tried() {
    let page = read("docs/comparison.md");
    let lock = read("tests/lanes/peers/Cargo.lock");
    let (_, list) = page.split_once("Tried in ").expect("a list of versions");
    let (list, _) = list.split_once(".\n\n").expect("an end of the list");
    let (_, list) = list.split_once(": ").expect("names");
    let complaints: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|peer| {
            let (name, version) = peer.split_once(' ').unwrap_or((peer, ""));
            !lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n"))
        })
        .collect();
    assert!(
        complaints.is_empty() && list.matches(',').count() > 10,
        "docs/comparison.md: the lock of tests/lanes/peers has other versions of {complaints:?}"
    );
}

#[test]
fn the_change_log_has_an_unreleased_section_in_the_agreed_form() {
    let log = read("CHANGELOG.md");
    assert!(
        log.lines().any(|line| line == "## [Unreleased]"),
        "CHANGELOG.md needs a section `## [Unreleased]`"
    );
    let kinds = [
        "Breaking",
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
        "Documented",
    ];
    let mut complaints = Vec::new();
    for line in log.lines() {
        if let Some(kind) = line.strip_prefix("### ") {
            if !kinds.contains(&kind) {
                complaints.push(format!("`{line}`: sections are {kinds:?}"));
            }
        } else if let Some(bullet) = line.strip_prefix("- ") {
            let area = bullet.split_once(": ").map_or("", |(area, _)| area);
            let is_word =
                !area.is_empty() && area.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if !is_word {
                complaints.push(format!(
                    "`{line}`: a bullet begins with its module, as in `- group: …`"
                ));
            }
        }
    }
    report("CHANGELOG.md:", &complaints);
}

/// Public functions and futures that are async, and the doc comment in front of each.
#[test]
fn every_public_async_item_says_whether_it_is_cancel_safe() {
    let sources: Vec<(String, String)> = files("src", "rs")
        .into_iter()
        .filter(|path| path != "src/guide.rs")
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let mut futures = Vec::new();
    for (_, text) in &sources {
        for line in code(text).lines() {
            let line = line.trim_start();
            if line.starts_with("impl") {
                if let Some((_, name)) = line.split_once(" Future for ") {
                    futures.push(
                        name.split(['<', ' ', '{'])
                            .next()
                            .unwrap_or_default()
                            .to_owned(),
                    );
                }
            }
        }
    }
    let mut complaints = Vec::new();
    for (path, text) in &sources {
        let mut doc = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if let Some(sentence) = line.strip_prefix("///") {
                doc.push_str(sentence);
                doc.push('\n');
                continue;
            }
            if line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            let item = line.strip_prefix("pub ").unwrap_or_default();
            let is_async = item.starts_with("async fn ")
                || (item.starts_with("fn ") && item.contains("-> impl Future"))
                || item.strip_prefix("struct ").is_some_and(|rest| {
                    let name = rest
                        .split(['<', ' ', '(', ';', '{'])
                        .next()
                        .unwrap_or_default();
                    futures.iter().any(|future| future == name)
                });
            if is_async && !doc.contains("# Cancel safety") {
                complaints.push(format!("{path}:{}: {line}", number + 1));
            }
            // An attribute may stand between comment and item, and so may its further lines; anything else ends the
            // comment.
            if !line.is_empty()
                && !line.starts_with(')')
                && !line.ends_with("!{")
                && !line.ends_with("! {")
            {
                doc.clear();
            }
        }
    }
    report(
        "these need a section `# Cancel safety` in their docs:",
        &complaints,
    );
}

#[test]
fn headings_have_one_spelling() {
    let wrong = [
        "# Cancellation safety",
        "# Cancel Safety",
        "# Error\n",
        "# Panic\n",
        "# Example\n",
    ];
    let mut complaints = Vec::new();
    for path in files("src", "rs") {
        for (number, line) in read(&path).lines().enumerate() {
            let line = line.trim_start();
            if let Some(doc) = line
                .strip_prefix("///")
                .or_else(|| line.strip_prefix("//!"))
            {
                let doc = format!("{}\n", doc.trim());
                if wrong.iter().any(|heading| doc.starts_with(heading)) {
                    complaints.push(format!("{path}:{}: {line}", number + 1));
                }
            }
        }
    }
    report(
        "headings are `# Cancel safety`, `# Errors`, `# Panics`, `# Fairness`, `# Examples`:",
        &complaints,
    );
}
