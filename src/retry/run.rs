//! The closure form: a run and the form that lends: runs that have not begun.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::time::Duration;

use super::Retry;
use super::attempts::{Attempt, AttemptTimeout, Engine, Options, Pause};
use super::budget::RetryBudget;
use super::error::RetryError;
use super::event::{Hook, NoHook, OnEvent, RetryEvent};
use super::future::{Apart, Phase, Reporting, RetryFuture, Stage};
use super::verdict::{AnyError, Classify, Judge, Until, Verdict, When};
use super::waiting::{Waiting, poll_attempt};
use crate::cancel::Token;
use crate::time::Deadline;

/// The closure form of a run, not begun yet: see [`Retry::retry`].
#[must_use = "a run does nothing unless awaited"]
pub struct Run<'p, Op, J = AnyError, H = NoHook> {
    policy: Retry,
    op: Op,
    judge: J,
    hook: H,
    options: Option<Options<'p>>,
}

/// The form of a run that lends something to its operation, not begun yet: see [`Retry::retry_with`].
#[must_use = "a run does nothing until `run().await`"]
pub struct RunWith<'p, 'c, C: ?Sized, Op, T, E, J = AnyError, H = NoHook> {
    policy: Retry,
    context: &'c mut C,
    op: Op,
    judge: J,
    hook: H,
    options: Option<Options<'p>>,
    yields: PhantomData<fn() -> Result<T, E>>,
}

impl Retry {
    /// Calls `op` until it succeeds, or this policy or one of the run's options says to give up.
    ///
    /// `op` is called when an attempt begins, not before, and gets an [`Attempt`]: which one it is, and when it has to be
    /// done. What it returns is dropped before the pause that follows. Whatever is not said otherwise, every error is worth
    /// another attempt.
    ///
    /// The run inherits the [deadline](Deadline::current) of the group it is awaited in, and its end, wherever it goes on: once the task is asked
    /// to end, no pause goes on and no attempt begins, while one that runs may finish in the grace.
    ///
    /// *Comparison.* The future is `Send` if its parts are, also when `op` borrows: it can be spawned. It allocates nothing, but to be
    /// woken from a pause in a group that signals before it drops, once a run. Where
    /// `op` has to change what it borrows, use [`retry_with`](Self::retry_with) or [`tries`](Self::tries).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, and no other is made. A token of the budget goes back in a pause; it is spent once
    /// the attempt that it pays for has begun.
    ///
    /// # Errors
    ///
    /// [`RetryError`]: the reason, the attempts, the time, and the last error.
    ///
    /// # Panics
    ///
    /// With what `op` or a closure of an option panics with; so with what an attempt throws when it is dropped, which costs the error
    /// that it had returned. Where it has to wait for time outside a tokio runtime, or in one whose
    /// time driver is not enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), ringfence::RetryError<std::io::Error>> {
    /// use std::io;
    /// use std::time::Duration;
    /// use ringfence::Retry;
    ///
    /// const RETRY: Retry = Retry::DEFAULT;
    /// # async fn fetch(url: &str, attempt: u32) -> io::Result<String> {
    /// #     if attempt < 3 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(url.to_owned()) }
    /// # }
    /// let url = String::from("http://localhost/");
    /// let body = RETRY
    ///     .retry(|attempt| fetch(&url, attempt.number))
    ///     .when(|error| error.kind() == io::ErrorKind::ConnectionReset)
    ///     .attempt_timeout(Duration::from_millis(500))
    ///     .await?;
    /// assert_eq!(body, url);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry<'p, Op, Fut, T, E>(&self, op: Op) -> Run<'p, Op>
    where
        Op: FnMut(Attempt) -> Fut,
        Fut: IntoFuture<Output = Result<T, E>>,
    {
        Run {
            policy: *self,
            op,
            judge: AnyError,
            hook: NoHook,
            options: None,
        }
    }

