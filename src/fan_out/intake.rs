//! Where items are taken from the input and let in, one at a time.
//!
//! The steps of an item: taken from the input (or from behind its key) · its key is free · its rate · its permits. Whoever
//! polls the intake drives the one item that is on its way through the steps; it stays in hand while a step waits.
//!
//! J1. The input is not asked again after its end, nor after it has thrown. J2. An item gets its rate before its permits, so that
//! no permit is held while time passes. J3. When an item ends, its permits go back first, then its key. J4. A wait in here ends
//! on the signal of a cancel; what is in hand then was never started. J5. What was taken and not delivered stays below the
//! bound, where there is one.

use std::hash::RandomState;
use std::task::{Context, Poll};

use crate::fan_out::input::Input;
use crate::fan_out::lanes::Lanes;
use crate::limit::concurrency::{LimiterCore, OwnedPermit};
use crate::limit::gate::{Signal, Wait};
use crate::limit::rate::{Meter, RateError, RateWait};
use crate::observe::CancelReason;
use crate::sync::Arc;
use crate::time::Deadline;

pub(crate) type WeightOf<T> = Box<dyn FnMut(&T) -> u32 + Send>;
pub(crate) type KeyOf<T> = Box<dyn FnMut(&T, &RandomState) -> Option<u64> + Send>;

/// An item with its place in the input.
#[derive(Debug)]
struct Ticket<T> {
    index: usize,
    item: T,
    key: Option<u64>,
}

/// What an item in flight holds.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) index: usize,
    pub(crate) permit: Option<OwnedPermit>,
    pub(crate) key: Option<u64>,
}

/// What comes out of the intake.
pub(crate) enum Taken<T> {
    /// An item that may run; what it holds meanwhile is in the pass.
    Item(T),
    /// Nothing until an item ends, or is delivered.
    Full,
    End,
}

/// The steps between the input and the function, where there are any.
pub(crate) struct Steps<T> {
    pub(crate) rate: Option<Arc<Meter>>,
    pub(crate) limiter: Option<Arc<LimiterCore>>,
    pub(crate) weight: Option<WeightOf<T>>,
    pub(crate) key: Option<KeyOf<T>>,
    hasher: RandomState,
    lanes: Lanes<Ticket<T>>,
    hand: Option<Ticket<T>>,
    has_rate: bool,
    /// What the item in hand asks for, once it was asked.
    weighs: Option<u32>,
    rate_wait: RateWait,
    permit_wait: Wait,
}

impl<T> Steps<T> {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            rate: None,
            limiter: None,
            weight: None,
            key: None,
            hasher: RandomState::new(),
            lanes: Lanes::new(bound),
            hand: None,
            has_rate: false,
            weighs: None,
            rate_wait: RateWait::default(),
            permit_wait: Wait::default(),
        }
    }

    /// Lets the item through its rate and its permits.
    fn poll_hand(
        &mut self,
        pass: &mut Pass,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, CancelReason>> {
        let Some(ticket) = &self.hand else {
            unreachable!("an item is in hand")
        };
        if let (Some(meter), false) = (&self.rate, self.has_rate) {
            match self.rate_wait.poll(meter, 1, Deadline::NEVER, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.has_rate = true,
                Poll::Ready(Err(RateError::Cancelled(reason))) => return Poll::Ready(Err(reason)),
                Poll::Ready(Err(_)) => unreachable!("one at a time fits every burst"),
            }
        }
        let mut permit = None;
        if let Some(limiter) = &self.limiter {
            let n = *self.weighs.get_or_insert_with(|| {
                self.weight
                    .as_mut()
                    .map_or(1, |weight| weight(&ticket.item))
            });
            match self.permit_wait.poll(&limiter.gate, n, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => permit = Some(OwnedPermit::new(limiter.clone(), n)),
                Poll::Ready(Err(reason)) => return Poll::Ready(Err(reason)),
            }
        }
        self.has_rate = false;
        self.weighs = None;
        let Some(Ticket { index, item, key }) = self.hand.take() else {
            unreachable!("an item is in hand")
        };
        *pass = Pass { index, permit, key };
        Poll::Ready(Ok(item))
    }
}

impl<T> Drop for Steps<T> {
    fn drop(&mut self) {
        if let Some(meter) = &self.rate {
            self.rate_wait.abandon(meter);
        }
        if let (Some(limiter), Some(n)) = (&self.limiter, self.weighs) {
            self.permit_wait.abandon(&limiter.gate, n);
        }
    }
}

// `T` is `S::Item`, spelled out: a projection in the type of a future that borrows keeps it from being seen as `Send`.
pub(crate) struct Intake<S, T> {
    source: S,
    taken: usize,
    delivered: usize,
    /// J5.
    bound: usize,
    has_ended: bool,
    /// Why it ended before the input did.
    cut: Option<CancelReason>,
    steps: Option<Box<Steps<T>>>,
    signal: Option<Signal>,
}

