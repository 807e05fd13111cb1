//! `fan_out`: many items, at most so many at once.
//!
//! F1. At most `limit` items run; at most as many more are taken from the input; memory is that of the limit and of the results
//! asked for. F2. Workers are children of one group: all that holds of a scope holds here. F3. Nothing here keeps an item's
//! future that only the caller could poll, but the local form, which gives no stream. F4. `next` of the input, and the
//! functions of key and weight, run under the intake's own lock, which nothing else takes and nobody waits for (`door`).
//! F5. Whatever ends it, each error of an item is in what it comes back with, or is told to the observer.

pub(crate) mod crew;
pub(crate) mod door;
mod engine;
mod forms;
pub(crate) mod hand;
pub(crate) mod input;
pub(crate) mod intake;
mod lanes;
pub(crate) mod local;
mod ordered;
mod outlet;
pub(crate) mod output;
mod pace;
pub(crate) mod progress;
pub(crate) mod results;
mod worker;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::fan_out::hand::Toll;
use crate::fan_out::input::{Input, IntoInput};
use crate::fan_out::intake::Asks;
use crate::fan_out::local::LocalFanOut;
use crate::fan_out::progress::Progress;
use crate::group::options::Scope;
use crate::limit::concurrency::Limiter;
use crate::limit::rate::RateLimiter;

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
/// The function returns a future of `()` or of a `Result`. It and its future are `'static`, as all that is spawned: clone
/// what they share for each, as in `move |url| { let client = client.clone(); async move { … } }` (an `async` closure that captures
/// is no `Fn`), or use the [local](FanOut::local) form, which borrows. On the signal of a cancel (with a
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
pub fn fan_out<I, M>(input: I) -> FanOut<I::Input, I::Item>
where
    I: IntoInput<M>,
{
    FanOut {
        source: input.into_input(),
        limit: LIMIT,
        buffer: None,
        rate: None,
        limiter: None,
        weight: None,
        key: None,
        progress: None,
        scope: None,
    }
}

/// A fan-out that is being told how to run: see [`fan_out`].
///
/// # Default
///
/// 16 items at once, no rate, no shared limiter, no keys, no progress, a [`Scope`] without options.
#[must_use = "a fan-out does nothing until it is told what becomes of the results"]
// `T` is `S::Item`: see `Intake`.
pub struct FanOut<S, T> {
    source: S,
    limit: usize,
    buffer: Option<usize>,
    rate: Option<RateLimiter>,
    limiter: Option<Limiter>,
    weight: Option<intake::WeightOf<T>>,
    key: Option<intake::KeyOf<T>>,
    progress: Option<Progress>,
    scope: Option<Scope>,
}

/// Options.
impl<S, T> FanOut<S, T>
where
    S: Input<Item = T>,
{
    /// Runs at most `limit` items at once; [`usize::MAX`] is no limit. The default is 16.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[doc(alias("concurrency", "buffer_unordered"))]
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "ringfence: the limit of a fan-out must be at least 1, not 0"
        );
        self.limit = crate::smallest::capacity(limit);
        self
    }

    /// Has each item wait for `rate` before it starts. The limiter may be shared. An item that waits for it holds no permit of a
    /// [limiter](Self::limiter); one that was let through, and is cancelled while it waits for its permit, has used its turn.
    pub fn rate(mut self, rate: &RateLimiter) -> Self {
        self.rate = Some(rate.clone());
        self
    }

    /// Has each item hold a permit of `limiter` while it runs, besides the limit of its own: for a limit that several
    /// fan-outs share, that is changed while it runs, or that adapts itself. An [adaptive](Limiter::adaptive) one learns
    /// that an item went well, or was too much, from whether it succeeds or fails; not from one that runs on a loan.
    ///
    /// The permit goes back when the item ends, whoever takes its result and when. An item that waits for another fan-out inside
    /// it, with the same limiter, lends its permit to one item of that at a time: fan-outs inside one another go on, however
    /// low the limit. (An item of a [local](Self::local) one has no task of its own: it lends to what begins in the task that it
    /// runs in, not to what begins in a child that has another.) An item that asks the limiter itself for another permit does
    /// not lend: where all who have one do that, none goes on.
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
        weight: impl FnMut(&T) -> u32 + Send + 'static,
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
    pub fn key<K: Hash>(self, mut key: impl FnMut(&T) -> K + Send + 'static) -> Self {
        self.key_if(move |item| Some(key(item)))
    }

    /// As [`key`](Self::key), where items without a key wait for nobody.
    pub fn key_if<K: Hash>(
        mut self,
        mut key: impl FnMut(&T) -> Option<K> + Send + 'static,
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
        self.scope = Some(scope);
        self
    }

    /// Runs the items in the caller's task instead of tasks of their own: they may borrow, and need not be `Send`.
    ///
    /// There is no group of tasks then, and no name, deadline or grace of its own: put a [`timeout`](crate::timeout) around
    /// it, or use it in a scope that has them.
    ///
    /// # Panics
    ///
    /// If a [`scope`](Self::scope) or a [`buffer`](Self::buffer) was given, which only the spawned form has.
    #[track_caller]
    pub fn local(self) -> LocalFanOut<S, T> {
        assert!(
            self.scope.is_none(),
            "ringfence: a local fan-out has no group, so it takes no `scope`"
        );
        assert!(
            self.buffer.is_none(),
            "ringfence: a local fan-out keeps no results ready, so it takes no `buffer`"
        );
        LocalFanOut::new(self)
    }

    /// What is asked of each item, and what it has to get.
    fn steps(&mut self) -> (Option<Box<Asks<T>>>, Toll) {
        let toll = Toll::new(
            self.rate.take().map(|rate| rate.meter().clone()),
            self.limiter.take().map(|limiter| limiter.core().clone()),
        );
        let asks = Asks {
            key: self.key.take(),
            weight: self.weight.take(),
            hasher: RandomState::new(),
        };
        let has_any = asks.key.is_some() || asks.weight.is_some();
        (has_any.then(|| Box::new(asks)), toll)
    }

    fn bound(&self) -> usize {
        self.limit.saturating_add(self.buffer.unwrap_or(self.limit))
    }
}

impl<S, T> fmt::Debug for FanOut<S, T> {
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