    /// Calls `op` with `context` until it succeeds: as [`retry`](Self::retry), for an operation that changes something.
    ///
    /// A closure cannot lend what it captured to the future that it returns, so what is to be changed is passed in. Ends with
    /// [`run`](RunWith::run), since the future of an async closure has no name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), ringfence::RetryError<std::io::Error>> {
    /// use ringfence::Retry;
    ///
    /// struct Connection { sent: u32 }
    /// impl Connection {
    ///     async fn send(&mut self) -> std::io::Result<u32> {
    ///         self.sent += 1;
    ///         if self.sent < 3 { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(self.sent) }
    ///     }
    /// }
    ///
    /// let mut connection = Connection { sent: 0 };
    /// let sent = Retry::DEFAULT
    ///     .retry_with(&mut connection, async |connection, _| connection.send().await)
    ///     .run()
    ///     .await?;
    /// assert_eq!(sent, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_with<'p, 'c, C, Op, T, E>(
        &self,
        context: &'c mut C,
        op: Op,
    ) -> RunWith<'p, 'c, C, Op, T, E>
    where
        C: ?Sized,
        Op: AsyncFnMut(&mut C, Attempt) -> Result<T, E>,
    {
        RunWith {
            policy: *self,
            context,
            op,
            judge: AnyError,
            hook: NoHook,
            options: None,
            yields: PhantomData,
        }
    }
}

macro_rules! options {
    () => {
        /// Gives up when another attempt could not begin before this; an attempt that runs then is dropped.
        ///
        /// The deadlines of the groups around hold in any case; the earliest counts.
        pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
            let told = self.told();
            told.deadline = told.deadline.min(deadline.into());
            self
        }

        /// Drops an attempt that takes longer than this, and goes on as after an error that is worth another attempt.
        ///
        /// A scope in it is dropped with it: its tasks are cancelled, and the task around waits for them, not the next attempt.
        pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
            self.told().attempt_timeout = AttemptTimeout::Fixed(timeout);
            self
        }

        /// As [`attempt_timeout`](Self::attempt_timeout), with a limit that depends on the number of the attempt.
        pub fn attempt_timeout_by(mut self, timeout: fn(u32) -> Duration) -> Self {
            self.told().attempt_timeout = AttemptTimeout::By(timeout);
            self
        }

        /// Takes an attempt that timed out for this; [`Verdict::Retry`] unless given.
        pub fn after_timeout(mut self, verdict: Verdict) -> Self {
            self.told().after_timeout = verdict;
            self
        }

        /// Takes a token of this budget before each attempt but the first, and gives up when there is none.
        pub fn budget(mut self, budget: &'p RetryBudget) -> Self {
            self.told().budget = Some(budget);
            self
        }

        /// Heeds this token instead of that of the task the run is in: once it is cancelled, no pause goes on and no attempt
        /// begins, while one that runs goes on to its end. With `None`, no token: for what has to be said within the grace.
        /// Deadlines around hold all the same; what has to be said after one goes into a [`shield`](crate::shield).
        pub fn cancel_on(mut self, token: impl Into<Option<Token>>) -> Self {
            let token: Option<Token> = token.into();
            self.told().listen = token.into();
            self
        }

        /// Draws the delays of a [seeded](Retry::seed) policy from this stream; 0 unless given.
        ///
        /// Runs that go on at the same time take a number each, and are spread and yet the same in every replay.
        pub fn stream(mut self, stream: u64) -> Self {
            self.told().stream = stream;
            self
        }

        /// Keeps as many errors before the last for [`RetryError::earlier`]; none unless given.
        ///
        /// Errors that are kept are allocated.
        pub fn history(mut self, errors: usize) -> Self {
            self.told().history = errors;
            self
        }
    };
}
pub(super) use options;

impl<'p, Op, J, H> Run<'p, Op, J, H> {
    options!();

