//! Allocations and bytes a child, and what is kept of children that ended while nobody polled the group.
//!
//! `allocs [row…]` prints a table; `allocs --plain [row…]` prints what the reporter reads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ringfence_benches::measure::Place;
use ringfence_benches::{Contender, Gate, Row, rows};

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with its requests counted.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `System` unchanged; the counters touch no memory that is handed out.
#[expect(
    unsafe_code,
    reason = "the trait of a global allocator is unsafe to implement"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn calls_and_bytes() -> (u64, u64) {
    (CALLS.load(Relaxed), BYTES.load(Relaxed))
}

fn live() -> u64 {
    BYTES.load(Relaxed) - FREED.load(Relaxed)
}

/// Allocations and bytes a unit, what comes before the gate included; a first run has grown the run queue already.
fn spent(place: &Place, row: &Row, contender: &Contender, n: usize) -> (f64, f64) {
    place.once(row, contender, n);
    let before = calls_and_bytes();
    let body = place.made(row, contender, n);
    std::hint::black_box(place.run(body));
    let after = calls_and_bytes();
    (
        (after.0 - before.0) as f64 / n as f64,
        (after.1 - before.1) as f64 / n as f64,
    )
}

/// Bytes a child that are still held when all children have ended and nobody has polled the group since.
fn kept(place: &Place, contender: &Contender, n: usize) -> f64 {
    let runtime = &place.runtime;
    let gate = Gate::shut();
    let before = live();
    let mut body = (contender.run)(n, gate.clone());
    runtime.block_on(gate.reached_by(&mut body));
    runtime.block_on(async {
        while runtime.metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    });
    let kept = live().saturating_sub(before);
    gate.unlock();
    std::hint::black_box(place.run(body));
    kept as f64 / n as f64
}

/// Rows whose bodies stop at their gate with all children spawned and none waited for.
const KEEPS: &[&str] = &["void", "laden", "result", "yield", "free"];

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let plain = wanted.first().is_some_and(|arg| arg == "--plain");
    if plain {
        wanted.remove(0);
    } else {
        println!(
            "| row | contender | allocations a unit | bytes a unit | bytes kept of an ended child |"
        );
        println!("|---|---|---|---|---|");
    }
    let place = Place::current_thread();
    for row in rows::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == row.name) {
            continue;
        }
        let n = (row.round)(20_000);
        for contender in row.contenders {
            let (allocations, bytes) = spent(&place, row, contender, n);
            let kept = KEEPS
                .contains(&row.name)
                .then(|| kept(&place, contender, n));
            if plain {
                let kept = kept.map_or(String::new(), |bytes| bytes.to_string());
                println!(
                    "{}\t{}\t{allocations}\t{bytes}\t{kept}",
                    row.name, contender.name
                );
            } else {
                let kept = kept.map_or("–".to_owned(), |bytes| format!("{bytes:.0}"));
                println!(
                    "| {} | {} | {allocations:.2} | {bytes:.0} | {kept} |",
                    row.name, contender.name
                );
            }
        }
    }
}
