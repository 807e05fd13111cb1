//! Work for all cores, in stages: files are read, their words counted, the counts merged as a tree, all in the order of the files.
//!
//! ```sh
//! cargo run --release --example cpu_pipeline                     # the sources of this crate
//! cargo run --release --example cpu_pipeline -- path/to/folder
//! ```
//!
//! A stage is a [`fan_out`] whose results are the input of the next one, so that whoever is slow is waited for by all before it. What
//! computes runs on threads that may block; everything else has one thread, and enough of it. The program proves that one loop over
//! the files finds the same, how little is in memory at any time, that nobody else on that one thread is held up, and that an
//! error, a panic, and a deadline in the middle come out as one error each, and leave nothing behind. Then it ends by itself.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use futures::{Stream, StreamExt as _, stream};
use ringfence::{BoxError, Deadline, GroupError, Scope, TaskGroup, fan_out, scope, token};
use tokio::time::sleep;

/// Files that are read at once: as many as a disk likes, whatever the number of cores.
const READERS: usize = 4;
/// So many results of a stage wait for the next one, besides those of what is at work.
const AHEAD: usize = 8;
/// So many counts are merged into one.
const BRANCHES: usize = 16;
const TICK: Duration = Duration::from_millis(5);

static TICKS: AtomicU32 = AtomicU32::new(0);
/// How many texts are in memory, and how many ever were at once.
static TEXTS: AtomicUsize = AtomicUsize::new(0);
static MOST_TEXTS: AtomicUsize = AtomicUsize::new(0);

struct Text {
    file: usize,
    text: String,
}

impl Drop for Text {
    fn drop(&mut self) {
        TEXTS.fetch_sub(1, Relaxed);
    }
}

fn read((file, path): (usize, PathBuf)) -> Result<Text, BoxError> {
    MOST_TEXTS.fetch_max(TEXTS.fetch_add(1, Relaxed) + 1, Relaxed);
    let text = String::new();
    let mut text = Text { file, text };
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text)
}

/// How often each word is there, and in which file first.
type Words = HashMap<String, (usize, usize)>;

fn count(text: Result<Text, BoxError>) -> Result<Words, BoxError> {
    let text = text?;
    let mut words = Words::new();
    for word in text.text.split(|c: char| !c.is_alphanumeric()) {
        let entry = words.entry(word.to_lowercase());
        entry.or_insert((0, text.file)).0 += 1;
    }
    Ok(words)
}

/// Adds counts up. Not the same in another order: the first file is kept.
fn merge(parts: Vec<Result<Words, BoxError>>) -> Result<Words, BoxError> {
    let mut all = Words::new();
    for part in parts {
        for (word, (count, file)) in part? {
            all.entry(word).or_insert((0, file)).0 += count;
        }
    }
    Ok(all)
}

/// Runs `work` on a thread that may block. Cancelled before it begins, it never does; from then on it is waited for.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    let done = scope(async |group: &TaskGroup| Ok(group.spawn_blocking(work).await));
    done.await.or_else(|error| Err(error.into_first()?))
}

/// A stage: `limit` items at once, results in order. It takes nothing from its input that it has no room for.
fn stage<I: Send + 'static, T: Send + 'static>(
    limit: usize,
    input: impl Stream<Item = I> + Send + 'static,
    work: impl Fn(I) -> Result<T, BoxError> + Copy + Send + Sync + 'static,
) -> impl Stream<Item = Result<T, BoxError>> + Send {
    let stage = fan_out(input).limit(limit).buffer(AHEAD);
    let results = stage.results(move |item| on_a_thread(move || work(item)));
    results.map(|result| result.or_else(|error| Err(error.into_first()?)))
}

async fn pipeline(
    files: Vec<PathBuf>,
    count: impl Fn(Result<Text, BoxError>) -> Result<Words, BoxError> + Copy + Send + Sync + 'static,
    deadline: Deadline,
) -> Result<Words, GroupError<BoxError>> {
    let run = Scope::new().deadline(deadline).panics_as_errors();
    let run = run.run(async |group: &TaskGroup| {
        group.named("ticker").spawn_background(async {
            loop {
                sleep(TICK).await;
                TICKS.fetch_add(1, Relaxed);
            }
        });
        let files = stream::iter(files.into_iter().enumerate());
        let texts = stage(READERS, files, read);
        let counts = stage(cores(), texts, count);
        let branches = stage(cores(), counts.chunks(BRANCHES), merge);
        let boughs = stage(cores(), branches.chunks(BRANCHES), merge);
        let boughs = boughs.collect().await;
        on_a_thread(|| merge(boughs)).await
    });
    run.await
}

fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}

/// The files below a folder, in order of their names.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src").to_owned();
    let folder = std::env::args().nth(1).unwrap_or(sources);
    let files = files_below(folder.as_ref())?;
    if files.is_empty() {
        return Err(format!("no files in {folder}").into());
    }

    let began = Instant::now();
    let words = pipeline(files.clone(), count, Deadline::NEVER).await?;
    let together = began.elapsed();
    let (ticks, texts) = (TICKS.load(Relaxed), MOST_TEXTS.load(Relaxed));
    let began = Instant::now();
    let each = files.iter().cloned().enumerate().map(read).map(count);
    let is_same = merge(each.collect())? == words;
    let (alone, cores) = (began.elapsed(), cores());
    println!("{} different words in {} files", words.len(), files.len());
    println!("{together:.0?} on {cores} cores, {alone:.0?} in one loop: the same: {is_same}");
    println!("at most {texts} texts in memory; {ticks} ticks of {TICK:?} meanwhile");
    assert!(is_same && texts <= READERS + AHEAD + 2 * cores);
    // A tenth of what there could be; and where others keep the machine busy, still one every few files.
    let wanted = (together.div_duration_f32(TICK) / 10.0).min(files.len() as f32 / 15.0);
    assert!(ticks as f32 + 1.0 > wanted, "the ticker was held up");

    let half = files.len() / 2;
    let mut one_gone = files.clone();
    one_gone[half] = "no/such/file".into();
    let has_a_bug = move |text: Result<Text, BoxError>| {
        assert!(!text.as_ref().is_ok_and(|text| text.file == half), "a bug");
        count(text)
    };
    // Nobody can stop a thread; it has to ask.
    let waits_for_the_end = move |text: Result<Text, BoxError>| {
        while text.as_ref().is_ok_and(|text| text.file == half) && !token().is_cancelled() {
            thread::yield_now(); // or goes on with what it computes
        }
        count(text)
    };
    for (run, wanted) in [(0, "no/such/file"), (1, "a bug"), (2, "deadline")] {
        let ended = match run {
            0 => pipeline(one_gone.clone(), count, Deadline::NEVER).await,
            1 => pipeline(files.clone(), has_a_bug, Deadline::NEVER).await,
            _ => pipeline(files.clone(), waits_for_the_end, Deadline::after(20 * TICK)).await,
        };
        let error = ended.err().ok_or("it did not end in the middle")?;
        let left = TEXTS.load(Relaxed);
        println!("{error}; {left} texts are left");
        assert!(error.len() <= 1 && left == 0 && error.to_string().contains(wanted));
    }
    Ok(())
}
