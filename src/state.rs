//! What the members of a group share.
//!
//! S1. The reason is written before the flag that announces it, both under the lock. S2. Whoever waits leaves a waker
//! under the lock and looks at the word after; whoever changes the word takes the waker under the lock after. S3. Wakers,
//! hooks, payloads and errors are woken, called and dropped outside the lock. S4. The first reason stands.
//! S5. A request finds a closed group as it ended: only the drop of its scope still counts.
//!
//! Free of tokio but for the instants of deadlines and ages, and of futures: decisions are made here, `group` drives them.

pub(crate) mod owner;
pub(crate) mod registry;
pub(crate) mod word;

use std::any::Any;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::panic::Location;
use std::task::Waker;

use tokio::time::Instant;

use crate::observe::{
    CancelReason, DisplacedWhat, Ended, Observer, Straggler, TaskId, TaskInfo, displace, path, tell,
};
use crate::panic::{PanicPayload, catch};
use crate::state::owner::Owner;
use crate::state::registry::{Mark, Registry, SerialHasher};
use crate::state::word::{Entry, Kind, Reading, Word};
use crate::sync::{Arc, AtomicBool, AtomicU64, Lock, Ordering, PlainArc, unique};
use crate::time::Deadline;

/// What a scope is made with.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) path: Option<PlainArc<str>>,
    pub(crate) has_grace: bool,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) observer: Option<PlainArc<dyn Observer>>,
    /// The member of the parent that the scope was opened in.
    pub(crate) opener: u64,
}

/// A failure as it is kept: the error's type is known to the scope, not here.
pub(crate) struct RawFailure {
    pub(crate) task: Option<TaskInfo>,
    pub(crate) kind: RawKind,
}

pub(crate) enum RawKind {
    Error(Box<dyn Any + Send>),
    Panic(PanicPayload),
}

/// Something that is to be forced when the grace is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Child(u64),
    Below(u64),
}

/// What is needed rarely, behind one lock.
#[derive(Default)]
struct Cold {
    reason: Option<CancelReason>,
    failures: Vec<RawFailure>,
    waiter: Option<Waker>,
    owner: Option<Owner>,
    stragglers: Vec<Straggler>,
    /// Children that were signalled, and that the scope has to force when the grace is over.
    signalled: Vec<Target>,
    listeners: HashMap<u64, Waker, BuildHasherDefault<SerialHasher>>,
    next_listener: u64,
}

/// What the scope takes out at its end.
pub(crate) struct Remains {
    pub(crate) reason: Option<CancelReason>,
    pub(crate) failures: Vec<RawFailure>,
    pub(crate) stragglers: Vec<Straggler>,
}

pub(crate) struct Core {
    word: Word,
    /// The serial of the next child; the body is 0.
    next: AtomicU64,
    /// Children below were signalled together, without the body.
    signal_cut: AtomicU64,
    /// Children below are forced, without the body.
    force_cut: AtomicU64,
    /// The body awaits a value that will never come (G8).
    stuck: AtomicBool,
    registry: Registry,
    cold: Lock<Cold>,
    id: u64,
    settings: Settings,
    parent: Option<Arc<Self>>,
}

impl Core {
    pub(crate) fn new(mut settings: Settings, parent: Option<Arc<Self>>) -> Arc<Self> {
        if let Some(outer) = parent.as_ref().map(|parent| &parent.settings) {
            let own = settings.deadline.unwrap_or(Deadline::NEVER);
            settings.deadline = outer
                .deadline
                .map(|outer| outer.min(own))
                .or(settings.deadline);
            if settings.observer.is_none() {
                settings.observer.clone_from(&outer.observer);
            }
        } else if settings.observer.is_none() {
            settings.observer = crate::observe::process().cloned();
        }
        Arc::new(Self {
            word: Word::new(),
            next: AtomicU64::new(1),
            signal_cut: AtomicU64::new(0),
            force_cut: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            registry: Registry::new(),
            cold: Lock::new(Cold::default()),
            id: unique(),
            settings,
            parent,
        })
    }

    pub(crate) fn word(&self) -> &Word {
        &self.word
    }

    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// Returns the group, and the member there, that the scope was opened in.
    pub(crate) fn opened_in(&self) -> Option<(&Self, u64)> {
        let parent = self.parent.as_deref()?;
        Some((parent, self.settings.opener))
    }

