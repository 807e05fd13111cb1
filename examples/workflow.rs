//! A workflow: steps that depend on one another, as many at once as can be, and what becomes of the rest when one fails.
//!
//! The steps are the packages that this one is built from, read from `Cargo.lock`. A step counts the lines of its package, once the
//! packages that it depends on are counted, and adds theirs. A package whose sources are not on this machine has no lines.
//!
//! ```sh
//! cargo run --release --example workflow                    # who brings the most code along?
//! cargo run --release --example workflow -- --fail tokio    # what depends on it is left out, the rest is done
//! ```

#![expect(clippy::print_stdout, reason = "what it found")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use ringfence::queue::{Delivery, bounded};
use ringfence::{BoxError, GroupError, TaskGroup, Workers, scope};

/// Counts the lines of this package's dependencies, dependencies first.
#[derive(Parser)]
struct Args {
    /// Counts so many packages at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
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
    failed: BTreeMap<Step, String>,
}

impl Plan {
    fn read(lock: &str) -> Self {
        let packages: Vec<&str> = lock.split("[[package]]").skip(1).collect();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_matches([' ', '=', '"']).to_owned())
        };
        let named = |text: &str| Some((field(text, "name ")?, field(text, "version ")?));
        let all: Vec<(String, String)> = packages.iter().filter_map(|text| named(text)).collect();
        let step = |name: &str, version: Option<&str>| -> Option<Step> {
            let is_it = |(other, of): &&(String, String)| {
                other == name && version.is_none_or(|version| of == version)
            };
            let (name, version) = all.iter().find(is_it)?;
            Some(format!("{name}-{version}").into())
        };
        let mut plan = Self::default();
        for text in &packages {
            let Some(this) = named(text).and_then(|(name, version)| step(&name, Some(&version)))
            else {
                continue;
            };
            let list = text
                .split_once("dependencies = [")
                .map_or("", |(_, list)| list);
            let needs: BTreeSet<Step> = list
                .lines()
                .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next())
                .filter_map(|dependency| {
                    let mut parts = dependency.split(' ');
                    step(parts.next()?, parts.next())
                })
                // A package may test itself through its features.
                .filter(|need| *need != this)
                .collect();
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
    fn below(&self, step: &Step, seen: &mut BTreeSet<Step>) {
        if seen.insert(step.clone()) {
            self.needs[step]
                .iter()
                .for_each(|need| self.below(need, seen));
        }
    }

    /// Notes that a step is done; returns those that are ready now. A step that failed keeps its dependents waiting.
    fn done(&mut self, step: &Step, lines: usize) -> Vec<Step> {
        self.lines.insert(step.clone(), lines);
        let mut ready = Vec::new();
        for dependent in self.needed_by.get(step).into_iter().flatten() {
            if let Some(left) = self.waits_for.get_mut(dependent) {
                *left -= 1;
                if *left == 0 {
                    ready.push(dependent.clone());
                }
            }
        }
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

/// The error itself: the group around it is of no interest here.
fn cause(error: &GroupError<BoxError>) -> String {
    error
        .first()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = fs::read_to_string(lock).map_err(|error| format!("{lock}: {error}"))?;
    let plan = Arc::new(Mutex::new(Plan::read(&lock)));
    let sources: Arc<[PathBuf]> = sources().into();
    let locked = |plan: &Mutex<Plan>, change: &mut dyn FnMut(&mut Plan)| {
        change(&mut plan.lock().unwrap_or_else(PoisonError::into_inner));
    };

    // What is ready goes into a queue; what is done puts there what has become ready by that. When nothing is in it and nobody
    // is at work, the queue ends by itself.
    let (sender, receiver) = bounded::<Step>(args.at_once);
    let mut first = Vec::new();
    locked(&plan, &mut |plan| first = plan.ready());
    let (noted, fails) = (plan.clone(), args.fail.clone());
    let tally = scope(async |group: &TaskGroup| {
        group.spawn(async move {
            for step in first {
                sender.send(step).await?;
            }
            Ok(())
        });
        let workers = Workers::new(args.at_once).run(receiver, move |step: Delivery<Step>| {
            let (plan, sources) = (noted.clone(), sources.clone());
            let is_to_fail = fails.as_ref().is_some_and(|name| {
                step.rsplit_once('-')
                    .is_some_and(|(package, _)| package == name)
            });
            async move {
                let name = step.clone();
                // A scope, so that the count is gone before the worker takes the next step.
                let counted = scope(async |group: &TaskGroup| {
                    let lines = group.spawn_blocking(move || {
                        if is_to_fail {
                            return Err::<usize, BoxError>("told to".into());
                        }
                        Ok(sources
                            .iter()
                            .map(|folder| lines_in(&folder.join(&*name)))
                            .sum())
                    });
                    Ok(lines.await)
                });
                let counted = counted.await;
                let mut ready = Vec::new();
                locked(&plan, &mut |plan| match &counted {
                    Ok(lines) => ready = plan.done(&step, *lines),
                    Err(error) => drop(plan.failed.insert(step.clone(), cause(error))),
                });
                for next in ready {
                    step.send(next)?;
                }
                Ok::<_, BoxError>(step)
            }
        });
        Ok(workers.await?)
    })
    .await?;

    locked(&plan, &mut |plan| {
        let total = |step: &Step| {
            let mut below = BTreeSet::new();
            plan.below(step, &mut below);
            below
                .iter()
                .filter_map(|step| plan.lines.get(step))
                .sum::<usize>()
        };
        let mut heaviest: Vec<(usize, &Step)> =
            plan.lines.keys().map(|step| (total(step), step)).collect();
        heaviest.sort_by(|a, b| b.cmp(a));
        println!("lines with all below   package");
        for (lines, step) in heaviest.iter().take(8) {
            println!("{lines:>20}   {step}");
        }
        for (step, why) in &plan.failed {
            println!("failed: {step}: {why}");
        }
        let left_out = plan.needs.len() - plan.lines.len() - plan.failed.len();
        println!(
            "{} steps done, {} failed, {left_out} left out",
            plan.lines.len(),
            plan.failed.len()
        );
        assert_eq!(plan.lines.len() + plan.failed.len(), tally.done as usize);
    });
    Ok(())
}
