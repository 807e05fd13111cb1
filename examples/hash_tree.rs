//! `hash_tree` hashes every file of a tree on all cores, and prints the hashes in the order of the tree.
//!
//! ```text
//! cargo run --release --example hash_tree                    # the documentation of your toolchain
//! cargo run --release --example hash_tree -- path/to/folder  # a folder
//! cargo run --release --example hash_tree -- --list          # every line, not only the last ones
//! ```
//!
//! The tree is walked while files are hashed: the walk is the input of a [`fan_out`], which takes no more of it than it has
//! room for. At the end the same is done with one loop, file by file, and both answers are compared. (To compare the times,
//! run it twice: the first run also waits for the disk.)

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use ringfence::{BoxError, Progress, fan_out, scope};

/// Files at once: enough to keep the disk and every core busy.
const LIMIT: usize = 64;

/// One line of the listing.
struct Hashed {
    path: PathBuf,
    size: u64,
    hash: u64,
}

/// FNV-1a: not for secrets, but it has to look at every byte.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The files below a folder, in order of their names, found while they are asked for.
struct Walk {
    /// What is still to be looked at, the next one last.
    ahead: Vec<PathBuf>,
}

impl Iterator for Walk {
    type Item = io::Result<PathBuf>;

    fn next(&mut self) -> Option<io::Result<PathBuf>> {
        loop {
            let path = self.ahead.pop()?;
            match folder(&path) {
                Ok(None) => return Some(Ok(path)),
                Ok(Some(inside)) => self.ahead.extend(inside.into_iter().rev()),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What is in a folder, in order; `None` for a file. Links are not followed.
fn folder(path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(None);
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_type()?.is_symlink() {
            inside.push(entry.path());
        }
    }
    inside.sort();
    Ok(Some(inside))
}

fn walk(tree: &Path) -> Walk {
    Walk {
        ahead: vec![tree.to_owned()],
    }
}

async fn hash_file(path: io::Result<PathBuf>) -> io::Result<Hashed> {
    let path = path?;
    let bytes = tokio::fs::read(&path).await?;
    Ok(Hashed {
        size: bytes.len() as u64,
        hash: hash(&bytes),
        path,
    })
}

/// Moves the bar until it is cancelled, which happens by itself when the work is done.
async fn bar(progress: Progress) {
    let style = ProgressStyle::with_template("{spinner} {pos} files, {per_sec} {msg}");
    let bar = ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    loop {
        bar.set_position(progress.done());
        bar.set_message(format!("({} in flight)", progress.in_flight()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Hashes the tree on all cores.
async fn all_at_once(tree: PathBuf) -> Result<Vec<Hashed>, BoxError> {
    let answer = scope(async |group| {
        let progress = Progress::new();
        group.spawn_background(bar(progress.clone()));
        let mut results = fan_out(walk(&tree))
            .limit(LIMIT)
            .progress(&progress)
            .results(hash_file);
        let mut listing = Vec::new();
        while let Some(hashed) = results.next().await {
            listing.push(hashed?); // in the order of the tree
        }
        Ok::<_, BoxError>(listing)
    });
    answer.await.map_err(BoxError::from)
}

/// Does the same, one file after the other.
fn one_by_one(tree: &Path) -> io::Result<Vec<Hashed>> {
    let hash_file = |path: io::Result<PathBuf>| {
        let path = path?;
        let bytes = fs::read(&path)?;
        Ok(Hashed {
            size: bytes.len() as u64,
            hash: hash(&bytes),
            path,
        })
    };
    walk(tree).map(hash_file).collect()
}

/// The toolchain's documentation; else the sources that cargo has fetched; else the folder we are in.
fn default_tree() -> PathBuf {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let docs = sysroot
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|sysroot| Path::new(sysroot.trim()).join("share/doc"));
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.map(|home| home.join("registry/src"));
    [docs, sources]
        .into_iter()
        .flatten()
        .find(|path| path.is_dir())
        .unwrap_or_else(|| PathBuf::from("."))
}

fn digest(listing: &[Hashed]) -> u64 {
    let lines: String = listing
        .iter()
        .map(|line| format!("{:016x} {}\n", line.hash, line.path.display()))
        .collect();
    hash(lines.as_bytes())
}

async fn run(tree: PathBuf, show: usize) -> Result<bool, BoxError> {
    eprintln!("hashing {}", tree.display());
    let start = Instant::now();
    let listing = all_at_once(tree.clone()).await?;
    let together = start.elapsed();
    for line in &listing[listing.len().saturating_sub(show)..] {
        println!(
            "{:016x} {:>9} {}",
            line.hash,
            line.size,
            line.path.display()
        );
    }
    let start = Instant::now();
    let check = one_by_one(&tree)?;
    let alone = start.elapsed();
    let is_same = digest(&listing) == digest(&check) && listing.len() == check.len();
    let bytes = listing.iter().map(|line| line.size).sum();
    println!(
        "{} files, {}, {:016x}; {together:.2?} on all cores, {alone:.2?} one by one: {}",
        listing.len(),
        HumanBytes(bytes),
        digest(&listing),
        if is_same { "the same" } else { "NOT THE SAME" },
    );
    Ok(is_same)
}

#[tokio::main]
async fn main() -> ExitCode {
    let (options, trees): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|arg| arg.starts_with('-'));
    if options.iter().any(|option| option != "--list") || trees.len() > 1 {
        eprintln!("usage: hash_tree [--list] [FOLDER]");
        return ExitCode::from(2);
    }
    let show = if options.is_empty() { 5 } else { usize::MAX };
    let tree = trees.first().map_or_else(default_tree, PathBuf::from);
    match run(tree, show).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hash_tree: {error}");
            ExitCode::FAILURE
        }
    }
}
