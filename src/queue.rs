//! Queues between tasks: bounded, fair, cancel safe, and over when everything in them is *processed*.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! use ringfence::{TaskGroup, queue, scope};
//!
//! let (sender, receiver) = queue::bounded(16);
//! scope(async |group: &TaskGroup| {
//!     for worker in 0..4 {
//!         let mut receiver = receiver.clone();
//!         group.spawn(async move {
//!             while let Ok(job) = receiver.recv().await {
//!                 let _: (u32, u32) = (worker, job); // … work …
//!             }
//!         });
//!     }
//!     drop(receiver); // the workers have it now
//!     for job in 0..100 {
//!         sender.send(job).await?;
//!     }
//!     drop(sender); // no more: the queue drains and ends, and so do the workers
//!     Ok(())
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! |---|---|
//! | hand items over, at most so many waiting | [`bounded`] |
//! | hand items over, none waiting | [`rendezvous`] |
//! | never wait when sending, whatever it costs | [`unbounded`] |
//! | set an order, a weight, a policy for overload, redelivery | [`Queue`] |
//! | know when everything has been worked on, not just received | [`Receiver::deliver`], [`Sender::join`] |
//! | let work find more work, and stop when there is none | [`Delivery::send`] |
//! | lose nothing when a worker panics or is cancelled | [`Queue::redeliver`] |
//! | take many at once | [`Receiver::recv_many`], [`Receiver::recv_batch`] |
//!
//! # What a dropped call leaves
//!
//! | dropped before it is ready | the item |
//! |---|---|
//! | `send`, `send_timeout` | is dropped with the call; it was never in the queue |
//! | `send_many` | is still in the caller's buffer |
//! | `reserve` | was not asked for yet |
//! | `recv`, `deliver`, `recv_many`, `recv_batch` | is in the queue, at its place |
//!
//! # In a group
//!
//! A wait on a queue goes on when the group is cancelled with a grace, so that queues drain within it; when the task is
//! forced, the call is dropped like any other await.
//!
//! *Comparison.* `tokio::sync::mpsc` has one consumer and does not know when an item has been worked on; use that one if
//! that is all you need and items are sent from threads that block. A `tokio::sync::broadcast` gives each item to everyone.

// Q1. What is decided is in `state`, under one lock, and runs no user code there. Q2. Wakers are cloned, woken and dropped,
// and items dropped, outside the lock (`shared`). Q3. Every future gives up its place when it is dropped.

mod delivery;
mod error;
mod over;
mod permit;
mod receiver;
mod sender;
mod shared;
pub(crate) mod state;
mod stats;
pub(crate) mod store;
#[cfg(feature = "stream")]
mod stream;
pub(crate) mod waiters;

pub use delivery::Delivery;
pub use error::{RecvError, SendError, TryRecvError};
pub use permit::{OwnedPermit, Permit};
pub use receiver::Receiver;
pub use sender::Sender;
pub use state::{Discarded, Overflow};
pub use stats::Stats;
#[cfg(feature = "stream")]
pub use stream::SendSink;

use std::collections::VecDeque;
use std::fmt;

use crate::sync::Arc;
use shared::{Config, Shared};
use state::{Capacity, State};
use store::Store;

/// Makes a queue that holds up to `capacity` items.
///
/// # Panics
///
/// If `capacity` is 0: see [`rendezvous`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use ringfence::queue;
///
/// let (sender, mut receiver) = queue::bounded(2);
/// sender.send("first").await.unwrap();
/// sender.send("second").await.unwrap();
/// assert!(sender.try_send("third").is_err());
/// assert_eq!(receiver.recv().await.unwrap(), "first");
/// # }
/// ```
#[doc(alias = "channel")]
#[track_caller]
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    Queue::bounded(capacity).build()
}

/// Makes a queue that holds nothing: a send is ready when its item has been received.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use ringfence::queue;
///
/// let (sender, mut receiver) = queue::rendezvous();
/// assert!(sender.try_send("nobody is there").is_err());
/// let (sent, received) = tokio::join!(sender.send("hello"), receiver.recv());
/// assert_eq!((sent.is_ok(), received.unwrap()), (true, "hello"));
/// # }
/// ```
#[must_use]
pub fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    Queue::rendezvous().build()
}

/// Makes a queue without a limit: a send is ready at once, always. What is sent faster than received fills the memory.
///
/// ```
/// use ringfence::queue;
///
/// let (sender, mut receiver) = queue::unbounded();
/// for i in 0..1000 {
///     sender.try_send(i).unwrap();
/// }
/// assert_eq!(receiver.try_recv().unwrap(), 0);
/// ```
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    Queue::unbounded().build()
}

