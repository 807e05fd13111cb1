//! A workflow: steps that depend on one another, as many at once as can be, and what becomes of the rest when one fails.
//!
//! The steps are the packages that this one is built from, read from `Cargo.lock`. A step counts the lines of its package, once the
//! packages that it depends on are counted. A package whose sources are not on this machine has no lines. The program proves that
//! none came too early, and that what is left out is just what depends on a failure.
//!
//! ```sh
//! cargo run --release --example workflow                    # who brings the most code along?
//! cargo run --release --example workflow -- --fail tokio    # what depends on it is left out, the rest is done
//! ```

#![expect(clippy::print_stdout, reason = "what it found")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Parser;
use ringfence::queue::{Delivery, bounded};
use ringfence::{BoxError, TaskGroup, Workers, scope};

/// Counts the lines of this package's dependencies, dependencies first.
#[derive(Parser)]
struct Args {
    /// Counts so many packages at once.
    #[arg(long, default_value = "8")]
    at_once: NonZeroUsize,
    /// Fails at this package.
    #[arg(long)]
    fail: Option<String>,
}

/// A package, by name and version.
type Step = Arc<str>;

/// What depends on what. A step is ready when nothing is left that it waits for.
#[derive(Default)]
struct Plan {
    needs: BTreeMap<Step, BTreeSet<Step>>,
    needed_by: BTreeMap<Step, Vec<Step>>,
    waits_for: BTreeMap<Step, usize>,
    lines: BTreeMap<Step, usize>,
    failed: BTreeMap<Step, BoxError>,
}

impl Plan {
    fn read(lock: &str) -> Self {
        let mut packages = Vec::new();
        for text in lock.split("[[package]]").skip(1) {
            let field = |name| {
                let value = text.lines().find_map(|line| line.strip_prefix(name));
                value.map_or("", |value| value.trim_matches('"'))
            };
            let needs = text.lines().filter_map(|line| line.strip_prefix(" \""));
            let needs: Vec<_> = needs.map(|need| need.trim_end_matches("\",")).collect();
            packages.push((field("name = "), field("version = "), needs));
        }
        let mut plan = Self::default();
        for (name, version, needs) in &packages {
            let this = Step::from(format!("{name}-{version}"));
            // A version is told where there are several.
            let is_needed = |name: &str, version: &str| {
                needs.contains(&name) || needs.contains(&&*format!("{name} {version}"))
            };
            let needs = packages.iter().filter(|other| is_needed(other.0, other.1));
            let needs = needs.map(|(name, version, _)| Step::from(format!("{name}-{version}")));
            // A package may test itself through its features.
            let needs: BTreeSet<Step> = needs.filter(|need| *need != this).collect();
            for need in &needs {
                let dependents = plan.needed_by.entry(need.clone()).or_default();
                dependents.push(this.clone());
            }
            plan.waits_for.insert(this.clone(), needs.len());
            plan.needs.insert(this, needs);
        }
        plan
    }

    fn ready(&self) -> Vec<Step> {
        let ready = self.waits_for.iter().filter(|(_, left)| **left == 0);
        ready.map(|(step, _)| step.clone()).collect()
    }

    /// All that a step depends on, itself included.
    fn below<'a>(&'a self, step: &'a Step, seen: &mut BTreeSet<&'a Step>) {
        if seen.insert(step) {
            self.needs[step]
                .iter()
                .for_each(|need| self.below(need, seen));
        }
    }

    /// Notes what became of a step; returns those that are ready now. A step that failed keeps its dependents waiting.
    fn note(&mut self, step: &Step, counted: Result<usize, BoxError>) -> Vec<Step> {
        let is_early = |need| !self.lines.contains_key(need);
        assert!(
            !self.needs[step].iter().any(is_early),
            "{step} came too early"
        );
        match counted {
            Ok(lines) => drop(self.lines.insert(step.clone(), lines)),
            Err(error) => {
                self.failed.insert(step.clone(), error);
                return Vec::new();
            }
        }
        let mut ready = self.needed_by.get(step).cloned().unwrap_or_default();
        ready.retain(|dependent| {
            let left = self.waits_for.entry(dependent.clone()).or_default();
            *left -= 1;
            *left == 0
        });
        ready
    }
}

