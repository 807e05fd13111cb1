//! The engine of a concurrency limit: permits, and a queue of those who wait for them.
//!
//! L1. First come, first served: while somebody waits, nobody else takes a permit. L2. A permit that was granted to a waiter
//! belongs to it until it is picked up; a waiter that is dropped hands it on. L3. One that asks for more than the limit is
//! served when no permit is out, and runs alone. L4. Wakers are woken and dropped outside the lock. L5. A wait ends on the
//! signal of a cancel; one that was granted by then has its permit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use crate::cancel::{Cancelled, Token, token};
use crate::detail::{self, WaitsFor};
use crate::limit::permits::{Permits, UNLIMITED, will_do};
use crate::limit::waiters::{Left, Seat, Waiters};
use crate::observe::{CancelReason, wake};
use crate::sync::ShortLock;

pub(crate) struct Gate {
    permits: Permits,
    hall: ShortLock<Hall>,
}

struct Hall {
    limit: u64,
    waiters: Waiters,
}

/// What became of a seat.
enum Settled {
    Granted,
    Waits,
    /// The same, with another waker.
    Renewed,
}

/// Checks a limit: from one on; `usize::MAX` is no limit.
#[track_caller]
pub(crate) fn checked(limit: usize) -> u64 {
    assert!(limit > 0, "ringfence: a limit must be at least 1, not 0");
    (limit as u64).min(UNLIMITED)
}

impl Gate {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            permits: Permits::new(limit),
            hall: ShortLock::new(Hall {
                limit,
                waiters: Waiters::new(),
            }),
        }
    }

    #[inline]
    pub(crate) fn try_take(&self, n: u32) -> bool {
        n == 0 || self.permits.take(n.into()) || (n > 1 && self.try_take_alone(n.into()))
    }

    /// L3, without waiting.
    #[cold]
    fn try_take_alone(&self, n: u64) -> bool {
        let hall = self.hall.lock();
        n > hall.limit && hall.waiters.is_empty() && self.permits.take_alone(n, hall.limit)
    }

    #[inline]
    pub(crate) fn give(&self, n: u32) {
        if !self.permits.give(n.into()) {
            self.serve(n);
        }
    }

    /// Serves those whose turn has come, with these permits and what is free besides: one at a time, and wakes each outside
    /// the lock (L4).
    #[cold]
    fn serve(&self, given: u32) {
        let mut given = i64::from(given);
        while let Some((waker, may_serve_more)) = self.serve_first(std::mem::take(&mut given)) {
            // It may throw: that must not cost the next one its turn, nor whoever gives a permit back.
            wake(Some(waker));
            if !may_serve_more {
                return;
            }
        }
    }

    fn serve_first(&self, given: i64) -> Option<(Waker, bool)> {
        let mut hall = self.hall.lock();
        let limit = hall.limit;
        let free = self.permits.free() + given;
        let first = hall.waiters.first();
        let weight = first.filter(|weight| will_do(free, *weight, limit));
        let taken = weight.unwrap_or(0) as i64;
        self.permits.shift(given - taken);
        weight?;
        let waker = hall.waiters.grant()?;
        let next = hall.waiters.first();
        if next.is_none() {
            self.permits.unmark();
        }
        let may_serve_more = next.is_some_and(|next| will_do(free - taken, next, limit));
        Some((waker, may_serve_more))
    }

    /// Takes a seat in the queue; `None` if the permits are there after all.
    fn queue(&self, n: u32, waker: Waker) -> Option<Seat> {
        let mut hall = self.hall.lock();
        if hall.waiters.is_empty() && self.permits.take_or_mark(n.into(), hall.limit) {
            return None;
        }
        Some(hall.waiters.push(n.into(), waker))
    }

    /// Picks up what was granted, or leaves a fresh waker.
    fn settle(&self, seat: Seat, waker: &Waker) -> Settled {
        {
            let mut hall = self.hall.lock();
            if hall.waiters.settle(seat) {
                return Settled::Granted;
            }
            if hall.waiters.will_wake(seat, waker) {
                return Settled::Waits;
            }
        }
        let fresh = waker.clone();
        let _old = {
            let mut hall = self.hall.lock();
            if hall.waiters.settle(seat) {
                return Settled::Granted;
            }
            hall.waiters.renew(seat, fresh)
        }; // L4
        Settled::Renewed
    }

    /// Gives a seat up. Returns whether it had been granted: the permits are the caller's then.
    fn leave(&self, seat: Seat) -> bool {
        let (left, is_last) = {
            let mut hall = self.hall.lock();
            let left = hall.waiters.leave(seat);
            let is_last = hall.waiters.is_empty();
            if is_last {
                self.permits.unmark();
            }
            (left, is_last)
        };
        match left {
            Left::Granted => true,
            Left::Waiting { was_first, .. } => {
                if was_first && !is_last {
                    self.serve(0); // the next may ask for less
                }
                false
            }
        }
    }

    /// Gives a seat up, and hands on what it had been granted (L2).
    #[cold]
    fn abandon(&self, seat: Seat, n: u32) {
        if self.leave(seat) {
            self.give(n);
        }
    }

    /// Changes the limit without serving anybody: see [`wake`](Self::wake).
    pub(crate) fn resize(&self, limit: u64) {
        let mut hall = self.hall.lock();
        let by = limit as i64 - hall.limit as i64;
        hall.limit = limit;
        self.permits.shift(by);
    }

    /// Serves those whom a higher limit has room for.
    pub(crate) fn wake(&self) {
        self.serve(0);
    }

    pub(crate) fn limit(&self) -> u64 {
        self.hall.lock().limit
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let hall = self.hall.lock();
        (hall.limit as i64).saturating_sub(self.permits.free()) as u64
    }

    pub(crate) fn waiting(&self) -> usize {
        self.hall.lock().waiters.len()
    }
}

