//! Worker pools: so many workers take deliveries from a source, and each is done, or comes back.
//!
//! W1. A delivery is done when the handler gives it back, and only then; an error, a panic, a timeout or a cancel drops it,
//! and what that means is the source's to say (a queue made with redelivery delivers it again). W2. No end of a handler
//! ends its worker. W3. When the group around a pool is cancelled with a grace, the source is told to stop, and the workers
//! finish what it still has; they do not hear of the cancel themselves (their group is apart), so that work is done then as at
//! any other time. W4. A pool ends when its source has ended and every worker is idle. W5. A panic that there is no
//! hook for, and one of the hook itself, harms no work: it is kept until the pool has ended, and goes on in the caller then.
//! Further ones, what a dropped handler's destructors throw, and every other failure that there is no hook for, go to the
//! observer, with the worker's name: no error is lost in a count. W6. Workers are started one by one: whoever takes a delivery and
//! leaves nobody at the source starts the next; on several threads it lets that run first, which would else be stuck behind a
//! handler that does not wait; forced meanwhile, it puts back what it took. Once all are there, nobody counts any more.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::cancel::token;
use crate::context;
use crate::group::TaskGroup;
use crate::group::error::{BoxError, FailureKind, GroupError};
use crate::group::options::Scope;
use crate::group::spawn::{Birth, Spawner};
use crate::observe::{DisplacedWhat, TaskInfo, displace};
use crate::panic::{PanicPayload, catch};
use crate::queue::{Delivery, Receiver, RecvError};
use crate::runtime;
use crate::state::word::Kind;
use crate::sync::{AtomicU64, Lock, Ordering, PlainArc};
use crate::time::{Elapsed, timeout};

/// Where a pool's deliveries come from: a [`queue::Receiver`](Receiver) in this process, or a broker.
///
/// Each worker has a clone.
pub trait Source: Clone + Send + 'static {
    /// One piece of work.
    type Delivery: Deliverable;
    /// What ends the pool: the source cannot be used any more.
    type Error: Send + 'static;

    /// Waits for the next delivery; `None` when there will be none.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: when dropped, no delivery may be lost.
    ///
    /// # Errors
    ///
    /// If the source cannot be used any more; the pool ends with it.
    fn deliver(
        &mut self,
    ) -> impl Future<Output = Result<Option<Self::Delivery>, Self::Error>> + Send;

    /// Takes on nothing new: what was accepted is still delivered, and then the source ends, for all its clones.
    fn stop(&mut self);
}

/// A piece of work that is finished by [`done`](Self::done) alone. Dropped, it is delivered again, if the source can do that.
pub trait Deliverable: Send + 'static {
    /// Why it could not be marked as done.
    type Error: Into<BoxError> + Send;

    /// Finishes it.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may be finished or not; if not, it is delivered again.
    ///
    /// # Errors
    ///
    /// If it could not be marked as done; then it may be delivered again.
    fn done(self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Puts it back: the pool is forced to end, and no handler has seen it, so that this is no attempt. The default drops it.
    fn put_back(self)
    where
        Self: Sized,
    {
    }
}

/// Ends when the queue does. Told to stop, it closes the queue.
impl<T: Send + 'static> Source for Receiver<T> {
    type Delivery = Delivery<T>;
    type Error = RecvError;

    async fn deliver(&mut self) -> Result<Option<Delivery<T>>, RecvError> {
        match Self::deliver(self).await {
            Ok(delivery) => Ok(Some(delivery)),
            Err(end) if end.cause().is_some() => Err(end),
            Err(_) => Ok(None),
        }
    }

    fn stop(&mut self) {
        self.close();
    }
}

impl<T: Send + 'static> Deliverable for Delivery<T> {
    type Error = std::convert::Infallible;

    async fn done(self) -> Result<(), Self::Error> {
        Self::done(self);
        Ok(())
    }

    fn put_back(self) {
        Self::put_back(self);
    }
}

/// Why a delivery was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkFailure<E> {
    /// The handler failed.
    Error(E),
    /// The handler panicked; or the destructor of an item that was done.
    Panicked(PanicPayload),
    /// The handler took longer than [`timeout`](Workers::timeout) allows.
    TimedOut(Elapsed),
    /// The handler succeeded, and the source could not be told; it may deliver the same again.
    NotMarked(BoxError),
}

/// How many deliveries ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Handled, and marked as done.
    pub done: u64,
    /// Not done: see [`WorkFailure`].
    pub failed: u64,
}

type Hook<E> = PlainArc<dyn Fn(WorkFailure<E>) + Send + Sync>;

