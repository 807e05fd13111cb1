//! Who is to be polled next: the wakers of the members, and the one queue that they ring at.
//!
//! | `rung` of a node | means                                  | left by                                        |
//! |------------------|----------------------------------------|------------------------------------------------|
//! | false            | a wake puts its key into the queue      | a wake; the end of its member                  |
//! | true             | its key is in the queue, or is stale    | the driver, just before it polls the member    |
//!
//! Y1. A key is in the queue at most once. Y2. A waker that outlives its member keeps nothing of it: the node has a key, and
//! the key of a member that has ended leads nowhere. Y3. The driver sleeps only after it has left its waker and seen, under
//! the same lock, that nobody rings. Y4. The task's waker is cloned, woken and dropped outside the lock.

use std::collections::VecDeque;
use std::task::{Wake, Waker};

use crate::sync::{AtomicBool, AtomicU64, Lock, Ordering, PlainArc, fence};

/// Room that is kept although nobody needs it just now.
pub(super) const KEPT: usize = 1024;

/// Frees a buffer that is far too large for so many members: what is kept does not grow with what once was.
pub(super) fn trim<T>(buffer: &mut VecDeque<T>, live: usize) {
    if buffer.is_empty() && buffer.capacity() > KEPT.max(4 * live) {
        *buffer = VecDeque::new();
    }
}

/// Where a member is found: a place, and how often it was given away before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) place: u32,
    pub(super) round: u32,
}

impl Key {
    /// The body's: no table has so many places.
    pub(super) const BODY: Self = Self {
        place: u32::MAX,
        round: 0,
    };

    fn pack(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.round)
    }

    fn unpack(key: u64) -> Self {
        Self {
            place: (key >> 32) as u32,
            round: key as u32,
        }
    }
}

/// What the driver is to look at beside the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The body is to be polled.
    pub(super) body: bool,
    /// Somebody was spawned while the driver slept.
    pub(super) spawned: bool,
    /// All members are to look at the word.
    pub(super) all: bool,
}

impl News {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[derive(Default)]
struct Queue {
    keys: VecDeque<Key>,
    news: News,
    sleeper: Option<Waker>,
}

/// The queue that wakers ring at, from any thread.
pub(super) struct Ready(Lock<Queue>);

impl Ready {
    pub(super) fn new() -> PlainArc<Self> {
        PlainArc::new(Self(Lock::new(Queue::default())))
    }

    fn ring(&self, change: impl FnOnce(&mut Queue)) {
        let sleeper = {
            let mut queue = self.0.lock();
            change(&mut queue);
            queue.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake(); // Y4
        }
    }

    /// Has a member polled.
    pub(super) fn push(&self, key: Key) {
        self.ring(|queue| {
            if key == Key::BODY {
                queue.news.body = true;
            } else {
                queue.keys.push_back(key);
            }
        });
    }

    /// Has the driver look for members that were spawned.
    pub(super) fn spawned(&self) {
        self.ring(|queue| queue.news.spawned = true);
    }

    /// Has all members look at the word.
    pub(super) fn all(&self) {
        self.ring(|queue| queue.news.all = true);
    }

    /// Takes out who rang, if `due` is there and empty, and the waker of a driver that is awake now.
    pub(super) fn collect(&self, due: Option<&mut VecDeque<Key>>) -> (News, Option<Waker>) {
        let mut queue = self.0.lock();
        if let Some(due) = due.filter(|due| due.is_empty()) {
            std::mem::swap(&mut queue.keys, due);
        }
        (std::mem::take(&mut queue.news), queue.sleeper.take())
    }

    /// Leaves the waker, or says no if somebody rings (Y3).
    pub(super) fn sleep(&self, waker: Waker) -> Result<(), Waker> {
        let mut queue = self.0.lock();
        if !queue.keys.is_empty() || !queue.news.is_none() {
            return Err(waker);
        }
        // There is none: the driver took it out when it began this turn.
        queue.sleeper = Some(waker);
        Ok(())
    }
}

/// What a member's waker points to.
struct Node {
    ready: PlainArc<Ready>,
    key: AtomicU64,
    rung: AtomicBool,
}

impl Node {
    fn ring(&self) {
        // AcqRel: pairs with the one in `Bell::answer`. A wake that finds `true` must be seen by the poll that comes
        // after the driver has set it back.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Relaxed: set before the waker was given to anybody.
            self.ready
                .push(Key::unpack(self.key.load(Ordering::Relaxed)));
        }
    }
}

