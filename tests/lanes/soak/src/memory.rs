//! What the process has in memory: bytes that are allocated, exactly; and what its allocator keeps for later, as the system sees it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

static LIVE: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, watched.
struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: every call goes to `System` unchanged; the counter touches no memory that is handed out.
#[expect(
    unsafe_code,
    reason = "the trait of a global allocator is unsafe to implement"
)]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// So many episodes are looked at together: after the odd one, a runtime's thread has still to free the last task.
const WINDOW: u64 = 100;
/// What the runtime and the ledger may come to need meanwhile: room that is used again.
const SLACK: i64 = 256 * 1024;

/// The least that was allocated after an episode, for each hundred of them.
pub struct Low {
    seen: u64,
    lows: Vec<i64>,
}

impl Low {
    pub fn new() -> Self {
        let lows = Vec::with_capacity(10_000); // it is not to count itself
        Self { seen: 0, lows }
    }

    /// An episode is over.
    pub fn look(&mut self) {
        if self.seen % WINDOW == 0 && self.lows.len() < self.lows.capacity() {
            self.lows.push(i64::MAX);
        }
        self.seen += 1;
        if let Some(low) = self.lows.last_mut() {
            *low = LIVE.load(Relaxed).min(*low);
        }
    }

    /// The first, and the last that is whole.
    fn ends(&self) -> Option<(i64, i64)> {
        let whole = (self.seen / WINDOW) as usize;
        let whole = self.lows.get(..whole).unwrap_or(&self.lows);
        Some((*whole.first()?, *whole.last()?))
    }

    /// Says what has grown, if it is too much.
    pub fn leak(&self) -> Option<String> {
        let (first, last) = self.ends()?;
        (last - first > SLACK).then(|| format!("leaked: {} bytes", last - first))
    }

    pub fn report(&self) -> String {
        let resident = resident();
        match self.ends() {
            Some((first, last)) => format!(
                "{first} bytes after the first {WINDOW} episodes, {last} after the last; {resident} KiB resident"
            ),
            None => format!("{resident} KiB resident, after too few episodes to tell"),
        }
    }
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4
}
