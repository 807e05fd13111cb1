//! The local form: items run side by side in the caller's task; see `engine`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::task::{Context, Poll, Waker};

use crate::calm::{Calm, Each};
use crate::fan_out::FanOut;
use crate::fan_out::engine::{Engine, Error, Step, Value};
use crate::fan_out::input::Input;
use crate::fan_out::ordered::Ordered;
use crate::fan_out::outlet::{errors, with_room};
use crate::fan_out::output::ItemOutput;
use crate::group::error::{Cause, Failure, FailureKind, GroupError};
use crate::limit::gate::Signal;
use crate::observe::{CancelReason, TaskId, TaskInfo};
use crate::panic::catch;

/// A fan-out whose items run in the caller's task: see [`FanOut::local`].
///
/// The function may borrow what the caller has, and neither it nor its futures need be `Send`; the whole is `Send` if they are.
/// Results are used inside: there is no stream of them, because a stream whose work stands still while its taker is busy is a
/// trap. Nothing is allocated for an item; memory is that of the limit.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::num::ParseIntError>> {
/// use ringfence::fan_out;
///
/// let text = String::from("1 2 3");
/// let numbers = fan_out(text.split(' '))
///     .limit(2)
///     .local()
///     .collect(async |word: &str| word.parse::<u32>())
///     .await?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[must_use = "a fan-out does nothing until it is told what becomes of the results"]
pub struct LocalFanOut<S, T> {
    options: FanOut<S, T>,
    location: &'static Location<'static>,
}

/// Takes the engine apart if it was not run to its end.
struct Guarded<S, T, F, Fut>(Option<Engine<S, T, F, Fut>>);

impl<S, T, F, Fut> Drop for Guarded<S, T, F, Fut> {
    fn drop(&mut self) {
        if let Some(engine) = self.0.take() {
            engine.dismantle();
        }
    }
}

/// Listens for the signal of a cancel, at the price of a look for each poll.
#[derive(Default)]
struct Alarm(Option<(Signal, Waker)>);

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<CancelReason> {
        match &self.0 {
            Some((signal, known)) if known.will_wake(cx.waker()) => signal.reason(),
            // The first poll, or it may be another task that waits now.
            _ => {
                let (signal, _) = self.0.insert((Signal::new(), cx.waker().clone()));
                match signal.poll(cx) {
                    Poll::Ready(reason) => Some(reason),
                    Poll::Pending => None,
                }
            }
        }
    }
}

type Place = &'static Location<'static>;
/// An error with the place of its item.
type Failed<E> = (usize, E);

