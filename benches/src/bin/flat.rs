//! Does a child cost the same, however many are alive? `flat`: instructions a child with so many alive at once, and the most
//! memory that is held while so many short ones come and go.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use ringfence::{TaskGroup, scope};
use ringfence_benches::exact::{Callgrind, Missing, programs};
use ringfence_benches::{child, rows};

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, watched.
struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: every call goes to `System` unchanged; the counters touch no memory that is handed out.
#[expect(
    unsafe_code,
    reason = "the trait of a global allocator is unsafe to implement"
)]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as i64;
        PEAK.fetch_max(LIVE.fetch_add(size, Relaxed) + size, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Each row has all its children alive at once; the first of these is ours.
const ROWS: [(&str, [&str; 2]); 3] = [
    ("void", ["ringfence", "bare spawn + Vec of handles"]),
    ("yields", ["ringfence", "bare spawn + Vec of handles"]),
    ("local_yields", ["ringfence", "FuturesUnordered"]),
];

fn instructions() -> Result<(), Missing> {
    let mut callgrind = Callgrind::find(&programs()?)?;
    println!("| row | contender | 1,000 alive | 100,000 | 1,000,000 |");
    println!("|---|---|---|---|---|");
    for (row, contenders) in ROWS {
        let Some(row) = rows::row(row) else { continue };
        for contender in contenders.iter().filter_map(|name| row.contender(name)) {
            let mut line = format!("| {} | {}", row.name, contender.name);
            for n in SIZES {
                let total = callgrind.total(row, contender, n)?;
                line += &format!(" | {:.0}", total as f64 / n as f64);
            }
            println!("{line} |");
        }
    }
    Ok(())
}

/// Children one after another, 200 alive at most.
async fn short(n: u64) {
    let done = scope(async |group: &TaskGroup<Infallible>| {
        for number in 0..n {
            drop(group.spawn(child::noop()));
            while number % 100 == 0 && group.len() > 100 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    });
    done.await.unwrap_or_default();
}

fn memory() {
    println!("| short children, 200 at a time | most memory held |");
    println!("|---|---|");
    for n in [100_000, 10_000_000] {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
            return;
        };
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        runtime.block_on(short(n));
        let peak = PEAK.load(Relaxed) - before;
        println!("| {n} | {:.1} KiB |", peak as f64 / 1024.0);
    }
}

fn main() -> ExitCode {
    memory();
    match instructions() {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            eprintln!("{missing}");
            ExitCode::FAILURE
        }
    }
}
