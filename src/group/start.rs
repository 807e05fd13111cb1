//! Children that say when they are ready, and children that are started in the spawner's turn.
//!
//! N1. Until it is ready, a child is polled where its spawner waits, in a context of its own; it is counted in all the while.
//! N2. What ends it before that comes out there, and the group hears nothing of it. N3. Once ready, it becomes a task, and is a
//! child like all others.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use crate::context::Relay;
use crate::group::TaskGroup;
use crate::group::error::StartError;
use crate::group::handle::TaskHandle;
use crate::group::member::Member;
use crate::group::output::TaskOutput;
use crate::group::spawn::{self, Birth};
use crate::observe::{Ended, wake};
use crate::panic::{PanicPayload, catch};
use crate::state::word::Kind;
use crate::sync::{Arc, Lock};

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

pin_project! {
    /// A child's future, which may have ended before it became a task.
    #[project = StartedProj]
    pub(crate) enum Started<F: Future> {
        Running { #[pin] future: F },
        Ended { result: Option<Result<F::Output, PanicPayload>> },
    }
}

impl<F: Future> Future for Started<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            StartedProj::Running { future } => future.poll(cx),
            StartedProj::Ended { result } => match result.take() {
                Some(Ok(output)) => Poll::Ready(output),
                Some(Err(panic)) => panic.resume(), // into the member's `catch`, as the child's own
                None => Poll::Pending,
            },
        }
    }
}

type StartResult<'g, R, O, E> =
    Result<(R, TaskHandle<'g, <O as TaskOutput<E>>::Value>), StartError<E>>;

type Starting<F, E> = Member<Started<Pin<Box<F>>>, E>;

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
            Pin::new(member).withdraw(None);
        }
    }
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
    pub fn start<R, C, F>(&self, child: C) -> impl Future<Output = StartResult<'_, R, F::Output, E>>
    where
        C: FnOnce(Ready<R>) -> F,
        F: Future<Output: TaskOutput<E, Value: Send + 'static> + Send> + Send + 'static,
    {
        let birth = Birth::here(Kind::Normal);
        async move {
            let (ready, signal) = Ready::pair();
            let future = Started::Running {
                future: Box::pin(child(ready)),
            };
            let core = self.core();
            let (member, serial) = match spawn::admit::<_, E, _>(core, future, &birth) {
                Ok(admitted) => admitted,
                Err(refused) => return Err(StartError::Cancelled(spawn::discard(core, refused))),
            };
            let mut inline = Inline::<F, E> {
                member: Some(member),
                relay: Relay::default(),
            };
            let value = std::future::poll_fn(|cx| inline.poll_ready(&signal, cx)).await?;
            let Some(mut member) = inline.member.take() else {
                return Err(StartError::NotReady);
            };
            Pin::new(&mut member).unpark();
            let join = crate::runtime::spawn(self.spawner.runtime.as_ref(), member);
            Ok((value, TaskHandle::spawned(join, serial, None, core)))
        }
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
    pub fn spawn_eager<F>(&self, future: F) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let core = self.core();
        let admitted = spawn::admit::<_, E, _>(core, Box::pin(future), &Birth::here(Kind::Normal));
        let (mut member, serial) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse(refused),
        };
        // Nobody has to be woken: if it is pending, it is polled again as a task.
        let mut nobody = Context::from_waker(Waker::noop());
        match Pin::new(&mut member).poll(&mut nobody) {
            Poll::Ready(settled) => TaskHandle::ended(settled, serial, core),
            Poll::Pending => {
                Pin::new(&mut member).unpark();
                let join = crate::runtime::spawn(self.spawner.runtime.as_ref(), member);
                TaskHandle::spawned(join, serial, None, core)
            }
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
    ) -> Poll<Result<R, StartError<E>>> {
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
            (Poll::Pending, Said::Ready(value)) => return Poll::Ready(Ok(value)),
            (Poll::Ready(Some(result)), Said::Ready(value)) => {
                let result = Some(result);
                Pin::new(member).replace(Started::Ended { result }); // N3
                return Poll::Ready(Ok(value));
            }
            (Poll::Pending, Said::Lost) => Some(None),
            (Poll::Ready(ended), _) => ended.map(Some),
        };
        let Some(mut member) = self.member.take() else {
            return Poll::Ready(Err(StartError::NotReady));
        };
        let mut member = Pin::new(&mut member);
        // What its destructor throws is its panic, too (G20); the first one goes on, all else is observed.
        let ended = match ended {
            Some(Some(Err(panic))) => {
                member.as_mut().displace_rest(None);
                Some(Some(Err(panic)))
            }
            ended => match member.as_mut().drop_future() {
                Ok(()) => ended,
                Err(panic) => {
                    member
                        .as_mut()
                        .displace_rest(ended.flatten().and_then(Result::ok));
                    Some(Some(Err(panic)))
                }
            },
        };
        Poll::Ready(Err(match ended {
            None => StartError::Cancelled(member.withdraw(None)),
            Some(None) => {
                member.withdraw(None);
                StartError::NotReady
            }
            Some(Some(Err(panic))) => {
                member.withdraw(Some(Ended::Panicked));
                panic.resume()
            }
            // Nobody can take a value: what it throws when it goes is the child's, like all before it is ready.
            Some(Some(Ok(output))) => match catch(|| output.into_result().map(drop)) {
                Ok(Ok(())) => {
                    member.withdraw(Some(Ended::Completed));
                    StartError::NotReady
                }
                Ok(Err(error)) => {
                    member.withdraw(Some(Ended::Failed));
                    StartError::Failed(error)
                }
                Err(panic) => {
                    member.withdraw(Some(Ended::Panicked));
                    panic.resume()
                }
            },
        }))
    }
}
