//! Loans: an item that has permits lends them to the items of a fan-out inside it.
//!
//! I1. An item that waits for a fan-out inside it needs its permits for nothing else meanwhile. It lends them, to one item at a
//! time, whatever that weighs: so fan-outs inside one another that share a limiter always go on. I2. A lender is known by its
//! task, as long as its item has permits. I3. What was lent and outlives the lender's item, in a shield, is not counted
//! any more.

use std::collections::BTreeMap;

use crate::limit::concurrency::LimiterCore;
use crate::observe::TaskId;
use crate::sync::{Arc, Lock};

/// Who has permits of a limiter, and lends them.
pub(crate) struct Lenders(Lock<BTreeMap<TaskId, Arc<LimiterCore>>>);

impl Lenders {
    pub(crate) fn new() -> Self {
        Self(Lock::new(BTreeMap::new()))
    }

    /// Finds the nearest lender, from the inside outwards.
    pub(crate) fn find(&self, mut tasks: impl Iterator<Item = TaskId>) -> Option<Arc<LimiterCore>> {
        let lenders = self.0.lock();
        if lenders.is_empty() {
            return None;
        }
        tasks.find_map(|task| lenders.get(&task).cloned())
    }
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
        let loan = self.of.lenders.0.lock().remove(&self.task);
        drop(loan);
    }
}