    fn told(&mut self) -> &mut Options<'p> {
        self.options.get_or_insert_with(Options::new)
    }

    fn judged<K>(self, judge: K) -> Run<'p, Op, K, H> {
        Run {
            policy: self.policy,
            op: self.op,
            judge,
            hook: self.hook,
            options: self.options,
        }
    }
}

impl<'p, Op, Fut, T, E, H> Run<'p, Op, AnyError, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
{
    /// Tries again after the errors for which this is true; after others the run gives up.
    pub fn when<F: FnMut(&E) -> bool>(self, is_worth_it: F) -> Run<'p, Op, When<F>, H> {
        self.judged(When(is_worth_it))
    }

    /// Takes a value for which this is true; tries again after others, as after errors.
    pub fn until<F: FnMut(&T) -> bool>(self, is_good: F) -> Run<'p, Op, Until<F>, H> {
        self.judged(Until(is_good))
    }

    /// Decides about every outcome, once each: value or error, and with a delay that the server asks for.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use ringfence::{Retry, Verdict};
    ///
    /// # async fn get() -> Result<(u16, Option<Duration>), std::io::Error> { Ok((503, None)) }
    /// let gave_up = Retry::DEFAULT
    ///     .retry(|_| get())
    ///     .classify(|outcome| match outcome {
    ///         Ok((503, Some(delay))) => Verdict::RetryAfter(*delay),
    ///         Ok((500.., _)) => Verdict::Retry,
    ///         Ok(_) => Verdict::Done,
    ///         Err(error) => (error.kind() == std::io::ErrorKind::ConnectionReset).into(),
    ///     })
    ///     .await
    ///     .unwrap_err();
    /// assert!(matches!(gave_up.last(), Some(Ok((503, None)))));
    /// # }
    /// ```
    pub fn classify<F>(self, classify: F) -> Run<'p, Op, Classify<F>, H>
    where
        F: FnMut(&Result<T, E>) -> Verdict,
    {
        self.judged(Classify(classify))
    }
}

impl<'p, Op, Fut, T, E, J> Run<'p, Op, J, NoHook>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
{
    /// Tells this closure what happens: each pause before it begins, and that the run gave up.
    ///
    /// It need not be `Send` or `'static`, and may change what it captures.
    pub fn on_event<F>(self, tell: F) -> Run<'p, Op, J, OnEvent<F>>
    where
        F: FnMut(&RetryEvent<'_, E, J::Kept>),
    {
        Run {
            policy: self.policy,
            op: self.op,
            judge: self.judge,
            hook: OnEvent(tell),
            options: self.options,
        }
    }
}

impl<'p, Op, Fut, T, E, J, H> Run<'p, Op, J, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    /// Runs, and says how it went, also when it succeeded.
    ///
    /// # Cancel safety
    ///
    /// As [`Retry::retry`].
    pub fn report(self) -> Reporting<'p, Op, Fut::IntoFuture, J, H, E, J::Kept> {
        Reporting {
            run: self.into_future(),
        }
    }
}

impl<'p, Op, Fut, T, E, J, H> IntoFuture for Run<'p, Op, J, H>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    type Output = Result<T, RetryError<E, J::Kept>>;
    type IntoFuture = RetryFuture<'p, Op, Fut::IntoFuture, J, H, E, J::Kept>;

    #[inline(always)]
    fn into_future(self) -> Self::IntoFuture {
        let (phase, stage) = match self.options {
            Some(options) => (Phase::Begin, Some(Apart::new(Stage::Told { options }))),
            None => (Phase::Fresh, None),
        };
        RetryFuture {
            policy: self.policy,
            op: self.op,
            judge: self.judge,
            hook: self.hook,
            attempts: 0,
            phase,
            attempt: None,
            stage,
        }
    }
}

