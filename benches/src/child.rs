//! The children that all contenders run.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Children that reached their end; counted in tests only, so that nobody pays for it in a measurement.
pub static ENDED: AtomicUsize = AtomicUsize::new(0);
/// Children of the row `cancel` that have been polled and wait for ever; counted before the clock starts.
pub static PARKED: AtomicUsize = AtomicUsize::new(0);
/// Children of the row `cancel` whose captured state has been dropped; counted in tests only.
pub static GONE: AtomicUsize = AtomicUsize::new(0);

#[inline(always)]
fn count(what: &AtomicUsize) {
    if cfg!(test) {
        what.fetch_add(1, Relaxed);
    }
}

/// An item of a queue has been received.
#[inline(always)]
pub fn received() {
    count(&ENDED);
}

/// Does nothing, captures nothing.
pub async fn noop() {
    count(&ENDED);
}

/// Does nothing, with 64 bytes that it was made with.
pub async fn laden(load: [u64; 8]) {
    std::hint::black_box(&load);
    count(&ENDED);
}

/// Gives back what it was made with.
pub async fn value(i: u64) -> u64 {
    count(&ENDED);
    std::hint::black_box(i)
}

/// Goes to the back of the run queue three times.
pub async fn yields() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    count(&ENDED);
}

/// Rings at its own waker and is pending, three times.
pub async fn rings() {
    for _ in 0..3 {
        let mut rang = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut rang, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }
    count(&ENDED);
}

struct CountedDrop;

impl Drop for CountedDrop {
    fn drop(&mut self) {
        count(&GONE);
    }
}

/// Waits for ever.
pub async fn parked() {
    let _counted = CountedDrop;
    PARKED.fetch_add(1, Relaxed);
    std::future::pending::<()>().await;
}

/// Comes back when `n` children are parked.
pub async fn all_parked(n: usize) {
    while PARKED.load(Relaxed) < n {
        tokio::task::yield_now().await;
    }
}
