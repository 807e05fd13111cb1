//! Single-flight: callers that want the same thing at the same time share one call.
//!
//! F1. A key has at most one flight that can be joined. F2. A flight is flown by a task of its own, never by a caller: a caller that
//! goes away stops nobody. F3. Every flight lands: with a result, or, however its task is lost, with an error. F4. It is taken off the
//! map before it lands, so a result is given only to who asked before it was there. F5. Keys, results and wakers are dropped outside
//! the locks; a key is hashed and compared under one. F6. Who waits for a flight from inside another is noted in one
//! place for the process, since a circle may lead through several maps: it is refused to whoever would close it.
//! F7. An error or a panic that nobody took is told to the observer when the last who could have is gone.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::panic::Location;
use std::pin::pin;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use crate::cancel::token;
use crate::group::error::BoxError;
use crate::group::owned::OwnedGroup;
use crate::group::report::Report;
use crate::group::spawn::Birth;
use crate::observe::{CancelReason, DisplacedWhat, TaskId, displace};
use crate::panic::{PanicPayload, catch};
use crate::sorted_map::SortedMap;
use crate::state::word::Kind;
use crate::state::{Core, Inherited};
use crate::sync::{Lock, PlainArc, PlainMutex, unique};
use crate::watched::Watched;

/// Why a shared call gave no value.
pub enum FlightError<E> {
    /// It failed; the error is shared by all who waited for it.
    Failed(PlainArc<E>),
    /// It panicked.
    Panicked(PlainArc<PanicPayload>),
    /// Its task was cancelled, or lost with its runtime.
    Cancelled(CancelReason),
    /// It was wanted from inside itself, perhaps by way of others, of whatever value: it would have waited for ever.
    Circle,
}

impl<E> FlightError<E> {
    /// Returns the error, if that is what it was.
    #[must_use]
    pub fn error(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Asks whether the call was lost, and not answered: another try may be.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::Cancelled(_))
    }
}

impl<E> Clone for FlightError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::Panicked(panic) => Self::Panicked(panic.clone()),
            Self::Cancelled(reason) => Self::Cancelled(reason.clone()),
            Self::Circle => Self::Circle,
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for FlightError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Panicked(panic) => f.debug_tuple("Panicked").field(panic).finish(),
            Self::Cancelled(reason) => f.debug_tuple("Cancelled").field(reason).finish(),
            Self::Circle => f.write_str("Circle"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for FlightError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Panicked(panic) => write!(f, "the shared call panicked: {panic}"),
            Self::Cancelled(reason) => write!(f, "the shared call was cancelled {reason}"),
            Self::Circle => f.write_str("the shared call waits for itself"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for FlightError<E> {}

type Landing<T, E> = PlainArc<Result<T, FlightError<E>>>;

/// One call, and who waits for it.
pub(crate) struct Flight<T, E> {
    number: u64,
    landed: Watched<Option<Landed<T, E>>>,
    displaced: fn(FlightError<E>) -> Option<DisplacedWhat>,
}

struct Landed<T, E> {
    landing: Landing<T, E>,
    is_taken: bool,
    observed: Option<PlainArc<Inherited>>,
}

impl<T: Send + Sync, E: Send + Sync> Flight<T, E> {
    pub(crate) async fn landed(&self) -> Landing<T, E> {
        let look = |landed: &mut Option<Landed<T, E>>| {
            let landed = landed.as_mut()?;
            landed.is_taken = true;
            Some(landed.landing.clone())
        };
        self.landed.until(look).await
    }
}

impl<T, E> Drop for Flight<T, E> {
    /// F7.
    fn drop(&mut self) {
        let is_lost = |landed: &mut Landed<T, E>| !landed.is_taken && landed.landing.is_err();
        let lost = self.landed.with(|landed| landed.take_if(is_lost));
        let Some(Landed {
            landing, observed, ..
        }) = lost
        else {
            return;
        };
        if let Some(Err(error)) = PlainArc::into_inner(landing) {
            tell_lost(observed.as_deref(), (self.displaced)(error));
        }
    }
}

fn tell_lost(observed: Option<&Inherited>, what: Option<DisplacedWhat>) {
    if let Some(what) = what {
        displace(observed.and_then(Inherited::observer), None, what);
    }
}

/// What there is to be told of an error that nobody has.
fn displaced<E: Send + 'static>(error: FlightError<E>) -> Option<DisplacedWhat> {
    match error {
        FlightError::Failed(error) => {
            PlainArc::into_inner(error).map(|error| DisplacedWhat::Error(Box::new(error)))
        }
        FlightError::Panicked(panic) => PlainArc::into_inner(panic).map(DisplacedWhat::Panic),
        FlightError::Cancelled(_) | FlightError::Circle => None,
    }
}

/// What leads to the observer of the task that this is called in.
fn observed_here() -> Option<PlainArc<Inherited>> {
    crate::context::current().and_then(|(core, _)| core.observed())
}

/// A flight, and whether the caller is to fly it.
type Joined<K, T, E> = (PlainArc<Flight<T, E>>, Option<Pilot<K, T, E>>);

type Map<K, T, E> = HashMap<K, PlainArc<Flight<T, E>>>;

pub(crate) struct Flights<K, T, E>(Lock<Map<K, T, E>>);

impl<K: Hash + Eq + Clone, T, E: Send + 'static> Flights<K, T, E> {
    pub(crate) fn new() -> PlainArc<Self> {
        PlainArc::new(Self(Lock::new(HashMap::new())))
    }

    /// Joins the flight of a key; the first to come is to fly it.
    pub(crate) fn join(me: &PlainArc<Self>, key: K) -> Joined<K, T, E> {
        let own = key.clone();
        let mut map = me.0.lock();
        let known = map.get(&own).cloned();
        // One that has landed is still there only if its key could not be compared when it did.
        let known = known.filter(|flight| flight.landed.with(|landed| landed.is_none()));
        if let Some(flight) = known {
            drop(map);
            return (flight, None); // F1, F5
        }
        let flight = PlainArc::new(Flight {
            number: unique(),
            landed: Watched::new(None),
            displaced,
        });
        let old = map.insert(key, flight.clone());
        drop(map);
        drop(old); // F5
        let pilot = Pilot {
            flights: me.clone(),
            flying: Some((own, flight.clone())),
            task: None,
        };
        (flight, Some(pilot))
    }

    pub(crate) fn forget(&self, key: &K) -> bool {
        let removed = self.0.lock().remove_entry(key);
        removed.is_some() // F5: dropped here, after the lock
    }
}