/// A pool of workers, to be run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use ringfence::Workers;
/// use ringfence::queue::{Delivery, Queue};
///
/// let (sender, receiver) = Queue::bounded(100).redeliver(3).build();
/// for number in 0..10 {
///     sender.send(number).await?;
/// }
/// drop(sender);
///
/// let tally = Workers::new(4)
///     .run(receiver, |job: Delivery<u32>| async move {
///         if *job == 7 && job.attempt() == 1 {
///             return Err("a bad day"); // the job is dropped, and delivered again
///         }
///         Ok(job) // given back: it is done
///     })
///     .await?;
/// assert_eq!((tally.done, tally.failed), (10, 1));
/// # Ok(())
/// # }
/// ```
#[must_use = "a pool works when it is run"]
pub struct Workers<E> {
    count: usize,
    timeout: Duration,
    on_failure: Option<Hook<E>>,
    location: &'static Location<'static>,
}

impl<E: Send + 'static> Workers<E> {
    /// A pool of up to `count` workers. They are started as there is work for them.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[track_caller]
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "ringfence: a pool of 0 workers does no work");
        Self {
            count: crate::smallest::capacity(count),
            timeout: Duration::MAX,
            on_failure: None,
            location: Location::caller(),
        }
    }

    /// Limits the time of the handler for each delivery. The default is no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Hands each failure to `hook`, in the worker, when the delivery is gone.
    ///
    /// The handler had the delivery by value, so the item is not in the failure: put what names it into the error. What became
    /// of it is the source's to tell, as a queue does with [`on_discard`](crate::queue::Queue::on_discard).
    ///
    /// Without one, each error and timeout is counted, and told to the [observer](crate::Scope::observer) of the group around;
    /// the first panic goes on in the caller when the pool has ended, and others go to the observer. A panic of the hook is
    /// no different.
    pub fn on_failure(mut self, hook: impl Fn(WorkFailure<E>) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(PlainArc::new(hook));
        self
    }

    /// Runs the pool until its source has ended and all work is finished.
    ///
    /// The handler is given each delivery by value. It gives it back to say that it is done; whatever else happens to it
    /// drops it, and the source delivers it again if it can. A handler that fails or panics ends neither its worker nor
    /// the pool: see [`on_failure`](Self::on_failure) for who is told. One that never fails says so by `Ok::<_, Infallible>(job)`.
    ///
    /// To stop, close the queue: the workers finish what is in it. If the group around the pool is cancelled with a grace,
    /// the pool does that by itself; a child that sends is refused then, which is its end, and no failure. What is left when the
    /// grace has run out is in the queue, also what was being worked on if it is made with redelivery: keep a receiver and take it
    /// with [`abort`](Receiver::abort). Without a grace there is no time to drain: everything is dropped where it is, and what no
    /// handler has seen goes back into the queue, in order.
    ///
    /// # In a handler
    ///
    /// What it finds to do goes into the queue by [`Delivery::send`]. While the pool drains, the queue is closed, and that gives
    /// the item back as [`SendError::Closed`](crate::queue::SendError::Closed). That is no failure of the work at hand: keep what
    /// was found, or leave it, and give the delivery back. With a `?` there, the work would fail, and be done again.
    ///
    /// While the pool drains, work is done as at any other time: a handler does not hear of the cancel, nor does a
    /// [retry](crate::retry) or a wait for a limit in it, so that what was accepted does not fail because it comes last. When the
    /// grace is over, it is dropped where it is. A deadline around holds in a handler all the same. A handler with a long way to go that wants a shorter one then takes the
    /// [`token`](crate::token()) of the group around along: `let stop = token();` before the pool is run. If it drops its delivery,
    /// that is another attempt used up, and the pool, which still drains, takes the same again; if it holds it until the grace
    /// is over, the delivery comes back whichever attempt it was.
    ///
    /// A retry goes inside the handler; [`timeout`](Self::timeout) is then around all its attempts. Redelivery is for what a retry
    /// cannot help: a worker that panics, or is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it cancels its workers, like any scope; what they were at is dropped, as above.
    ///
    /// # Errors
    ///
    /// [`GroupError`], if the source failed, with its error; the other workers are cancelled then.
    ///
    /// # Panics
    ///
    /// With what a handler panicked with, when everything has ended, if there is no hook for it. With a panic of the source itself,
    /// which ends the pool as its error does.
    pub async fn run<S, F, W>(self, source: S, handler: F) -> Result<Tally, GroupError<S::Error>>
    where
        S: Source,
        F: Fn(S::Delivery) -> W + Send + Sync + 'static,
        W: Future<Output = Result<S::Delivery, E>> + Send + 'static,
    {
        let pool = PlainArc::new(Pool {
            handler,
            timeout: self.timeout,
            on_failure: self.on_failure,
            location: self.location,
            count: self.count as u64,
            started: AtomicU64::new(0),
            at_source: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            panic: FirstPanic(Lock::new(None)),
        });
        let around = token();
        let apart = Scope::new().apart();
        let ended = apart.run(async |group: &TaskGroup<S::Error>| {
            let unseen = Unseen(PlainArc::new(Lock::new(Vec::new())));
            pool.start(&group.spawner(), &source, &unseen);
            // W3. With no grace there is no time for it, and everybody is dropped where they are.
            let mut source = source;
            let stop = async move {
                around.cancelled().await;
                source.stop();
            };
            let birth = Birth {
                kind: Kind::Background,
                name: Some("stop".into()),
                location: self.location,
            };
            let stop = group.launch(stop, birth);
            drop(stop.unwrap_or_else(|refused| group.refuse(refused)));
            Ok(())
        });
        let ended = ended.await;
        let panic = pool.panic.take();
        let tally = Tally {
            done: pool.done.load(Ordering::Relaxed),
            failed: pool.failed.load(Ordering::Relaxed),
        };
        // The handler goes, and the hook: what they throw must not cost the error, nor meet the panic.
        if let Err(thrown) = catch(|| drop(pool)) {
            displace_here(None, DisplacedWhat::Panic(thrown));
        }
        // W5, G4: it outranks the source's error.
        if let Some(panic) = panic {
            for failure in ended.err().into_iter().flatten() {
                let task = failure.task().cloned();
                if let FailureKind::Error(error) = failure.into_kind() {
                    displace_here(task, DisplacedWhat::Error(Box::new(error)));
                }
            }
            panic.resume();
        }
        ended.map(|()| tally)
    }
}

