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
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::Location;
use std::task::Waker;

use tokio::time::Instant;

use crate::observe::{
    CancelReason, DisplacedWhat, Observer, Straggler, TaskId, TaskInfo, displace, path, tell,
};
use crate::panic::{PanicPayload, catch};
use crate::state::owner::Owner;
use crate::state::registry::{Mark, Registry};
use crate::state::word::{Entry, Kind, Reading, Word};
use crate::sync::{Arc, AtomicBool, AtomicU64, Lock, Ordering, PlainArc, unique};
use crate::time::Deadline;

/// What a scope is made with.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<PlainArc<str>>,
    pub(crate) has_grace: bool,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) observer: Option<PlainArc<dyn Observer>>,
    /// The member of the parent that the scope was opened in.
    pub(crate) opener: u64,
}

/// What the groups around a scope, and itself, have set; shared with the scopes inside that set nothing.
pub(crate) struct Inherited {
    path: Option<PlainArc<str>>,
    deadline: Deadline,
    observer: Option<PlainArc<dyn Observer>>,
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

/// Why a member was cancelled, in short: [`Core::reason_why`] has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Group,
    Children,
    Handle,
}

/// Something that is to be forced when the grace is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Child(u64),
    Below(u64),
}

/// How a group is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// By signal if there is a grace, else by force.
    Cancel,
    /// By force: nobody is there any more to keep the time of a grace.
    Drop,
    /// By force, as the grace is over.
    GraceOver,
}

/// What is needed at the end, or rarely, behind one lock.
#[derive(Default)]
struct Cold {
    waiter: Option<Waker>,
    rare: Option<Box<Rare>>,
}

impl Cold {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

#[derive(Default)]
struct Rare {
    reason: Option<CancelReason>,
    /// Members were forced because the grace was over.
    is_grace_over: bool,
    failures: Vec<RawFailure>,
    owner: Option<Owner>,
    stragglers: Vec<Straggler>,
    /// Children that were signalled, and that the scope has to force when the grace is over.
    signalled: Vec<Target>,
    /// Under the member that each is about, and a number.
    listeners: BTreeMap<(u64, u64), Waker>,
    next_listener: u64,
}

/// What the scope takes out at its end.
#[derive(Default)]
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
    /// None where nobody has set anything.
    inherited: Option<PlainArc<Inherited>>,
    parent: Option<Arc<Self>>,
    /// The member of the parent that the scope was opened in.
    opener: u64,
    /// Whether a cancel is a signal first. A long-lived group learns that only when it is shut down.
    has_grace: AtomicBool,
    /// Whether a child was ever named.
    has_names: AtomicBool,
}

impl Core {
    pub(crate) fn new(settings: Settings, parent: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            word: Word::new(),
            next: AtomicU64::new(1),
            signal_cut: AtomicU64::new(0),
            force_cut: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            registry: Registry::new(),
            cold: Lock::new(Cold::default()),
            id: unique(),
            has_names: AtomicBool::new(false),
            has_grace: AtomicBool::new(settings.has_grace),
            opener: settings.opener,
            inherited: inherit(settings, parent.as_deref()),
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
        Some((parent, self.opener))
    }

    /// Asks whether this was opened in `outer`, or in a group inside it.
    pub(crate) fn is_inside(&self, outer: &Self) -> bool {
        // A group is younger than its parent, so the search is over at once in the usual case.
        std::iter::successors(self.parent.as_deref(), |core| core.parent.as_deref())
            .take_while(|core| core.id >= outer.id)
            .any(|core| core.id == outer.id)
    }

    pub(crate) fn deadline(&self) -> Deadline {
        let inherited = self.inherited.as_ref();
        inherited.map_or(Deadline::NEVER, |inherited| inherited.deadline)
    }

    pub(crate) fn path(&self) -> Option<&PlainArc<str>> {
        self.inherited.as_ref()?.path.as_ref()
    }

    pub(crate) fn set_name(&self, serial: u64, name: PlainArc<str>) {
        // Relaxed: who asks for a name has it from the child, or from who spawned it.
        self.has_names.store(true, Ordering::Relaxed);
        self.registry.name(serial, name);
    }

