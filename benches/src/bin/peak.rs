//! The most memory that is held at once while a fan-out runs: `peak`.
//!
//! A million items and ten million, 64 at once; results beside it: for `collect` the vector that was asked for is taken off.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use ringfence::{GroupError, fan_out};

static CALLS: AtomicU64 = AtomicU64::new(0);
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
        CALLS.fetch_add(1, Relaxed);
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

type Answer = Result<u64, GroupError<Infallible>>;

async fn item(n: u64) -> Result<u64, Infallible> {
    if n % 8 == 0 {
        tokio::task::yield_now().await;
    }
    Ok(std::hint::black_box(n))
}

async fn each(n: u64) -> Answer {
    let each = fan_out(0..n).limit(64).for_each(|n| async move {
        let _ = item(n).await;
    });
    each.await.map(|()| 0)
}

async fn collect(n: u64) -> Answer {
    fan_out(0..n)
        .limit(64)
        .collect(item)
        .await
        .map(|all| all.capacity() as u64 * 8)
}

async fn fold(n: u64) -> Answer {
    fan_out(0..n)
        .limit(64)
        .fold(0, item, |sum, n| sum ^ n)
        .await
        .map(|_| 0)
}

async fn local(n: u64) -> Answer {
    fan_out(0..n)
        .limit(64)
        .local()
        .fold(0, item, |sum, n| sum ^ n)
        .await
        .map(|_| 0)
}

fn measure(name: &str, n: u64, run: impl Future<Output = Answer>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return };
    let (calls, before) = (CALLS.load(Relaxed), LIVE.load(Relaxed));
    PEAK.store(before, Relaxed);
    let asked = runtime.block_on(run).unwrap_or_default();
    let peak = PEAK.load(Relaxed) - before - asked as i64;
    let calls = CALLS.load(Relaxed) - calls;
    println!(
        "| {name} | {n} | {:.1} KiB | {calls} |",
        peak as f64 / 1024.0
    );
}

fn main() {
    println!("| form | items | peak over the results | allocations in all |");
    println!("|---|---|---|---|");
    for n in [1_000_000, 10_000_000] {
        measure("for_each", n, each(n));
        measure("collect", n, collect(n));
        measure("fold", n, fold(n));
        measure("local fold", n, local(n));
    }
}
