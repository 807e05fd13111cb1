//! Shields: sections that run to their end although their group is cancelled.
//!
//! H1. A shield is up from the first poll of its section until that has ended, is dropped, or has lasted too long; meanwhile the
//! task is not dropped where it is parked: in the body of a scope, or in a child that borrows, nor is the one that the scope is
//! in. H2. The bound counts from the moment in which the task would have been dropped, which stands in its seat or its group: so sections one after
//! another do not outlast the longest bound. H3. Whether code is inside is set around each poll, so that other branches of
//! the same task are not. H4. It listens for that moment by itself, since whatever polls it may not look at it otherwise.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;

use crate::runtime::Timer;
use crate::state::Core;
use crate::state::owner::Seat;
use crate::sync::Arc;

/// Runs `section` to its end although the group is cancelled, for `bound` at most from then on.
///
/// For what must not stop half-way: a commit, a hand-over, a farewell. When the task is forced, it goes on as long as it is in
/// the section; after `bound` it is dropped all the same, and named among those who were
/// [forced](crate::GroupError::forced). A signal changes nothing for it: the bound counts from the force, also for a section that
/// begins after it, so that no chain of sections outlasts the longest of their bounds. Inside,
/// [`token`](crate::token) is silent and there is [no deadline](crate::Deadline::current) from outside, also in scopes that are
/// opened there.
///
/// It shields against the cancel of the task that the caller runs in, whether it came through a handle, the group, or a group
/// around it; in the body of a scope, or in a child that borrows, also against that of the task that the scope is in. It does not shield against its own future
/// being dropped, by a `timeout` around it or a `select!`, nor against the end of the runtime. It keeps its bound only while it is polled:
/// await it, or drop it. Children that are
/// spawned in it are not in it. Outside every group it does nothing.
///
/// *Comparison.* `tokio::spawn` and then awaiting the handle keeps a section going, too, but nobody owns it: it has no bound, and
/// outlives whoever asked for it.
///
/// # Cancel safety
///
/// As cancel safe as `section`, which is dropped with it.
///
/// # Panics
///
/// When the group is forced meanwhile, and the runtime has no time driver.
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
        timer: None,
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
        timer: Option<Pin<Box<Timer>>>,
    }
}

/// A raised shield.
struct Guard {
    core: Arc<Core>,
    serial: u64,
    seat: Arc<Seat>,
    is_up: bool,
    /// The numbers under which each group knows us, innermost first.
    listening: Vec<u64>,
}

impl Guard {
    fn raise() -> Option<Self> {
        let (core, serial, seat) = crate::context::seat()?;
        seat.raise();
        Some(Self {
            core,
            serial,
            seat,
            is_up: true,
            listening: Vec::new(),
        })
    }

    /// Returns the members that the section is in: who shares the task in which a scope was opened is in the member that
    /// opened it.
    fn around(&self) -> impl Iterator<Item = (&Core, u64)> {
        std::iter::successors(Some((&*self.core, self.serial)), |(core, serial)| {
            core.exposed_in().filter(|_| core.shares_task(*serial))
        })
    }

    fn is_forced(&self) -> bool {
        self.around().any(|(core, serial)| {
            let word = core.word().read();
            word.is_forced() || (serial > 0 && core.is_forced(word, serial))
        })
    }

    /// Returns since when the task goes on in shields alone.
    fn forced_since(&self) -> Instant {
        let now = Instant::now();
        let levels = self.around();
        let since = levels.filter_map(|(core, serial)| core.forced_since(serial, now));
        since.min().unwrap_or(now)
    }

    /// H4.
    fn listen(&mut self, waker: &Waker) {
        let known = std::mem::take(&mut self.listening);
        let numbers = self
            .around()
            .enumerate()
            .map(|(level, (core, serial))| core.listen(serial, known.get(level).copied(), waker));
        self.listening = numbers.collect();
    }

    fn lower(&mut self, is_overrun: bool) {
        if std::mem::take(&mut self.is_up) {
            self.seat.lower(is_overrun);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.lower(false);
        for ((core, serial), number) in self.around().zip(&self.listening) {
            core.unlisten(serial, *number);
        }
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
            *this.guard = Guard::raise(); // H1
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
            return polled;
        }
        if !guard.is_forced() {
            guard.listen(cx.waker());
            if !guard.is_forced() {
                return Poll::Pending;
            }
        }
        // H2
        let timer = match &mut *this.timer {
            Some(timer) => Some(timer),
            none => {
                let end = guard.forced_since().checked_add(*this.bound);
                end.map(|end| none.insert(Box::pin(Timer::at(end))))
            }
        };
        let mut timer = timer.map(|timer| coop::unconstrained(timer.as_mut()));
        let is_over = timer
            .as_mut()
            .is_some_and(|timer| Pin::new(timer).poll(cx).is_ready());
        if is_over {
            guard.lower(true);
        }
        Poll::Pending
    }
}

impl<F> fmt::Debug for Shield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}