impl Wake for Node {
    fn wake(self: PlainArc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &PlainArc<Self>) {
        self.ring();
    }
}

/// The driver's side of a node, with a waker at hand.
pub(super) struct Bell {
    node: PlainArc<Node>,
    waker: Waker,
}

impl Bell {
    pub(super) fn new(ready: &PlainArc<Ready>, key: Key) -> Self {
        let node = PlainArc::new(Node {
            ready: ready.clone(),
            key: AtomicU64::new(key.pack()),
            rung: AtomicBool::new(false),
        });
        Self {
            waker: Waker::from(node.clone()),
            node,
        }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Takes note of all wakes up to now: to be called before the poll that answers them.
    pub(super) fn answer(&self) {
        self.node.rung.swap(false, Ordering::AcqRel);
    }

    /// Frees the node for another member, unless somebody keeps a waker of this one, or has just rung.
    pub(super) fn retire(self) -> Option<Self> {
        if PlainArc::strong_count(&self.node) > 2 {
            // Y2: from now on its wakers cost one look, and ring nobody.
            self.node.rung.store(true, Ordering::Relaxed);
            return None;
        }
        // Pairs with the Release of whoever dropped the last waker: all its wakes have happened.
        fence(Ordering::Acquire);
        let is_rung = self.node.rung.load(Ordering::Relaxed);
        (!is_rung).then_some(self)
    }

    /// Gives a free node to a member.
    pub(super) fn assign(&self, key: Key) {
        self.node.key.store(key.pack(), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::{Bell, KEPT, Key, News, Ready, trim};

    const FIRST: Key = Key { place: 3, round: 9 };
    const SECOND: Key = Key {
        place: 3,
        round: 10,
    };

    fn rung(ready: &Ready) -> (News, Vec<Key>) {
        let mut due = VecDeque::new();
        let (news, sleeper) = ready.collect(Some(&mut due));
        assert!(sleeper.is_none());
        (news, due.into())
    }

    #[test]
    fn a_key_is_in_the_queue_once_until_it_is_answered() {
        let ready = Ready::new();
        let bell = Bell::new(&ready, FIRST);
        bell.waker().wake_by_ref();
        bell.waker().wake_by_ref();
        assert_eq!(rung(&ready), (News::default(), vec![FIRST]));
        bell.waker().wake_by_ref();
        assert_eq!(rung(&ready).1, [], "not answered yet");
        bell.answer();
        bell.waker().wake_by_ref();
        assert_eq!(rung(&ready).1, [FIRST]);
    }

    #[test]
    fn who_is_asleep_is_woken_once_and_nobody_sleeps_through_a_ring() {
        let ready = Ready::new();
        ready.all();
        assert!(ready.sleep(Waker::noop().clone()).is_err());
        assert!(rung(&ready).0.all);
        assert!(ready.sleep(Waker::noop().clone()).is_ok());
        ready.push(Key::BODY);
        assert!(rung(&ready).0.body, "the sleeper was taken by the ring");
    }

    #[test]
    fn a_node_is_used_again_only_if_nobody_can_ring_for_the_one_before() {
        let ready = Ready::new();
        let bell = Bell::new(&ready, FIRST).retire().expect("nobody has it");
        bell.assign(SECOND);
        bell.waker().wake_by_ref();
        assert_eq!(rung(&ready).1, [SECOND]);
        assert!(bell.retire().is_none(), "it has rung");

        let bell = Bell::new(&ready, FIRST);
        let kept = bell.waker().clone();
        assert!(bell.retire().is_none(), "somebody keeps a waker");
        kept.wake();
        assert_eq!(rung(&ready).1, [], "which rings nobody");
    }

    #[test]
    fn a_buffer_that_is_empty_and_too_large_for_those_who_live_is_freed() {
        for (room, live, is_kept) in [
            (KEPT, 0, true),
            (2 * KEPT, 0, false),
            (4 * KEPT, KEPT, true),
            (8 * KEPT, KEPT, false),
        ] {
            let mut buffer = VecDeque::<u8>::with_capacity(room);
            buffer.push_back(1);
            trim(&mut buffer, live);
            assert_eq!(buffer.capacity(), room, "it is in use");
            buffer.clear();
            trim(&mut buffer, live);
            assert_eq!(buffer.capacity(), if is_kept { room } else { 0 });
        }
    }
}
