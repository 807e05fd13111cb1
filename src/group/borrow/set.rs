//! The future of a scope whose children live in the caller's task: it takes turns between the body and the children.
//!
//! The body, the clock and the end are the [`Driver`]'s, as in any scope; it has a bell of its own, so that it is polled
//! when it has a reason to be, not whenever a child has one.
//!
//! N1. A round polls each who rang once, in the order in which they rang, then each who was spawned; who rings meanwhile
//! is in the next round. N2. A turn of the task ends after [`TURN`] polls, or when the task's budget is spent:
//! body, siblings and the other tasks of the runtime get theirs. N3. Each step takes constant time, but one: when the group is forced, all
//! children have a look at the word, once. N4. User code runs with nothing of ours locked or borrowed: members are in a
//! table that nobody but the driver reaches. N5. A child that was counted in is in the inbox, with the driver, or in the
//! table; when the scope is dropped, whoever holds it ends it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::task::coop;

use crate::context::Relay;
use crate::group::borrow::child::{Child, Stage};
use crate::group::borrow::ready::{Bell, Key, Ready, trim};
use crate::group::borrow::table::Table;
use crate::group::driver::Driver;
use crate::group::error::GroupError;
use crate::observe::CancelReason;
use crate::state::Core;
use crate::sync::{Arc, Lock, PlainArc};

/// Polls, of the body and of children, in one turn of the task.
const TURN: usize = 128;
/// Nodes that are kept for children to come.
const SPARE: usize = 64;

type Boxed<C> = Pin<Box<C>>;

/// What the group and its spawners share with the driver.
pub(super) struct Shared<C: ?Sized> {
    pub(super) core: Arc<Core>,
    ready: PlainArc<Ready>,
    inbox: Lock<Inbox<C>>,
}

struct Inbox<C: ?Sized> {
    spawned: VecDeque<Boxed<C>>,
    /// Whether the driver has to be told of the next one.
    asleep: bool,
    /// Whether the scope was dropped.
    closed: bool,
}

impl<C: ?Sized + Child> Shared<C> {
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        let inbox = Inbox {
            spawned: VecDeque::new(),
            asleep: false,
            closed: false,
        };
        Arc::new(Self {
            core,
            ready: Ready::new(),
            inbox: Lock::new(inbox),
        })
    }

    /// Hands over a child that has been counted in.
    pub(super) fn spawn(&self, mut child: Boxed<C>) {
        let asleep = {
            let mut inbox = self.inbox.lock();
            if inbox.closed {
                drop(inbox);
                // N5. Accepted just before the scope was dropped, by another thread than that which dropped it.
                return child.as_mut().abandon(&mut Stage::new(self.core.clone()));
            }
            inbox.spawned.push_back(child);
            std::mem::take(&mut inbox.asleep)
        };
        if asleep {
            self.ready.spawned();
        }
    }

    /// Singles all present children out.
    pub(super) fn cancel_children(&self) {
        self.core.cancel_children();
        self.ready.all();
    }
}

/// A child that has been pending, and the bell that its waker rings.
struct Parked<C: ?Sized> {
    child: Boxed<C>,
    bell: Bell,
}

/// The driver's side.
pub(super) struct Set<C: ?Sized + Child> {
    shared: Arc<Shared<C>>,
    stage: Stage,
    /// The members of this round.
    due: VecDeque<Key>,
    spawned: VecDeque<Boxed<C>>,
    parked: Table<Parked<C>>,
    spare: Vec<Bell>,
    body: Bell,
    /// The task's waker, while the task is awake.
    waker: Option<Waker>,
    /// Whether all have been told that the group is forced.
    is_forced: bool,
    /// Whether the body has spent a whole turn of the task, so that a child goes first in the next.
    owes: bool,
    /// A shield in a child shields the task that the scope is in.
    relay: Relay,
}

