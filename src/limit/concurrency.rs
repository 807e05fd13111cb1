//! `Limiter`: at most so many at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::limit::aimd::Aimd;
use crate::limit::gate::{Gate, Wait, checked};
use crate::limit::loan::Lenders;
use crate::observe::CancelReason;
use crate::sync::{Arc, AtomicU64, Lock, Ordering};

/// Lets at most so many be in flight at once; the others wait in line.
///
/// Clones share the limit: hand them to tasks, groups and fan-outs. Waiters are served first come, first served, also those
/// who ask for several permits, and a `try_` call never overtakes a waiter. One that asks for more than the limit runs alone,
/// when all permits are back, so that no weight and no lowering of the limit can hang anybody.
///
/// The limit is changed while it is in use by [`set_limit`](Self::set_limit), or changes itself between bounds:
/// [`adaptive`](Self::adaptive).
///
/// *Comparison.* `tokio::sync::Semaphore` has permits that are added and forgotten; this one has a limit that is read and
/// set, weights above it, and waits that end when their task is asked to. Use that one where permits are not given back.
///
/// Who holds a permit and waits for what needs another one of the same limiter waits for ever, if all who hold one do that. A
/// fan-out whose items hold permits [lends](crate::FanOut::limiter) them to fan-outs inside; a permit taken by hand is lent to
/// nobody: drop it first.
///
/// # Fairness
///
/// Strict, so one that waits and is not polled holds up those behind it. A wait inside a `select!` is dropped with its
/// branch, and then holds up nobody; do not keep one around unpolled.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use ringfence::Limiter;
///
/// let connections = Limiter::new(2);
/// let first = connections.acquire().await?;
/// let second = connections.acquire().await?;
/// assert!(connections.try_acquire().is_none());
/// drop(first);
/// assert!(connections.try_acquire().is_some());
/// # drop(second);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Limiter {
    core: Arc<LimiterCore>,
}

pub(crate) struct LimiterCore {
    pub(crate) gate: Gate,
    adaptive: Option<Adaptive>,
    pub(crate) lenders: Lenders,
}

struct Adaptive {
    aimd: Lock<Aimd>,
    /// A copy of the epoch, for who takes a permit.
    epoch: AtomicU64,
}

/// What became of what a permit was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Overload,
}

impl LimiterCore {
    fn new(limit: u64, adaptive: Option<Adaptive>) -> Self {
        Self {
            gate: Gate::new(limit),
            adaptive,
            lenders: Lenders::new(),
        }
    }

    /// What an item lends: to one at a time.
    pub(crate) fn loan() -> Self {
        Self::new(1, None)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.adaptive
            .as_ref()
            .map_or(0, |adaptive| adaptive.epoch.load(Ordering::Acquire))
    }

    /// Gives `n` permits back, and says how it went if anybody knows.
    #[inline]
    pub(crate) fn release(&self, n: u32, epoch: u64, verdict: Option<Verdict>) {
        if let (Some(adaptive), Some(verdict)) = (&self.adaptive, verdict) {
            adaptive.learn(&self.gate, epoch, verdict);
        }
        self.gate.give(n); // serves also those whom a higher limit has room for
    }
}

impl Adaptive {
    fn learn(&self, gate: &Gate, epoch: u64, verdict: Verdict) {
        let mut aimd = self.aimd.lock();
        let before = aimd.limit();
        match verdict {
            Verdict::Success => aimd.success(gate.in_flight()),
            Verdict::Overload => aimd.overload(epoch),
        }
        self.epoch.store(aimd.epoch(), Ordering::Release);
        if aimd.limit() != before {
            gate.resize(aimd.limit());
        }
    }
}

impl Limiter {
    /// At most `limit` at once; [`usize::MAX`] is no limit.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[must_use]
    #[track_caller]
    pub fn new(limit: usize) -> Self {
        Self {
            core: Arc::new(LimiterCore::new(checked(limit), None)),
        }
    }

    /// A limit that finds its height between `min` and `max`, starting at `min`: it grows by one for each limit's worth of
    /// successes, and is halved once for each round of overloads.
    ///
    /// It learns from what permits are told: [`Permit::succeeded`] and [`Permit::overloaded`]. A permit that is only dropped
    /// teaches nothing: that is what a caller's cancel looks like. A timeout of the attempt is an overload. It grows only
    /// while at least half of it is in use, and looks at no clock.
    ///
    /// # Panics
    ///
    /// If `min` is 0, or above `max`.
    #[must_use]
    #[track_caller]
    pub fn adaptive(min: usize, max: usize) -> Self {
        assert!(
            min <= max,
            "ringfence: an adaptive limit needs min <= max, not {min} and {max}"
        );
        let (min, max) = (checked(min), checked(max));
        let adaptive = Adaptive {
            aimd: Lock::new(Aimd::new(min, max, min, 128)),
            epoch: AtomicU64::new(0),
        };
        Self {
            core: Arc::new(LimiterCore::new(min, Some(adaptive))),
        }
    }