impl<S, T> LocalFanOut<S, T>
where
    S: Input<Item = T>,
{
    #[track_caller]
    pub(crate) fn new(options: FanOut<S, T>) -> Self {
        Self {
            options,
            location: Location::caller(),
        }
    }

    /// Runs all items; `step` is told of each result, and may end it. What it keeps comes back with how it ended.
    async fn run<F, Fut, K, B>(
        self,
        function: F,
        kept: K,
        mut step: impl FnMut(&mut K, usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> (Calm<K>, Result<Option<B>, CancelReason>)
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput>,
        K: Default,
    {
        let mut kept = Calm(kept);
        let mut guarded = Guarded(None);
        let engine = guarded.0.insert(Engine::new(self.options, function));
        let mut alarm = Alarm::default();
        let ended = poll_fn(|cx| {
            if let Some(reason) = alarm.poll(cx) {
                engine.cut(reason);
            }
            let mut step = |index, result| step(&mut kept.0, index, result);
            catch(|| engine.poll(cx, &mut step)).unwrap_or_else(|panic| {
                engine.clear();
                panic.resume()
            })
        })
        .await;
        let ended = match (ended, engine.why_cut()) {
            (None, Some(reason)) => Err(reason),
            (ended, _) => Ok(ended),
        };
        if matches!(ended, Ok(None)) {
            drop(guarded.0.take());
        } // else it is dismantled: what the function or the input throws when it goes must not cost the failure (F5)
        (kept, ended)
    }

    /// Runs `function` on each item, for its effects: see [`FanOut::for_each`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it drops the items that run with it. Items that were not started are dropped with the input.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the first failure, whose task is named after the place of its item, `item 17`; or if its task was
    /// asked to end.
    ///
    /// # Panics
    ///
    /// With the first panic of the function or of the input, after all items are gone.
    pub async fn for_each<F, Fut, E>(self, function: F) -> Result<(), GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = (), Error = E>>,
    {
        self.all(function, (), |(), _, ()| {}).await
    }

    /// Runs `function` on each item, and collects the values in the order of the input: see [`FanOut::collect`].
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
    pub async fn collect<F, Fut, V, E>(self, function: F) -> Result<Vec<V>, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let out = Each(with_room(self.options.source.size_hint()));
        let (out, _) = self
            .all(function, (out, Each(Ordered::new())), sort)
            .await?;
        Ok(out.take())
    }

    /// Runs `function` on each item, and collects the values as they come: see [`FanOut::collect_unordered`].
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
    pub async fn collect_unordered<F, Fut, V, E>(self, function: F) -> Result<Vec<V>, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let out = Each(with_room(self.options.source.size_hint()));
        let all = self.all(function, out, |out, _, value| out.0.push(value));
        Ok(all.await?.take())
    }

    /// Runs `function` on each item, and makes the values into one with `combine`, as they come: see [`FanOut::fold`].
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
    pub async fn fold<F, Fut, V, E, A, C>(
        self,
        init: A,
        function: F,
        mut combine: C,
    ) -> Result<A, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
        C: FnMut(A, V) -> A,
    {
        let all = self.all(function, Some(init), |made, _, value| {
            *made = made.take().map(|so_far| combine(so_far, value));
        });
        match all.await? {
            Some(made) => Ok(made),
            None => unreachable!("`combine` has thrown"),
        }
    }

    /// Runs `function` on the items until one succeeds, and yields its value; `None` if there are no items: see
    /// [`FanOut::first_success`].
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each).
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the failures of all items, in the order in which they happened, if none succeeds; or if its task
    /// was asked to end. Where one succeeds, the failures are dropped: they may borrow, or be not `Send`.
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each).
    pub async fn first_success<F, Fut, V, E>(self, function: F) -> Result<Option<V>, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let location = self.location;
        let run = self.run(
            function,
            Each(Vec::new()),
            |errors, index, result| match result {
                Ok(value) => Step::Break(value),
                Err(error) => {
                    errors.0.push((index, error));
                    Step::Continue(())
                }
            },
        );
        match run.await {
            (errors, Ok(None)) if !errors.0.0.is_empty() => {
                Err(failed(errors.take().take(), location))
            }
            (_, Ok(won)) => Ok(won),
            (errors, Err(reason)) => Err(cancelled(reason, errors.take().take(), location)),
        }
    }

    /// Runs `function` on each item, whether others fail or not, and collects what became of each: see [`FanOut::outcomes`].
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each); the outcomes so far are dropped.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if its task was asked to end. The failures of items are among the outcomes.
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each): a panic is no outcome.
    pub async fn outcomes<F, Fut, V, E>(
        self,
        function: F,
    ) -> Result<Vec<Result<V, E>>, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let out = Each(with_room(self.options.source.size_hint()));
        let location = self.location;
        let run = self.run(
            function,
            (out, Each(Ordered::new())),
            |kept, index, result| {
                sort(kept, index, result);
                Step::<()>::Continue(())
            },
        );
        let (kept, ended) = run.await;
        let (out, ordered) = kept.take();
        let out = out.take();
        match ended {
            Ok(_) => Ok(out),
            Err(reason) => {
                let all = out.into_iter().enumerate().chain(ordered.take());
                Err(cancelled(reason, errors(all), location))
            }
        }
    }

    /// Runs all items; the first failure ends it.
    async fn all<F, Fut, K, V, E>(
        self,
        function: F,
        kept: K,
        mut each: impl FnMut(&mut K, usize, V),
    ) -> Result<K, GroupError<E>>
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
        K: Default,
    {
        let location = self.location;
        let run = self.run(function, kept, |kept, index, result| match result {
            Ok(value) => {
                each(kept, index, value);
                Step::Continue(())
            }
            Err(error) => Step::Break((index, error)),
        });
        match run.await {
            (kept, Ok(None)) => Ok(kept.take()),
            (_, Ok(Some(error))) => Err(failed(vec![error], location)),
            (_, Err(reason)) => Err(cancelled(reason, Vec::new(), location)),
        }
    }
}

/// Puts a result in its place.
fn sort<R>((out, ordered): &mut (Each<Vec<R>>, Each<Ordered<R>>), index: usize, result: R) {
    ordered.0.put(index, result, |result| out.0.push(result));
}

fn failed<E>(errors: Vec<Failed<E>>, location: Place) -> GroupError<E> {
    error(Cause::Failed, errors, location)
}

fn cancelled<E>(reason: CancelReason, errors: Vec<Failed<E>>, location: Place) -> GroupError<E> {
    error(Cause::Cancelled(reason), errors, location)
}

fn error<E>(cause: Cause, errors: Vec<Failed<E>>, location: Place) -> GroupError<E> {
    let place = crate::context::current();
    let id = place.map_or(
        TaskId {
            group: 0,
            serial: 0,
        },
        |(core, serial)| core.task_id(serial),
    );
    let failures = errors.into_iter().map(|(index, error)| {
        let info = TaskInfo {
            id,
            name: Some(format!("item {index}").into()),
            group: None,
            location,
        };
        Failure::new(Some(info), FailureKind::Error(error))
    });
    GroupError::of(cause, failures.collect())
}

impl<S, T> fmt::Debug for LocalFanOut<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFanOut")
            .field("options", &self.options)
            .finish()
    }
}
