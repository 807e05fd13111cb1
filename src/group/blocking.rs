//! Children that block a thread.
//!
//! | phase   | closure  | left when                                        | to        |
//! |---------|----------|--------------------------------------------------|-----------|
//! | queued  | there    | a thread of the pool takes it                    | running   |
//! |         |          | the child is signalled or forced, or the pool is gone | over |
//! | running | taken    | it returned or threw, and the child is there     | done      |
//! |         |          | the child is forced                              | adopted   |
//! | adopted | taken    | it returned or threw: its owner is settled with  | over      |
//! |         |          | a group around gave it up                        | given up  |
//! | done    | –        | the child took the result                        | over      |
//! | given up | taken   | it returned or threw: nobody waits, it is observed | over    |
//!
//! B1. Who takes the closure out, under the lock, decides whether it runs. B2. A call that runs on after its child was forced
//! counts as a scope that the child has dropped (see [`crate::state::owner`]): whoever adopts it does not end before it
//! has. B3. It runs, and is dropped, in the child's context, under `catch`. B4. Result, error and panic that nobody can take any
//! more are observed. B5. It is the signal of a cancel that ends the wait for a thread, as any wait for one's turn: the child ends itself. One that
//! is spawned in a scope around which the signal has been given already is what the grace is for: that signal says nothing to it.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context as TaskContext, Poll, Waker};

use tokio::runtime::Handle;

use crate::cancel::{Cancelled, Token};
use crate::context::{self, Context, Enter};
use crate::group::output::TaskOutput;
use crate::observe::{CancelReason, DisplacedWhat, TaskInfo, displace};
use crate::panic::{PanicPayload, catch};
use crate::state::Core;
use crate::state::owner::{GiveUp, Owner, Seat};
use crate::sync::{Arc, Lock, PlainArc};

/// The future of a child that blocks. It hands the closure to the pool when it is first polled.
pub(crate) struct Blocking<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static>
{
    state: State<F, R, E>,
    /// Of a child that is not forced with it.
    signal: Option<Cancelled>,
    /// Whether it was given before the child was there.
    is_after_signal: bool,
    runtime: Option<Handle>,
    location: &'static Location<'static>,
}

enum State<F, R, E> {
    New(F),
    Submitted(PlainArc<Call<F, R, E>>),
    Taken,
}

/// What the child and the thread share.
struct Call<F, R, E> {
    phase: Lock<Phase<F, R>>,
    core: Arc<Core>,
    seat: Option<Arc<Seat>>,
    token: Option<Token>,
    info: TaskInfo,
    error: PhantomData<fn() -> E>,
}

enum Phase<F, R> {
    Queued(F, Waker),
    Running(Waker),
    /// The child was forced: the owner waits for it.
    Adopted(Owner),
    Done(Result<R, PanicPayload>),
    GivenUp,
    Over,
}

// The closure is only moved, never pinned.
impl<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static> Unpin
    for Blocking<F, R, E>
{
}

impl<F, R, E> Blocking<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskOutput<E> + Send + 'static,
    E: Send + 'static,
{
    pub(crate) fn new(
        closure: F,
        core: &Core,
        runtime: Option<Handle>,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            state: State::New(closure),
            signal: None,
            is_after_signal: core.signalled_around().is_some(),
            runtime,
            location,
        }
    }

    fn submit(&mut self, closure: F, waker: Waker) -> Option<PlainArc<Call<F, R, E>>> {
        let (core, serial, seat) = context::place()?;
        let token = (!self.is_after_signal).then(crate::cancel::token);
        let signal = token.as_ref().filter(|token| token.may_come_first());
        self.signal = signal.map(Token::cancelled);
        let info = core.info(serial, core.name_of(serial), self.location);
        let call = PlainArc::new(Call {
            phase: Lock::new(Phase::Queued(closure, waker)),
            core,
            seat,
            token,
            info,
            error: PhantomData,
        });
        let job = Job(Some(call.clone()));
        crate::runtime::spawn_blocking(self.runtime.as_ref(), move || job.run());
        Some(call)
    }
}

impl<F, R, E> Future for Blocking<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskOutput<E> + Send + 'static,
    E: Send + 'static,
{
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<R> {
        let me = &mut *self;
        let call = match std::mem::replace(&mut me.state, State::Taken) {
            State::New(closure) => me.submit(closure, cx.waker().clone()),
            State::Submitted(call) => Some(call),
            State::Taken => None,
        };
        let Some(call) = call else {
            return Poll::Pending;
        };
        match call.poll(cx.waker()) {
            None => {
                let signal = me.signal.as_mut();
                if signal.is_some_and(|signal| Pin::new(signal).poll(cx).is_ready()) {
                    me.signal = None;
                    call.retract(); // B5
                }
                me.state = State::Submitted(call);
                Poll::Pending
            }
            Some(Ok(output)) => Poll::Ready(output),
            Some(Err(panic)) => panic.resume(), // into the member's `catch`, as the child's own
        }
    }
}

impl<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static> Drop
    for Blocking<F, R, E>
{
    fn drop(&mut self) {
        if let State::Submitted(call) = std::mem::replace(&mut self.state, State::Taken) {
            call.forced();
        }
    }
}

