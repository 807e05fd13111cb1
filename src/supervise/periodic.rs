//! Periodic work: at a rate, or with a delay in between, one run at a time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::cancel::token;
use crate::detail::{self, WaitsFor};
use crate::group::output::TaskOutput;
use crate::runtime::step;
use crate::supervise::schedule::{Missed, Pace, Schedule};
use crate::sync::PlainArc;
use crate::time::{Deadline, timeout_at};
use crate::watched::Watched;

#[derive(Default)]
struct Orders {
    is_triggered: bool,
    is_stopped: bool,
}

/// What ends a wait.
enum Woken {
    Due,
    Triggered,
    Over,
}

/// Work that is done again and again: every so often, or with so long in between.
///
/// Runs never overlap. It is a future like any other: spawn it into a group, or make it a child of a
/// [`Supervisor`](crate::Supervisor). When its task is [asked to end](crate::token()), a wait ends at once, and a run that
/// has begun is finished, unless it is forced.
///
/// # Default
///
/// The first run is at once. Instants that pass during a run are [left out](Missed::Skip).
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::time::Duration;
/// use ringfence::supervise::Periodic;
/// use ringfence::scope;
///
/// scope(async |group| {
///     let flush = Periodic::rate(Duration::from_secs(10));
///     let handle = flush.handle();
///     group.spawn_background(flush.run(|tick| async move {
///         println!("flush number {}", tick.number());
///     }));
///     tokio::time::sleep(Duration::from_secs(25)).await; // runs at 0, 10 and 20 s
///     handle.trigger(); // and now
///     Ok(())
/// })
/// .await
/// # }
/// ```
///
/// *Comparison.* `tokio::time::interval` in a loop does the waiting; this also ends with its task, can be told to run now, and says what
/// it has missed.
/// A clone shares the handle: where a supervisor runs it again and again, clone it for each run, and make the child
/// [transient](crate::supervise::Child::transient), so that a stop is for good.
#[derive(Clone)]
#[must_use = "periodic work is done when it is run"]
pub struct Periodic {
    pace: Pace,
    first: Duration,
    orders: PlainArc<Watched<Orders>>,
}

impl Periodic {
    /// Work that begins every `period`.
    ///
    /// # Panics
    ///
    /// If the period is zero.
    #[doc(alias("every", "interval"))]
    #[track_caller]
    pub fn rate(period: Duration) -> Self {
        assert!(
            !period.is_zero(),
            "ringfence: a period of zero is no rate; a delay of zero is"
        );
        Self::new(Pace::Rate(period, Missed::Skip))
    }

    /// Work that begins so long after its last run has ended.
    pub fn delay(delay: Duration) -> Self {
        Self::new(Pace::Delay(delay))
    }

    fn new(pace: Pace) -> Self {
        Self {
            pace,
            first: Duration::ZERO,
            orders: PlainArc::new(Watched::new(Orders::default())),
        }
    }

    /// Says what becomes of the instants that pass during a run.
    ///
    /// # Panics
    ///
    /// If there is a delay between runs, which misses nothing.
    #[track_caller]
    pub fn missed(mut self, policy: Missed) -> Self {
        match &mut self.pace {
            Pace::Rate(_, missed) => *missed = policy,
            Pace::Delay(_) => {
                panic!("ringfence: with a delay between runs nothing is missed: {policy:?}")
            }
        }
        self
    }

    /// Begins so long after the start, and not at once.
    pub fn first_after(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// Returns a handle, to run it now or to stop it.
    #[must_use]
    pub fn handle(&self) -> PeriodicHandle {
        PeriodicHandle {
            orders: self.orders.clone(),
        }
    }

    /// Does `work` until it fails, it is [stopped](PeriodicHandle::stop), or its task is asked to end.
    ///
    /// What it needs beyond a tick is cloned in for each run; work that never awaits is an `async` block all the same:
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use ringfence::{BoxError, Periodic};
    /// # fn statistics(stats: Arc<str>) -> impl Future<Output = Result<(), BoxError>> {
    /// Periodic::rate(Duration::from_secs(1)).run(move |_| {
    ///     let stats = stats.clone();
    ///     async move { println!("{stats}") }
    /// })
    /// # }
    /// # drop(statistics(Arc::from("all is well")));
    /// ```
    ///
    /// Where nothing around tells the error type, have `work` say it: `Ok::<_, Infallible>(())`.
    ///
    /// # Cancel safety
    ///
    /// Between two runs nothing is lost; dropped in the middle of one, it drops that run.
    ///
    /// # Errors
    ///
    /// The first error that `work` returns.
    ///
    /// # Panics
    ///
    /// With what `work` panics with; so with what a run throws when it is dropped, which costs the error that it had returned. When it
    /// has to wait outside a tokio runtime, or in one whose time driver is not enabled.
    pub async fn run<E, F, Fut>(self, mut work: F) -> Result<(), E>
    where
        F: FnMut(Tick) -> Fut,
        Fut: Future<Output: TaskOutput<E>>,
    {
        let start = Instant::now();
        let now = || Instant::now().saturating_duration_since(start);
        let mut schedule = Schedule::new(self.pace, self.first);
        let mut tick = Tick {
            number: 0,
            is_triggered: false,
            missed: 0,
        };
        loop {
            let at = start.checked_add(schedule.next());
            let due = at.map_or(Deadline::NEVER, Deadline::at);
            tick.is_triggered = match self.woken(due).await {
                Woken::Over => return Ok(()),
                Woken::Due => false,
                Woken::Triggered => true,
            };
            tick.number += 1;
            let began = now();
            drop(work(tick).await.into_result()?);
            tick.missed = schedule.ended(!tick.is_triggered, began, now());
        }
    }

    async fn woken(&self, due: Deadline) -> Woken {
        step().await; // work that never waits, and is always late, has to let others run
        let token = token();
        let mut cancelled = pin!(token.cancelled());
        let mut ordered = pin!(self.orders.until(|orders| {
            if orders.is_stopped {
                return Some(Woken::Over);
            }
            std::mem::take(&mut orders.is_triggered).then_some(Woken::Triggered)
        }));
        let ordered = poll_fn(|cx| {
            let woken = match cancelled.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Woken::Over),
                Poll::Pending => ordered.as_mut().poll(cx),
            };
            if woken.is_pending() {
                detail::waits_for(WaitsFor::Tick);
            }
            woken
        });
        timeout_at(due, ordered).await.unwrap_or(Woken::Due)
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Periodic")
            .field("pace", &self.pace)
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// One run of periodic work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    number: u64,
    is_triggered: bool,
    missed: u64,
}

impl Tick {
    /// Returns which run this is; the first one is 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Asks whether somebody [asked for it](PeriodicHandle::trigger).
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.is_triggered
    }

    /// Returns how many instants were left out since the run before, because that one took so long.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// Runs periodic work now, or stops it, from anywhere. Dropping it does nothing.
#[derive(Clone)]
pub struct PeriodicHandle {
    orders: PlainArc<Watched<Orders>>,
}

impl PeriodicHandle {
    /// Has it run now, or once more right after the run that it is in. Asked for several times before that, it runs once.
    ///
    /// At a fixed rate this does not move the other instants; a delay counts from the end of this run.
    pub fn trigger(&self) {
        self.orders.change(|orders| orders.is_triggered = true);
    }

    /// Has it end: at once while it waits, else after the run that it is in.
    pub fn stop(&self) {
        self.orders.change(|orders| orders.is_stopped = true);
    }
}

impl fmt::Debug for PeriodicHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicHandle").finish_non_exhaustive()
    }
}
