//! The copy of the project that the mutants are planted in, and its build.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::plant::{self, Mutant, Skipped};

/// What asks at run time whether a mutant is on. In the copy it is the module `mutants`.
const SWITCH: &str = r#"//! Which mutant is on, and which were asked for.
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: LazyLock<usize> = LazyLock::new(|| {
    let on = std::env::var("RINGFENCE_MUTANT").ok();
    on.and_then(|on| on.parse().ok()).unwrap_or(usize::MAX)
});
static REACHED: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
    let path = std::env::var_os("RINGFENCE_REACHED")?;
    std::fs::OpenOptions::new().append(true).create(true).open(path).ok()
});
static SEEN: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

pub(crate) fn on(id: usize) -> bool {
    if let Some(mut file) = REACHED.as_ref() {
        if !SEEN[id].swap(true, Ordering::Relaxed) {
            let _ = file.write_all(&(id as u32).to_le_bytes());
        }
    }
    *ON == id
}
"#;

/// The tests that mutants are shown to: the library's own, the contract, random programs.
const TARGETS: &[&str] = &["--lib", "--test", "contract", "--test", "properties"];

/// A file of the copy, a line, a column, and what is wrong there.
type Complaint = (String, usize, usize, String);

pub struct Copy {
    folder: PathBuf,
    /// One of its own: in the project's, cargo would take planted programs for fresh ones.
    build: PathBuf,
    files: Vec<(String, plant::File)>,
    pub mutants: Vec<Mutant>,
    pub skipped: Skipped,
    pub excluded: BTreeSet<usize>,
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder of sources")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out);
        } else {
            out.push(path);
        }
    }
}

impl Copy {
    /// Links what is as it was, and finds all mutants: in today's sources, or in those of an earlier run.
    pub fn new(project: &Path, as_built: bool) -> Self {
        let folder = project.join("target/mutants/copy");
        fs::create_dir_all(&folder).expect("a folder for the copy");
        for name in [
            "tests",
            "examples",
            "docs",
            "README.md",
            "CHANGELOG.md",
            "Cargo.lock",
        ] {
            if !folder.join(name).exists() {
                symlink(project.join(name), folder.join(name)).expect("a link");
            }
        }
        // What is planted is not pretty: no lints.
        let manifest = fs::read_to_string(project.join("Cargo.toml")).expect("the manifest");
        let manifest = manifest.split("[lints.rust]").next().expect("a part");
        write(
            &folder.join("Cargo.toml"),
            &format!(
                "{manifest}[lints.rust]\nwarnings = \"allow\"\narithmetic_overflow = \"allow\"\nunconditional_panic = \"allow\"\n"
            ),
        );

        let (mut mutants, mut skipped, mut absent) =
            (Vec::new(), Skipped::default(), BTreeSet::new());
        let mut files = Vec::new();
        let mut paths = Vec::new();
        let kept = project.join("target/mutants/original");
        if !as_built {
            let _ = fs::remove_dir_all(&kept);
            sources(&project.join("src"), &mut paths);
            for path in paths.drain(..) {
                let (name, text) = read(project, &path);
                write(&kept.join(name), &text);
            }
        }
        sources(&kept.join("src"), &mut paths);
        // A module that is not there is declared in a file that is read before it, or after: so all are read twice.
        for path in &paths {
            let (name, text) = read(&kept, path);
            plant::find(
                &name,
                &text,
                &mut Vec::new(),
                &mut Skipped::default(),
                &mut absent,
            );
        }
        for path in &paths {
            let (name, text) = read(&kept, path);
            let file = if absent.contains(&name) {
                plant::File::plain(&text)
            } else {
                plant::find(
                    &name,
                    &text,
                    &mut mutants,
                    &mut skipped,
                    &mut BTreeSet::new(),
                )
            };
            files.push((name, file));
        }
        Self {
            folder,
            build: project.join("target/mutants/build"),
            files,
            mutants,
            skipped,
            excluded: BTreeSet::new(),
        }
    }

    /// Plants all mutants that compile: those that the compiler complains about are left out, until it complains no more.
    pub fn plant(&mut self) {
        for round in 1.. {
            self.write();
            let complaints = self.check();
            if complaints.is_empty() {
                return;
            }
            let before = self.excluded.len();
            let found: Vec<_> = complaints
                .iter()
                .filter_map(|complaint| self.guilty(complaint))
                .collect();
            self.excluded.extend(found);
            println!(
                "round {round}: {} complaints, {} mutants do not compile",
                complaints.len(),
                self.excluded.len()
            );
            if self.excluded.len() == before {
                panic!("the compiler complains of something else than a mutant: {complaints:?}");
            }
        }
    }