/// Which flights are flown by tasks, and are waited for from others: of all maps (F6).
struct Traffic {
    pilots: SortedMap<TaskId, u64>,
    waits: SortedMap<u64, Vec<u64>>,
}

impl Traffic {
    /// The flights that these tasks fly: each is waited for by all that runs inside.
    fn flown_by(&self, tasks: &[TaskId]) -> Vec<u64> {
        let flights = tasks.iter().filter_map(|task| self.pilots.get(*task));
        flights.copied().collect()
    }

    /// Asks whether a flight waits for one of `targets`, itself or by way of others.
    fn leads_to(&self, flight: u64, targets: &[u64]) -> bool {
        let mut reached = vec![flight];
        let mut next = 0;
        while let Some(number) = reached.get(next).copied() {
            if targets.contains(&number) {
                return true;
            }
            for further in self.waits.get(number).into_iter().flatten() {
                if !reached.contains(further) {
                    reached.push(*further);
                }
            }
            next += 1;
        }
        false
    }

    fn forget(&mut self, wait: &Wait) {
        for number in &wait.from {
            if let Some(waits) = self.waits.get_mut(*number) {
                if let Some(place) = waits.iter().position(|other| *other == wait.flight) {
                    waits.swap_remove(place);
                }
                if waits.is_empty() {
                    self.waits.remove(*number);
                }
            }
        }
    }
}

static TRAFFIC: PlainMutex<Traffic> = PlainMutex::new(Traffic {
    pilots: SortedMap::new(),
    waits: SortedMap::new(),
});