impl<C: ?Sized + Child> Set<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        let body = Bell::new(&shared.ready, Key::BODY);
        body.waker().wake_by_ref();
        Self {
            stage: Stage::new(shared.core.clone()),
            shared,
            due: VecDeque::new(),
            spawned: VecDeque::new(),
            parked: Table::new(),
            spare: Vec::new(),
            body,
            waker: None,
            is_forced: false,
            owes: false,
            relay: Relay::default(),
        }
    }

    /// Learns what has happened. Says whether the body is to be polled.
    fn collect(&mut self) -> bool {
        // N1. Who rings during a round is in the next one, also if the round takes several turns.
        trim(&mut self.due, self.parked.live());
        let next = self.spawned.is_empty().then_some(&mut self.due);
        let (news, waker) = self.shared.ready.collect(next);
        if waker.is_some() {
            self.waker = waker;
        }
        self.look(news.all);
        news.body
    }

    /// Has all parked children look at the word, if there is a reason.
    fn look(&mut self, all: bool) {
        let forced = !self.is_forced && self.shared.core.word().read().is_forced();
        if forced || all {
            self.is_forced |= forced;
            self.due.extend(self.parked.keys()); // N3
        }
    }

    fn take_spawned(&mut self) {
        if self.spawned.is_empty() {
            trim(&mut self.spawned, self.parked.live());
            let mut inbox = self.shared.inbox.lock();
            std::mem::swap(&mut inbox.spawned, &mut self.spawned);
        }
    }

    /// Polls the next one of the round. Says whether there was one.
    fn step(&mut self) -> bool {
        while let Some(key) = self.due.pop_front() {
            let Some(Parked { child, bell }) = self.parked.get(key) else {
                continue; // It has ended.
            };
            bell.answer();
            let mut cx = TaskContext::from_waker(bell.waker());
            if child.as_mut().turn(&mut self.stage, &mut cx).is_ready() {
                if let Some(Parked { child, bell }) = self.parked.remove(key) {
                    drop(child);
                    self.retire(bell);
                }
            }
            return true;
        }
        let Some(mut child) = self.spawned.pop_front() else {
            return false;
        };
        let key = self.parked.next_key();
        let bell = match self.spare.pop() {
            Some(bell) => {
                bell.assign(key);
                bell
            }
            None => Bell::new(&self.shared.ready, key),
        };
        let mut cx = TaskContext::from_waker(bell.waker());
        if child.as_mut().turn(&mut self.stage, &mut cx).is_ready() {
            drop(child);
            self.retire(bell);
        } else {
            self.parked.insert(key, Parked { child, bell });
        }
        true
    }

    fn retire(&mut self, bell: Bell) {
        if let Some(bell) = bell.retire() {
            if self.spare.len() < SPARE {
                self.spare.push(bell);
            }
        }
    }

    /// Leaves the waker, or says no if there is something to do.
    fn sleep(&mut self, waker: &Waker) -> bool {
        {
            let mut inbox = self.shared.inbox.lock();
            if !inbox.spawned.is_empty() {
                return false;
            }
            inbox.asleep = true;
        }
        let known = self.waker.take().filter(|known| known.will_wake(waker));
        let left = known.unwrap_or_else(|| waker.clone());
        match self.shared.ready.sleep(left) {
            Ok(()) => true,
            Err(left) => {
                self.waker = Some(left);
                false
            }
        }
    }

    /// Has the task around follow the shields of the children.
    fn follow(&mut self) {
        let (bound, is_overrun) = self.stage.shield();
        self.relay.hold(bound, || is_overrun);
    }

    /// N5.
    fn abandon(&mut self) {
        let core = self.shared.core.clone();
        if core.word().read().live() == 0 {
            return;
        }
        core.cancel_now(CancelReason::ScopeDropped);
        let inbox = {
            let mut inbox = self.shared.inbox.lock();
            inbox.closed = true;
            std::mem::take(&mut inbox.spawned)
        };
        let spawned = std::mem::take(&mut self.spawned).into_iter().chain(inbox);
        let parked = self.parked.drain().map(|parked| parked.child);
        for mut child in parked.chain(spawned) {
            child.as_mut().abandon(&mut self.stage);
        }
    }
}

pin_project! {
    /// See the module.
    pub(super) struct InTask<'g, C, Fut, T, E>
    where
        C: Child,
        C: ?Sized,
        Fut: Future<Output = Result<T, E>>,
        E: Send,
        E: 'static,
    {
        set: Set<C>,
        #[pin]
        driver: Driver<'g, Fut, T, E>,
    }

    impl<C, Fut, T, E> PinnedDrop for InTask<'_, C, Fut, T, E>
    where
        C: Child,
        C: ?Sized,
        Fut: Future<Output = Result<T, E>>,
        E: Send,
        E: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            this.project().set.abandon();
        }
    }
}

impl<'g, C, Fut, T, E> InTask<'g, C, Fut, T, E>
where
    C: ?Sized + Child,
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    pub(super) fn new(shared: Arc<Shared<C>>, driver: Driver<'g, Fut, T, E>) -> Self {
        Self {
            set: Set::new(shared),
            driver,
        }
    }
}

impl<C, Fut, T, E> Future for InTask<'_, C, Fut, T, E>
where
    C: ?Sized + Child,
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    type Output = Result<T, GroupError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let polled = self.as_mut().turns(cx);
        self.project().set.follow();
        polled
    }
}

impl<C, Fut, T, E> InTask<'_, C, Fut, T, E>
where
    C: ?Sized + Child,
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    fn turns(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<T, GroupError<E>>> {
        let mut this = self.project();
        let set = this.set;
        let mut left = TURN;
        let mut rung = set.collect();
        // N2. The body goes first, but not turn after turn.
        let mut stepped = std::mem::take(&mut set.owes) && set.step();
        loop {
            let mut idle = !rung;
            if rung {
                set.body.answer();
                let mut cx = TaskContext::from_waker(set.body.waker());
                if let Poll::Ready(result) = this.driver.as_mut().poll(&mut cx) {
                    return Poll::Ready(result);
                }
                left -= 1;
            }
            set.take_spawned();
            while left > 0 && coop::has_budget_remaining() && set.step() {
                idle = false;
                stepped = true;
                left -= 1;
            }
            if idle && set.sleep(cx.waker()) {
                return Poll::Pending;
            }
            if left == 0 || !coop::has_budget_remaining() {
                set.owes = !stepped;
                cx.waker().wake_by_ref(); // N2
                return Poll::Pending;
            }
            rung = set.collect();
        }
    }
}
