//! A kit for tests of programs that are built with this crate (feature `testing`).
//!
//! [`nothing_alive`] says whether a test left anything behind; [`cut_at_every_await`] drops a future at each of its awaits,
//! one after the other; [`Smallest`] makes every capacity 1. Time is tokio's: `#[tokio::test(start_paused = true)]`
//! makes it exact, and free.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::cell::Cell;
//! use std::time::Duration;
//! use ringfence::{Limiter, scope, testing};
//!
//! /// Two steps under one permit, in a child.
//! async fn transfer(limiter: Limiter, steps: &Cell<u32>) {
//!     let done = scope(async |group| -> std::io::Result<()> {
//!         let held = limiter.clone();
//!         group.spawn(async move {
//!             let _permit = held.acquire().await;
//!             tokio::time::sleep(Duration::from_millis(1)).await;
//!         });
//!         Ok(())
//!     });
//!     done.await.unwrap();
//!     steps.set(steps.get() + 1);
//! }
//!
//! let (limiter, steps) = (Limiter::new(1), Cell::new(0));
//! let cuts = testing::cut_at_every_await(
//!     || transfer(limiter.clone(), &steps),
//!     async |_| {
//!         testing::nothing_alive().await.unwrap(); // no child outlived the cut
//!         assert_eq!(limiter.in_flight(), 0); // and the permit is back
//!     },
//! )
//! .await;
//! assert_eq!((cuts, steps.get()), (2, 1));
//! # }
//! ```

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

pub use crate::smallest::Smallest;

use crate::inspect::{Snapshot, snapshot};
use crate::root::root;

/// How long [`nothing_alive`] waits for what is on its way out.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is alive, and should not be: prints as a tree.
#[derive(Debug)]
pub struct StillAlive {
    groups: Snapshot,
    orphans: usize,
}

impl StillAlive {
    /// Returns the groups that are alive.
    #[must_use]
    pub fn groups(&self) -> &Snapshot {
        &self.groups
    }
}

impl fmt::Display for StillAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, orphans } = self;
        let alive = groups.groups().len();
        write!(
            f,
            "{alive} groups are alive ({orphans} of dropped scopes)\n{groups}"
        )
    }
}

impl std::error::Error for StillAlive {}

/// Makes sure that nothing of ours is alive on this runtime: the last line of a test.
///
/// What dropped scopes left behind is waited for, for a second of tokio's clock. Call it outside of every scope: one that it is called
/// in is alive.
///
/// # Cancel safety
///
/// Cancel safe: it only waits and looks.
///
/// # Errors
///
/// [`StillAlive`], with the tree of what is: a long-lived group that nobody shut down, a scope that was leaked, a task
/// that does not end.
///
/// # Panics
///
/// Outside a tokio runtime.
pub async fn nothing_alive() -> Result<(), StillAlive> {
    let root = root();
    let gone = root.wait(PATIENCE).await.is_ok();
    let mut groups = snapshot();
    if let Some(runtime) = crate::runtime::id() {
        groups = groups.on(runtime);
    }
    if gone && groups.is_empty() {
        return Ok(());
    }
    let orphans = root.orphans();
    Err(StillAlive { groups, orphans })
}

/// Drops the future that `make` builds before its first poll, then at its first await, then at its second, and so on, until it
/// ends by itself; after each of these cuts, runs `check` with the number of awaits that were passed. Returns how many cuts there were.
///
/// Cancel safety, tested: whatever the future holds has to be given back, and whatever it had begun has to be gone, wherever it is
/// cut. It is polled only when it was woken, so that each await that has to wait is one cut; the runtime goes on around it.
///
/// # Cancel safety
///
/// Cancel safe, if the future is.
pub async fn cut_at_every_await<F: Future>(
    mut make: impl FnMut() -> F,
    mut check: impl AsyncFnMut(usize),
) -> usize {
    for cut in 0.. {
        let has_ended = {
            let mut future = pin!(make());
            let mut polls = 0;
            poll_fn(|cx| {
                if polls == cut {
                    return Poll::Ready(false);
                }
                polls += 1;
                match future.as_mut().poll(cx) {
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending if polls == cut => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        check(cut).await;
        if has_ended {
            return cut;
        }
    }
    unreachable!("the cuts are counted without end")
}