    /// Asks whether this is `outer`, or was opened somewhere inside it.
    pub(crate) fn is_within(&self, outer: &Self) -> bool {
        // A group is younger than its parent, so the search is over at once in the usual case.
        std::iter::successors(Some(self), |core| core.parent.as_deref())
            .take_while(|core| core.id >= outer.id)
            .any(|core| core.id == outer.id)
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.settings.deadline.unwrap_or(Deadline::NEVER)
    }

    pub(crate) fn path(&self) -> Option<&PlainArc<str>> {
        self.settings.path.as_ref()
    }

    /// Returns the path of names that leads to a member: the group's own for the body, and for a child without a name.
    pub(crate) fn path_of(&self, serial: u64) -> Option<PlainArc<str>> {
        let name = if serial > 0 {
            self.registry.name_of(serial)
        } else {
            None
        };
        path(self.path(), name.as_deref())
    }

    pub(crate) fn observer(&self) -> Option<&PlainArc<dyn Observer>> {
        self.settings.observer.as_ref()
    }

    pub(crate) fn task_id(&self, serial: u64) -> TaskId {
        TaskId {
            group: self.id,
            serial,
        }
    }

    /// Describes a child whose name is known, or was never given.
    pub(crate) fn info(
        &self,
        serial: u64,
        name: Option<PlainArc<str>>,
        location: &'static Location<'static>,
    ) -> TaskInfo {
        TaskInfo {
            id: self.task_id(serial),
            name,
            group: self.settings.path.clone(),
            location,
        }
    }

    /// Returns how many children are alive, adopted scopes included, the body not.
    pub(crate) fn children(&self, body_is_in: bool) -> usize {
        (self.word.read().live() as usize).saturating_sub(usize::from(body_is_in))
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    // -- in and out -------------------------------------------------------------------------------------------------

    /// Counts a new child in and gives it its serial; or says why not.
    #[track_caller]
    pub(crate) fn enter(&self, kind: Kind) -> Result<u64, CancelReason> {
        match self.word.enter(kind) {
            Entry::Accepted => Ok(self.next.fetch_add(1, Ordering::Relaxed)),
            refused => {
                assert!(
                    refused != Entry::Full,
                    "a ringfence group holds at most 2^29 children of a kind"
                );
                Err(self.reason().unwrap_or(CancelReason::Closed))
            }
        }
    }

    /// Counts one out. The last one settles with the adopter, and so on up the chain.
    #[inline]
    pub(crate) fn leave(&self, kind: Kind) {
        let after = self.word.leave(kind);
        if after.normal() == 0 {
            self.leave_last(kind, after);
        }
    }

    #[cold]
    fn leave_last(&self, kind: Kind, after: Reading) {
        if let Some(owner) = self.left(kind, after) {
            owner.settle();
        }
    }

    /// Counts one out, and returns the adopter to settle with, if that was the last one of an orphan.
    pub(crate) fn leave_step(&self, kind: Kind) -> Option<Owner> {
        let after = self.word.leave(kind);
        self.left(kind, after)
    }

    /// Does what is to be done after an exit that left the word so.
    fn left(&self, kind: Kind, after: Reading) -> Option<Owner> {
        if after.live() == 0 {
            return self.closed(after);
        }
        if kind == Kind::Normal && after.normal() == 0 {
            // The last normal one is out: only background children are left.
            self.cancel(CancelReason::Finished, false);
        }
        None
    }

    fn closed(&self, word: Reading) -> Option<Owner> {
        if !word.is_orphaned() {
            self.wake_waiter();
            return None;
        }
        let (failures, owner) = {
            let mut cold = self.cold.lock();
            (std::mem::take(&mut cold.failures), cold.owner.take())
        };
        self.displace_all(failures);
        owner
    }

    // -- the end ----------------------------------------------------------------------------------------------------

    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.cold.lock().reason.clone()
    }

    /// Asks the group to end, for `reason` if it is the first: by signal if there is a grace, else by force.
    pub(crate) fn cancel(&self, reason: CancelReason, now: bool) {
        self.end(Some(reason), None, now);
    }

    /// Forces what was only signalled before.
    pub(crate) fn force(&self) {
        self.end(None, None, true);
    }

    /// Records a failure and asks the group to end because of it.
    pub(crate) fn fail(&self, failure: RawFailure) {
        let reason = match (&failure.kind, failure.task.as_ref().map(TaskInfo::id)) {
            (RawKind::Error(_), Some(id)) => CancelReason::Failed(id),
            (RawKind::Error(_), None) => CancelReason::BodyFailed,
            (RawKind::Panic(_), Some(id)) => CancelReason::Panicked(id),
            (RawKind::Panic(_), None) => CancelReason::BodyPanicked,
        };
        self.end(Some(reason), Some(failure), false);
    }

