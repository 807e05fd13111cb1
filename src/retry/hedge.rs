//! Hedging: a second copy of a call that takes long. The race itself is in `race`.

use std::fmt;
use std::time::Duration;

use super::attempts::Attempt;
use super::backoff::nanos;
use super::budget::RetryBudget;
use super::event::{NoHook, OnEvent};
use super::latency::Latency;
use super::listen::Listen;
use super::race::{HedgeError, HedgeFuture, HedgeReporting, Race};
use super::verdict::{AnyError, Classify, Judge, Until, Verdict, When};
use crate::cancel::Token;
use crate::time::Deadline;

const MOST_COPIES: u32 = 16;
const SHORTEST: Duration = Duration::from_millis(1);
const MAX_HINT: Duration = Duration::from_secs(60);

/// Starts a second copy of a call that takes long, and takes the first good answer: it cuts the tail, for a little more load.
///
/// Only for what may be done twice. All copies run in the caller's task, and all but the winner are dropped before the
/// result is there.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::retry::HedgeError<std::io::Error>> {
/// use std::time::Duration;
/// use ringfence::Hedge;
///
/// const HEDGE: Hedge = Hedge::after(Duration::from_millis(100));
/// # async fn fetch(copy: u32) -> std::io::Result<u32> {
/// #     tokio::time::sleep(Duration::from_millis(if copy == 1 { 900 } else { 20 })).await;
/// #     Ok(copy)
/// # }
/// let start = tokio::time::Instant::now();
/// let answer = HEDGE.run(|attempt| fetch(attempt.number)).await?; // the first copy takes 900 ms, the second one 20 ms
/// assert_eq!((answer, start.elapsed()), (2, Duration::from_millis(120)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a hedge does nothing by itself: `HEDGE.run(…)`"]
pub struct Hedge<'l> {
    pub(super) delay: Delay<'l>,
    pub(super) copies: u32,
    pub(super) max_hint: Duration,
    cap: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Delay<'l> {
    Fixed(Duration),
    Percentile(f64, &'l Latency),
}

impl Hedge<'static> {
    /// Starts the next copy when the last one is not done after this; zero starts all at once.
    pub const fn after(delay: Duration) -> Self {
        Self {
            delay: Delay::Fixed(delay),
            copies: 2,
            max_hint: MAX_HINT,
            cap: Duration::MAX,
        }
    }
}

impl<'l> Hedge<'l> {
    /// Starts the next copy when the last one takes longer than this share of the calls did: 0.95 sends a twentieth more.
    ///
    /// While too little is known, no copy begins because another one takes long; one that failed is followed all the same. The
    /// delay is a millisecond at least, unless the [cap](Self::cap) is less.
    ///
    /// # Panics
    ///
    /// If the share is not a number between 0 and 1.
    #[track_caller]
    pub const fn percentile(share: f64, latency: &'l Latency) -> Self {
        assert!(
            share > 0.0 && share < 1.0,
            "ringfence: the percentile of a hedge lies between 0 and 1"
        );
        Self {
            delay: Delay::Percentile(share, latency),
            copies: 2,
            max_hint: MAX_HINT,
            cap: Duration::MAX,
        }
    }

    /// Runs so many copies at most, the first included; 2 unless given. From the third on, each is one allocation.
    ///
    /// # Panics
    ///
    /// If it is 0 or more than 16.
    #[track_caller]
    pub const fn copies(mut self, copies: u32) -> Self {
        assert!(
            copies >= 1 && copies <= MOST_COPIES,
            "ringfence: a hedge has from 1 to 16 copies"
        );
        self.copies = copies;
        self
    }

    /// Never waits longer than this for a copy, whatever the percentile.
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Begins no further copy once a server asks for more patience than this; a minute unless given, a year at
    /// most. As [`Retry::max_hint`](crate::Retry::max_hint).
    pub const fn max_hint(mut self, max_hint: Duration) -> Self {
        self.max_hint = Duration::from_nanos(nanos(max_hint));
        self
    }

    pub(super) fn delay(&self) -> Option<Duration> {
        match self.delay {
            Delay::Fixed(delay) => Some(delay.min(self.cap)),
            Delay::Percentile(share, latency) => {
                Some(latency.percentile(share)?.max(SHORTEST).min(self.cap))
            }
        }
    }

    /// Calls `op` once, and again when that takes long or fails, and takes the first good outcome.
    ///
    /// A copy that fails lets the next one begin at once. All copies failed: the error of the first is the source. An error that
    /// the classifier calls permanent ends the race.
    ///
    /// The call inherits the [deadline](Deadline::current) of the group it is awaited in, and its end: once the task is asked
    /// to end, no further copy begins, and no hint is waited for, while the copies that run may finish in the grace.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops every copy.
    ///
    /// # Errors
    ///
    /// [`HedgeError`], with the error of each copy.
    pub fn run<Op, Fut, T, E>(self, op: Op) -> HedgeRun<'l, Op>
    where
        Op: FnMut(Attempt) -> Fut,
        Fut: IntoFuture<Output = Result<T, E>>,
    {
        HedgeRun {
            hedge: self,
            op,
            judge: AnyError,
            hook: NoHook,
            told: Told {
                deadline: Deadline::NEVER,
                listen: Listen::Ambient,
                budget: None,
            },
        }
    }
}