fn with_traffic<R>(change: impl FnOnce(&mut Traffic) -> R) -> R {
    change(&mut TRAFFIC.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The tasks that the caller runs inside, its own first; none outside every group.
fn inside_of() -> Vec<TaskId> {
    let place = crate::context::current();
    let own = place.as_ref().map(|(core, serial)| (&**core, *serial));
    Core::tasks_from(own).collect()
}

/// A wait from inside other flights, taken back when it is over.
struct Wait {
    from: Vec<u64>,
    flight: u64,
}

impl Wait {
    /// Notes that the caller waits for a flight, or says that it would do so for ever (F6).
    fn begin(flight: u64) -> Option<Self> {
        let around = inside_of();
        if around.is_empty() {
            let from = Vec::new();
            return Some(Self { from, flight });
        }
        // Found before: nothing but the look is done under the lock that all calls share.
        with_traffic(|traffic| {
            let from = traffic.flown_by(&around);
            if !from.is_empty() && traffic.leads_to(flight, &from) {
                return None;
            }
            for number in &from {
                traffic.waits.get_or_default(*number).push(flight);
            }
            Some(Self { from, flight })
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if !self.from.is_empty() {
            with_traffic(|traffic| traffic.forget(self));
        }
    }
}

/// Whoever flies a flight. It lands when this is dropped, at the latest (F3).
pub(crate) struct Pilot<K: Hash + Eq + Clone, T, E> {
    flights: PlainArc<Flights<K, T, E>>,
    /// Until it has landed.
    flying: Option<(K, PlainArc<Flight<T, E>>)>,
    task: Option<TaskId>,
}

impl<K: Hash + Eq + Clone, T, E> Pilot<K, T, E> {
    fn begin(&mut self) {
        self.task = crate::context::task_id();
        if let (Some(task), Some((_, flight))) = (self.task, &self.flying) {
            with_traffic(|traffic| traffic.pilots.insert(task, flight.number));
        }
    }

    pub(crate) fn land(mut self, result: Result<T, FlightError<E>>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<T, FlightError<E>>) {
        let Some((key, flight)) = self.flying.take() else {
            return;
        };
        if let Some(task) = self.task {
            with_traffic(|traffic| traffic.pilots.remove(task));
        }
        // Comparing keys is the user's code, and may throw; the flight lands all the same.
        let removed = catch(|| {
            let mut map = self.flights.0.lock();
            let flying = map.get(&key);
            let own = &flight;
            let is_own = flying.is_some_and(|flight| PlainArc::ptr_eq(flight, own));
            is_own.then(|| map.remove_entry(&key)) // F4; not one that took its place
        });
        let landed = Landed {
            landing: PlainArc::new(result),
            is_taken: false,
            observed: observed_here(),
        };
        flight.landed.change(|place| *place = Some(landed));
        // The answer, too, if nobody waits for it: what its destructor throws is no other call's business.
        let dropped = catch(|| {
            drop((key, flight));
            drop(removed);
        });
        if let Err(panic) = dropped {
            displace(None, None, DisplacedWhat::Panic(panic));
        }
    }
}

impl<K: Hash + Eq + Clone, T, E> Drop for Pilot<K, T, E> {
    fn drop(&mut self) {
        if self.flying.is_some() {
            let otherwise = if self.task.is_some() {
                CancelReason::RuntimeGone
            } else {
                CancelReason::Closed
            };
            let reason = token().reason().unwrap_or(otherwise);
            self.end(Err(FlightError::Cancelled(reason)));
        }
    }
}

/// Callers that want the same thing at the same time share one call.
///
/// The first caller for a key starts a task; all who come before it has ended get a clone of what it returns. What is asked for after
/// that is fetched anew: this is no cache.
///
/// The task belongs to this value, not to the caller who came first: that one may be cancelled, and the others still get their answer.
/// If nobody waits any more, the call is finished all the same; an error or a panic of it is [displaced](crate::Displaced) then. When
/// this is dropped, its calls are cancelled, as those of an [`OwnedGroup`] are, inside which they run: they have its deadline and names,
/// not those of a caller. Like one it belongs to the group that it is made in: make the one in a `static` outside of every group, at the
/// beginning of `main`.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use ringfence::SingleFlight;
///
/// async fn fetch(id: u32) -> Result<String, std::io::Error> {
///     tokio::task::yield_now().await;
///     Ok(format!("user {id}"))
/// }
///
/// let users = SingleFlight::new();
/// let (a, b) = tokio::join!(
///     users.run(7, || fetch(7)),
///     users.run(7, || fetch(7)), // waits for the first one
/// );
/// assert_eq!((a?, b?), ("user 7".to_owned(), "user 7".to_owned()));
/// # Ok(())
/// # }
/// ```
///
/// *Comparison.* A map of shared futures does the same until the caller who polls the future goes away, or stops polling. A cache, such as
/// `moka`, also keeps the results.
pub struct SingleFlight<K: Hash + Eq + Clone + Send + 'static, T, E = BoxError> {
    flights: PlainArc<Flights<K, T, E>>,
    group: OwnedGroup,
}

impl<K, T, E> SingleFlight<K, T, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Makes one, inside the group that the caller runs in, if any.
    #[must_use]
    pub fn new() -> Self {
        Self {
            flights: Flights::new(),
            group: OwnedGroup::new(),
        }
    }

    /// Returns what the call for `key` returns: one that runs already, or else one that `call` makes.
    ///
    /// `call` runs in a task of its own, and is dropped unused, before the wait, if there is a call for that key already. The returned future borrows
    /// nothing: it may be awaited elsewhere, and hears of it when this value is dropped or shut down.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it stops waiting, and the call goes on for the others.
    ///
    /// # Errors
    ///
    /// [`FlightError`]: the call's own error, which all callers share; or that it panicked, was cancelled, or waits for itself.
    ///
    /// # Panics
    ///
    /// If this value was made outside a tokio runtime, and the first caller is outside one, too.
    #[track_caller]
    pub fn run<F, Fut>(
        &self,
        key: K,
        call: F,
    ) -> impl Future<Output = Result<T, FlightError<E>>> + use<K, T, E, F, Fut>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let location = Location::caller();
        let (flights, spawner) = (self.flights.clone(), self.group.spawner());
        async move {
            let (flight, pilot) = Flights::join(&flights, key);
            match pilot {
                Some(pilot) => {
                    let birth = Birth {
                        kind: Kind::Normal,
                        name: None,
                        location,
                    };
                    // Refused, it is dropped, and has landed.
                    drop(spawner.launch(fly(pilot, call), birth));
                }
                // Now: thrown at the end, its panic would cost what the flight lands with.
                None => drop(call),
            }
            let Some(_wait) = Wait::begin(flight.number) else {
                return Err(FlightError::Circle);
            };
            let landing = flight.landed().await;
            match &*landing {
                Ok(value) => Ok(value.clone()),
                Err(error) => Err(error.clone()),
            }
        }
    }

    /// Has the next caller for `key` start a call of its own. Those who wait for the present one still get its result.
    ///
    /// Returns whether there was one.
    pub fn forget(&self, key: &K) -> bool {
        self.flights.forget(key)
    }

    /// Returns how many calls can be joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.0.lock().len()
    }

    /// Asks whether there is no call that can be joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks all calls to end, drops those that are still there after the grace, and comes back when all are gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it cancels the calls at once.
    pub async fn shutdown(self, grace: Duration) -> Report<BoxError> {
        self.group.shutdown(grace).await
    }
}