    fn end(&self, reason: Option<CancelReason>, failure: Option<RawFailure>, now: bool) {
        let force = now || !self.settings.has_grace;
        let (before, waiter, listeners) = {
            let mut cold = self.cold.lock();
            if !now && failure.is_none() && self.word.read().live() == 0 {
                return; // S5
            }
            cold.failures.extend(failure);
            if cold.reason.is_none() {
                cold.reason = reason; // S4
            }
            let before = self.word.cancel(force); // S1
            if before.is_forced() || (before.is_cancelled() && !force) {
                return;
            }
            (
                before,
                cold.waiter.take(),
                std::mem::take(&mut cold.listeners),
            )
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_values().for_each(|waker| self.wake(waker));
        if force && !before.is_forced() {
            self.registry.wake_below(u64::MAX, |waker| self.wake(waker));
        }
    }

    /// Singles one child out to be ended: at once, or after the grace that the scope keeps time of.
    pub(crate) fn cancel_child(&self, serial: u64) {
        if self.is_signalled(serial) {
            return; // S4
        }
        let force = !self.settings.has_grace;
        let mark = if force { Mark::Forced } else { Mark::Signalled };
        self.word.call_attention(); // R2
        match self.registry.single_out(serial, mark) {
            Some(waker) => self.wake(waker),
            None if force => {}
            None => return self.signalled(Target::Child(serial)),
        }
        self.wake_listeners();
    }

    /// Singles all present children out, the body not.
    pub(crate) fn cancel_children(&self) {
        if self.word.read().is_cancelled() {
            return; // S4
        }
        let cut = self.next.load(Ordering::Relaxed);
        if self.settings.has_grace {
            self.signal_cut.fetch_max(cut, Ordering::AcqRel);
            self.word.call_attention();
            self.signalled(Target::Below(cut));
        } else {
            self.force_target(Target::Below(cut));
        }
    }

    fn signalled(&self, target: Target) {
        let (waiter, listeners) = {
            let mut cold = self.cold.lock();
            cold.signalled.push(target);
            (cold.waiter.take(), std::mem::take(&mut cold.listeners))
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_values().for_each(|waker| self.wake(waker));
    }

    pub(crate) fn take_signalled(&self) -> Vec<Target> {
        std::mem::take(&mut self.cold.lock().signalled)
    }

    /// Forces children that were singled out.
    pub(crate) fn force_target(&self, target: Target) {
        match target {
            Target::Child(serial) => {
                let waker = self.registry.force(serial);
                waker.into_iter().for_each(|waker| self.wake(waker));
            }
            Target::Below(cut) => {
                self.force_cut.fetch_max(cut, Ordering::AcqRel);
                self.word.call_attention();
                self.registry.wake_below(cut, |waker| self.wake(waker));
                self.wake_listeners();
            }
        }
    }

    /// Wakes whoever listens to a token: what they look at has changed.
    fn wake_listeners(&self) {
        let listeners = std::mem::take(&mut self.cold.lock().listeners);
        listeners.into_values().for_each(|waker| self.wake(waker));
    }

    /// Asks whether a child has to end where it is parked, given a reading of the word.
    pub(crate) fn is_forced(&self, word: Reading, serial: u64) -> bool {
        !word.is_calm() && self.is_forced_with(word, serial, || self.registry.mark(serial))
    }

    fn is_forced_with(&self, word: Reading, serial: u64, mark: impl FnOnce() -> Mark) -> bool {
        word.is_forced()
            || serial < self.force_cut.load(Ordering::Acquire)
            || mark() == Mark::Forced
    }

    /// Asks whether a member was signalled: serial 0 is the body.
    pub(crate) fn is_signalled(&self, serial: u64) -> bool {
        let word = self.word.read();
        word.is_cancelled()
            || (!word.is_calm()
                && serial > 0
                && (serial < self.cut() || self.registry.mark(serial) > Mark::None))
    }

    /// Children below were asked to end together.
    fn cut(&self) -> u64 {
        let signalled = self.signal_cut.load(Ordering::Acquire);
        signalled.max(self.force_cut.load(Ordering::Acquire))
    }

    /// Returns why a member was cancelled. Only meaningful for one that was.
    pub(crate) fn reason_for(&self, serial: u64, mark: Mark) -> CancelReason {
        if mark > Mark::None {
            CancelReason::Handle
        } else if serial > 0 && serial < self.cut() {
            CancelReason::ChildrenCancelled
        } else {
            self.reason().unwrap_or(CancelReason::RuntimeGone)
        }
    }

    /// Registers a child that has to wait. Says no if it has to end instead.
    pub(crate) fn park(
        &self,
        serial: u64,
        waker: &Waker,
        location: &'static Location<'static>,
    ) -> bool {
        // The age is told of those who outlast a grace only.
        let since = self.has_grace().then(|| Instant::now().into_std());
        self.registry.park(serial, waker, location, since, |mark| {
            let word = self.word.read();
            !word.is_calm() && self.is_forced_with(word, serial, || mark)
        })
    }

    pub(crate) fn has_grace(&self) -> bool {
        self.settings.has_grace
    }

    /// Notes that a child had to be forced although there was a grace.
    pub(crate) fn straggled(&self, straggler: Straggler) {
        crate::trace::forced(&straggler);
        tell(self.observer(), |o| o.forced(&straggler));
        self.cold.lock().stragglers.push(straggler);
    }

    // -- waiting ----------------------------------------------------------------------------------------------------

    /// Leaves the scope's waker. Look at the word after (S2).
    pub(crate) fn set_waiter(&self, waker: &Waker) {
        {
            let cold = self.cold.lock();
            if cold.waiter.as_ref().is_some_and(|old| old.will_wake(waker)) {
                return;
            }
        }
        let new = waker.clone();
        let old = self.cold.lock().waiter.replace(new);
        drop(old);
    }

    fn wake_waiter(&self) {
        let waiter = self.cold.lock().waiter.take();
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
    }

    /// Wakes somebody whose waker may be anything, and may throw: one that does must not cost the others their turn.
    fn wake(&self, waker: Waker) {
        if let Err(panic) = catch(|| waker.wake()) {
            displace(self.observer(), None, DisplacedWhat::Panic(panic));
        }
    }

    /// Leaves a waker that is woken with the next signal, and returns its number. Look at the word after (S2).
    pub(crate) fn listen(&self, known: Option<u64>, waker: &Waker) -> u64 {
        let new = waker.clone();
        let mut cold = self.cold.lock();
        let number = known.unwrap_or_else(|| {
            cold.next_listener += 1;
            cold.next_listener
        });
        let old = cold.listeners.insert(number, new);
        drop(cold);
        drop(old);
        number
    }

    pub(crate) fn unlisten(&self, number: u64) {
        let old = self.cold.lock().listeners.remove(&number);
        drop(old);
    }

    /// Notes that the body awaits a value that will never come.
    pub(crate) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    /// Asks whether the body is stuck, and forgets it. Set and read in the body's own task.
    pub(crate) fn take_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) && self.stuck.swap(false, Ordering::Relaxed)
    }