/// What one call was told beside its hedge.
pub(super) struct Told<'l> {
    pub(super) deadline: Deadline,
    pub(super) listen: Listen,
    pub(super) budget: Option<&'l RetryBudget>,
}

/// A hedged call, not begun yet: see [`Hedge::run`].
#[must_use = "a hedge does nothing unless awaited"]
pub struct HedgeRun<'l, Op, J = AnyError, H = NoHook> {
    hedge: Hedge<'l>,
    op: Op,
    judge: J,
    hook: H,
    told: Told<'l>,
}

impl<'l, Op, J, H> HedgeRun<'l, Op, J, H> {
    /// Drops all copies at this time; a copy that would begin then or later is not begun.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.told.deadline = self.told.deadline.min(deadline.into());
        self
    }

    /// Takes a token of this budget for each copy but the first, whichever wins; without one, there is no copy.
    pub fn budget(mut self, budget: &'l RetryBudget) -> Self {
        self.told.budget = Some(budget);
        self
    }

    /// Heeds this token instead of that of the task the call is in: once it is cancelled, no copy begins, while those that run go
    /// on. With `None`, no token: for what has to be said within the grace. Deadlines around hold all the same.
    pub fn cancel_on(mut self, token: impl Into<Option<Token>>) -> Self {
        let token: Option<Token> = token.into();
        self.told.listen = token.into();
        self
    }

    fn judged<K>(self, judge: K) -> HedgeRun<'l, Op, K, H> {
        HedgeRun {
            hedge: self.hedge,
            op: self.op,
            judge,
            hook: self.hook,
            told: self.told,
        }
    }
}

impl<'l, Op, J> HedgeRun<'l, Op, J, NoHook> {
    /// Tells this closure about each copy that was started or refused.
    pub fn on_event<F: FnMut(&HedgeEvent)>(self, tell: F) -> HedgeRun<'l, Op, J, OnEvent<F>> {
        HedgeRun {
            hedge: self.hedge,
            op: self.op,
            judge: self.judge,
            hook: OnEvent(tell),
            told: self.told,
        }
    }
}

impl<'l, Op, Fut, T, E, H> HedgeRun<'l, Op, AnyError, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
{
    /// Goes on after the errors for which this is true; others end the race.
    pub fn when<F: FnMut(&E) -> bool>(self, goes_on: F) -> HedgeRun<'l, Op, When<F>, H> {
        self.judged(When(goes_on))
    }

    /// Takes a value for which this is true, and goes on after others.
    pub fn until<F: FnMut(&T) -> bool>(self, is_good: F) -> HedgeRun<'l, Op, Until<F>, H> {
        self.judged(Until(is_good))
    }

    /// Decides about every outcome. A [`RetryAfter`](Verdict::RetryAfter) puts the next copy off by exactly that; of several, the
    /// latest counts, and one above [`max_hint`](Hedge::max_hint) is the end of further copies.
    pub fn classify<F>(self, classify: F) -> HedgeRun<'l, Op, Classify<F>, H>
    where
        F: FnMut(&Result<T, E>) -> Verdict,
    {
        self.judged(Classify(classify))
    }
}

impl<'l, Op, Fut, T, E, J, H> HedgeRun<'l, Op, J, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: HedgeHook,
{
    /// Runs, and says which copy won.
    ///
    /// # Cancel safety
    ///
    /// As [`Hedge::run`].
    pub fn report(self) -> HedgeReporting<'l, Op, Fut::IntoFuture, J, H, E, J::Kept> {
        HedgeReporting {
            run: self.into_future(),
        }
    }
}

impl<'l, Op, Fut, T, E, J, H> IntoFuture for HedgeRun<'l, Op, J, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: HedgeHook,
{
    type Output = Result<T, HedgeError<E, J::Kept>>;
    type IntoFuture = HedgeFuture<'l, Op, Fut::IntoFuture, J, H, E, J::Kept>;

    fn into_future(self) -> Self::IntoFuture {
        let race = Race::new(self.hedge, self.told);
        HedgeFuture::new(race, self.op, self.judge, self.hook)
    }
}

impl<Op, J, H> fmt::Debug for HedgeRun<'_, Op, J, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeRun")
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}

/// Something that happened in a hedged call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HedgeEvent {
    /// A further copy was started: its number, and how long the call had taken.
    Started(u32, Duration),
    /// The budget would not pay for a further copy, so there will be none.
    Suppressed(u32, Duration),
}

/// Hears the events of a hedged call: [`NoHook`] or [`OnEvent`]. Sealed.
pub trait HedgeHook: sealed::Sealed {
    #[doc(hidden)]
    fn tell(&mut self, event: &HedgeEvent);
}

mod sealed {
    #[expect(unnameable_types, reason = "that is what seals it")]
    pub trait Sealed {}
    impl Sealed for super::NoHook {}
    impl<F> Sealed for super::OnEvent<F> {}
}

impl HedgeHook for NoHook {
    fn tell(&mut self, _: &HedgeEvent) {}
}

impl<F: FnMut(&HedgeEvent)> HedgeHook for OnEvent<F> {
    fn tell(&mut self, event: &HedgeEvent) {
        (self.0)(event);
    }
}
