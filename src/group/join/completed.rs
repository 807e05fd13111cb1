//! One after another, as they end.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::held::Held;
use super::racers::Racers;
use crate::group::handle::{Outcome, TaskHandle};

/// Children that are handed out as they end: from [`TaskGroup::as_completed`](crate::TaskGroup::as_completed).
///
/// They run on while nobody asks for them: whoever takes long over one holds up no other.
///
/// Dropped before all have been handed out, it cancels the rest, and the group waits for them; [`finish`](Self::finish) waits
/// for them at once.
///
/// *Comparison.* `FuturesUnordered` and `buffer_unordered` stop all of their futures while the consumer is busy.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use std::time::Duration;
/// use ringfence::{TaskGroup, scope};
///
/// scope(async |group: &TaskGroup| {
///     let mut pages = group.as_completed([30, 10, 20].map(|ms| async move {
///         tokio::time::sleep(Duration::from_millis(ms)).await;
///         ms
///     }));
///     let mut seen = Vec::new();
///     while let Some((_, outcome)) = pages.next().await {
///         seen.extend(outcome.completed());
///     }
///     assert_eq!(seen, [10, 20, 30]);
///     Ok(())
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
pub struct AsCompleted<'g, T> {
    racers: Racers<'g, T>,
    /// One that has returned, and is not quite gone.
    ending: Option<Ending<'g, T>>,
}

struct Ending<'g, T> {
    place: usize,
    output: Option<Held<T>>,
    handle: Option<TaskHandle<'g, ()>>,
}

// Outputs are only moved, never pinned.
impl<T> Unpin for AsCompleted<'_, T> {}

impl<'g, T> AsCompleted<'g, T> {
    pub(super) fn new(racers: Racers<'g, T>) -> Self {
        Self {
            racers,
            ending: None,
        }
    }

    /// Waits for the next child to end, and tells which one it was, counted from 0, and how it ended; `None` after the last one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost if a `select!` takes another branch.
    pub async fn next(&mut self) -> Option<(usize, Outcome<T>)> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Outcome<T>)>> {
        let ending = match &mut self.ending {
            Some(ending) => ending,
            None if self.racers.running == 0 => return Poll::Ready(None),
            none => {
                let (place, output) = ready!(self.racers.ends.poll_next(cx));
                self.racers.running -= 1;
                let handle = self.racers.handles.get_mut(place).and_then(Option::take);
                none.insert(Ending {
                    place,
                    output,
                    handle,
                })
            }
        };
        let how = match &mut ending.handle {
            Some(handle) => ready!(handle.poll_outcome(cx)), // J1: its destructors have run.
            None => Outcome::RuntimeGone,
        };
        let (place, output) = (ending.place, ending.output.take());
        self.ending = None;
        let outcome = match how {
            Outcome::Completed(()) => output
                .and_then(Held::take)
                .map_or(Outcome::RuntimeGone, Outcome::Completed),
            Outcome::Failed => Outcome::Failed,
            Outcome::Panicked => Outcome::Panicked,
            Outcome::Cancelled(reason) => Outcome::Cancelled(reason),
            Outcome::RuntimeGone => Outcome::RuntimeGone,
        };
        Poll::Ready(Some((place, outcome)))
    }

    /// Cancels those who still run, and waits until they are gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the rest is cancelled all the same, and the group waits for it.
    pub async fn finish(self) {
        let Self { racers, ending } = self;
        racers.finish().await;
        if let Some(handle) = ending.and_then(|ending| ending.handle) {
            handle.outcome().await;
        }
    }

    /// Returns how many have not been handed out yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.racers.running + usize::from(self.ending.is_some())
    }

    /// Asks whether all have been handed out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> fmt::Debug for AsCompleted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.len())
            .finish_non_exhaustive()
    }
}
