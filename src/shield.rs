//! Shields: sections that run to their end although their group is cancelled.
//!
//! H1. A shield is up from the first poll of its section until that has ended or is dropped, or has lasted too long; meanwhile the
//! task is not dropped where it is parked: in the body of a scope, nor is the one that the scope is in. H2. The bound counts
//! from the moment in which the task would have been dropped, which stands in its seat or its group: so sections one after
//! another do not outlast the longest bound. Whoever would drop the task keeps that time, by the bounds in its seat, whether anybody polls
//! the section or not. H3. Whether code is inside is set around each poll, so that other branches of the same task are not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::state::owner::Seat;
use crate::sync::Arc;

/// Runs `section` to its end although the group is cancelled, for `bound` at most from then on.
///
/// For what must not stop half-way: a commit, a hand-over, a farewell. When the task is forced, it goes on as long as it is in
/// the section; after `bound` it is dropped all the same, and named among those who were
/// [forced](crate::GroupError::forced). Where the runtime has no time driver, that is at once. A signal changes nothing: the
/// bound counts from the force, also for a section that begins after it, so that no chain of sections outlasts the longest of
/// their bounds. So a handle that is awaited there, and whose child has no value to give, is waited for until then. Inside, [`token`](crate::token) is silent and there is [no deadline](crate::Deadline::current) from outside,
/// also in scopes that are opened there.
///
/// It shields against the cancel of the task that the caller runs in, whether it came through a handle, the group, or a group
/// around it; in the body of a scope, or in a child that borrows, also against that of the task that the scope is in. It does not shield against its own future
/// being dropped, by a `timeout` around it or a `select!`, nor against the end of the runtime. Children that are
/// spawned in it are not in it. Outside every group it does nothing.
///
/// *Comparison.* `tokio::spawn` and then awaiting the handle keeps a section going, too, but nobody owns it: it has no bound, and
/// outlives whoever asked for it.
///
/// # Cancel safety
///
/// As cancel safe as `section`, which is dropped with it.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use ringfence::{scope, shield};
///
/// let mut is_saved = false;
/// let ended = scope(async |group| -> Result<(), std::io::Error> {
///     group.cancel();
///     shield(Duration::from_secs(1), async {
///         tokio::time::sleep(Duration::from_millis(10)).await; // write it down
///         is_saved = true;
///     })
///     .await;
///     std::future::pending().await // the body ends at its next await
/// });
/// assert!(ended.await.unwrap_err().is_cancelled());
/// assert!(is_saved);
/// # }
/// ```
pub fn shield<F: IntoFuture>(bound: Duration, section: F) -> Shield<F::IntoFuture> {
    Shield {
        section: section.into_future(),
        bound,
        guard: None,
    }
}

pin_project! {
    /// The future of [`shield`].
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as its section, which is dropped with it.
    #[must_use = "futures do nothing unless polled"]
    pub struct Shield<F> {
        #[pin]
        section: F,
        bound: Duration,
        guard: Option<Guard>,
    }
}

/// A raised shield.
struct Guard {
    seat: Arc<Seat>,
    bound: Duration,
}

impl Guard {
    fn raise(bound: Duration) -> Option<Self> {
        let (_, _, seat) = crate::context::seat()?;
        seat.raise(bound);
        Some(Self { seat, bound })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.seat.lower(self.bound, false);
    }
}

/// Sets that code is inside, and back.
struct Inside<'a>(&'a Seat, bool);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.step(self.1);
    }
}

impl<F: Future> Future for Shield<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.guard.is_none() {
            *this.guard = Guard::raise(*this.bound); // H1
        }
        let Some(guard) = this.guard else {
            return this.section.poll(cx);
        };
        let polled = {
            let _inside = Inside(&guard.seat, guard.seat.step(true)); // H3
            this.section.poll(cx)
        };
        if polled.is_ready() {
            *this.guard = None;
        }
        polled
    }
}

impl<F> fmt::Debug for Shield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}
