//! An item that is being worked on.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::error::SendError;
use super::shared::Shared;
use super::store::Tag;
use crate::context;
use crate::sync::Arc;

/// An item that was received and is not finished yet: see [`Receiver::deliver`](super::Receiver::deliver).
///
/// It keeps its room in the queue, the end of the queue and [`join`](super::Sender::join) wait for it, and it may send
/// more items into its queue.
///
/// Dropped, it is finished. But on a queue made with [`redeliver`](super::Queue::redeliver) only [`done`](Self::done)
/// finishes it: dropped by a panic, a cancel, or an early return, it goes back to its place in the queue, to be delivered
/// again, until it was delivered as often as that allows; then it is [dead](super::Discarded::Dead). A delivery that is cut
/// short because its group is cancelled is never the last: its item goes back in any case, for whoever comes later, or for
/// [`abort`](super::Receiver::abort).
pub struct Delivery<T> {
    shared: Arc<Shared<T>>,
    /// Out only while it is given away.
    item: Option<T>,
    tag: Tag,
    fate: Fate,
}

/// What its drop means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// What the queue was made for.
    Open,
    Done,
    /// Nobody has looked at it.
    PutBack,
}

impl<T> Delivery<T> {
    #[inline]
    pub(crate) fn new(shared: Arc<Shared<T>>, item: T, tag: Tag) -> Self {
        Self {
            shared,
            item: Some(item),
            tag,
            fate: Fate::Open,
        }
    }

    /// Finishes it.
    pub fn done(mut self) {
        self.fate = Fate::Done;
    }

    /// Finishes it, and returns the item.
    #[must_use = "use `done` to drop the item"]
    pub fn into_inner(mut self) -> T {
        let item = self.item.take();
        drop(self); // with the hook, perhaps: K3 of `calm`
        match item {
            Some(item) => item,
            None => unreachable!("a delivery has its item until it ends"),
        }
    }

    /// Gives up on it: it is [dead](super::Discarded::Dead) now, however often it was delivered.
    pub fn reject(mut self) {
        if let Some(item) = self.item.take() {
            let tag = self.tag;
            self.shared
                .step(|state, effects| state.reject(item, tag, effects));
        }
    }

    /// Returns how often the item has been delivered, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.tag.returns.saturating_add(1)
    }

    /// Sends an item into the queue that this one came from. Never waits: it goes in though the queue is full, for its
    /// room may have to come from the one who sends it. Works also when the last sender is gone.
    ///
    /// This is how work finds more work (a crawler, a traversal). Seed such a queue, drop its senders, and it ends by
    /// itself: when nothing is in it and nothing in delivery.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] if the queue was closed or the last receiver is gone, [`SendError::TooHeavy`]; with the item.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        let meta = self.shared.measure(&item);
        let mut item = Some(item);
        let result = self
            .shared
            .step(|state, effects| state.feed(&mut item, meta, effects));
        match (result, item) {
            (Err(refusal), Some(item)) => Err(SendError::new(refusal, item)),
            _ => Ok(()),
        }
    }

    /// Puts it back as if nobody had taken it, also on a queue that does not deliver again.
    pub(crate) fn put_back(mut self) {
        self.fate = Fate::PutBack;
    }

    pub(crate) fn comes_back(&self) -> bool {
        self.shared.config.attempts > 0
    }

    #[inline(never)]
    fn give_back(&self, item: T) {
        let (tag, limit) = (self.tag, self.shared.config.attempts);
        let is_untouched = self.fate == Fate::PutBack;
        let is_cut = !is_untouched && is_cut();
        let over = self.shared.step(|state, effects| {
            if is_untouched {
                state.put_back(item, tag, effects)
            } else {
                state.give_back(item, tag, limit, is_cut, effects)
            }
        });
        if let Some((item, why)) = over {
            // N7: whoever waits for the end is told after the hook.
            let _finish = Finish(&self.shared, tag.weight);
            self.shared.discard(item, why);
        }
    }

    fn item(&self) -> &T {
        self.item
            .as_ref()
            .expect("a delivery has its item until it ends")
    }
}

impl<T> Drop for Delivery<T> {
    #[inline]
    fn drop(&mut self) {
        let goes_back = match self.fate {
            Fate::Open => self.comes_back(),
            Fate::Done => false,
            Fate::PutBack => true,
        };
        if goes_back {
            if let Some(item) = self.item.take() {
                self.give_back(item);
                return;
            }
        }
        // The item goes first, so that who waits for the end finds it gone; and also if that panics, it is finished.
        let _finish = Finish(&self.shared, self.tag.weight);
        drop(self.item.take());
    }
}

/// Whether the member that runs here, or one around it, is being ended from outside: what it drops says nothing about the item.
fn is_cut() -> bool {
    if std::thread::panicking() {
        return false;
    }
    let Some((core, serial)) = context::current() else {
        return false;
    };
    let own = (&*core, serial);
    // Also past a shield: what happens behind one while all around it is shut down is no attempt like others.
    std::iter::successors(Some(own), |(core, _)| core.opened_in()).any(|(core, serial)| {
        let word = core.word().read();
        // The body is no child: what singles children out does not concern it.
        if serial == 0 {
            word.is_forced()
        } else {
            core.is_forced(word, serial)
        }
    })
}

struct Finish<'a, T>(&'a Shared<T>, usize);

impl<T> Drop for Finish<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let Self(shared, weight) = self;
        if *weight == 1 && shared.lock().finish_alone() {
            return;
        }
        shared.step(|state, effects| state.finish(*weight, effects));
    }
}

impl<T> Deref for Delivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item()
    }
}

impl<T> DerefMut for Delivery<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item
            .as_mut()
            .expect("a delivery has its item until it ends")
    }
}

impl<T: fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("item", &self.item)
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
