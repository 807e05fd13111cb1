//! No dead link: what a Markdown page links to or names is there.
//!
//! Links into the documentation of the crate are followed by `.ci/run docs`, which has it built. Other sites are not asked.

use std::collections::BTreeMap;

use crate::{files, read, report, root};

/// Where the repository will be seen; a file in it stands behind each.
const REPOSITORY: [&str; 3] = [
    "https://github.com/ringfence-rs/ringfence/blob/main/",
    "https://github.com/ringfence-rs/ringfence/tree/main/",
    "https://raw.githubusercontent.com/ringfence-rs/ringfence/main/",
];

fn pages() -> Vec<String> {
    let mut pages = files("docs", "md");
    pages.extend(["README.md".to_owned(), "CHANGELOG.md".to_owned()]);
    pages
}

/// The lines of a page outside of its programs, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// A line without its backticks, and without the brackets between them, which make no link.
fn readable(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts
        .map(|(index, part)| match index % 2 {
            0 => part.to_owned(),
            _ => part.replace(['[', ']'], ""),
        })
        .collect()
}

/// What stands in backticks in a line.
fn code_of(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The ends of the headings of a page, as GitHub makes them: `#from-here`.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .flat_map(char::to_lowercase)
            .collect();
        let before = seen.entry(slug.clone()).or_default();
        anchors.push(match *before {
            0 => slug,
            n => format!("{slug}-{n}"),
        });
        *before += 1;
    }
    anchors
}

/// Why the page `from` may not link to `target`.
fn wrong(from: &str, target: &str) -> Option<&'static str> {
    if let Some(path) = REPOSITORY.iter().find_map(|at| target.strip_prefix(at)) {
        let path = path.split('#').next().unwrap_or_default();
        return (!root().join(path).exists()).then_some("no such file in the repository");
    }
    if target.starts_with("https://docs.rs/ringfence/") {
        let is_latest = target.starts_with("https://docs.rs/ringfence/latest/ringfence/");
        return (!is_latest)
            .then_some("ours begins with https://docs.rs/ringfence/latest/ringfence/");
    }
    if let Some(site) = target.strip_prefix("https://") {
        let host = site.split('/').next().unwrap_or_default();
        let is_host = host.contains('.')
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        return (!is_host).then_some("no host");
    }
    if target.contains("://") {
        return Some("a link to another site begins with https://");
    }
    if target.contains("::") {
        let is_page = from.starts_with("docs/") && !from.starts_with("docs/decisions/");
        return (!is_page).then_some("a path of Rust is no link outside of rustdoc");
    }
    let (path, anchor) = target
        .split_once('#')
        .map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let full = match path {
        "" => root().join(from),
        path => root().join(folder).join(path),
    };
    let Some(anchor) = anchor else {
        return (!full.exists()).then_some("no such file");
    };
    let Ok(text) = std::fs::read_to_string(full) else {
        return Some("no such file");
    };
    let is_there = anchors(&text).iter().any(|found| found == anchor);
    (!is_there).then_some("no such heading")
}

/// Every link of a page, with its line: the target, or what is wrong with it already.
fn links(text: &str) -> Vec<(usize, Result<String, String>)> {
    let lines: Vec<(usize, String)> = prose(text)
        .into_iter()
        .map(|(number, line)| (number, readable(line)))
        .collect();
    let mut definitions: BTreeMap<&str, (usize, &str, bool)> = BTreeMap::new();
    for (number, line) in &lines {
        if let Some((label, target)) = line.strip_prefix('[').and_then(|at| at.split_once("]: ")) {
            definitions
                .entry(label)
                .or_insert((*number, target.trim(), false));
        }
    }
    let mut found = Vec::new();
    for (number, line) in &lines {
        if line.starts_with('[') && line.contains("]: ") {
            continue;
        }
        let mut rest = line.as_str();
        while let Some(at) = rest.find(']') {
            let text = rest[..at].rsplit('[').next().unwrap_or_default();
            let after = &rest[at + 1..];
            let label = after
                .strip_prefix('[')
                .and_then(|label| label.split_once(']'));
            if let Some((target, _)) = after
                .strip_prefix('(')
                .and_then(|target| target.split_once(')'))
            {
                found.push((*number, Ok(target.to_owned())));
            } else if let Some(definition) = definitions.get_mut(label.map_or(text, |it| it.0)) {
                definition.2 = true;
            } else if let Some((label, _)) = label {
                found.push((*number, Err(format!("[{label}] is not defined"))));
            }
            // A label has been read along with its text.
            rest = label.map_or(after, |(_, rest)| rest);
        }
    }
    for (label, (number, target, is_used)) in definitions {
        let unused = || format!("[{label}] is used by nobody");
        found.push((
            number,
            is_used.then(|| target.to_owned()).ok_or_else(unused),
        ));
    }
    found
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (number, link) in links(&read(&page)) {
            count += 1;
            match link {
                Ok(target) => complaints.extend(
                    wrong(&page, &target).map(|why| format!("{page}:{number}: {target}: {why}")),
                ),
                Err(why) => complaints.push(format!("{page}:{number}: {why}")),
            }
        }
    }
    report("these links are dead:", &complaints);
    assert!(count > 50, "only {count} links: this guard has gone blind");
}