impl<Op, J, H> fmt::Debug for Run<'_, Op, J, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<'p, 'c, C: ?Sized, Op, T, E, J, H> RunWith<'p, 'c, C, Op, T, E, J, H> {
    options!();

    fn told(&mut self) -> &mut Options<'p> {
        self.options.get_or_insert_with(Options::new)
    }

    fn judged<K>(self, judge: K) -> RunWith<'p, 'c, C, Op, T, E, K, H> {
        RunWith {
            policy: self.policy,
            context: self.context,
            op: self.op,
            judge,
            hook: self.hook,
            options: self.options,
            yields: PhantomData,
        }
    }
}

impl<'p, 'c, C: ?Sized, Op, T, E, H> RunWith<'p, 'c, C, Op, T, E, AnyError, H> {
    /// As [`Run::when`].
    pub fn when<F>(self, is_worth_it: F) -> RunWith<'p, 'c, C, Op, T, E, When<F>, H>
    where
        F: FnMut(&E) -> bool,
    {
        self.judged(When(is_worth_it))
    }

    /// As [`Run::until`].
    pub fn until<F>(self, is_good: F) -> RunWith<'p, 'c, C, Op, T, E, Until<F>, H>
    where
        F: FnMut(&T) -> bool,
    {
        self.judged(Until(is_good))
    }

    /// As [`Run::classify`].
    pub fn classify<F>(self, classify: F) -> RunWith<'p, 'c, C, Op, T, E, Classify<F>, H>
    where
        F: FnMut(&Result<T, E>) -> Verdict,
    {
        self.judged(Classify(classify))
    }
}

impl<'p, 'c, C, Op, T, E, J> RunWith<'p, 'c, C, Op, T, E, J, NoHook>
where
    C: ?Sized,
    J: Judge<T, E>,
{
    /// As [`Run::on_event`].
    pub fn on_event<F>(self, tell: F) -> RunWith<'p, 'c, C, Op, T, E, J, OnEvent<F>>
    where
        F: FnMut(&RetryEvent<'_, E, J::Kept>),
    {
        RunWith {
            policy: self.policy,
            context: self.context,
            op: self.op,
            judge: self.judge,
            hook: OnEvent(tell),
            options: self.options,
            yields: PhantomData,
        }
    }
}

impl<C, Op, T, E, J, H> RunWith<'_, '_, C, Op, T, E, J, H>
where
    C: ?Sized,
    Op: AsyncFnMut(&mut C, Attempt) -> Result<T, E>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    /// Runs.
    ///
    /// # Cancel safety
    ///
    /// As [`Retry::retry`].
    ///
    /// # Errors
    ///
    /// As [`Retry::retry`].
    pub async fn run(self) -> Result<T, RetryError<E, J::Kept>> {
        let Self {
            policy,
            context,
            mut op,
            mut judge,
            mut hook,
            ..
        } = self;
        let mut engine = Engine::after(0, self.options.unwrap_or_else(Options::new));
        engine.look_around();
        let mut waiting = std::pin::pin!(None);
        loop {
            let attempt = match engine.begin() {
                Ok(attempt) => attempt,
                Err(reason) => return Err(engine.give_up(&mut hook, reason)),
            };
            let ended = {
                let mut future = std::pin::pin!(op(&mut *context, attempt));
                std::future::poll_fn(|cx| {
                    poll_attempt(future.as_mut(), &mut engine, waiting.as_mut(), cx)
                })
                .await
            };
            engine.look_around();
            let pause = match engine.take(&policy, (&mut judge, &mut hook), ended)? {
                ControlFlow::Break(value) => return Ok(value),
                ControlFlow::Continue(pause) => pause,
            };
            if pause != Pause::Skip {
                let mut waiting = Waiting::made(waiting.as_mut());
                waiting.as_mut().pause(pause);
                let rested = std::future::poll_fn(|cx| {
                    engine.look_around();
                    waiting.as_mut().poll_pause(&mut engine, cx)
                });
                if let Err(reason) = rested.await {
                    return Err(engine.give_up(&mut hook, reason));
                }
            }
        }
    }
}

impl<C: ?Sized, Op, T, E, J, H> fmt::Debug for RunWith<'_, '_, C, Op, T, E, J, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunWith")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