impl<E> fmt::Debug for Workers<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("count", &self.count)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What the workers of a pool share.
struct Pool<F, E> {
    handler: F,
    timeout: Duration,
    on_failure: Option<Hook<E>>,
    location: &'static Location<'static>,
    count: u64,
    started: AtomicU64,
    /// How many wait for a delivery, as long as not all have been started (W6).
    at_source: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    panic: FirstPanic,
}

impl<F: Send + Sync + 'static, E: Send + 'static> Pool<F, E> {
    /// Starts the next worker, if there is one more.
    fn start<S, W>(
        self: &PlainArc<Self>,
        spawner: &Spawner<S::Error>,
        source: &S,
        unseen: &Unseen<S::Delivery>,
    ) where
        S: Source,
        F: Fn(S::Delivery) -> W,
        W: Future<Output = Result<S::Delivery, E>> + Send + 'static,
    {
        let started = &self.started;
        let next = |number| (number < self.count).then_some(number + 1);
        let Ok(before) = started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) else {
            return;
        };
        self.at_source.fetch_add(1, Ordering::Relaxed);
        let work = (self.clone()).work(before, spawner.clone(), source.clone(), unseen.clone());
        let birth = Birth {
            kind: Kind::Normal,
            name: Some(format!("worker {}", before + 1).into()),
            location: self.location,
        };
        let started = spawner.launch(work, birth);
        drop(started.unwrap_or_else(|refused| spawner.refuse(refused)));
    }

    fn is_starting(&self) -> bool {
        self.started.load(Ordering::Relaxed) < self.count
    }

    async fn work<S, W>(
        self: PlainArc<Self>,
        number: u64,
        spawner: Spawner<S::Error>,
        mut source: S,
        unseen: Unseen<S::Delivery>,
    ) -> Result<(), S::Error>
    where
        S: Source,
        F: Fn(S::Delivery) -> W,
        W: Future<Output = Result<S::Delivery, E>> + Send + 'static,
    {
        while let Some(mut delivery) = source.deliver().await? {
            // W6.
            if self.is_starting() && self.at_source.fetch_sub(1, Ordering::Relaxed) == 1 {
                let held = unseen.hold(number, delivery);
                self.start(&spawner, &source, &unseen);
                if runtime::is_parallel(spawner.runtime.as_ref()) {
                    give_way().await;
                }
                delivery = match held.take() {
                    Some(delivery) => delivery,
                    None => pending().await, // forced, as those are who put it back
                };
            }
            self.work_on(delivery).await;
            if self.is_starting() {
                self.at_source.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn work_on<D, W>(&self, delivery: D)
    where
        D: Deliverable,
        F: Fn(D) -> W,
        W: Future<Output = Result<D, E>> + Send,
    {
        let delivery = match self.handle(delivery).await {
            Ok(delivery) => delivery,
            Err(failure) => return self.fail(failure),
        };
        let done = async { delivery.done().await };
        match self.guard(Duration::MAX, done).await {
            Ok(Ok(Ok(()))) => {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Ok(Err(error))) => self.fail(WorkFailure::NotMarked(error.into())),
            Ok(Err(panic)) => self.fail(WorkFailure::Panicked(panic)),
            Err(elapsed) => self.fail(WorkFailure::TimedOut(elapsed)),
        }
    }

    async fn handle<D, W>(&self, delivery: D) -> Result<D, WorkFailure<E>>
    where
        D: Send,
        F: Fn(D) -> W,
        W: Future<Output = Result<D, E>> + Send,
    {
        let work = catch(|| (self.handler)(delivery)).map_err(WorkFailure::Panicked)?;
        match self.guard(self.timeout, work).await {
            Ok(Ok(result)) => result.map_err(WorkFailure::Error),
            Ok(Err(panic)) => Err(WorkFailure::Panicked(panic)),
            Err(elapsed) => Err(WorkFailure::TimedOut(elapsed)),
        }
    }

    /// Runs the user's part, whatever it throws (W2).
    async fn guard<W: Future<Output: Send> + Send>(
        &self,
        limit: Duration,
        work: W,
    ) -> Result<Result<W::Output, PanicPayload>, Elapsed> {
        let mut work = pin!(Some(work));
        let ended = poll_fn(|cx| match work.as_mut().as_pin_mut() {
            Some(work) => match catch(|| work.poll(cx)) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            },
            None => Poll::Pending,
        });
        let result = timeout(limit, ended).await;
        if let Err(panic) = catch(|| work.set(None)) {
            self.displace(DisplacedWhat::Panic(panic));
        }
        result
    }

    fn fail(&self, failure: WorkFailure<E>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let told = match (&self.on_failure, failure) {
            (Some(hook), failure) => catch(|| hook(failure)),
            (None, WorkFailure::Panicked(panic)) => Err(panic),
            (None, WorkFailure::Error(error)) => return self.displace_error(error),
            (None, WorkFailure::TimedOut(elapsed)) => return self.displace_error(elapsed),
            (None, WorkFailure::NotMarked(error)) => return self.displace_error(error),
        };
        // W5.
        if let Err(Some(panic)) = told.map_err(|panic| self.panic.keep(panic)) {
            self.displace(DisplacedWhat::Panic(panic));
        }
    }

    fn displace_error(&self, error: impl Send + 'static) {
        self.displace(DisplacedWhat::Error(Box::new(error)));
    }

    /// Tells the observer of what has nobody else to go to.
    fn displace(&self, what: DisplacedWhat) {
        let task = context::current().map(|(core, serial)| {
            let name = core.name_of(serial);
            core.info(serial, name, self.location)
        });
        displace_here(task, what);
    }
}

/// Lets other tasks run.
async fn give_way() {
    let mut has_given_way = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_given_way, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The deliveries that no handler has seen, each with the number of its worker, in the order in which they were taken: while
/// workers are started, one at a time is at the source. Forced workers end in any order. So each of them puts back the last one.
struct Unseen<D>(PlainArc<Lock<Vec<(u64, D)>>>);

impl<D> Clone for Unseen<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Deliverable> Unseen<D> {
    fn hold(&self, number: u64, delivery: D) -> Held<'_, D> {
        self.0.lock().push((number, delivery));
        Held(self, Some(number))
    }
}

/// What a worker has among them, until it is taken.
struct Held<'u, D: Deliverable>(&'u Unseen<D>, Option<u64>);