impl<S: Input<Item = T>, T> Intake<S, T> {
    pub(crate) fn new(source: S, steps: Option<Box<Steps<T>>>, bound: usize) -> Self {
        Self {
            source,
            taken: 0,
            delivered: 0,
            bound,
            has_ended: false,
            cut: None,
            steps,
            signal: None,
        }
    }

    /// Asks whether an item that was parked behind its key may be taken, whoever waits for the input.
    pub(crate) fn has_ready(&self) -> bool {
        self.steps
            .as_ref()
            .is_some_and(|steps| steps.hand.is_none() && steps.lanes.has_ready())
    }

    fn has_parked(&self) -> bool {
        self.steps
            .as_ref()
            .is_some_and(|steps| steps.lanes.has_parked())
    }

    /// Takes the next item, or waits for it; `may_pull` from the input.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        may_pull: bool,
        pass: &mut Pass,
        cx: &mut Context<'_>,
    ) -> Poll<Taken<T>> {
        let polled = if self.steps.is_some() {
            self.poll_steps(may_pull, pass, cx)
        } else {
            match self.pull(cx) {
                Poll::Ready(Ok((index, item))) => {
                    pass.index = index;
                    return Poll::Ready(Taken::Item(item));
                }
                Poll::Ready(Err(none)) => Poll::Ready(none),
                Poll::Pending => Poll::Pending,
            }
        };
        if polled.is_ready() {
            return polled;
        }
        self.poll_signal(cx)
    }

    /// J4.
    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<Taken<T>> {
        let signal = self.signal.get_or_insert_with(Signal::new);
        signal.poll(cx).map(|reason| {
            self.cut(Some(reason));
            Taken::End
        })
    }

    /// Takes from the input.
    #[inline]
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<(usize, T), Taken<T>>> {
        if self.has_ended {
            return Poll::Ready(Err(Taken::End));
        }
        if self.taken - self.delivered >= self.bound {
            return Poll::Ready(Err(Taken::Full));
        }
        self.has_ended = true; // J1
        let next = self.source.poll_next(cx);
        self.has_ended = matches!(next, Poll::Ready(None));
        next.map(|next| match next {
            Some(item) => {
                self.taken += 1;
                Ok((self.taken - 1, item))
            }
            None => Err(Taken::End),
        })
    }

    fn poll_steps(
        &mut self,
        may_pull: bool,
        pass: &mut Pass,
        cx: &mut Context<'_>,
    ) -> Poll<Taken<T>> {
        loop {
            let is_cut = self.cut.is_some();
            let Some(steps) = &mut self.steps else {
                unreachable!("there are steps")
            };
            if is_cut {
                return Poll::Ready(Taken::End);
            }
            if steps.hand.is_some() {
                return steps.poll_hand(pass, cx).map(|polled| match polled {
                    Ok(item) => Taken::Item(item),
                    Err(reason) => {
                        self.cut(Some(reason));
                        Taken::End
                    }
                });
            }
            if let Some(ticket) = steps.lanes.next() {
                steps.hand = Some(ticket);
                continue;
            }
            if !may_pull || steps.lanes.is_full() {
                return Poll::Ready(Taken::Full);
            }
            let (index, item) = match self.pull(cx) {
                Poll::Pending => return Poll::Pending,
                // Those who run bring on those who are parked.
                Poll::Ready(Err(_)) if self.has_parked() => return Poll::Ready(Taken::Full),
                Poll::Ready(Err(none)) => return Poll::Ready(none),
                Poll::Ready(Ok(pulled)) => pulled,
            };
            let Some(steps) = &mut self.steps else {
                unreachable!("there are steps")
            };
            let key = match &mut steps.key {
                Some(key_of) => {
                    self.has_ended = true; // J1, for what is asked with the input
                    let key = key_of(&item, &steps.hasher);
                    self.has_ended = false;
                    key
                }
                None => None,
            };
            let ticket = Ticket { index, item, key };
            steps.hand = match key {
                Some(key) => steps.lanes.admit(key, ticket),
                None => Some(ticket),
            };
        }
    }

    /// Notes that an item of this key has ended (J3).
    pub(crate) fn done(&mut self, key: u64) {
        if let Some(steps) = &mut self.steps {
            steps.lanes.done(key);
        }
    }

    /// Notes that so many results were delivered (J5).
    pub(crate) fn deliver(&mut self, n: usize) {
        self.delivered += n;
    }

    /// Takes nothing from the input any more, for this reason if there was anything left.
    pub(crate) fn cut(&mut self, reason: Option<CancelReason>) {
        let is_input_over = self.has_ended || self.source.size_hint().1 == Some(0);
        let steps = self.steps.as_ref();
        let is_step_over =
            steps.is_none_or(|s| s.hand.is_none() && !s.lanes.has_ready() && !s.lanes.has_parked());
        if !(is_input_over && is_step_over) {
            self.cut = self.cut.take().or(reason);
        }
        self.has_ended = true;
    }

    pub(crate) fn why_cut(&mut self) -> Option<CancelReason> {
        self.cut.take()
    }
}