/// A wait for the signal of a cancel, made when there is first something to wait for.
pub(crate) struct Signal {
    token: Token,
    cancelled: Cancelled,
}

impl Signal {
    /// The signal of the caller's task, if there will ever be one.
    fn here() -> Option<Box<Self>> {
        let token = token();
        (!token.is_silent()).then(|| Box::new(Self::of(token)))
    }

    pub(crate) fn new() -> Self {
        Self::of(token())
    }

    fn of(token: Token) -> Self {
        Self {
            cancelled: token.cancelled(),
            token,
        }
    }

    /// Says why, if the task was asked to end.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        let is_cancelled = self.token.is_cancelled();
        is_cancelled.then(|| self.token.reason().unwrap_or(CancelReason::Closed))
    }

    /// Says why, once the task was asked to end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CancelReason> {
        let signalled = Pin::new(&mut self.cancelled).poll(cx);
        signalled.map(|()| self.token.reason().unwrap_or(CancelReason::Closed))
    }
}

/// One wait for permits after another, by one task. Whoever holds it calls [`abandon`](Self::abandon) when it is dropped.
#[derive(Default)]
pub(crate) struct Wait {
    seat: Option<Seat>,
    /// Boxed, because most waits are none, or are outside every group.
    signal: Option<Box<Signal>>,
}

impl Wait {
    /// Takes `n` permits, which are the caller's from then on, or waits for them.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        gate: &Gate,
        n: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CancelReason>> {
        let step = ready!(crate::runtime::poll_step(cx));
        if self.seat.is_none() && gate.try_take(n) {
            step.made_progress();
            return Poll::Ready(Ok(()));
        }
        let polled = self.poll_waiting(gate, n, cx);
        if polled.is_ready() {
            step.made_progress();
        }
        polled
    }

    #[cold]
    fn poll_waiting(
        &mut self,
        gate: &Gate,
        n: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CancelReason>> {
        match self.seat {
            Some(seat) => match gate.settle(seat, cx.waker()) {
                Settled::Granted => {
                    self.seat = None; // the signal is of use for the next wait
                    return Poll::Ready(Ok(()));
                }
                Settled::Waits => {}
                Settled::Renewed => self.signal = Signal::here(), // it may be another task that waits now
            },
            None => match gate.queue(n, cx.waker().clone()) {
                Some(seat) => {
                    self.seat = Some(seat);
                    self.signal = self.signal.take().or_else(Signal::here);
                }
                None => return Poll::Ready(Ok(())),
            },
        }
        let signalled = self.signal.as_mut().map(|signal| signal.poll(cx));
        let Some(Poll::Ready(reason)) = signalled else {
            detail::waits_for(WaitsFor::Permit);
            return Poll::Pending;
        };
        let was_granted = self.seat.take().is_some_and(|seat| gate.leave(seat));
        self.signal = None;
        Poll::Ready(if was_granted { Ok(()) } else { Err(reason) }) // L5
    }

    /// Gives the wait up (L2).
    #[inline]
    pub(crate) fn abandon(&mut self, gate: &Gate, n: u32) {
        if let Some(seat) = self.seat.take() {
            gate.abandon(seat, n);
        }
    }
}
