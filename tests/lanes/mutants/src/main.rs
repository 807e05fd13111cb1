//! Mutants of our source, all in one build: what is planted, how, and who survives is in `README.md`.
//!
//! `mutants [--files PART]... [--again] [--models] [--as-built] [--every N] [--jobs N]`

mod copy;
mod kinds;
mod plant;
mod suite;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use copy::Copy;
use plant::Mutant;
use suite::{Outcome, Suite, side_by_side};

/// The pure floor of `docs/ARCHITECTURE.md`: files, and folders of files.
const PURE: &[&str] = &[
    "src/state.rs",
    "src/state/",
    "src/limit/permits.rs",
    "src/limit/waiters.rs",
    "src/limit/gcra.rs",
    "src/limit/aimd.rs",
    "src/supervise/restart.rs",
    "src/supervise/schedule.rs",
    "src/run/stages.rs",
    "src/panic.rs",
    "src/sorted_map.rs",
    "src/queue/state.rs",
    "src/queue/state/",
    "src/queue/store.rs",
    "src/queue/waiters.rs",
    "src/retry/backoff.rs",
    "src/retry/jitter.rs",
    "src/retry/histogram.rs",
];

struct Options {
    files: Vec<String>,
    again: bool,
    models: bool,
    as_built: bool,
    every: usize,
    jobs: usize,
}

fn options() -> Options {
    let mut options = Options {
        files: Vec::new(),
        again: false,
        models: false,
        as_built: false,
        every: 1,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--files" => options.files.extend(arguments.next()),
            "--again" => options.again = true,
            "--models" => options.models = true,
            "--as-built" => options.as_built = true,
            "--every" => {
                options.every = arguments
                    .next()
                    .and_then(|every| every.parse().ok())
                    .unwrap_or(1)
            }
            "--jobs" => {
                options.jobs = arguments
                    .next()
                    .and_then(|jobs| jobs.parse().ok())
                    .unwrap_or(options.jobs)
            }
            other => panic!(
                "{other}: mutants [--files PART]... [--again] [--models] [--as-built] [--every N] [--jobs N]"
            ),
        }
    }
    options
}

fn pure(file: &str) -> bool {
    PURE.iter().any(|part| file.starts_with(part))
}

/// What a mutant is told by when lines and numbers have moved, with a count where two are alike.
fn keys(mutants: &[Mutant]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    mutants
        .iter()
        .map(|mutant| {
            let key = format!("{}\t{}\t{}", mutant.file, mutant.what, mutant.text);
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            format!("{key}\t{count}")
        })
        .collect()
}

/// What earlier runs have caught, by key: of several lines of one mutant, the last counts.
fn caught_before(path: &Path) -> HashMap<String, Outcome> {
    let mut caught = HashMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let Some((outcome, key)) = line.split_once('\t') else {
            continue;
        };
        match outcome.split_once(' ') {
            Some(("caught", test)) => {
                caught.insert(key.to_owned(), Outcome::Caught(test.to_owned()))
            }
            Some(("hangs", test)) => caught.insert(key.to_owned(), Outcome::Hangs(test.to_owned())),
            _ => caught.remove(key),
        };
    }
    caught
}

/// What mutants are shown to: built, and run once, unless that is done.
fn suite(
    name: &str,
    part: &str,
    build: fn(&Copy) -> Vec<PathBuf>,
    copy: &Copy,
    project: &Path,
    options: &Options,
) -> Suite {
    let folder = project.join("target/mutants");
    let [binaries, seen] = ["binaries", "seen"].map(|what| folder.join(format!("{name}.{what}")));
    if !options.as_built || !binaries.exists() {
        let _ = fs::remove_file(&seen);
        let built = build(copy);
        let built = built.iter().map(|path| format!("{}\n", path.display()));
        fs::write(&binaries, built.collect::<String>()).expect("a list");
    }
    let binaries = fs::read_to_string(binaries).expect("what was built");
    let binaries = binaries.lines().map(PathBuf::from).collect();
    let suite = Suite::new(copy.folder(), binaries, part, options.jobs, &seen);
    println!(
        "{name}: {} of them; not used, as they fail in the copy: {:?}",
        suite.len(),
        suite.failing
    );
    suite
}

