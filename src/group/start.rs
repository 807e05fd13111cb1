//! Children that say when they are ready, and children that are started in the spawner's turn.
//!
//! N1. Until it is ready, a child is polled where its spawner waits, in a context of its own; it is counted in all the while.
//! N2. What ends it before that comes out there, and the group hears nothing of it. N3. Once ready, it is a child
//! like all others: a task, unless it is over in that very step. N4. A child that is started eagerly is counted in after its first
//! step, and only if there is more to it than a value: meanwhile the body, whose turn it is, holds the group open.

use std::fmt;
use std::future::{Future, Pending};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::context::Relay;
use crate::group::TaskGroup;
use crate::group::error::{SpawnError, StartError};
use crate::group::handle::{Keeps, Kept, OutcomeHandle, Settled, TaskHandle};
use crate::group::member::{Cause, Member};
use crate::group::output::TaskOutput;
use crate::group::spawn::{self, Birth, Spawner};
use crate::observe::{Ended, tell, wake};
use crate::panic::{PanicPayload, catch};
use crate::pulse;
use crate::state::Core;
use crate::state::owner::Seat;
use crate::state::word::Kind;
use crate::sync::{Arc, Lock};
use crate::trace;

/// What a child that was [started](TaskGroup::start) says that it is ready with.
pub struct Ready<R> {
    signal: Option<Arc<Lock<Signal<R>>>>,
}

struct Signal<R> {
    state: Said<R>,
    waker: Option<Waker>,
}

enum Said<R> {
    Nothing,
    Ready(R),
    Lost,
}

impl<R> Ready<R> {
    fn pair() -> (Self, Arc<Lock<Signal<R>>>) {
        let signal = Arc::new(Lock::new(Signal {
            state: Said::Nothing,
            waker: None,
        }));
        let ready = Self {
            signal: Some(signal.clone()),
        };
        (ready, signal)
    }

    /// Says that the child is ready, and gives its spawner `value`.
    pub fn set(mut self, value: R) {
        self.say(Said::Ready(value));
    }

    fn say(&mut self, said: Said<R>) {
        let Some(signal) = self.signal.take() else {
            return;
        };
        let waker = {
            let mut signal = signal.lock();
            signal.state = said;
            signal.waker.take()
        };
        wake(waker);
    }
}

impl<R> Drop for Ready<R> {
    fn drop(&mut self) {
        self.say(Said::Lost);
    }
}

impl<R> fmt::Debug for Ready<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

pub(super) type StartResult<'g, R, F, E> = Result<(R, TaskHandle<'g, Value<F, E>>), StartError<E>>;

/// The same with a handle for anywhere.
pub(super) type StartDetached<R, F, E> = Result<(R, OutcomeHandle<Value<F, E>>), StartError<E>>;

type Starting<F, E> = Member<Pin<Box<F>>, E>;

/// What a child is ready with, and how it ended, if it is over by then.
type Begun<R, F, E> = (R, Option<Settled<Value<F, E>>>);

/// A child that is no task yet. Dropped, it leaves the group as if it had never been there.
struct Inline<F, E>
where
    F: Future<Output: TaskOutput<E, Value: Send + 'static>>,
    E: Send + 'static,
{
    member: Option<Starting<F, E>>,
    relay: Relay,
}

impl<F, E> Drop for Inline<F, E>
where
    F: Future<Output: TaskOutput<E, Value: Send + 'static>>,
    E: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(member) = &mut self.member {
            let is_overrun = member.is_overrun();
            Pin::new(member).withdraw(None, is_overrun);
        }
    }
}

