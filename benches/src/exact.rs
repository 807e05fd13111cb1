//! Counts that are free of noise: instructions and locked operations through callgrind, allocations through `allocs`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Contender, Row};

/// Why there is no count.
#[derive(Debug)]
pub enum Missing {
    /// A tool is not installed, or does not run.
    Tool(&'static str, String),
    /// A tool ran and said something else than expected.
    Answer(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(tool, why) => write!(
                f,
                "`{tool}` is needed for this count and cannot be run: {why}"
            ),
            Self::Answer(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Missing {}

/// What one unit takes on `current_thread`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Instructions.
    pub instructions: f64,
    /// Instructions that lock the bus: `lock …`, and `xchg` with memory.
    pub locked: Option<f64>,
}

/// What one unit takes of the allocator.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Calls.
    pub allocations: f64,
    /// Bytes asked for.
    pub bytes: f64,
    /// Bytes still held when the children have ended and nobody polled the group since.
    pub kept: Option<f64>,
}

/// Builds the lane's small programs, and says where they are.
///
/// # Errors
///
/// If cargo cannot build them.
pub fn programs() -> Result<PathBuf, Missing> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "--bins",
            "--manifest-path",
            manifest,
        ])
        .status()
        .map_err(|error| Missing::Tool("cargo", error.to_string()))?;
    let here = std::env::current_exe().map_err(|error| Missing::Answer(error.to_string()))?;
    match here.parent() {
        Some(directory) if built.success() => Ok(directory.to_owned()),
        _ => Err(Missing::Answer(
            "the small programs could not be built".to_owned(),
        )),
    }
}

/// Runs callgrind, and remembers which instructions of which object lock.
#[derive(Debug)]
pub struct Callgrind {
    units: PathBuf,
    locking: HashMap<PathBuf, Option<HashSet<u64>>>,
    /// Why locked operations are not counted, if they are not.
    pub without_locked: Option<String>,
}