    /// Takes the copy as an earlier run has left it: what is not in it did not compile.
    pub fn as_planted(&mut self) {
        let mut there = BTreeSet::new();
        for (name, _) in &self.files {
            let text = fs::read_to_string(self.folder.join(name)).expect("a file of the copy");
            there.extend(
                text.match_indices("/*<")
                    .filter_map(|(at, _)| id_at(&text, at)),
            );
        }
        self.excluded = (0..self.mutants.len())
            .filter(|id| !there.contains(id))
            .collect();
    }

    fn write(&self) {
        for (name, file) in &self.files {
            let mut text = file.planted(&self.excluded);
            if name == "src/lib.rs" {
                text.push_str("\npub(crate) mod mutants;\n");
            }
            write(&self.folder.join(name), &text);
        }
        let count = self.mutants.len();
        write(
            &self.folder.join("src/mutants.rs"),
            &format!("{SWITCH}const COUNT: usize = {count};\n"),
        );
    }

    fn check(&self) -> Vec<Complaint> {
        let out = self
            .cargo(&[
                "check",
                "--locked",
                "--lib",
                "--all-features",
                "--message-format",
                "short",
            ])
            .output()
            .expect("cargo");
        String::from_utf8_lossy(&out.stderr)
            .lines()
            .filter(|line| line.starts_with("src/") && line.contains(": error"))
            .filter_map(|line| {
                let mut parts = line.splitn(4, ':');
                let file = parts.next()?.to_owned();
                Some((
                    file,
                    parts.next()?.parse().ok()?,
                    parts.next()?.parse().ok()?,
                    parts.next()?.to_owned(),
                ))
            })
            .collect()
    }

    /// The innermost mutant around the place that is complained of, or else the last before it: what a call that may be left out has
    /// moved is complained of where it is used next.
    fn guilty(&self, (file, line, column, _): &Complaint) -> Option<usize> {
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        let start: usize = text
            .split_inclusive('\n')
            .take(line - 1)
            .map(str::len)
            .sum();
        let full = text[start..].lines().next()?;
        let at = start
            + full
                .char_indices()
                .nth(column - 1)
                .map_or(full.len(), |(at, _)| at);
        let before = || {
            (0..=at)
                .rev()
                .filter_map(|from| Some((from, id_at(&text, from)?)))
        };
        let around = before().find(|(from, id)| {
            text[*from..]
                .find(&format!("/*{id}>*/"))
                .is_some_and(|end| from + end >= at)
        });
        around.or_else(|| before().next()).map(|(_, id)| id)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command
            .args(arguments)
            .arg("--manifest-path")
            .arg(self.folder.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
            .current_dir(&self.folder);
        command
    }

    /// Builds the tests and says where they are.
    pub fn build(&self) -> Vec<PathBuf> {
        let mut arguments = vec!["test", "--locked", "--no-run"];
        arguments.extend(TARGETS);
        let found = built(self.cargo(&arguments));
        assert_eq!(found.len(), TARGETS.len() - 2, "{found:?}");
        found
    }

    /// Builds the loom lane over the copy's sources, and says where its models are.
    pub fn build_models(&self) -> Vec<PathBuf> {
        // As deep in the copy as it is in the project: it names its sources by a way up.
        let from = self.folder.join("tests/lanes/loom");
        let lane = self.folder.join("target/lanes/loom");
        let mut paths = Vec::new();
        sources(&from.join("models"), &mut paths);
        paths.extend(
            ["Cargo.toml", "Cargo.lock", "build.rs", "models.rs"].map(|name| from.join(name)),
        );
        for path in paths {
            let (name, text) = read(&from, &path);
            write(&lane.join(name), &text);
        }
        let mut command = Command::new("cargo");
        command
            .args(["test", "--release", "--locked", "--lib", "--no-run"])
            .env("CARGO_TARGET_DIR", self.build.join("loom"))
            .current_dir(&lane);
        built(command)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Has cargo build tests, and finds in what it says where they are.
fn built(mut cargo: Command) -> Vec<PathBuf> {
    let out = cargo.output().expect("cargo");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    let folder = cargo.get_current_dir().expect("a folder");
    text.lines()
        .filter(|line| line.trim_start().starts_with("Executable"))
        .filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')'))
        .map(|path| folder.join(path))
        .collect()
}

fn id_at(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?.strip_prefix("/*<")?;
    rest[..rest.find('*')?].parse().ok()
}

fn read(project: &Path, path: &Path) -> (String, String) {
    let name = path.strip_prefix(project).expect("inside the project");
    let text = fs::read_to_string(path).expect("a source");
    (name.to_str().expect("a plain name").to_owned(), text)
}

/// What has not changed is not touched, so that it is not built again.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file of the copy");
}