    pub(crate) fn core(&self) -> &Arc<LimiterCore> {
        &self.core
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it leaves the line, and a permit that it had been given by then goes to the next.
    ///
    /// # Errors
    ///
    /// [`WaitCancelled`] if the task that waits was asked to end before its turn came. A permit that is free is given all the same.
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits, all at once; for none, it is ready at once.
    ///
    /// If `n` is more than the limit, it waits until no permit is out.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_many(&self, n: u32) -> Acquire<'_> {
        Acquire {
            core: &self.core,
            n,
            wait: Wait::default(),
        }
    }

    /// Takes a permit if one is free and nobody waits.
    #[must_use]
    #[inline]
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits if they are free and nobody waits.
    #[must_use]
    #[inline]
    pub fn try_acquire_many(&self, n: u32) -> Option<Permit<'_>> {
        self.core
            .gate
            .try_take(n)
            .then(|| Permit::new(&self.core, n))
    }

    /// Returns the limit; [`usize::MAX`] for none.
    #[must_use]
    pub fn limit(&self) -> usize {
        let limit = self.core.gate.limit();
        if limit == crate::limit::permits::UNLIMITED {
            usize::MAX
        } else {
            limit as usize
        }
    }

    /// Changes the limit, for all clones. A higher one serves as many waiters as it has room for; a lower one admits nobody
    /// until enough permits are back, and takes none away. An adaptive limit stays within its bounds.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn set_limit(&self, limit: usize) {
        let limit = checked(limit);
        match &self.core.adaptive {
            Some(adaptive) => {
                let mut aimd = adaptive.aimd.lock();
                let limit = aimd.set(limit);
                self.core.gate.resize(limit);
            }
            None => self.core.gate.resize(limit),
        }
        self.core.gate.wake();
    }

    /// Returns how many permits are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core.gate.in_flight() as usize
    }

    /// Returns how many wait in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.core.gate.waiting()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .field("is_adaptive", &self.core.adaptive.is_some())
            .finish()
    }
}

/// The future of [`Limiter::acquire`].
///
/// # Cancel safety
///
/// Cancel safe: see [`Limiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a> {
    core: &'a Arc<LimiterCore>,
    n: u32,
    wait: Wait,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, WaitCancelled>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        me.wait.poll(&me.core.gate, me.n, cx).map(|got| match got {
            Ok(()) => Ok(Permit::new(me.core, me.n)),
            Err(reason) => Err(WaitCancelled { reason }),
        })
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        self.wait.abandon(&self.core.gate, self.n);
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

/// One or more permits of a [`Limiter`], given back when it is dropped.
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit<'a> {
    core: &'a Arc<LimiterCore>,
    n: u32,
    epoch: u64,
    verdict: Option<Verdict>,
}

impl<'a> Permit<'a> {
    #[inline]
    fn new(core: &'a Arc<LimiterCore>, n: u32) -> Self {
        Self {
            core,
            n,
            epoch: core.epoch(),
            verdict: None,
        }
    }

    /// Gives it back, and tells an [adaptive](Limiter::adaptive) limit that what it was taken for went well.
    pub fn succeeded(mut self) {
        self.verdict = Some(Verdict::Success);
    }

    /// Gives it back, and tells an [adaptive](Limiter::adaptive) limit that what it was taken for was too much: it was refused for
    /// load, or took too long.
    pub fn overloaded(mut self) {
        self.verdict = Some(Verdict::Overload);
    }

    /// Makes it independent of the limiter that it was taken from, so that it can go to another task.
    pub fn into_owned(self) -> OwnedPermit {
        let owned = OwnedPermit {
            core: self.core.clone(),
            n: self.n,
            epoch: self.epoch,
            verdict: None,
        };
        let mut moved = self;
        moved.n = 0;
        owned
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.n > 0 {
            self.core.release(self.n, self.epoch, self.verdict);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

/// A [`Permit`] that borrows nothing.
#[must_use = "a permit is given back when it is dropped"]
pub struct OwnedPermit {
    core: Arc<LimiterCore>,
    n: u32,
    epoch: u64,
    verdict: Option<Verdict>,
}

impl OwnedPermit {
    /// Wraps permits that were taken from the gate.
    pub(crate) fn new(core: Arc<LimiterCore>, n: u32) -> Self {
        Self {
            epoch: core.epoch(),
            core,
            n,
            verdict: None,
        }
    }

    /// Asks whether it is of no permit at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// As [`Permit::succeeded`].
    pub fn succeeded(mut self) {
        self.verdict = Some(Verdict::Success);
    }

    /// As [`Permit::overloaded`].
    pub fn overloaded(mut self) {
        self.verdict = Some(Verdict::Overload);
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        if self.n > 0 {
            self.core.release(self.n, self.epoch, self.verdict);
        }
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedPermit")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

/// The error of a wait that ended because its task was asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitCancelled {
    pub(crate) reason: CancelReason,
}

impl WaitCancelled {
    /// Returns why the task was asked to end.
    #[must_use]
    pub fn reason(&self) -> &CancelReason {
        &self.reason
    }
}

impl fmt::Display for WaitCancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the wait was cancelled {}", self.reason)
    }
}

impl std::error::Error for WaitCancelled {}