/// A queue to be made, with options. [`bounded`], [`rendezvous`] and [`unbounded`] are the short ways.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use ringfence::queue::Queue;
///
/// // Lowest number first; each item is delivered twice at most.
/// let (sender, mut receiver) = Queue::bounded(100)
///     .rank(|job: &(i64, &str)| job.0)
///     .redeliver(2)
///     .build();
/// sender.send((3, "later")).await.unwrap();
/// sender.send((1, "first")).await.unwrap();
///
/// let job = receiver.deliver().await.unwrap();
/// assert_eq!((job.1, job.attempt()), ("first", 1));
/// drop(job); // the worker was cancelled, say
/// let job = receiver.deliver().await.unwrap();
/// assert_eq!((job.1, job.attempt()), ("first", 2));
/// job.done();
/// # }
/// ```
#[must_use = "a queue exists when it is built"]
pub struct Queue<T> {
    capacity: Capacity,
    is_lifo: bool,
    config: Config<T>,
}

impl<T> Queue<T> {
    fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            is_lifo: false,
            config: Config {
                weight: None,
                rank: None,
                on_discard: None,
                attempts: 0,
                overflow: Overflow::Wait,
            },
        }
    }

    /// Up to `capacity` items, or so much [weight](Self::weight). Nothing is allocated ahead.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Self {
        assert!(
            capacity > 0,
            "ringfence: a queue of capacity 0 holds nothing; `rendezvous` passes items from hand to hand"
        );
        Self::new(Capacity::Limit(capacity))
    }

    /// As [`rendezvous`].
    pub fn rendezvous() -> Self {
        Self::new(Capacity::Rendezvous)
    }

    /// As [`unbounded`].
    pub fn unbounded() -> Self {
        Self::new(Capacity::Unbounded)
    }

    /// One item, the latest: whatever is sent replaces what is there, and there is always room.
    ///
    /// A delivery does not keep its room, so that the latest item is there for whoever comes next, however long someone
    /// works on an older one. What comes back from a [delivery](Self::redeliver) after something newer was sent gives way to
    /// that.
    pub fn latest() -> Self {
        Self::new(Capacity::Latest).overflow(Overflow::DropOldest)
    }

    /// Counts `weight(item)` against the capacity, instead of 1 for each item; bytes, for instance.
    ///
    /// It is asked once, when the item is sent. What weighs 0 counts as 1; what weighs more than the capacity is refused
    /// as [too heavy](SendError::TooHeavy). Weights mean nothing to a rendezvous, nor to [`latest`](Self::latest).
    pub fn weight(mut self, weight: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.config.weight = Some(Box::new(weight));
        self
    }

    /// Last in, first out: what was sent last is received first, and what was sent first may wait for ever.
    pub fn lifo(mut self) -> Self {
        self.is_lifo = true;
        self
    }

    /// Lowest `rank(item)` first, as in asyncio's priority queue and with `nice`; among equals, in the order of sending.
    ///
    /// It is asked once, when the item is sent. High ranks wait as long as lower ones keep coming.
    pub fn rank(mut self, rank: impl Fn(&T) -> i64 + Send + Sync + 'static) -> Self {
        self.config.rank = Some(Box::new(rank));
        self
    }

    /// What happens to an item that there is no room for. The default is that its sender waits.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.overflow = overflow;
        self
    }

    /// Delivers an item up to `attempts` times, until a [delivery](Delivery) of it is [done](Delivery::done).
    ///
    /// # Panics
    ///
    /// If `attempts` is 0.
    #[track_caller]
    pub fn redeliver(mut self, attempts: u32) -> Self {
        assert!(
            attempts > 0,
            "ringfence: an item that is delivered 0 times cannot be received"
        );
        self.config.attempts = attempts;
        self
    }

    /// Hands what the queue drops to `hook`: overflow, what is left when the last receiver goes, dead letters.
    ///
    /// Each such item gets there exactly once, outside every lock, before anybody is told that it is finished: the hook must not
    /// wait for [`join`](Sender::join), nor for the end. A panic in the hook goes to the observer of the group that it happens
    /// in: see [`observe`](crate::observe).
    ///
    /// The hook lives as long as the queue. A [`Sender`] of the same queue inside it keeps the queue from ending, and from being
    /// freed: send dead letters into a queue of their own.
    pub fn on_discard(mut self, hook: impl Fn(T, Discarded) + Send + Sync + 'static) -> Self {
        self.config.on_discard = Some(Box::new(hook));
        self
    }

    /// Makes the queue.
    #[must_use]
    pub fn build(self) -> (Sender<T>, Receiver<T>) {
        let Self {
            capacity,
            is_lifo,
            config,
        } = self;
        let is_sorted = config.weight.is_some()
            || config.rank.is_some()
            || config.attempts > 0
            || !capacity.is_weighed();
        let store = match (is_sorted, is_lifo) {
            (true, _) => Store::sorted(),
            (false, true) => Store::Lifo(VecDeque::new()),
            (false, false) => Store::Fifo(VecDeque::new()),
        };
        let capacity = match capacity {
            Capacity::Limit(limit) if limit < usize::MAX && config.weight.is_none() => {
                Capacity::Limit(crate::smallest::capacity(limit))
            }
            other => other,
        };
        let state = State::new(store, capacity, config.overflow, is_lifo);
        let shared = Arc::new(Shared::new(state, config));
        (Sender::new(shared.clone()), Receiver::new(shared))
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("capacity", &self.capacity)
            .field("overflow", &self.config.overflow)
            .finish_non_exhaustive()
    }
}