#[test]
fn links_between_the_pages_are_known_to_the_guide() {
    let guide = read("src/guide.rs");
    let mut complaints = Vec::new();
    for page in files("docs", "md") {
        if page.matches('/').count() > 1 {
            continue;
        }
        let text = read(&page);
        for (number, line) in prose(&text) {
            let inline = line.contains("](") && {
                let targets = line.split("](").skip(1);
                targets
                    .map(|target| target.split(')').next().unwrap_or_default())
                    .any(|target| !target.contains(':') && !target.starts_with('#'))
            };
            let definition = line.strip_prefix('[').and_then(|at| at.split_once("]: "));
            let is_unknown = definition.is_some_and(|(label, target)| {
                !target.contains(':') && !guide.contains(&format!("[{label}]: "))
            });
            if inline || is_unknown {
                complaints.push(format!("{page}:{number}: {line}"));
            }
        }
    }
    report(
        "on docs.rs these lead nowhere; write `[text][page.md]`, `[page.md]: page.md` at the end of the page, and its place \
         there in `links!` of src/guide.rs:",
        &complaints,
    );
    for (number, line) in guide.lines().enumerate() {
        let target = line.strip_prefix('[').and_then(|at| at.split_once("]: "));
        let why = target.and_then(|(_, target)| match target.strip_prefix("crate::guide::") {
            Some(page) => {
                (!guide.contains(&format!("pub mod {page} {{}}"))).then_some("no such page")
            }
            None => wrong("src/guide.rs", target),
        });
        assert_eq!(why, None, "src/guide.rs:{}: {line}", number + 1);
    }
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let folders = ["src/", "docs/", "tests/", "examples/", "benches/", ".ci/"];

    let mut complaints = Vec::new();
    let sources: Vec<String> = ["src", "tests", "examples", "benches"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect();
    let mut pages = pages();
    pages.extend(files("src", "rs"));
    for page in pages {
        // What was decided names what there was at that time, and so does the change log; the counterparts name the files of
        // other projects.
        let others = ["docs/decisions/", "docs/counterparts/", "CHANGELOG.md"];
        if others.iter().any(|other| page.starts_with(other)) {
            continue;
        }
        let text = read(&page);
        for (number, line) in text.lines().enumerate() {
            if page.ends_with(".rs") && !line.trim_start().starts_with("//") {
                continue;
            }
            let mut gone = |what: &str| complaints.push(format!("{page}:{}: {what}", number + 1));
            let words: Vec<&str> = line
                .split(|c: char| c.is_whitespace() || "`()[],;:\"'=|".contains(c))
                .map(|word| word.split('#').next().unwrap_or_default())
                .map(|word| word.trim_end_matches(['.', '…', '/']))
                .collect();
            for pair in words.windows(2) {
                let there = match pair[0] {
                    "--example" => vec![
                        format!("examples/{}.rs", pair[1]),
                        format!("examples/{}/main.rs", pair[1]),
                    ],
                    "--test" => vec![
                        format!("tests/{}.rs", pair[1]),
                        format!("tests/{}/main.rs", pair[1]),
                    ],
                    "--bin" => vec![format!("benches/src/bin/{}.rs", pair[1])],
                    _ => continue,
                };
                let is_word = pair[1].starts_with(|c: char| c.is_ascii_lowercase());
                if is_word && !there.iter().any(|path| root().join(path).exists()) {
                    gone(&pair.join(" "));
                }
            }
            for word in words {
                let is_path = folders.iter().any(|folder| word.starts_with(folder));
                let is_pattern = word.contains(['<', '*', '{', '$', '…']);
                let is_sample = word == "src/main.rs"; // of the reader's program
                if is_path && !is_pattern && !is_sample && !root().join(word).exists() {
                    gone(word);
                }
            }
            if page.ends_with(".md") {
                for span in code_of(line) {
                    let is_source = span.ends_with(".rs")
                        && span
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || "_/.".contains(c));
                    let end = format!("/{span}");
                    if is_source
                        && !sources
                            .iter()
                            .any(|path| format!("/{path}").ends_with(&end))
                    {
                        gone(span);
                    }
                }
            }
        }
    }
    report("these are named, and not there:", &complaints);
}

/// The map of the rooms, and the models beside the races.
#[test]
fn what_the_architecture_names_is_there() {
    let lanes: String = files("tests/lanes/loom", "rs")
        .iter()
        .map(|path| read(path))
        .collect();
    let is_model = |name: &str| {
        let begin = name.split('…').next().unwrap_or_default();
        lanes.contains(&format!("fn {begin}"))
    };
    let mut complaints = Vec::new();
    let (mut rooms, mut models) = (0, 0);
    let mut last_column = String::new();
    let mut is_map = false;
    for (number, line) in read("docs/ARCHITECTURE.md").lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 4 {
            last_column.clear();
            is_map = false;
            continue;
        }
        let last = cells[cells.len() - 2];
        if last_column.is_empty() {
            last.clone_into(&mut last_column);
            is_map = cells[1] == "floor";
            continue;
        }
        let mut gone = |what: &str| {
            complaints.push(format!("docs/ARCHITECTURE.md:{}: {what}", number + 1));
        };
        if is_map {
            for room in code_of(cells[2]) {
                rooms += 1;
                if !root().join(format!("src/{room}.rs")).exists() {
                    gone(room);
                }
            }
        } else if last_column == "model" {
            for model in code_of(last) {
                models += 1;
                if !is_model(model) {
                    gone(model);
                }
            }
        }
    }
    report("the architecture names what is not there:", &complaints);
    assert!(rooms > 60 && models > 40, "{rooms} rooms, {models} models");
}
