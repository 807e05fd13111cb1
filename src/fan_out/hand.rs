//! The way of an item that was taken: its rate, then its permits.
//!
//! J3. An item gets its rate before its permits, so that no permit is held while time passes. J4. When it ends, its permits go
//! back first, then its key. J5. A wait in here ends on the signal of a cancel; what is in hand then was never started.

use std::task::{Context, Poll, ready};

use crate::fan_out::intake::Ticket;
use crate::limit::concurrency::{LimiterCore, OwnedPermit};
use crate::limit::gate::Wait;
use crate::limit::loan::{self, Lender, Offer};
use crate::limit::rate::{Meter, RateError, RateWait};
use crate::observe::CancelReason;
use crate::state::Core;
use crate::sync::{Arc, PlainArc};
use crate::time::Deadline;

/// What an item in flight holds.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) index: usize,
    pub(crate) permit: Option<OwnedPermit>,
    pub(crate) key: Option<u64>,
}

impl Pass {
    fn has_permits(&self) -> bool {
        self.permit
            .as_ref()
            .is_some_and(|permit| !permit.is_empty())
    }
}

/// What every item has to get.
#[derive(Default)]
pub(crate) struct Toll {
    pub(crate) rate: Option<Arc<Meter>>,
    pub(crate) limiter: Option<Arc<LimiterCore>>,
    /// What the item that this fan-out is in lends of the limiter.
    loan: Option<Arc<LimiterCore>>,
}

impl Toll {
    pub(crate) const fn new(rate: Option<Arc<Meter>>, limiter: Option<Arc<LimiterCore>>) -> Self {
        Self {
            rate,
            limiter,
            loan: None,
        }
    }

    /// Looks for somebody who lends permits of the limiter, from a place outwards.
    pub(crate) fn borrow_from(&mut self, place: Option<(&Core, u64)>) {
        if let Some(limiter) = &self.limiter {
            self.loan = loan::find(limiter, Core::tasks_from(place));
        }
    }

    /// Makes a lender of the caller's task, which has the pass of an item; none if that has no permits.
    pub(crate) fn lend(&self, pass: &Pass, before: Option<Lender>) -> Option<Lender> {
        let limiter = self.limiter.as_ref().filter(|_| pass.has_permits())?;
        before.or_else(|| Some(Lender::new(limiter, crate::context::task_id()?)))
    }

    /// The same for an item without a task: an offer to make while it is polled.
    pub(crate) fn offer(
        &self,
        pass: &Pass,
        before: Option<PlainArc<Offer>>,
    ) -> Option<PlainArc<Offer>> {
        let limiter = self.limiter.as_ref().filter(|_| pass.has_permits())?;
        before.or_else(|| Some(Offer::new(limiter)))
    }

    pub(crate) const fn is_free(&self) -> bool {
        self.rate.is_none() && self.limiter.is_none()
    }
}

/// An item on its way. Whoever holds it calls [`abandon`](Self::abandon) when it is dropped.
pub(crate) struct Hand<T> {
    ticket: Option<Ticket<T>>,
    has_rate: bool,
    rate_wait: RateWait,
    loan_wait: Wait,
    permit_wait: Wait,
}

impl<T> Hand<T> {
    pub(crate) fn new() -> Self {
        Self {
            ticket: None,
            has_rate: false,
            rate_wait: RateWait::default(),
            loan_wait: Wait::default(),
            permit_wait: Wait::default(),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.ticket.is_none()
    }

    pub(crate) fn put(&mut self, ticket: Ticket<T>) {
        self.ticket = Some(ticket);
    }

    /// Lets the item through its rate and its permits.
    pub(crate) fn poll(
        &mut self,
        toll: &Toll,
        pass: &mut Pass,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, CancelReason>> {
        let weight = self.ticket.as_ref().map_or(0, |ticket| ticket.weight);
        if let (Some(meter), false) = (&toll.rate, self.has_rate) {
            match self.rate_wait.poll(meter, 1, Deadline::NEVER, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.has_rate = true,
                Poll::Ready(Err(RateError::Cancelled(reason))) => return Poll::Ready(Err(reason)),
                Poll::Ready(Err(_)) => unreachable!("one at a time fits every burst"),
            }
        }
        let permit = match ready!(self.poll_permit(toll, weight, cx)) {
            Ok(permit) => permit,
            Err(reason) => return Poll::Ready(Err(reason)),
        };
        self.has_rate = false;
        let Some(Ticket {
            index, item, key, ..
        }) = self.ticket.take()
        else {
            unreachable!("an item is in hand")
        };
        *pass = Pass { index, permit, key };
        Poll::Ready(Ok(item))
    }

    /// Waits for what somebody lends, and for permits of its own: whichever comes first.
    fn poll_permit(
        &mut self,
        toll: &Toll,
        weight: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<OwnedPermit>, CancelReason>> {
        let Some(limiter) = &toll.limiter else {
            return Poll::Ready(Ok(None));
        };
        if let Some(loan) = toll.loan.as_ref().filter(|_| weight > 0) {
            if let Poll::Ready(lent) = self.loan_wait.poll(&loan.gate, 1, cx) {
                let lent = lent.map(|()| Some(OwnedPermit::new(loan.clone(), 1)));
                self.permit_wait.abandon(&limiter.gate, weight);
                return Poll::Ready(lent);
            }
        }
        let got = ready!(self.permit_wait.poll(&limiter.gate, weight, cx));
        if let Some(loan) = &toll.loan {
            self.loan_wait.abandon(&loan.gate, 1);
        }
        Poll::Ready(got.map(|()| Some(OwnedPermit::new(limiter.clone(), weight))))
    }

    /// Gives its waits up, and the item away.
    pub(crate) fn abandon(&mut self, toll: &Toll) -> Option<Ticket<T>> {
        if let Some(meter) = &toll.rate {
            self.rate_wait.abandon(meter);
        }
        if let Some(loan) = &toll.loan {
            self.loan_wait.abandon(&loan.gate, 1);
        }
        let ticket = self.ticket.take();
        if let (Some(limiter), Some(ticket)) = (&toll.limiter, &ticket) {
            self.permit_wait.abandon(&limiter.gate, ticket.weight);
        }
        ticket
    }
}
