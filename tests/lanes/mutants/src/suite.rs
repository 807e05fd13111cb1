//! The tests: which of them reach a mutant, and what they say when it is on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test may say nothing before it is put aside, besides what it takes else: ten times that, or a minute if that is
/// less, or twice that.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it may say nothing before it is said to hang, as nothing else has found the mutant.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
/// Tests that are put aside for one mutant before it is said to hang.
const ASIDE: usize = 2;

#[derive(Clone, Debug)]
pub struct Test {
    binary: usize,
    pub name: String,
    time: Duration,
    reached: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Caught(String),
    /// A test that passes else did not end.
    Hangs(String),
    Missed(usize),
    NotReached,
}

impl Outcome {
    pub fn is_survivor(&self) -> bool {
        matches!(self, Self::Missed(_) | Self::NotReached)
    }

    /// What was seen here, or else before.
    pub fn or(self, before: Self) -> Self {
        if self.is_survivor() { before } else { self }
    }
}

pub struct Suite {
    folder: PathBuf,
    binaries: Vec<PathBuf>,
    tests: Vec<Test>,
    pub failing: Vec<String>,
}

enum Run {
    Passed,
    Failed(String),
    Silent(String),
}

impl Suite {
    /// Runs each test whose name has `part` alone, with no mutant on, and notes which ones it asks for.
    pub fn new(
        folder: &Path,
        binaries: Vec<PathBuf>,
        part: &str,
        jobs: usize,
        seen: &Path,
    ) -> Self {
        let mut tests = Vec::new();
        for (binary, path) in binaries.iter().enumerate() {
            let out = Command::new(path)
                .arg("--list")
                .output()
                .expect("a list of tests");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            tests.extend(
                text.lines()
                    .filter_map(|line| line.strip_suffix(": test"))
                    .filter(|name| name.contains(part))
                    .map(|name| Test {
                        binary,
                        name: name.to_owned(),
                        time: Duration::ZERO,
                        reached: Vec::new(),
                    }),
            );
        }
        let mut suite = Self {
            folder: folder.to_owned(),
            binaries,
            tests,
            failing: Vec::new(),
        };
        if !seen.exists() {
            let lines = side_by_side(jobs, suite.tests.len(), |index| suite.look(index));
            fs::write(seen, lines.concat()).expect("what was seen");
        }
        let text = fs::read_to_string(seen).expect("what was seen");
        for (test, line) in suite.tests.iter_mut().zip(text.lines()) {
            let mut numbers = line.split(' ').filter_map(|number| number.parse().ok());
            let passed = numbers.next() == Some(1);
            test.time = Duration::from_millis(numbers.next().unwrap_or(0) as u64);
            if passed {
                test.reached = numbers.collect();
            } else {
                suite.failing.push(test.name.clone());
            }
        }
        suite
    }

    /// Runs one test alone: whether it passed, how long it took, and the mutants that it asked for, as a line of numbers.
    fn look(&self, index: usize) -> String {
        let file = self
            .folder
            .join(format!("../reached.{}.{index}", std::process::id()));
        let began = Instant::now();
        let run = self.run(
            self.tests[index].binary,
            &[index],
            LONG_PATIENCE * 15,
            |command| {
                command.env("RINGFENCE_REACHED", &file);
            },
        );
        let time = began.elapsed().as_millis();
        let reached: BTreeSet<u32> = fs::read(&file)
            .unwrap_or_default()
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        let _ = fs::remove_file(&file);
        let mut line = format!("{} {time}", u8::from(matches!(run, Run::Passed)));
        for id in reached {
            line.push_str(&format!(" {id}"));
        }
        line + "\n"
    }

    pub fn len(&self) -> usize {
        self.tests.len()
    }

    /// Whom each mutant is shown to, those first that reach the fewest mutants.
    pub fn reaching(&self) -> HashMap<usize, Vec<usize>> {
        let mut all: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut order: Vec<usize> = (0..self.tests.len()).collect();
        order.sort_by_key(|index| {
            let test = &self.tests[*index];
            (test.time.as_millis() as usize / 100, test.reached.len())
        });
        for index in order {
            for id in &self.tests[index].reached {
                all.entry(*id).or_default().push(index);
            }
        }
        all
    }

