//! `fan_out`: many items, at most so many at once.
//!
//! F1. At most `limit` items run; at most as many more are taken from the input; memory is that of the limit and of the results
//! asked for. F2. Workers are children of one group: all that holds of a scope holds here. F3. Nothing here keeps an item's
//! future that only the caller could poll, but the local form, which gives no stream. F4. `next` of the input, and the
//! functions of key and weight, run under the intake's own lock, which nothing else takes; all other user code under none.

mod crew;
mod intake;
mod lanes;
pub(crate) mod local;
mod ordered;
mod outlet;
pub(crate) mod output;
mod pace;
pub(crate) mod progress;
pub(crate) mod results;
pub(crate) mod source;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::panic::Location;
use std::pin::pin;

use crate::fan_out::crew::Crew;
use crate::fan_out::intake::{Intake, Steps};
use crate::fan_out::local::LocalFanOut;
use crate::fan_out::outlet::{
    AsFinished, Channel, First, InOrder, Nowhere, Outcomes, Outlet, Values, with_room,
};
use crate::fan_out::output::ItemOutput;
use crate::fan_out::progress::Progress;
use crate::fan_out::results::Results;
use crate::fan_out::source::{IntoSource, Source};
use crate::fan_out::worker::{Door, Shared, Worker, fail};
use crate::group::TaskGroup;
use crate::group::error::GroupError;
use crate::group::options::Scope;
use crate::limit::concurrency::Limiter;
use crate::limit::gate::Signal;
use crate::limit::rate::RateLimiter;
use crate::sync::{AtomicBool, Lock, PlainArc};

/// How many items run at once where nobody says.
const LIMIT: usize = 16;

/// Runs a function on every item of `input`, at most so many at once, on all threads of the runtime.
///
/// The input is an iterable, or with the feature `stream` a stream. Say how many at once with [`limit`](FanOut::limit), and end
/// with what becomes of the results:
///
/// | results | spawned | [local](FanOut::local) |
/// |---|---|---|
/// | none | [`for_each`](FanOut::for_each) | [`for_each`](LocalFanOut::for_each) |
/// | all, in input order | [`collect`](FanOut::collect) | [`collect`](LocalFanOut::collect) |
/// | all, as they finish | [`collect_unordered`](FanOut::collect_unordered) | [`collect_unordered`](LocalFanOut::collect_unordered) |
/// | made into one, as they finish | [`fold`](FanOut::fold) | [`fold`](LocalFanOut::fold) |
/// | the first success | [`first_success`](FanOut::first_success) | [`first_success`](LocalFanOut::first_success) |
/// | all, failures too | [`outcomes`](FanOut::outcomes) | [`outcomes`](LocalFanOut::outcomes) |
/// | one by one, while the work goes on | [`results`](FanOut::results), [`results_unordered`](FanOut::results_unordered) | |
///
/// The items run in up to `limit` worker tasks, children of one group: the first failure cancels the others, waits until they
/// are gone, and comes back; a panic, of the function or of the input, goes on in the caller after that; dropped, the fan-out
/// cancels its items at once. Memory is that of the limit and of the results asked for, however long the input is. It takes
/// nothing from the input that it has no room for.
///
/// The function returns a future of `()` or of a `Result`. It and its future are `'static`, as all that is spawned: move
/// clones in, or use the [local](FanOut::local) form, which borrows. On the signal of a cancel (with a
/// [grace](Scope::grace)) nothing more is taken, what runs may end, and the fan-out says that it was cancelled.
///
/// *Comparison.* `buffer_unordered` runs its futures only while its stream is polled: a slow loop body stalls them, and one that
/// waits for what they hold is stuck for ever; and they share one core. Here the work never depends on who takes the
/// results. `Semaphore` and `JoinSet` make a task for each item at once, all of them in memory.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # async fn fetch(url: &'static str) -> std::io::Result<usize> { Ok(url.len()) }
/// use ringfence::fan_out;
///
/// let urls = ["https://a.example", "https://bb.example"];
/// let sizes: Vec<usize> = fan_out(urls).limit(64).collect(|url| fetch(url)).await?;
/// assert_eq!(sizes, [17, 18]); // in the order of the input
/// # Ok(())
/// # }
/// ```
#[must_use = "a fan-out does nothing until it is told what becomes of the results"]
pub fn fan_out<I, M>(input: I) -> FanOut<I::Source>
where
    I: IntoSource<M>,
{
    FanOut {
        source: input.into_source(),
        limit: LIMIT,
        buffer: None,
        rate: None,
        limiter: None,
        weight: None,
        key: None,
        progress: None,
        scope: Scope::new(),
    }
}

