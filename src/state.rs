//! What the members of a group share.
//!
//! S1. The reason is written before the flag that announces it, both under the lock. S2. Whoever waits leaves a waker
//! under the lock and looks at the word after; whoever changes the word takes the waker under the lock after. S3. Wakers,
//! hooks, payloads and errors are woken, called and dropped outside the lock. S4. The first reason stands.
//! S5. A request finds a closed group as it ended: only the drop of its scope still counts.
//!
//! Free of tokio but for the instants of deadlines and ages, and of futures: decisions are made here, `group` drives them.

mod end;
pub(crate) mod listing;
mod outlast;
pub(crate) mod owner;
pub(crate) mod registry;
mod settings;
pub(crate) mod view;
pub(crate) mod word;

pub(crate) use end::{Target, Why};
pub(crate) use settings::{Inherited, Settings};

use std::any::Any;
use std::panic::Location;
use std::sync::Weak;
use std::task::Waker;

use tokio::time::Instant;

use crate::observe::{
    CancelReason, DisplacedWhat, Observer, Straggler, TaskId, TaskInfo, displace,
};
use crate::panic::{PanicPayload, catch};
use crate::sorted_map::SortedMap;
use crate::state::listing::Listed;
use crate::state::owner::{GiveUp, Owner};
use crate::state::registry::Registry;
use crate::state::settings::inherit;
use crate::state::word::{Entry, Kind, Reading, Word};
use crate::sync::{Arc, AtomicBool, AtomicU64, Lock, Ordering, PlainArc, unique};
use crate::time::Deadline;
use crate::trace::Span;

/// A failure as it is kept: the error's type is known to the scope, not here.
pub(crate) struct RawFailure {
    pub(crate) task: Option<TaskInfo>,
    pub(crate) kind: RawKind,
}

pub(crate) enum RawKind {
    Error(Box<dyn Any + Send>),
    Panic(PanicPayload),
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
    /// When a shield first found that all were forced.
    forced_since: Option<Instant>,
    failures: Vec<RawFailure>,
    owner: Option<Owner>,
    /// Dropped: the group around whose grace was over then.
    outlasted: Option<Arc<Core>>,
    stragglers: Vec<Straggler>,
    /// Children that were signalled, and that the scope has to force when the grace is over.
    signalled: Vec<Target>,
    /// Under the member that each is about, and a number.
    listeners: SortedMap<(u64, u64), Waker>,
    next_listener: u64,
    /// Work that goes on after its child was forced.
    calls: SortedMap<(u64, u64), (Instant, Weak<dyn GiveUp>)>,
    abandoned: Vec<Straggler>,
}

/// What the scope takes out at its end.
#[derive(Default)]
pub(crate) struct Remains {
    pub(crate) reason: Option<CancelReason>,
    pub(crate) failures: Vec<RawFailure>,
    pub(crate) stragglers: Vec<Straggler>,
    pub(crate) abandoned: Vec<Straggler>,
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
    gives_up: bool,
    is_shielded: bool,
    /// Whether a cancel is a signal first. A long-lived group learns that only when it is shut down.
    has_grace: AtomicBool,
    /// Whether the grace of a group around it was over when its scope was dropped: see [`Rare::outlasted`].
    has_outlasted: AtomicBool,
    /// Whether the age of a child may have to be told.
    has_ages: bool,
    /// Whether a child was ever named.
    has_names: AtomicBool,
    listed: Listed,
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
            has_ages: settings.has_grace || settings.is_long_lived,
            gives_up: settings.gives_up,
            is_shielded: settings.is_shielded,
            has_outlasted: AtomicBool::new(false),
            listed: Listed::new(),
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

    /// Returns the tasks from a place outwards, its own first.
    pub(crate) fn tasks_from(place: Option<(&Self, u64)>) -> impl Iterator<Item = TaskId> {
        std::iter::successors(place, |(core, _)| core.opened_in())
            .map(|(core, serial)| core.task_id(serial))
    }