    /// Shows one mutant to the tests that reach it, until one fails.
    pub fn judge(&self, id: usize, reaching: &[usize]) -> Outcome {
        let on = |command: &mut Command| {
            command.env("RINGFENCE_MUTANT", id.to_string());
        };
        let mut aside: Vec<usize> = Vec::new();
        let (mut rest, mut size) = (reaching.to_vec(), 8);
        while !rest.is_empty() && aside.len() < ASIDE {
            let binary = self.tests[rest[0]].binary;
            let chunk: Vec<usize> = rest
                .iter()
                .copied()
                .filter(|index| self.tests[*index].binary == binary)
                .take(size)
                .collect();
            match self.run(binary, &chunk, PATIENCE, on) {
                Run::Failed(name) => return Outcome::Caught(name),
                Run::Passed => {
                    rest.retain(|index| !chunk.contains(index));
                    size *= 4;
                }
                Run::Silent(name) => {
                    // Those of the chunk that passed before it are shown again: that is short.
                    let slow = chunk
                        .iter()
                        .copied()
                        .find(|index| self.tests[*index].name == name);
                    let slow = slow.unwrap_or(chunk[0]);
                    aside.push(slow);
                    rest.retain(|index| *index != slow);
                }
            }
        }
        for index in aside {
            match self.run(self.tests[index].binary, &[index], LONG_PATIENCE, on) {
                Run::Failed(name) => return Outcome::Caught(name),
                Run::Silent(name) => return Outcome::Hangs(name),
                Run::Passed => {}
            }
        }
        Outcome::Missed(reaching.len())
    }

    fn run(
        &self,
        binary: usize,
        tests: &[usize],
        patience: Duration,
        with: impl Fn(&mut Command),
    ) -> Run {
        let mut command = Command::new(&self.binaries[binary]);
        command
            .args(["--test-threads=1", "--exact"])
            .args(tests.iter().map(|index| &self.tests[*index].name))
            .current_dir(&self.folder)
            .env("RINGFENCE_CASES", "64")
            .env("RINGFENCE_SEED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        with(&mut command);
        let mut child = command.spawn().expect("a test binary");
        let run = self.listen(&mut child, tests, patience);
        let _ = child.kill();
        let _ = child.wait();
        run
    }

    /// Reads what the tests say. libtest runs them in the order of their names.
    fn listen(&self, child: &mut Child, tests: &[usize], patience: Duration) -> Run {
        let mut out = child.stdout.take().expect("a pipe");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                if tell.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut pending: BTreeMap<&str, Duration> = tests
            .iter()
            .map(|index| (self.tests[*index].name.as_str(), self.tests[*index].time))
            .collect();
        let mut text = String::new();
        loop {
            let (name, time) = pending
                .first_key_value()
                .map_or(("", Duration::ZERO), |(name, time)| (*name, *time));
            let usual = (time * 10).min(LONG_PATIENCE * 3).max(time * 2);
            match told.recv_timeout(patience + usual) {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(mpsc::RecvTimeoutError::Timeout) => return Run::Silent(name.to_owned()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            while let Some((line, rest)) = text.split_once('\n') {
                if let Some((test, said)) = line
                    .strip_prefix("test ")
                    .and_then(|line| line.split_once(" ... "))
                {
                    let test = test.trim_end_matches(" - should panic");
                    if said.contains("FAILED") {
                        return Run::Failed(test.to_owned());
                    }
                    pending.remove(test);
                } else if line.ends_with("FAILED") {
                    return Run::Failed(name.to_owned());
                }
                text = rest.to_owned();
            }
        }
        let name = pending
            .first_key_value()
            .map_or("", |(name, _)| *name)
            .to_owned();
        match child.wait() {
            Ok(status) if status.success() => Run::Passed,
            _ => Run::Failed(name),
        }
    }
}

/// Does `work` for each number below `count`, so many at once, and says how far it is.
pub fn side_by_side<T: Send>(
    jobs: usize,
    count: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = work(index);
                    results.lock().expect("no panic").push((index, result));
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(250) {
                        println!("{done} of {count}");
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no panic");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