impl Callgrind {
    /// Looks for the tools.
    ///
    /// # Errors
    ///
    /// If valgrind is not installed.
    pub fn find(programs: &Path) -> Result<Self, Missing> {
        let found = Command::new("valgrind").arg("--version").output();
        match found {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return Err(Missing::Tool(
                    "valgrind",
                    String::from_utf8_lossy(&output.stderr).into_owned(),
                ));
            }
            Err(error) => return Err(Missing::Tool("valgrind", error.to_string())),
        }
        let without_locked = if !cfg!(target_arch = "x86_64") {
            Some("locked operations are counted on x86-64 only".to_owned())
        } else {
            Command::new("objdump")
                .arg("--version")
                .output()
                .err()
                .map(|error| Missing::Tool("objdump", error.to_string()).to_string())
        };
        Ok(Self {
            units: programs.join("units"),
            locking: HashMap::new(),
            without_locked,
        })
    }

    /// Counts a contender of a row at two sizes; the difference is what a unit takes.
    ///
    /// # Errors
    ///
    /// If valgrind fails, or answers something that cannot be read.
    pub fn count(&mut self, row: &Row, contender: &Contender) -> Result<Count, Missing> {
        let (small, large) = row.counted;
        let few = self.start(row, contender, small)?;
        let many = self.start(row, contender, large)?;
        let (few, many) = (self.finish(few)?, self.finish(many)?);
        let units = (large - small) as f64;
        let a_unit = |few: u64, many: u64| (many as f64 - few as f64) / units;
        Ok(Count {
            instructions: a_unit(few.0, many.0),
            locked: few.1.zip(many.1).map(|(few, many)| a_unit(few, many)),
        })
    }

    /// Counts the instructions of a contender of a row at one size, all in all.
    ///
    /// # Errors
    ///
    /// As [`count`](Self::count).
    pub fn total(&mut self, row: &Row, contender: &Contender, n: usize) -> Result<u64, Missing> {
        let run = self.start(row, contender, n)?;
        Ok(self.finish(run)?.0)
    }

    fn start(&self, row: &Row, contender: &Contender, n: usize) -> Result<Run, Missing> {
        let file =
            self.units
                .with_file_name(format!("callgrind.{}.{n}.{}", row.name, std::process::id()));
        let child = Command::new("valgrind")
            .args([
                "--tool=callgrind",
                "--dump-instr=yes",
                "--compress-pos=no",
                "--compress-strings=no",
            ])
            .args(["--toggle-collect=*measured_phase*", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(&self.units)
            .args([row.name, contender.name, &n.to_string()])
            .spawn()
            .map_err(|error| Missing::Tool("valgrind", error.to_string()))?;
        Ok(Run { child, file })
    }

    fn finish(&mut self, mut run: Run) -> Result<(u64, Option<u64>), Missing> {
        let ended = run
            .child
            .wait()
            .map_err(|error| Missing::Answer(error.to_string()))?;
        let profile = std::fs::read_to_string(&run.file)
            .map_err(|error| Missing::Answer(error.to_string()))?;
        // The profile is big and has been read; if it cannot be removed it only lies about in `target`.
        std::fs::remove_file(&run.file).unwrap_or_default();
        if !ended.success() {
            return Err(Missing::Answer("valgrind ended with a failure".to_owned()));
        }
        self.read(&profile)
            .ok_or_else(|| Missing::Answer("callgrind wrote no totals".to_owned()))
    }

    /// Total instructions, and how many of them lock.
    fn read(&mut self, profile: &str) -> Option<(u64, Option<u64>)> {
        let mut total = None;
        let mut locked = 0;
        let mut object = PathBuf::new();
        let mut skip = false;
        for line in profile.lines() {
            if let Some(path) = line.strip_prefix("ob=") {
                object = PathBuf::from(path);
            } else if line.starts_with("calls=") {
                // The next line carries what the callee took, counted where it was spent.
                skip = true;
            } else if let Some(rest) = line.strip_prefix("0x") {
                if std::mem::take(&mut skip) || self.without_locked.is_some() {
                    continue;
                }
                let mut fields = rest.split(' ');
                let address = u64::from_str_radix(fields.next()?, 16).ok()?;
                let executed: u64 = fields.nth(1)?.parse().ok()?;
                if self.locks(&object, address) {
                    locked += executed;
                }
            } else if let Some(sum) = line.strip_prefix("totals: ") {
                total = sum.trim().parse().ok();
            }
        }
        Some((total?, self.without_locked.is_none().then_some(locked)))
    }

    fn locks(&mut self, object: &Path, address: u64) -> bool {
        if !self.locking.contains_key(object) {
            let found = locking_instructions(object);
            self.locking.insert(object.to_owned(), found);
        }
        self.locking
            .get(object)
            .and_then(Option::as_ref)
            .is_some_and(|found| found.contains(&address))
    }
}

#[derive(Debug)]
struct Run {
    child: std::process::Child,
    file: PathBuf,
}

/// Addresses of the instructions of `object` that lock: those with the prefix, and `xchg` with memory, which locks unasked.
fn locking_instructions(object: &Path) -> Option<HashSet<u64>> {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(object)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let locking = text.lines().filter_map(|line| {
        let (address, instruction) = line.trim_start().split_once(":\t")?;
        let locks = instruction.starts_with("lock ")
            || (instruction.starts_with("xchg ") && instruction.contains('('));
        if locks {
            u64::from_str_radix(address, 16).ok()
        } else {
            None
        }
    });
    Some(locking.collect())
}

/// Runs `allocs` over these rows.
///
/// # Errors
///
/// If it does not run, or its answer cannot be read.
pub fn memory(
    programs: &Path,
    rows: &[&Row],
) -> Result<HashMap<(String, String), Memory>, Missing> {
    let output = Command::new(programs.join("allocs"))
        .arg("--plain")
        .args(rows.iter().map(|row| row.name))
        .output()
        .map_err(|error| Missing::Tool("allocs", error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = HashMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [row, contender, allocations, bytes, kept] = fields[..] else {
            return Err(Missing::Answer(format!("`allocs` said {line:?}")));
        };
        let (Ok(allocations), Ok(bytes)) = (allocations.parse(), bytes.parse()) else {
            return Err(Missing::Answer(format!("`allocs` said {line:?}")));
        };
        found.insert(
            (row.to_owned(), contender.to_owned()),
            Memory {
                allocations,
                bytes,
                kept: kept.parse().ok(),
            },
        );
    }
    Ok(found)
}