    /// Returns the name of a child that is there.
    pub(crate) fn name_of(&self, serial: u64) -> Option<PlainArc<str>> {
        if serial == 0 || !self.has_names.load(Ordering::Relaxed) {
            return None;
        }
        self.registry.name_of(serial)
    }

    pub(crate) fn observer(&self) -> Option<&PlainArc<dyn Observer>> {
        self.inherited.as_ref()?.observer.as_ref()
    }

    /// Returns what leads to the observer, if there is one, for who may outlive the group.
    pub(crate) fn observed(&self) -> Option<PlainArc<Inherited>> {
        self.observer().and(self.inherited.clone())
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
            group: self.path().cloned(),
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
                    "a ringfence group holds at most 2^28 children of a kind"
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
            self.cancel(CancelReason::Finished);
        }
        None
    }

    fn closed(&self, word: Reading) -> Option<Owner> {
        if word.is_forced() {
            self.registry.clear(); // R4
        }
        let (waiter, listeners, rest) = {
            let mut cold = self.cold.lock();
            let waiter = cold.waiter.take();
            match &mut cold.rare {
                None => (waiter, BTreeMap::new(), None),
                Some(rare) => {
                    let rest = word
                        .is_orphaned()
                        .then(|| (std::mem::take(&mut rare.failures), rare.owner.take()));
                    (waiter, std::mem::take(&mut rare.listeners), rest)
                }
            }
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_values().for_each(|waker| self.wake(waker));
        let (failures, owner) = rest?;
        self.displace_all(failures);
        owner
    }

    // -- the end ----------------------------------------------------------------------------------------------------

    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.cold.lock().rare.as_ref()?.reason.clone()
    }

    /// Asks the group to end, for `reason` if it is the first: by signal if there is a grace, else by force.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        self.end(Some(reason), None, Ask::Cancel);
    }

    /// Asks the group to end at once: nobody is there any more to keep the time of a grace.
    pub(crate) fn cancel_now(&self, reason: CancelReason) {
        self.end(Some(reason), None, Ask::Drop);
    }

    /// Forces what was only signalled before: the grace is over.
    pub(crate) fn force(&self) {
        self.end(None, None, Ask::GraceOver);
    }

    /// Asks a long-lived group to end: with a grace, which somebody keeps from now on, or at once.
    pub(crate) fn shut_down(&self, has_grace: bool) {
        self.has_grace.store(has_grace, Ordering::Relaxed);
        self.end(Some(CancelReason::Shutdown), None, Ask::Cancel);
    }

    /// Records a failure and asks the group to end because of it.
    pub(crate) fn fail(&self, failure: RawFailure) {
        let reason = match (&failure.kind, failure.task.as_ref().map(TaskInfo::id)) {
            (RawKind::Error(_), Some(id)) => CancelReason::Failed(id),
            (RawKind::Error(_), None) => CancelReason::BodyFailed,
            (RawKind::Panic(_), Some(id)) => CancelReason::Panicked(id),
            (RawKind::Panic(_), None) => CancelReason::BodyPanicked,
        };
        self.end(Some(reason), Some(failure), Ask::Cancel);
    }

    fn end(&self, reason: Option<CancelReason>, failure: Option<RawFailure>, ask: Ask) {
        let force = ask != Ask::Cancel || !self.has_grace();
        let (before, waiter, listeners) = {
            let mut cold = self.cold.lock();
            if ask == Ask::Cancel && failure.is_none() && self.word.read().live() == 0 {
                return; // S5
            }
            let rare = cold.rare();
            rare.failures.extend(failure);
            if rare.reason.is_none() {
                rare.reason = reason; // S4
            }
            rare.is_grace_over |= ask == Ask::GraceOver && !self.word.read().is_forced();
            let before = self.word.cancel(force); // S1
            if before.is_forced() || (before.is_cancelled() && !force) {
                return;
            }
            let listeners = std::mem::take(&mut rare.listeners);
            (before, cold.waiter.take(), listeners)
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
        if self.is_signalled(serial, || self.registry.mark(serial) > Mark::None) {
            return; // S4
        }
        let force = !self.has_grace();
        let mark = if force { Mark::Forced } else { Mark::Signalled };
        self.word.call_attention(); // R2
        let waker = self.registry.single_out(serial, mark);
        waker.into_iter().for_each(|waker| self.wake(waker));
        self.signalled(
            (!force).then_some(Target::Child(serial)),
            serial..serial + 1,
        );
    }

    /// Singles all present children out, the body not.
    pub(crate) fn cancel_children(&self) {
        if self.word.read().is_cancelled() {
            return; // S4
        }
        let cut = self.next.load(Ordering::Relaxed);
        if self.has_grace() {
            self.signal_cut.fetch_max(cut, Ordering::AcqRel);
            self.word.call_attention();
            self.signalled(Some(Target::Below(cut)), 1..cut);
        } else {
            self.force_target(Target::Below(cut));
        }
    }

    /// Tells the scope of what it has to force later, and whoever listens for one of `members` that there is news.
    fn signalled(&self, target: Option<Target>, members: Range<u64>) {
        let (waiter, listeners) = {
            let mut cold = self.cold.lock();
            let waiter = target.and_then(|target| {
                cold.rare().signalled.push(target);
                cold.waiter.take()
            });
            let all = cold.rare.as_mut().map(|rare| &mut rare.listeners);
            let listeners = all.map_or_else(Vec::new, |all| {
                let places = all.range((members.start, 0)..(members.end, 0));
                let places: Vec<_> = places.map(|(place, _)| *place).collect();
                places
                    .iter()
                    .filter_map(|place| all.remove(place))
                    .collect()
            });
            (waiter, listeners)
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_iter().for_each(|waker| self.wake(waker));
    }

    pub(crate) fn take_signalled(&self) -> Vec<Target> {
        let mut cold = self.cold.lock();
        let rare = cold.rare.as_mut();
        rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.signalled))
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
                self.signalled(None, 1..cut);
            }
        }
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

    /// Asks whether a member was signalled: serial 0 is the body. `is_marked` says whether it was singled out by itself.
    pub(crate) fn is_signalled(&self, serial: u64, is_marked: impl FnOnce() -> bool) -> bool {
        let word = self.word.read();
        word.is_cancelled()
            || (!word.is_calm() && serial > 0 && (serial < self.cut() || is_marked()))
    }

    /// Children below were asked to end together.
    fn cut(&self) -> u64 {
        let signalled = self.signal_cut.load(Ordering::Acquire);
        signalled.max(self.force_cut.load(Ordering::Acquire))
    }

    /// Returns why a member was cancelled. Only meaningful for one that was.
    pub(crate) fn why(&self, serial: u64, is_marked: bool) -> Why {
        if is_marked {
            Why::Handle
        } else if serial > 0 && serial < self.cut() {
            Why::Children
        } else {
            Why::Group
        }
    }

    /// Returns the reason in full.
    pub(crate) fn reason_why(&self, why: Why) -> CancelReason {
        match why {
            Why::Handle => CancelReason::Handle,
            Why::Children => CancelReason::ChildrenCancelled,
            Why::Group => self.reason().unwrap_or(CancelReason::RuntimeGone),
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
        // Relaxed: set before the group is shared, or by whoever asks it to end, under the lock that goes with that.
        self.has_grace.load(Ordering::Relaxed)
    }

    /// Asks whether a forced member needs no more than to be counted out: nobody hears of it, and what it has in the
    /// registry goes with all the rest (R4).
    pub(crate) fn ends_unseen(&self, word: Reading) -> bool {
        word.is_forced() && word.is_undivided() && !self.has_grace() && self.observer().is_none()
    }

    /// Finds the group whose report names a member that was forced: its own if it outlasted the grace; or one around it that
    /// forced it together with the scope it is in. None where it was forced early, for instance since its scope was dropped.
    pub(crate) fn outlasted(&self, serial: u64, mark: Mark) -> Option<&Self> {
        if self.has_grace() && (mark == Mark::Forced || self.is_grace_over(serial)) {
            return Some(self);
        }
        let dropped = |core: &Self| matches!(core.reason(), Some(CancelReason::ScopeDropped));
        if !dropped(self) {
            return None;
        }
        std::iter::successors(self.opened_in(), |(core, _)| {
            dropped(core).then(|| core.opened_in()).flatten()
        })
        .find(|(core, opener)| core.has_grace() && core.is_grace_over(*opener))
        .map(|(core, _)| core)
    }

    fn is_grace_over(&self, serial: u64) -> bool {
        let cold = self.cold.lock();
        cold.rare.as_ref().is_some_and(|rare| rare.is_grace_over)
            || (serial > 0 && serial < self.force_cut.load(Ordering::Acquire))
    }

    /// Notes that a member had to be forced although there was a grace.
    pub(crate) fn straggled(&self, straggler: Straggler) {
        crate::trace::forced(&straggler);
        tell(self.observer(), |o| o.forced(&straggler));
        self.cold.lock().rare().stragglers.push(straggler);
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

    /// Wakes somebody whose waker may be anything, and may throw: one that does must not cost the others their turn.
    fn wake(&self, waker: Waker) {
        if let Err(panic) = catch(|| waker.wake()) {
            displace(self.observer(), None, DisplacedWhat::Panic(panic));
        }
    }

    /// Leaves a waker that is woken with the next signal to a member, and returns its number. Look at the word after (S2).
    pub(crate) fn listen(&self, serial: u64, known: Option<u64>, waker: &Waker) -> u64 {
        let new = waker.clone();
        let mut cold = self.cold.lock();
        let rare = cold.rare();
        let number = known.unwrap_or_else(|| {
            rare.next_listener += 1;
            rare.next_listener
        });
        let old = rare.listeners.insert((serial, number), new);
        drop(cold);
        drop(old);
        number
    }

    pub(crate) fn unlisten(&self, serial: u64, number: u64) {
        let mut cold = self.cold.lock();
        let rare = cold.rare.as_mut();
        let old = rare.and_then(|rare| rare.listeners.remove(&(serial, number)));
        drop(cold);
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
        let Some(rare) = &mut cold.rare else {
            return Remains::default();
        };
        Remains {
            // Left here: whoever comes later is refused with it, and tokens tell it.
            reason: rare.reason.clone(),
            failures: std::mem::take(&mut rare.failures),
            stragglers: std::mem::take(&mut rare.stragglers),
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
        self.cold.lock().rare().owner = Some(owner);
        self.word.orphan();
        self.leave(Kind::Normal);
    }

    /// Takes the body out if nobody else is in, so that there is nothing to adopt.
    pub(crate) fn orphan_empty(&self) -> bool {
        let is_empty = self.word.orphan_alone();
        if is_empty {
            self.displace_all(self.take_remains().failures);
        }
        is_empty
    }
}

/// Works out what a new scope goes by. Where it sets nothing itself, it shares what is around it.
fn inherit(settings: Settings, parent: Option<&Core>) -> Option<PlainArc<Inherited>> {
    let Settings {
        name,
        deadline,
        mut observer,
        opener,
        ..
    } = settings;
    let around = parent.and_then(|parent| parent.inherited.as_ref());
    // Through the child it is opened in, if that one has a name.
    let through = parent.and_then(|parent| parent.name_of(opener));
    if parent.is_none() && observer.is_none() {
        observer = crate::observe::process().cloned();
    }
    if name.is_none() && through.is_none() && deadline.is_none() && observer.is_none() {
        return around.cloned();
    }
    let outer = around.map_or(Deadline::NEVER, |around| around.deadline);
    let above = path(
        around.and_then(|around| around.path.as_ref()),
        through.as_deref(),
    );
    Some(PlainArc::new(Inherited {
        path: path(above.as_ref(), name.as_deref()),
        deadline: deadline.map_or(outer, |own| own.min(outer)),
        observer: observer.or_else(|| around.and_then(|around| around.observer.clone())),
    }))
}

impl Inherited {
    pub(crate) fn observer(&self) -> Option<&PlainArc<dyn Observer>> {
        self.observer.as_ref()
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