    // -- what is left -----------------------------------------------------------------------------------------------

    pub(crate) fn take_remains(&self) -> Remains {
        let mut cold = self.cold.lock();
        Remains {
            // Left here: whoever comes later is refused with it, and tokens tell it.
            reason: cold.reason.clone(),
            failures: std::mem::take(&mut cold.failures),
            stragglers: std::mem::take(&mut cold.stragglers),
        }
    }

    pub(crate) fn displace_all(&self, failures: Vec<RawFailure>) {
        for RawFailure { task, kind } in failures {
            let what = match kind {
                RawKind::Error(error) => DisplacedWhat::Error(error),
                RawKind::Panic(panic) => DisplacedWhat::Panic(panic),
            };
            displace(self.observer(), task, what);
        }
    }

    /// Hands the group over to `owner`, which is settled with when the last member is out; then takes the body out.
    pub(crate) fn orphan(&self, owner: Owner) {
        self.cold.lock().owner = Some(owner);
        self.word.orphan();
        self.leave(Kind::Normal);
    }

    /// Takes the body out if nobody else is in, so that there is nothing to adopt.
    pub(crate) fn orphan_empty(&self) -> bool {
        let is_empty = self.word.orphan_alone();
        if is_empty {
            let failures = std::mem::take(&mut self.cold.lock().failures);
            self.displace_all(failures);
        }
        is_empty
    }

    pub(crate) fn tell_ended(&self, info: impl FnOnce() -> TaskInfo, how: &Ended) {
        if self.observer().is_some() {
            let info = info();
            tell(self.observer(), |o| o.ended(&info, how));
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A chain of nested groups may be long: taken apart in a loop, not by recursion.
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::try_unwrap(parent)
                .ok()
                .and_then(|mut core| core.parent.take());
        }
    }
}
