//! What the handles of a queue share: the lock, and the user's code, which never runs under it.

use std::task::{Context, Poll, Waker, ready};

use super::state::{Discarded, Effects, Overflow, State};
use crate::context;
use crate::detail::{self, WaitsFor};
use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::runtime::poll_step;
use crate::sync::{ShortGuard, ShortLock};

type Measure<T, N> = Box<dyn Fn(&T) -> N + Send + Sync>;

/// The user's part of a queue.
pub(crate) struct Config<T> {
    pub(crate) weight: Option<Measure<T, usize>>,
    pub(crate) rank: Option<Measure<T, i64>>,
    pub(crate) on_discard: Option<Box<dyn Fn(T, Discarded) + Send + Sync>>,
    /// How often an item is delivered; 0: a delivery that is dropped is done.
    pub(crate) attempts: u32,
    pub(crate) overflow: Overflow,
}

pub(crate) struct Shared<T> {
    state: ShortLock<State<T>>,
    pub(crate) config: Config<T>,
}

impl<T> Shared<T> {
    pub(crate) fn new(state: State<T>, config: Config<T>) -> Self {
        Self {
            state: ShortLock::new(state),
            config,
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> ShortGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Runs one step under the lock, and then does what it calls for.
    #[inline]
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut State<T>, &mut Effects<T>) -> R) -> R {
        let mut effects = Effects::new();
        let mut state = self.lock();
        let result = step(&mut state, &mut effects);
        state.refresh();
        drop(state);
        self.carry_out(effects);
        result
    }

    /// Wakes, drops, and calls the hook. What any of these throws is not the caller's: it is observed.
    #[inline]
    pub(crate) fn carry_out(&self, effects: Effects<T>) {
        if !effects.is_empty() {
            self.carry_out_all(effects);
        }
    }

    #[inline(never)]
    fn carry_out_all(&self, effects: Effects<T>) {
        if let Some(waker) = effects.stale {
            observe(|| drop(waker));
        }
        for waker in effects.wake.into_iter().chain(effects.wake_all) {
            observe(|| waker.wake());
        }
        let count = effects.discards.len();
        if count > 0 {
            for (item, why) in effects.discards {
                self.discard(item, why);
            }
            // Those who wait for the end are told of it now (N7).
            self.step(|state, effects| state.told(count, effects));
        }
    }

    /// Tells the hook of an item's fate.
    pub(crate) fn discard(&self, item: T, why: Discarded) {
        observe(|| match &self.config.on_discard {
            Some(hook) => hook(item, why),
            None => drop(item),
        });
    }

    /// What the queue needs to know of an item.
    #[inline]
    pub(crate) fn measure(&self, item: &T) -> (i64, usize) {
        let rank = self.config.rank.as_ref().map_or(0, |rank| rank(item));
        // At least one, so that also what weighs nothing is bounded.
        let weight = self.config.weight.as_ref();
        (rank, weight.map_or(1, |weight| weight(item).max(1)))
    }

    /// Whether many items may be sent as one: they differ in nothing, and wait for room.
    pub(crate) fn is_plain(&self) -> bool {
        self.waits() && self.lock().is_ring()
    }

    /// Whether sends wait for room.
    pub(crate) fn waits(&self) -> bool {
        self.config.overflow == Overflow::Wait
    }

    /// Polls a wait: tries, and parks with a clone of the waker that was made outside the lock.
    #[inline]
    pub(crate) fn poll<W: Wait<T>>(&self, cx: &mut Context<'_>, wait: &mut W) -> Poll<W::Output> {
        let budget = ready!(poll_step(cx));
        let mut state = self.lock();
        if let Some(output) = wait.attempt_alone(&mut state) {
            drop(state);
            budget.made_progress();
            return Poll::Ready(output);
        }
        let polled = self.poll_among_others(state, cx, wait);
        if polled.is_ready() {
            budget.made_progress();
        } else {
            detail::waits_for(W::WAITS_FOR);
        }
        polled
    }

    #[inline(never)]
    fn poll_among_others<W: Wait<T>>(
        &self,
        mut state: ShortGuard<'_, State<T>>,
        cx: &mut Context<'_>,
        wait: &mut W,
    ) -> Poll<W::Output> {
        let mut effects = Effects::new();
        let output = wait.attempt(&mut state, &mut effects);
        let is_parked = output.is_none() && wait.is_parked(&mut state, cx.waker());
        state.refresh();
        drop(state);
        self.carry_out(effects);
        match output {
            Some(output) => Poll::Ready(output),
            None if is_parked => Poll::Pending,
            None => self.park(cx.waker().clone(), wait),
        }
    }

    fn park<W: Wait<T>>(&self, waker: Waker, wait: &mut W) -> Poll<W::Output> {
        self.step(|state, effects| {
            if let Some(output) = wait.attempt(state, effects) {
                effects.retire(Some(waker));
                return Poll::Ready(output);
            }
            wait.park(state, waker, effects);
            Poll::Pending
        })
    }
}

/// Something that may have to wait its turn. All of it runs under the lock.
pub(crate) trait Wait<T> {
    type Output;
    const WAITS_FOR: WaitsFor;

    /// Does it, if it is its turn and concerns nobody else: the short way.
    #[inline]
    fn attempt_alone(&mut self, _: &mut State<T>) -> Option<Self::Output> {
        None
    }

    /// Does it, if it is its turn.
    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output>;

    /// Whether it stands in a list, with this waker.
    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool;

    /// Puts it in a list, or its newer waker.
    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>);
}

/// Runs the user's code where there is nobody whom a panic could go to: it is told to the observer of the group that it
/// happened in.
pub(crate) fn observe(run: impl FnOnce()) {
    if let Err(panic) = catch(run) {
        let place = context::current();
        let core = place.as_ref().map(|(core, _)| core);
        let observer = core.and_then(|core| core.observer());
        displace(observer, None, DisplacedWhat::Panic(panic));
    }
}