/// Polls a child where its spawner waits until it is ready, and makes a task of it then.
pub(super) async fn until_ready<'g, R, C, F, E>(
    core: &'g Arc<Core>,
    runtime: &'g Option<Handle>,
    child: C,
    birth: Birth,
) -> StartResult<'g, R, F, E>
where
    C: FnOnce(Ready<R>) -> F,
    F: Future<Output: TaskOutput<E, Value: Send + 'static> + Send> + Send + 'static,
    E: Send + 'static,
{
    let (ready, signal) = Ready::pair();
    let future = Box::pin(child(ready));
    let (member, serial) = match spawn::admit::<_, E, _>(core, future, &birth) {
        Ok(admitted) => admitted,
        Err(refused) => return Err(StartError::Cancelled(spawn::discard(core, refused))),
    };
    let mut inline = Inline::<F, E> {
        member: Some(member),
        relay: Relay::default(),
    };
    let (value, settled) = std::future::poll_fn(|cx| inline.poll_ready(&signal, cx)).await?;
    if let Some(settled) = settled {
        let kept = Box::pin(Eager::<Pending<()>, _>::Ended { settled });
        return Ok((value, TaskHandle::ended(kept, serial, birth.name, core)));
    }
    let Some(mut member) = inline.member.take() else {
        return Err(StartError::NotReady);
    };
    Pin::new(&mut member).unpark();
    let join = crate::runtime::spawn_from(birth.location, runtime.as_ref(), member);
    Ok((value, TaskHandle::spawned(join, serial, birth.name, core)))
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Starts a child, and waits until it says that it is ready.
    ///
    /// `child` is given a [`Ready`], and says through it that it listens, has connected, has loaded. If it fails, panics or ends
    /// before that, this is where it comes out, and the group goes on. From then on it is a child like any other.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the child is dropped with it.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the child failed, or ended, or was cancelled before it was ready.
    ///
    /// # Panics
    ///
    /// With the child's own panic, if it comes before it is ready; outside a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
    /// use ringfence::scope;
    /// use tokio::net::{TcpListener, TcpStream};
    ///
    /// scope(async |group| {
    ///     let server = group.start(|ready| async move {
    ///         let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///         ready.set(listener.local_addr()?);
    ///         listener.accept().await?;
    ///         Ok(())
    ///     });
    ///     let (address, _server) = server.await.map_err(std::io::Error::other)?;
    ///     TcpStream::connect(address).await?; // it listens by now
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    #[track_caller]
    pub fn start<R, C, F>(&self, child: C) -> impl Future<Output = StartResult<'_, R, F, E>>
    where
        C: FnOnce(Ready<R>) -> F,
        F: Future<Output: TaskOutput<E, Value: Send + 'static> + Send> + Send + 'static,
    {
        let Spawner { core, runtime, .. } = &self.spawner;
        until_ready(core, runtime, child, Birth::here(Kind::Normal))
    }

    /// Spawns a child that is polled once right here, and becomes a task only if it has to wait.
    ///
    /// For children that are often ready at once: a cache hit, a buffered write. All else is as in
    /// [`spawn`](Self::spawn); a panic of that first poll, too, is the child's.
    ///
    /// # Panics
    ///
    /// If it has to wait, outside a tokio runtime.
    #[track_caller]
    pub fn spawn_eager<F>(&self, future: F) -> TaskHandle<'_, Value<F, E>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let (core, location) = (self.core(), Location::caller());
        let serial = match core.announce() {
            Ok(serial) => serial,
            Err(reason) => return self.refuse(SpawnError::new(future, reason)),
        };
        let is_observed = core.observer().is_some();
        if is_observed {
            let info = core.info(serial, None, location);
            tell(core.observer(), |o| o.spawned(&info));
        }
        let mut eager = Box::pin(Eager::Running { future });
        let mut output = None;
        let timed = pulse::is_on().then(|| pulse::begin(core, serial, location));
        let (polled, seat) = {
            let _span = trace::enter(core.span());
            crate::context::as_child(core, serial, || catch(|| eager.as_mut().first(&mut output)))
        };
        drop(timed);
        let why = match (polled, output) {
            (Ok(()), None) => None,
            (Ok(()), Some(output)) => Some(match output.into_result() {
                Ok(value) => {
                    // N4. The common end, as a member's: nobody has to know more than that it has one.
                    if seat.is_none() && !is_observed && core.word().read().is_calm() {
                        let settled = Settled::Completed(Kept::new(value, core));
                        eager.set(Eager::Ended { settled });
                        return TaskHandle::ended(eager, serial, None, core);
                    }
                    Cause::Returned(value)
                }
                Err(error) => Cause::Failed(Box::new(error)),
            }),
            (Err(panic), output) => {
                return self.threw(panic, output, (eager, seat, serial, location));
            }
        };
        self.go_on(why, (eager, seat, serial, location))
    }

    /// Ends a child whose first step threw.
    #[cold]
    #[track_caller]
    fn threw<F>(
        &self,
        panic: PanicPayload,
        output: Option<F::Output>,
        (eager, seat, serial, location): Polled<F, E>,
    ) -> TaskHandle<'_, Value<F, E>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let core = self.core();
        core.word().adopt(); // N4
        let mut member: Resumed<F, E> =
            Member::resumed(core.clone(), serial, seat, location, Some(eager));
        Pin::new(&mut member).displace_rest(output);
        self.hand_over(member, Some(Cause::Panicked(panic)), serial)
    }

    /// Makes a member of what was polled once, unless its end is the common one.
    #[track_caller]
    fn go_on<F>(
        &self,
        why: Option<Cause<Value<F, E>>>,
        (eager, seat, serial, location): Polled<F, E>,
    ) -> TaskHandle<'_, Value<F, E>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let core = self.core();
        core.word().adopt(); // N4
        let future = why.is_none().then_some(eager);
        let member: Resumed<F, E> = Member::resumed(core.clone(), serial, seat, location, future);
        self.hand_over(member, why, serial)
    }

    #[track_caller]
    fn hand_over<F>(
        &self,
        mut member: Resumed<F, E>,
        why: Option<Cause<Value<F, E>>>,
        serial: u64,
    ) -> TaskHandle<'_, Value<F, E>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let core = self.core();
        // Nobody has to be woken: what is not over is polled again as a task.
        let mut nobody = Context::from_waker(Waker::noop());
        let settled = match why {
            Some(why) => Pin::new(&mut member).settle(why, &nobody),
            // It was told to end in its first step: it ends where it would wait.
            None if core.is_forced(core.word().read(), serial) => {
                Pin::new(&mut member).poll(&mut nobody)
            }
            None => Poll::Pending,
        };
        if let Poll::Ready(settled) = settled {
            let kept = Box::pin(Eager::<F, _>::Ended { settled });
            return TaskHandle::ended(kept, serial, None, core);
        }
        Pin::new(&mut member).unpark();
        let join = crate::runtime::spawn(self.spawner.runtime.as_ref(), member);
        TaskHandle::spawned(join, serial, None, core)
    }
}

