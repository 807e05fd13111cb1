//! The forms of the spawned fan-out: what becomes of the results.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::pin;
use std::task::Poll;

use crate::calm::{Each, calmly, keeping};
use crate::fan_out::FanOut;
use crate::fan_out::door::Door;
use crate::fan_out::input::Input;
use crate::fan_out::intake::Intake;
use crate::fan_out::outlet::{
    AsFinished, Channel, First, InOrder, Nowhere, Outcomes, Outlet, Values, errors, with_room,
};
use crate::fan_out::output::ItemOutput;
use crate::fan_out::results::{Results, Slot};
use crate::fan_out::worker::{Closing, Shared, Worker, fail_with};
use crate::group::TaskGroup;
use crate::group::error::GroupError;
use crate::limit::gate::Signal;
use crate::observe::CancelReason;
use crate::sync::{Lock, PlainArc};

/// What becomes of the results.
impl<S, T> FanOut<S, T>
where
    S: Input<Item = T> + Send + 'static,
    T: Send + 'static,
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = (), Error = E>> + Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |_| Nowhere,
            |shared| async move { shared.done().await },
            no_errors,
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| Values(InOrder::new(hint)),
            |shared| async move {
                shared.done().await;
                shared.outlet.0.take()
            },
            |values| no_errors(Each(values)),
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| AsFinished(Lock::new(Each(with_room(hint)))),
            |shared| async move {
                shared.done().await;
                std::mem::take(&mut shared.outlet.0.lock().0)
            },
            |values| no_errors(Each(values)),
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
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
                let (mut made, mut ready) = (init, Each(VecDeque::new()));
                while poll_fn(|cx| shared.outlet.poll_take(&mut ready.0, cx)).await {
                    let n = ready.0.len();
                    while let Some(value) = ready.0.pop_front() {
                        made = combine(made, value);
                    }
                    shared.door.deliver(n);
                }
                shared.done().await;
                keeping(made, combine, |made| calmly(|| drop(made)))
            },
            no_errors,
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
    /// cancelled. Where one succeeds, the failures are [overlooked](crate::DisplacedWhat::Overlooked).
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |_| First::new(),
            |shared| async move {
                let _rest = Rest::of(&shared);
                match poll_fn(|cx| shared.outlet.poll_won(cx)).await {
                    Ok(value) => {
                        // Once more, for who was at the input when it was won: nobody is started that the cancel would not reach.
                        shared.door.stop(None);
                        shared.core.cancel_children();
                        Some(value)
                    }
                    Err(errors) => {
                        if !shared.cut_if_torn() && errors.is_empty() {
                            return None;
                        }
                        shared.tell(errors);
                        pending().await
                    }
                }
            },
            no_errors,
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.run(
            usize::MAX,
            function,
            |hint| Outcomes(InOrder::new(hint)),
            |shared| async move {
                let _rest = Rest::of(&shared);
                shared.done().await;
                if shared.core.word().read().is_cancelled() {
                    return Vec::new(); // nobody would be given it: its errors are told
                }
                shared.outlet.0.take()
            },
            |outcomes| errors(outcomes.into_iter().enumerate()),
        )
    }

    /// Runs `function` on each item, and yields the values one by one, in the order of the input.
    ///
    /// The items run on their own, whatever the taker does meanwhile, until as many results wait as the limit and the
    /// [buffer](Self::buffer) allow together. An item that is much slower than those after it holds them up at that bound.
    /// The work starts when the first value is asked for.
    ///
    /// A failure ends the fan-out. To go on, and have each item's own result, make it the value:
    /// `async move { Ok::<_, Infallible>(fetch(item).await) }`. What came before a deadline is there then, too.
    #[track_caller]
    pub fn results<F, Fut, V, E>(self, function: F) -> Results<V, E>
    where
        F: Fn(T) -> Fut + Send + Sync + 'static,
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
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        self.results_from(Channel::new(false), function)
    }

    #[track_caller]
    fn results_from<F, Fut, V, E>(self, channel: Channel<V>, function: F) -> Results<V, E>
    where
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        let (slot, bound) = (Slot::default(), self.bound());
        let place = slot.clone();
        let run = self.run(
            bound,
            function,
            |_| channel,
            |shared| async move {
                place.fill(shared.clone());
                shared.done().await;
            },
            no_errors,
        );
        Results::new(Box::pin(run), slot)
    }

    /// Opens the group, starts the first worker, and lives as long as `drive`. `untaken` gives the errors in a result that nobody is
    /// given: they are the group's then.
    #[track_caller]
    fn run<F, Fut, V, E, O, D, R>(
        mut self,
        bound: usize,
        function: F,
        outlet: impl FnOnce((usize, Option<usize>)) -> O,
        drive: impl FnOnce(PlainArc<Shared<S, F, O>>) -> D,
        untaken: impl FnOnce(R) -> Vec<(usize, E)>,
    ) -> impl Future<Output = Result<R, GroupError<E>>>
    where
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>> + Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
        O: Outlet<V, E>,
        D: Future<Output = R>,
    {
        let location = Location::caller();
        let (asks, mut toll) = self.steps();
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
        scope
            .unwrap_or_default()
            .run(async move |_: &TaskGroup<E>| {
                let Some((core, _)) = crate::context::current() else {
                    unreachable!("the body of a scope is in its group")
                };
                toll.borrow_from(core.opened_in());
                let runtime = crate::runtime::current();
                let is_parallel = crate::runtime::is_parallel(runtime.as_ref());
                let has_steps = asks.is_some() || !toll.is_free();
                let intake = Intake::new(source, asks, bound);
                let shared = PlainArc::new(Shared {
                    door: Door::new(intake, limit, has_steps, toll, is_parallel),
                    is_parallel,
                    closing: Closing::new(),
                    function,
                    outlet,
                    progress,
                    core,
                    runtime,
                    location,
                });
                Worker::start(shared.clone());
                let on_signal = |reason| shared.door.stop(Some(reason));
                let ended = until_signalled(on_signal, drive(shared.clone())).await;
                // The function goes here, if its workers have gone already: K3 of `calm`.
                let core = shared.core.clone();
                let ended = keeping(ended, shared, |ended| {
                    fail_with(&core, location, untaken(ended));
                });
                Ok(ended)
            })
    }
}