impl<D: Deliverable> Held<'_, D> {
    fn take(mut self) -> Option<D> {
        let own = self.1.take()?;
        let mut unseen = self.0.0.lock();
        let at = unseen.iter().position(|(number, _)| *number == own)?;
        Some(unseen.remove(at).1)
    }
}

impl<D: Deliverable> Drop for Held<'_, D> {
    fn drop(&mut self) {
        let last = self.1.take().and_then(|_| self.0.0.lock().pop());
        if let Some((_, delivery)) = last {
            if let Err(panic) = catch(|| delivery.put_back()) {
                displace_here(None, DisplacedWhat::Panic(panic));
            }
        }
    }
}

/// The first panic of a pool that there was no hook for.
struct FirstPanic(Lock<Option<PanicPayload>>);

impl FirstPanic {
    /// Keeps it if it is the first; else hands it back.
    fn keep(&self, panic: PanicPayload) -> Option<PanicPayload> {
        let mut first = self.0.lock();
        if first.is_some() {
            return Some(panic);
        }
        *first = Some(panic);
        None
    }

    fn take(&self) -> Option<PanicPayload> {
        self.0.lock().take()
    }
}

impl Drop for FirstPanic {
    fn drop(&mut self) {
        // The pool was dropped, or cancelled, before its end.
        if let Some(panic) = self.take() {
            displace_here(None, DisplacedWhat::Panic(panic));
        }
    }
}

/// Tells the observer of the group that this happens in.
fn displace_here(task: Option<TaskInfo>, what: DisplacedWhat) {
    let place = context::current();
    let observer = place.as_ref().and_then(|(core, _)| core.observer());
    displace(observer, task, what);
}