pub(super) type Value<F, E> = <<F as Future>::Output as TaskOutput<E>>::Value;

/// A child that was polled once: its box, its seat, its serial and its place.
type Polled<F, E> = (
    Pin<Box<Eager<F, Value<F, E>>>>,
    Option<Arc<Seat>>,
    u64,
    &'static Location<'static>,
);

type Resumed<F, E> = Member<Pin<Box<Eager<F, Value<F, E>>>>, E>;

pin_project! {
    /// The future of a child that is started eagerly, and its outcome if it ended at once.
    #[project = EagerProj]
    enum Eager<F, T> {
        Running { #[pin] future: F },
        Ended { settled: Settled<T> },
        Gone,
    }
}

impl<F: Future, T> Eager<F, T> {
    /// Polls it once, and drops the future if that was all.
    fn first(mut self: Pin<&mut Self>, output: &mut Option<F::Output>) {
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(ready) = self.as_mut().poll(&mut nobody) {
            *output = Some(ready);
            self.set(Self::Gone);
        }
    }
}

impl<F: Future, T> Future for Eager<F, T> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            EagerProj::Running { future } => future.poll(cx),
            EagerProj::Ended { .. } | EagerProj::Gone => Poll::Pending,
        }
    }
}

impl<F, T> Keeps<T> for Eager<F, T> {
    fn take(mut self: Pin<&mut Self>) -> Settled<T> {
        match self.as_mut().project() {
            EagerProj::Ended { settled } => std::mem::replace(settled, Settled::RuntimeGone),
            EagerProj::Running { .. } | EagerProj::Gone => Settled::RuntimeGone,
        }
    }