/// Makes the call, and lands. Whatever it throws, in whatever way it ends, is the flight's and not the group's.
async fn fly<K, T, E, F, Fut>(mut pilot: Pilot<K, T, E>, call: F)
where
    K: Hash + Eq + Clone + Send,
    T: Send + Sync,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    pilot.begin();
    let panicked = |panic| Err(FlightError::Panicked(PlainArc::new(panic)));
    let result = match catch(call) {
        Err(panic) => panicked(panic),
        Ok(work) => {
            let mut work = pin!(Some(work));
            let result = poll_fn(|cx| match work.as_mut().as_pin_mut() {
                Some(work) => match catch(|| work.poll(cx)) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(Ok(value))) => Poll::Ready(Ok(value)),
                    Ok(Poll::Ready(Err(error))) => {
                        Poll::Ready(Err(FlightError::Failed(PlainArc::new(error))))
                    }
                    Err(panic) => Poll::Ready(panicked(panic)),
                },
                None => Poll::Pending,
            })
            .await;
            match catch(|| work.set(None)) {
                Ok(()) => result,
                Err(panic) => {
                    let lost = catch(|| result.err().and_then(displaced));
                    let lost = lost.unwrap_or_else(|panic| Some(DisplacedWhat::Panic(panic)));
                    tell_lost(observed_here().as_deref(), lost);
                    panicked(panic)
                }
            }
        }
    };
    pilot.land(result);
}

impl<K, T, E> Default for SingleFlight<K, T, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, T, E> fmt::Debug for SingleFlight<K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("flying", &self.flights.0.lock().len())
            .finish_non_exhaustive()
    }
}