fn main() -> ExitCode {
    let options = options();
    let began = Instant::now();
    let project: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .canonicalize()
        .expect("the project");
    let known = project.join("target/mutants/outcomes.txt");

    let mut copy = Copy::new(&project, options.as_built);
    if options.as_built {
        copy.as_planted();
    } else {
        copy.plant();
    }
    println!(
        "{} mutants, {} of them do not compile; left alone: {:?}",
        copy.mutants.len(),
        copy.excluded.len(),
        copy.skipped
    );
    let tests = suite("tests", "", Copy::build, &copy, &project, &options);
    // Who is found by no test is shown to them.
    let models = suite(
        "models",
        "loom_models",
        Copy::build_models,
        &copy,
        &project,
        &options,
    );
    println!("{} s", began.elapsed().as_secs());

    let keys = keys(&copy.mutants);
    let before = caught_before(&known);
    let (reaching, reaching_models) = (tests.reaching(), models.reaching());
    let mut chosen: Vec<usize> = (0..copy.mutants.len())
        .filter(|id| !copy.excluded.contains(id))
        .enumerate()
        .filter(|(index, _)| index % options.every == 0)
        .map(|(_, id)| id)
        .filter(|id| {
            let file = &copy.mutants[*id].file;
            options.files.is_empty()
                || options.files.iter().any(|part| {
                    file.contains(part.as_str())
                        || part == "pure" && pure(file)
                        || part == "rest" && !pure(file)
                })
        })
        .collect();
    chosen.sort_by_key(|id| !pure(&copy.mutants[*id].file));
    let log = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&known)
        .expect("a file for outcomes");
    let outcomes = side_by_side(options.jobs, chosen.len(), |index| {
        let id = chosen[index];
        let outcome = match (before.get(&keys[id]), reaching.get(&id)) {
            (Some(outcome), _) if options.again => outcome.clone(),
            (_, Some(reaching)) if options.models => Outcome::Missed(reaching.len()),
            (_, Some(reaching)) => tests.judge(id, reaching),
            (_, None) => Outcome::NotReached,
        };
        let outcome = match reaching_models.get(&id) {
            Some(reaching) if outcome.is_survivor() => models.judge(id, reaching).or(outcome),
            _ => outcome,
        };
        if outcome.is_survivor() {
            println!("{} {}", shown(&outcome), place(&copy.mutants[id]));
        }
        let line = format!("{}\t{}\n", shown(&outcome), keys[id]);
        (&log).write_all(line.as_bytes()).expect("a line more");
        outcome
    });

    report(&copy.mutants, &chosen, &outcomes);
    println!("{} s", began.elapsed().as_secs());
    ExitCode::SUCCESS
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Caught(test) => format!("caught {test}"),
        Outcome::Hangs(test) => format!("hangs {test}"),
        Outcome::Missed(tests) => format!("missed by {tests}"),
        Outcome::NotReached => "not reached".to_owned(),
    }
}

fn place(mutant: &Mutant) -> String {
    format!(
        "{}:{}: {}: {}",
        mutant.file, mutant.line, mutant.what, mutant.text
    )
}

#[derive(Default)]
struct Score {
    all: usize,
    caught: usize,
    hangs: usize,
    not_reached: usize,
}

impl Score {
    fn add(&mut self, outcome: &Outcome) {
        self.all += 1;
        match outcome {
            Outcome::Caught(_) => self.caught += 1,
            Outcome::Hangs(_) => self.hangs += 1,
            Outcome::Missed(_) => {}
            Outcome::NotReached => self.not_reached += 1,
        }
    }

    fn show(&self, name: &str) {
        let found = self.caught + self.hangs;
        println!(
            "{name:<34} {:>5} {:>5} {:>5} {:>5} {:>5} {:>7.1} %",
            self.all,
            self.caught,
            self.hangs,
            self.all - found - self.not_reached,
            self.not_reached,
            100.0 * found as f64 / self.all.max(1) as f64
        );
    }
}

fn report(mutants: &[Mutant], chosen: &[usize], outcomes: &[Outcome]) {
    let mut files: BTreeMap<&str, Score> = BTreeMap::new();
    let (mut floor, mut all) = (Score::default(), Score::default());
    for (id, outcome) in chosen.iter().zip(outcomes) {
        let file = mutants[*id].file.as_str();
        files.entry(file).or_default().add(outcome);
        all.add(outcome);
        if pure(file) {
            floor.add(outcome);
        }
    }
    println!(
        "{:<34} {:>5} {:>5} {:>5} {:>5} {:>5}",
        "file", "all", "fail", "hang", "pass", "none"
    );
    for (file, score) in files {
        score.show(file);
    }
    floor.show("the pure floor");
    all.show("all");
}