    fn look(&self) -> &Settled<T> {
        match self {
            Self::Ended { settled } => settled,
            Self::Running { .. } | Self::Gone => &Settled::RuntimeGone,
        }
    }
}

impl<F, E> Inline<F, E>
where
    F: Future<Output: TaskOutput<E, Value: Send + 'static>>,
    E: Send + 'static,
{
    fn poll_ready<R>(
        &mut self,
        signal: &Lock<Signal<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Begun<R, F, E>, StartError<E>>> {
        let Some(member) = &mut self.member else {
            return Poll::Ready(Err(StartError::NotReady));
        };
        let polled = Pin::new(&mut *member).poll_inline(cx, &mut self.relay);
        let waker = cx.waker().clone();
        let (said, old) = {
            let mut signal = signal.lock();
            let old = signal.waker.replace(waker);
            (std::mem::replace(&mut signal.state, Said::Nothing), old)
        };
        drop(old);
        let ended = match (polled, said) {
            (Poll::Pending, Said::Nothing) => return Poll::Pending,
            (Poll::Pending, Said::Ready(value)) => return Poll::Ready(Ok((value, None))),
            (Poll::Ready(Some(result)), Said::Ready(value)) => {
                // N3. It ends here and now: a task might be forced before its first step, and nobody would hear of the result.
                let why = match result.map(TaskOutput::into_result) {
                    Ok(Ok(value)) => Cause::Returned(value),
                    Ok(Err(error)) => Cause::Failed(Box::new(error)),
                    Err(panic) => Cause::Panicked(panic),
                };
                // If it has to wait for scopes that it dropped, it does so as a task.
                let settled =
                    match Pin::new(member).settle(why, &Context::from_waker(Waker::noop())) {
                        Poll::Ready(settled) => Some(settled),
                        Poll::Pending => None,
                    };
                return Poll::Ready(Ok((value, settled)));
            }
            (Poll::Pending, Said::Lost) => Some(None),
            (Poll::Ready(ended), _) => ended.map(Some),
        };
        let Some(mut member) = self.member.take() else {
            return Poll::Ready(Err(StartError::NotReady));
        };
        let is_overrun = member.is_overrun();
        let mut member = Pin::new(&mut member);
        // What the destructor of one that is not over throws is its panic, too (G20).
        let ended = match member.as_mut().drop_future() {
            Ok(()) => ended,
            Err(panic) => Some(Some(Err(panic))),
        };
        Poll::Ready(Err(match ended {
            None => StartError::Cancelled(member.withdraw(None, is_overrun)),
            Some(None) => {
                member.withdraw(None, is_overrun);
                StartError::NotReady
            }
            Some(Some(Err(panic))) => {
                member.withdraw(Some(Ended::Panicked), false);
                panic.resume()
            }
            // Nobody can take a value: what it throws when it goes is the child's, like all before it is ready.
            Some(Some(Ok(output))) => match catch(|| output.into_result().map(drop)) {
                Ok(Ok(())) => {
                    member.withdraw(Some(Ended::Completed), false);
                    StartError::NotReady
                }
                Ok(Err(error)) => {
                    member.withdraw(Some(Ended::Failed), false);
                    StartError::Failed(error)
                }
                Err(panic) => {
                    member.withdraw(Some(Ended::Panicked), false);
                    panic.resume()
                }
            },
        }))
    }
}