/// A fan-out that is being told how to run: see [`fan_out`].
///
/// # Default
///
/// 16 items at once, no rate, no shared limiter, no keys, no progress, a [`Scope`] without options.
#[must_use = "a fan-out does nothing until it is told what becomes of the results"]
pub struct FanOut<S: Source> {
    source: S,
    limit: usize,
    buffer: Option<usize>,
    rate: Option<RateLimiter>,
    limiter: Option<Limiter>,
    weight: Option<intake::WeightOf<S::Item>>,
    key: Option<intake::KeyOf<S::Item>>,
    progress: Option<Progress>,
    scope: Scope,
}

/// Options.
impl<S: Source> FanOut<S> {
    /// Runs at most `limit` items at once; [`usize::MAX`] is no limit. The default is 16.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "ringfence: the limit of a fan-out must be at least 1, not 0"
        );
        self.limit = limit;
        self
    }

    /// Has each item wait for `rate` before it starts. The limiter may be shared. An item that waits for it holds no permit of a
    /// [limiter](Self::limiter).
    pub fn rate(mut self, rate: &RateLimiter) -> Self {
        self.rate = Some(rate.clone());
        self
    }

    /// Has each item hold a permit of `limiter` while it runs, besides the limit of its own: for a limit that several
    /// fan-outs share, that is changed while it runs, or that adapts itself. An [adaptive](Limiter::adaptive) one learns
    /// that an item went well, or was too much, from whether it succeeds or fails.
    ///
    /// The permit goes back when the item ends, whoever takes its result and when.
    pub fn limiter(mut self, limiter: &Limiter) -> Self {
        self.limiter = Some(limiter.clone());
        self.weight = None;
        self
    }

    /// As [`limiter`](Self::limiter), with as many permits for an item as `weight` says. One that weighs more than the
    /// limit runs alone. `weight` runs under the lock of the input, as its `next` does.
    pub fn weighted(
        mut self,
        limiter: &Limiter,
        weight: impl FnMut(&S::Item) -> u32 + Send + 'static,
    ) -> Self {
        self.limiter = Some(limiter.clone());
        self.weight = Some(Box::new(weight));
        self
    }

    /// Runs items of the same key one after the other, in the order of the input; those of other keys run meanwhile.
    ///
    /// Items whose key is busy wait aside, as many as the limit allows to run; then nothing is taken from the input until one
    /// of them can run. Keys are told apart by a 64 bit hash; should two ever have the same, they take turns, too. `key` runs
    /// under the lock of the input, as its `next` does.
    pub fn key<K: Hash>(self, mut key: impl FnMut(&S::Item) -> K + Send + 'static) -> Self {
        self.key_if(move |item| Some(key(item)))
    }

    /// As [`key`](Self::key), where items without a key wait for nobody.
    pub fn key_if<K: Hash>(
        mut self,
        mut key: impl FnMut(&S::Item) -> Option<K> + Send + 'static,
    ) -> Self {
        self.key = Some(Box::new(move |item, hasher| {
            key(item).map(|key| hasher.hash_one(key))
        }));
        self
    }

    /// Shows in `progress` how far it is.
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.progress = Some(progress.clone());
        self
    }

    /// Keeps at most `buffer` results ready, besides those of the items that run, where results are taken one by one: in
    /// [`results`](Self::results), [`results_unordered`](Self::results_unordered) and [`fold`](Self::fold). Then nothing more
    /// is started until one is taken. The default is the limit.
    pub fn buffer(mut self, buffer: usize) -> Self {
        self.buffer = Some(buffer);
        self
    }

    /// Runs its group with the options of `scope`: a name, a deadline, a grace, an observer, panics as errors.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Runs the items in the caller's task instead of tasks of their own: they may borrow, and need not be `Send`.
    #[track_caller]
    pub fn local(self) -> LocalFanOut<S> {
        LocalFanOut::new(self)
    }

    /// Makes the steps between the input and the function, if there are any.
    fn steps(&mut self) -> Option<Box<Steps<S::Item>>> {
        let has_any = self.rate.is_some() || self.limiter.is_some() || self.key.is_some();
        has_any.then(|| {
            let mut steps = Box::new(Steps::new(self.limit));
            steps.rate = self.rate.take().map(|rate| rate.meter().clone());
            steps.limiter = self.limiter.take().map(|limiter| limiter.core().clone());
            steps.weight = self.weight.take();
            steps.key = self.key.take();
            steps
        })
    }

    fn bound(&self) -> usize {
        self.limit.saturating_add(self.buffer.unwrap_or(self.limit))
    }
}