/// There are none in it. What its destructor throws goes to the observer, as something else goes to the caller.
fn no_errors<R, E>(ended: R) -> Vec<(usize, E)> {
    calmly(|| drop(ended));
    Vec::new()
}

/// Tells the group of the errors that are still kept when the body is dropped: nobody will take them.
struct Rest<'a, S: Input, F, V, E, O>
where
    O: Outlet<V, E>,
    E: Send + 'static,
{
    shared: &'a Shared<S, F, O>,
    results: PhantomData<fn() -> Result<V, E>>,
}

impl<'a, S: Input, F, V, E, O> Rest<'a, S, F, V, E, O>
where
    O: Outlet<V, E>,
    E: Send + 'static,
{
    fn of(shared: &'a Shared<S, F, O>) -> Self {
        Self {
            shared,
            results: PhantomData,
        }
    }
}

impl<S: Input, F, V, E, O> Drop for Rest<'_, S, F, V, E, O>
where
    O: Outlet<V, E>,
    E: Send + 'static,
{
    fn drop(&mut self) {
        self.shared.tell(self.shared.outlet.cut());
    }
}

/// Calls `on_signal` when the task is asked to end.
async fn until_signalled<T>(
    on_signal: impl FnOnce(CancelReason),
    drive: impl Future<Output = T>,
) -> T {
    let mut drive = pin!(drive);
    let mut signal = Some((Signal::new(), on_signal));
    poll_fn(|cx| {
        if let Some((mut listening, on_signal)) = signal.take() {
            match listening.poll(cx) {
                Poll::Ready(reason) => on_signal(reason),
                Poll::Pending => signal = Some((listening, on_signal)),
            }
        }
        drive.as_mut().poll(cx)
    })
    .await
}