fn lines_in(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let count = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => lines_in(&path),
        Some(end) if end == "rs" => {
            fs::read(&path).map_or(0, |text| text.split(|c| *c == b'\n').count())
        }
        _ => 0,
    };
    entries.flatten().map(|entry| count(entry.path())).sum()
}

/// Where cargo keeps the sources of packages.
fn sources() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let registries = registries.into_iter().flatten().flatten();
    registries.map(|registry| registry.path()).collect()
}

/// Does a step. The scope is there so that the thread is gone before the worker takes the next one.
async fn count(step: Step, sources: Arc<[PathBuf]>, fails: bool) -> Result<usize, BoxError> {
    let run = scope(async |group: &TaskGroup| {
        let lines = group.spawn_blocking(move || {
            if fails {
                return Err("told to".into());
            }
            let folders = sources.iter().map(|folder| folder.join(&*step));
            Ok(folders.map(|folder| lines_in(&folder)).sum())
        });
        Ok(lines.await)
    });
    run.await.or_else(|error| Err(error.into_first()?))
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Args { at_once, fail } = Args::parse();
    let at_once = at_once.get();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let plan = Arc::new(Mutex::new(Plan::read(&text)));
    let sources: Arc<[PathBuf]> = sources().into();

    // What is ready is in a queue, and what is done puts there what has become ready by that. When nothing is in it and nobody
    // is at work, it ends by itself.
    let (sender, receiver) = bounded::<Step>(at_once);
    let (first, shared, to_fail) = (lock(&plan).ready(), plan.clone(), fail.clone());
    scope(async |group: &TaskGroup| {
        group.spawn(async move {
            for step in first {
                sender.send(step).await?;
            }
            Ok(())
        });
        let workers = Workers::new(at_once).run(receiver, move |step: Delivery<Step>| {
            let (plan, sources) = (shared.clone(), sources.clone());
            let (package, _version) = step.rsplit_once('-').unwrap_or_default();
            let counted = count(step.clone(), sources, to_fail.as_deref() == Some(package));
            async move {
                let counted = counted.await;
                for next in lock(&plan).note(&step, counted) {
                    step.send(next)?;
                }
                Ok::<_, BoxError>(step)
            }
        });
        workers.await?;
        Ok(())
    })
    .await?;

    let plan = lock(&plan);
    let mut heaviest = Vec::new();
    for step in plan.needs.keys() {
        let mut below = BTreeSet::new();
        plan.below(step, &mut below);
        let hit = below.iter().any(|step| plan.failed.contains_key(*step));
        match plan.lines.get(step) {
            Some(_) => assert!(!hit, "{step} depends on what has failed"),
            None => assert!(hit, "{step} was left out for no reason"),
        }
        let lines = below.iter().filter_map(|step| plan.lines.get(*step));
        heaviest.push((lines.sum::<usize>(), step));
    }
    heaviest.retain(|(_, step)| plan.lines.contains_key(*step));
    heaviest.sort_by(|a, b| b.cmp(a));
    println!("lines with all below   package");
    for (lines, step) in heaviest.iter().take(8) {
        println!("{lines:>20}   {step}");
    }
    for (step, why) in &plan.failed {
        println!("failed: {step}: {why}");
    }
    let (done, failed) = (plan.lines.len(), plan.failed.len());
    let left_out = plan.needs.len() - done - failed;
    println!("{done} steps done, {failed} failed, {left_out} left out");
    match fail {
        Some(name) if failed == 0 => Err(format!("{name}: no such package").into()),
        _ => Ok(()),
    }
}