impl<F, R, E> Call<F, R, E> {
    /// Takes the result, or leaves a waker.
    fn poll(&self, waker: &Waker) -> Option<Result<R, PanicPayload>> {
        let new = waker.clone();
        let mut phase = self.phase.lock();
        match &mut *phase {
            Phase::Done(_) => match std::mem::replace(&mut *phase, Phase::Over) {
                Phase::Done(result) => Some(result),
                _ => None,
            },
            Phase::Queued(_, old) | Phase::Running(old) => {
                let old = std::mem::replace(old, new);
                drop(phase);
                drop(old);
                None
            }
            Phase::Adopted(_) | Phase::GivenUp | Phase::Over => None,
        }
    }
}

impl<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static> Call<F, R, E> {
    /// The child is signalled: it ends, unless a thread has taken the closure.
    fn retract(&self) {
        let old = {
            let mut phase = self.phase.lock();
            match &*phase {
                Phase::Queued(..) => std::mem::replace(&mut *phase, Phase::Over), // B1
                _ => return,
            }
        };
        context::quit();
        drop(old);
    }

    /// The child is dropped where it waits, in its context.
    fn forced(self: &PlainArc<Self>) {
        let old = {
            let mut phase = self.phase.lock();
            let next = match &*phase {
                // B2. No user code runs in here.
                Phase::Running(_) => context::keeper().map_or(Phase::GivenUp, Phase::Adopted),
                _ => Phase::Over, // B1
            };
            std::mem::replace(&mut *phase, next)
        };
        match old {
            Phase::Running(waker) => {
                drop(waker);
                let me: Weak<dyn GiveUp> = PlainArc::downgrade(self) as _;
                self.core.watch(self.info.id.serial, &me);
            }
            Phase::Done(result) => self.displace(result),
            other => drop(other),
        }
    }

    fn run(&self)
    where
        F: FnOnce() -> R,
    {
        if self.token.as_ref().is_some_and(Token::is_cancelled) {
            return; // B5: the child takes it out.
        }
        let closure = {
            let mut phase = self.phase.lock();
            match std::mem::replace(&mut *phase, Phase::Over) {
                Phase::Queued(closure, waker) => {
                    *phase = Phase::Running(waker);
                    closure
                }
                _ => return,
            }
        };
        let mut context = Some(Context {
            core: self.core.clone(),
            serial: self.info.id.serial,
            seat: self.seat.clone(),
        });
        let result = {
            let _inside = Enter::new(&mut context);
            catch(closure) // B3
        };
        let (old, late) = {
            let mut phase = self.phase.lock();
            match &*phase {
                Phase::Running(_) => (std::mem::replace(&mut *phase, Phase::Done(result)), None),
                _ => (std::mem::replace(&mut *phase, Phase::Over), Some(result)),
            }
        };
        if let Some(result) = late {
            self.displace(result);
        }
        match old {
            Phase::Running(waker) => waker.wake(),
            Phase::Adopted(owner) => {
                self.core.unwatch(self.info.id.serial);
                owner.settle();
            }
            _ => {}
        }
    }

    /// B4.
    fn displace(&self, result: Result<R, PanicPayload>) {
        let what = match result.map(|output| catch(|| output.into_result().err())) {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(error))) => DisplacedWhat::Error(Box::new(error)),
            Ok(Err(panic)) | Err(panic) => DisplacedWhat::Panic(panic),
        };
        displace(self.core.observer(), Some(self.info.clone()), what);
    }
}

impl<F: Send, R: Send, E> GiveUp for Call<F, R, E> {
    fn give_up(&self) -> Option<(TaskInfo, CancelReason, Owner)> {
        let old = {
            let mut phase = self.phase.lock();
            match &*phase {
                Phase::Adopted(_) => std::mem::replace(&mut *phase, Phase::GivenUp),
                _ => return None,
            }
        };
        match old {
            Phase::Adopted(owner) => {
                self.core.unwatch(self.info.id.serial); // the others that might have given it up
                let is_marked = self.seat.as_ref().is_some_and(|seat| seat.is_marked());
                let why = self.core.why(self.info.id.serial, is_marked);
                Some((self.info.clone(), self.core.reason_why(why), owner))
            }
            _ => None,
        }
    }

    fn group(&self) -> &Arc<Core> {
        &self.core
    }
}

/// What the pool runs. Dropped without that, the pool is gone.
struct Job<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static>(
    Option<PlainArc<Call<F, R, E>>>,
);

impl<F, R, E> Job<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: TaskOutput<E> + Send + 'static,
    E: Send + 'static,
{
    fn run(mut self) {
        if let Some(call) = self.0.take() {
            call.run();
        }
    }
}

impl<F: Send + 'static, R: TaskOutput<E> + Send + 'static, E: Send + 'static> Drop
    for Job<F, R, E>
{
    fn drop(&mut self) {
        let Some(call) = &self.0 else { return };
        let is_lost = matches!(*call.phase.lock(), Phase::Queued(..));
        if is_lost {
            call.core.cancel_now(CancelReason::RuntimeGone);
        }
    }
}