    /// Returns the same as long as a cancel out there reaches in here: a shield in between keeps it away.
    pub(crate) fn exposed_in(&self) -> Option<(&Self, u64)> {
        self.opened_in().filter(|_| !self.is_shielded)
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

    /// Returns the span that children are polled in.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.inherited.as_ref()?.span.as_ref()
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

    pub(crate) fn listed(&self) -> &Listed {
        &self.listed
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

    /// Gives a child its serial that is polled once by the body before it is counted in; or says why not.
    pub(crate) fn announce(&self) -> Result<u64, CancelReason> {
        match self.refusal() {
            None => Ok(self.next.fetch_add(1, Ordering::Relaxed)),
            Some(reason) => Err(reason),
        }
    }

    /// Says why it takes no new children, if it does not.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<CancelReason> {
        let is_open = self.word.read().is_open();
        (!is_open).then(|| self.reason().unwrap_or(CancelReason::Closed))
    }

    /// Counts one out. The last one settles with the adopter, and so on up the chain.
    #[inline]
    pub(crate) fn leave(&self, kind: Kind) {
        let after = self.word.leave(kind);
        if after.normal() == 0 {
            self.leave_last(kind, after);
        }
    }

    /// Counts a child out. One that was singled out after its entry was taken out has another one, which nobody else takes out.
    #[inline]
    pub(crate) fn leave_as(&self, kind: Kind, serial: u64) {
        let after = self.word.leave(kind);
        if !after.is_undivided() {
            drop(self.registry.remove(serial)); // R4
        }
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
        let (waiter, listeners, (rest, outlasted)) = {
            let mut cold = self.cold.lock();
            let waiter = cold.waiter.take();
            match &mut cold.rare {
                None => (waiter, SortedMap::new(), (None, None)),
                Some(rare) => {
                    let rest = word
                        .is_orphaned()
                        .then(|| (std::mem::take(&mut rare.failures), rare.owner.take()));
                    let rest = (rest, rare.outlasted.take());
                    (waiter, std::mem::take(&mut rare.listeners), rest)
                }
            }
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_values().for_each(|waker| self.wake(waker));
        drop(outlasted);
        let (failures, owner) = rest?;
        self.displace_all(failures);
        owner
    }

    /// Registers a child that has to wait. It looks whether it has to end after that (R2).
    pub(crate) fn park(&self, serial: u64, waker: &Waker, location: &'static Location<'static>) {
        // The age is told of those who outlast a grace, or where details are wanted.
        let has_age = self.has_ages || crate::detail::is_on();
        let since = has_age.then(|| Instant::now().into_std());
        self.registry.park(serial, waker, location, since);
    }

    pub(crate) fn has_grace(&self) -> bool {
        // Relaxed: set before the group is shared, or by whoever asks it to end, under the lock that goes with that.
        self.has_grace.load(Ordering::Relaxed)
    }

    /// Asks whether a cancel may be a signal first: also of a group that learns of its grace only when it is shut down.
    pub(crate) fn may_signal(&self) -> bool {
        // Of those who outlast a grace the age is told: the same groups.
        self.has_ages
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
        let (number, _old) = {
            let mut cold = self.cold.lock();
            let rare = cold.rare();
            let number = known.unwrap_or_else(|| {
                rare.next_listener += 1;
                rare.next_listener
            });
            (number, rare.listeners.insert((serial, number), new))
        }; // S3
        number
    }

    pub(crate) fn unlisten(&self, serial: u64, number: u64) {
        let _old = {
            let mut cold = self.cold.lock();
            let rare = cold.rare.as_mut();
            rare.and_then(|rare| rare.listeners.remove((serial, number)))
        }; // S3
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

    /// Asks whether it has ended with nothing to say but who outlasted what.
    pub(crate) fn has_ended_well(&self) -> bool {
        let cold = self.cold.lock();
        cold.rare.as_ref().is_none_or(|rare| {
            let is_over = matches!(rare.reason, None | Some(CancelReason::Finished));
            is_over && rare.failures.is_empty()
        })
    }

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
            abandoned: std::mem::take(&mut rare.abandoned),
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

impl Drop for Core {
    fn drop(&mut self) {
        if self.listed.is_set() {
            listing::remove(self); // L2
        }
        // A chain of nested groups may be long: taken apart in a loop, not by recursion.
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::try_unwrap(parent)
                .ok()
                .and_then(|mut core| core.parent.take());
        }
    }
}
