//! Loans: an item that has permits lends them to the items of a fan-out inside it.
//!
//! I1. An item that waits for a fan-out inside it needs its permits for nothing else meanwhile. It lends them, to one item at a
//! time, whatever that weighs: so fan-outs inside one another that share a limiter always go on. I2. A lender is known by its
//! task, as long as its item has permits. I3. What was lent and outlives the lender's item, in a shield, is not counted
//! any more. I4. The items of a local fan-out share a task: each makes an offer while it is polled, to what is inside that
//! task; what runs in tasks of its own does not see it. I5. The nearest lends, from the inside outwards.

use std::cell::Cell;

use crate::limit::concurrency::LimiterCore;
use crate::observe::TaskId;
use crate::sorted_map::SortedMap;
use crate::sync::{Arc, Lock, PlainArc, thread_local};

/// Who has permits of a limiter, and lends them.
pub(crate) struct Lenders(Lock<SortedMap<TaskId, Arc<LimiterCore>>>);

impl Lenders {
    pub(crate) fn new() -> Self {
        Self(Lock::new(SortedMap::new()))
    }
}

/// Finds what is lent of a limiter to one inside these tasks, and in the innermost of them now (I5).
pub(crate) fn find(
    limiter: &Arc<LimiterCore>,
    tasks: impl Iterator<Item = TaskId>,
) -> Option<Arc<LimiterCore>> {
    let offers = Offer::all_of(limiter);
    let lenders = limiter.lenders.0.lock();
    if lenders.is_empty() && offers.is_empty() {
        return None;
    }
    // An offer may be outside every group.
    tasks.map(Some).chain([None]).find_map(|task| {
        let offer = offers.iter().find(|offer| offer.place == task);
        let loan = offer.map(|offer| &offer.loan);
        loan.or_else(|| lenders.get(task?)).cloned()
    })
}

/// A task that lends what it has of a limiter.
pub(crate) struct Lender {
    of: Arc<LimiterCore>,
    task: TaskId,
}

impl Lender {
    pub(crate) fn new(of: &Arc<LimiterCore>, task: TaskId) -> Self {
        let loan = Arc::new(LimiterCore::loan());
        of.lenders.0.lock().insert(task, loan);
        Self {
            of: of.clone(),
            task,
        }
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        let _loan = self.of.lenders.0.lock().remove(self.task);
    }
}

/// What an item lends that has no task of its own (I4).
pub(crate) struct Offer {
    of: Arc<LimiterCore>,
    loan: Arc<LimiterCore>,
    /// The task that polls it.
    place: Option<TaskId>,
    /// What is offered around that.
    around: Option<PlainArc<Self>>,
}

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
thread_local! {
    static OFFER: Cell<Option<PlainArc<Offer>>> = const { Cell::new(None) };
}
#[cfg(any(ringfence_loom, ringfence_shuttle))]
thread_local! {
    static OFFER: Cell<Option<PlainArc<Offer>>> = Cell::new(None);
}

/// Changes what is offered; at the end of a thread, nothing is any more.
fn replace(offer: Option<PlainArc<Offer>>) -> Option<PlainArc<Offer>> {
    OFFER.try_with(|now| now.replace(offer)).ok().flatten()
}

impl Offer {
    pub(crate) fn new(of: &Arc<LimiterCore>) -> PlainArc<Self> {
        let place = crate::context::current();
        let around = replace(None);
        drop(replace(around.clone()));
        PlainArc::new(Self {
            of: of.clone(),
            loan: Arc::new(LimiterCore::loan()),
            place: place.map(|(core, serial)| core.task_id(serial)),
            around,
        })
    }

    /// Makes the offer in `slot` to whatever `call` does. It is moved, not cloned.
    #[inline]
    pub(crate) fn during<R>(slot: &mut Option<PlainArc<Self>>, call: impl FnOnce() -> R) -> R {
        struct Back<'a>(&'a mut Option<PlainArc<Offer>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0 = replace(self.0.take());
            }
        }
        *slot = replace(slot.take());
        let _back = Back(slot);
        call()
    }

    /// The offers of that limiter here, innermost first.
    fn all_of(limiter: &Arc<LimiterCore>) -> Vec<PlainArc<Self>> {
        let Some(innermost) = replace(None) else {
            return Vec::new();
        };
        let all = std::iter::successors(Some(&innermost), |offer| offer.around.as_ref())
            .filter(|offer| Arc::ptr_eq(&offer.of, limiter))
            .cloned()
            .collect();
        drop(replace(Some(innermost)));
        all
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::{Lender, LimiterCore, find};
    use crate::observe::TaskId;
    use crate::sync::Arc;

    #[test]
    fn a_lender_that_is_gone_lends_no_more() {
        let limiter = Arc::new(LimiterCore::loan());
        let [first, second] = [1, 2].map(|serial| TaskId { group: 1, serial });
        let lenders = [first, second].map(|task| Lender::new(&limiter, task));
        let lends = |task| find(&limiter, std::iter::once(task)).is_some();
        assert!(lends(first) && lends(second));
        let [one, other] = lenders;
        drop(one);
        assert!(!lends(first) && lends(second));
        drop(other);
        assert!(limiter.lenders.0.lock().is_empty());
    }
}