/// What becomes of the results.
impl<S> FanOut<S>
where
    S: Source<Item: Send> + Send + 'static,
{
    /// Runs `function` on each item, for its effects.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it cancels its items at once, and whatever encloses it does not end until they are gone.
    /// Items that were not started are dropped with the input.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the first failure, whose task is named after the place of its item, `item 17`; or if it was
    /// cancelled.
    ///
    /// # Panics
    ///
    /// With the first panic of the function or of the input, after all items are gone. Outside a tokio runtime.
    #[track_caller]
    pub fn for_each<F, Fut, E>(self, function: F) -> impl Future<Output = Result<(), GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = (), Error = E>> + Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |_| Nowhere,
            |shared| async move { shared.closed().await },
        )
    }

    /// Runs `function` on each item, and collects the values in the order of the input.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each); the values so far are dropped.
    ///
    /// # Errors
    ///
    /// As [`for_each`](Self::for_each).
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each).
    #[track_caller]
    pub fn collect<F, Fut, V, E>(
        self,
        function: F,
    ) -> impl Future<Output = Result<Vec<V>, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| Values(InOrder::new(hint)),
            |shared| async move {
                shared.closed().await;
                shared.outlet.0.take()
            },
        )
    }

    /// Runs `function` on each item, and collects the values as they come.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each); the values so far are dropped.
    ///
    /// # Errors
    ///
    /// As [`for_each`](Self::for_each).
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each).
    #[track_caller]
    pub fn collect_unordered<F, Fut, V, E>(
        self,
        function: F,
    ) -> impl Future<Output = Result<Vec<V>, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| AsFinished(Lock::new(with_room(hint))),
            |shared| async move {
                shared.closed().await;
                std::mem::take(&mut *shared.outlet.0.lock())
            },
        )
    }

    /// Runs `function` on each item, and makes the values into one with `combine`, as they come.
    ///
    /// `combine` runs in the caller's task, one value at a time, while the items go on in theirs; if it falls behind by more
    /// than the [buffer](Self::buffer), they wait for it.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each); what was made so far is dropped.
    ///
    /// # Errors
    ///
    /// As [`for_each`](Self::for_each).
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each), and with a panic of `combine`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ringfence::GroupError<std::convert::Infallible>> {
    /// use std::convert::Infallible;
    /// use ringfence::fan_out;
    ///
    /// let square = |n: u64| async move { Ok::<_, Infallible>(n * n) };
    /// assert_eq!(fan_out(1..=10).fold(0, square, |sum, n| sum + n).await?, 385);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn fold<F, Fut, V, E, A, C>(
        self,
        init: A,
        function: F,
        mut combine: C,
    ) -> impl Future<Output = Result<A, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
        C: FnMut(A, V) -> A,
    {
        let bound = self.bound();
        self.run(
            bound,
            function,
            |_| Channel::new(false),
            |shared| async move {
                let (mut made, mut ready) = (init, VecDeque::new());
                while poll_fn(|cx| shared.outlet.poll_take(&mut ready, cx)).await {
                    let n = ready.len();
                    for value in ready.drain(..) {
                        made = combine(made, value);
                    }
                    shared.deliver(n);
                }
                made
            },
        )
    }

    /// Runs `function` on the items until one succeeds, and yields its value; `None` if there are no items.
    ///
    /// The others are cancelled, and gone, before it is ready.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each).
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the failures of all items, in the order in which they happened, if none succeeds; or if it was
    /// cancelled.
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each).
    #[track_caller]
    pub fn first_success<F, Fut, V, E>(
        self,
        function: F,
    ) -> impl Future<Output = Result<Option<V>, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |_| First::new(),
            |shared| async move {
                match poll_fn(|cx| shared.outlet.poll_won(cx)).await {
                    Ok(value) => {
                        shared.stop();
                        shared.core.cancel_children();
                        Some(value)
                    }
                    Err(errors) if errors.is_empty() => None,
                    Err(errors) => {
                        for (index, error) in errors {
                            fail(&shared.core, shared.location, index, error);
                        }
                        pending().await
                    }
                }
            },
        )
    }

    /// Runs `function` on each item, whether others fail or not, and collects what became of each: the outcome at place `i` is
    /// that of item `i`.
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each); the outcomes so far are dropped.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if it was cancelled. The failures of items are among the outcomes.
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each): a panic is no outcome.
    #[track_caller]
    pub fn outcomes<F, Fut, V, E>(
        self,
        function: F,
    ) -> impl Future<Output = Result<Vec<Result<V, E>>, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| Outcomes(InOrder::new(hint)),
            |shared| async move {
                shared.closed().await;
                shared.outlet.0.take()
            },
        )
    }

    /// Runs `function` on each item, and yields the values one by one, in the order of the input.
    ///
    /// The items run on their own, whatever the taker does meanwhile, until as many results wait as the limit and the
    /// [buffer](Self::buffer) allow together. An item that is much slower than those after it holds them up at that bound.
    /// The work starts when the first value is asked for.
    #[track_caller]
    pub fn results<F, Fut, V, E>(self, function: F) -> Results<V, E>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.results_from(Channel::new(true), function)
    }

    /// Runs `function` on each item, and yields the values one by one, as they come.
    ///
    /// As [`results`](Self::results) otherwise; no item holds up another.
    #[track_caller]
    pub fn results_unordered<F, Fut, V, E>(self, function: F) -> Results<V, E>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.results_from(Channel::new(false), function)
    }

    #[track_caller]
    fn results_from<F, Fut, V, E>(self, channel: Channel<V>, function: F) -> Results<V, E>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        let (slot, bound) = (results::Slot::default(), self.bound());
        let place = slot.clone();
        let run = self.run(
            bound,
            function,
            |_| channel,
            |shared| async move {
                place.fill(shared.clone());
                shared.closed().await;
            },
        );
        Results::new(Box::pin(run), slot)
    }

    /// Opens the group, starts the first worker, and lives as long as `drive`.
    #[track_caller]
    fn run<F, Fut, V, E, O, D, T>(
        mut self,
        bound: usize,
        function: F,
        outlet: impl FnOnce((usize, Option<usize>)) -> O,
        drive: impl FnOnce(PlainArc<Shared<S, F, O>>) -> D,
    ) -> impl Future<Output = Result<T, GroupError<E>>>
    where
        F: Fn(S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
        O: Outlet<V, E>,
        D: Future<Output = T>,
    {
        let location = Location::caller();
        let steps = self.steps();
        let hint = self.source.size_hint();
        if let Some(progress) = &self.progress {
            progress.expect(hint);
        }
        let outlet = outlet(hint);
        let Self {
            source,
            limit,
            progress,
            scope,
            ..
        } = self;
        scope.run(async move |_: &TaskGroup<E>| {
            let Some((core, _)) = crate::context::current() else {
                unreachable!("the body of a scope is in its group")
            };
            let shared = PlainArc::new(Shared {
                has_steps: steps.is_some(),
                door: Lock::new(Door {
                    intake: Intake::new(source, steps, bound),
                    crew: Crew::new(limit),
                }),
                is_stopped: AtomicBool::new(false),
                is_closed: Lock::new((false, None)),
                function,
                outlet,
                progress,
                core,
                runtime: crate::runtime::current(),
                location,
            });
            Worker::start(shared.clone(), 0);
            let value = until_signalled(&shared, drive(shared.clone())).await;
            let cut = shared.door.lock().intake.why_cut();
            if let Some(reason) = cut {
                shared.core.cancel(reason, true);
                pending::<()>().await;
            }
            Ok(value)
        })
    }
}

/// Lets nothing more be taken when the task is asked to end.
async fn until_signalled<S: Source, F, O, T>(
    shared: &Shared<S, F, O>,
    drive: impl Future<Output = T>,
) -> T {
    let mut drive = pin!(drive);
    let mut signal = Some(Signal::new());
    poll_fn(|cx| {
        if signal.as_mut().is_some_and(|s| s.poll(cx).is_ready()) {
            signal = None;
            shared.stop();
        }
        drive.as_mut().poll(cx)
    })
    .await
}

impl<S: Source> fmt::Debug for FanOut<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOut")
            .field("limit", &self.limit)
            .field("buffer", &self.buffer)
            .field("rate", &self.rate)
            .field("limiter", &self.limiter)
            .field("progress", &self.progress)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
