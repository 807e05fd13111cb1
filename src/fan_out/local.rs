//! The local form: items run side by side in the caller's task.
//!
//! Lanes instead of workers: each holds the future of one item, in a place that the next item uses again, and has a waker of
//! its own, so that only what was woken is polled.
//!
//! X1. A lane is made when all others are busy and there is an item for it. X2. Its bell is rung once until it is polled
//! again. X3. Nothing here runs unless the caller is polled, so nothing here yields results before the end: what uses them
//! runs between the items' polls. X4. When it ends early, all lanes are dropped before it comes back.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::fan_out::FanOut;
use crate::fan_out::intake::{Admitted, Intake, Pass, Taken};
use crate::fan_out::ordered::Ordered;
use crate::fan_out::outlet::with_room;
use crate::fan_out::output::ItemOutput;
use crate::fan_out::pace::Pace;
use crate::fan_out::progress::{End, Progress};
use crate::fan_out::source::Source;
use crate::group::error::{Cause, Failure, FailureKind, GroupError};
use crate::observe::{CancelReason, DisplacedWhat, TaskId, TaskInfo, displace};
use crate::panic::catch;
use crate::sync::{AtomicU64, Lock, Ordering, PlainArc};

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
pub struct LocalFanOut<S: Source> {
    options: FanOut<S>,
    location: &'static Location<'static>,
}

/// Which lanes of a group of 64 were woken.
struct Block {
    number: usize,
    rung: AtomicU64,
    board: PlainArc<Lock<Board>>,
}

/// Which blocks have somebody woken.
struct Board {
    rung: Vec<usize>,
    /// The caller's, while it is away.
    waker: Option<Waker>,
    is_away: bool,
}

/// The waker of one lane.
struct Bell {
    block: PlainArc<Block>,
    bit: u32,
}

impl Wake for Bell {
    fn wake(self: PlainArc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &PlainArc<Self>) {
        let block = &*self.block;
        // Release pairs with the Acquire of the one that collects: it polls the lane after what was done before the wake.
        if block.rung.fetch_or(1 << self.bit, Ordering::AcqRel) != 0 {
            return; // X2
        }
        let waker = {
            let mut board = block.board.lock();
            board.rung.push(block.number);
            if std::mem::take(&mut board.is_away) {
                board.waker.clone()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Lane<Fut> {
    future: Pin<Box<Option<Fut>>>,
    pass: Pass,
    waker: Waker,
}

/// The lanes, and what feeds them.
struct Engine<S: Source, F, Fut> {
    // Dropped first: what runs may use what the function holds.
    lanes: Vec<Lane<Fut>>,
    free: Vec<usize>,
    blocks: Vec<PlainArc<Block>>,
    board: PlainArc<Lock<Board>>,
    rung: Vec<usize>,
    limit: usize,
    pace: Pace,
    progress: Option<Progress>,
    intake: Intake<S>,
    may_have_more: bool,
    function: F,
}

type Value<Fut> = <<Fut as Future>::Output as ItemOutput>::Value;
type Error<Fut> = <<Fut as Future>::Output as ItemOutput>::Error;
/// What becomes of the result of an item; a break ends it all.
type Step<B, C = ()> = ControlFlow<B, C>;

impl<S, F, Fut> Engine<S, F, Fut>
where
    S: Source,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: ItemOutput>,
{
    fn new(mut options: FanOut<S>, function: F) -> Self {
        if let Some(progress) = &options.progress {
            progress.expect(options.source.size_hint());
        }
        let steps = options.steps();
        Self {
            lanes: Vec::new(),
            free: Vec::new(),
            blocks: Vec::new(),
            board: PlainArc::new(Lock::new(Board {
                rung: Vec::new(),
                waker: None,
                is_away: false,
            })),
            rung: Vec::new(),
            limit: options.limit,
            pace: Pace::new(),
            progress: options.progress,
            intake: Intake::new(options.source, steps, usize::MAX),
            may_have_more: true,
            function,
        }
    }

    /// Runs everything that can run now. Ready when `step` breaks, or when all items have ended.
    fn poll<B>(
        &mut self,
        cx: &mut Context<'_>,
        step: &mut impl FnMut(usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> Poll<Option<B>> {
        std::mem::swap(&mut self.board.lock().rung, &mut self.rung);
        while let Some(number) = self.rung.pop() {
            let mut bits = self.blocks[number].rung.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                match self.run(number * 64 + bit as usize, cx, step) {
                    Step::Continue(true) => {}
                    Step::Continue(false) => {
                        self.put_back(number, bits);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Step::Break(end) => return Poll::Ready(Some(end)),
                }
            }
        }
        while self.may_have_more && self.has_room() {
            let lane = match self.fill(cx) {
                Poll::Ready(Some(lane)) => lane,
                Poll::Ready(None) | Poll::Pending => break,
            };
            match self.run(lane, cx, step) {
                Step::Continue(true) => {}
                Step::Continue(false) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Break(end) => return Poll::Ready(Some(end)),
            }
        }
        if !self.may_have_more && self.free.len() == self.lanes.len() {
            return Poll::Ready(None);
        }
        if self.rest(cx) {
            self.pace.pause();
        } else {
            // Woken by the poll itself: others have a turn, then on.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Leaves the caller's waker, unless somebody was woken meanwhile.
    fn rest(&self, cx: &Context<'_>) -> bool {
        let mut old = None;
        let mut board = self.board.lock();
        let is_known = matches!(&board.waker, Some(waker) if waker.will_wake(cx.waker()));
        if !is_known {
            drop(board);
            let fresh = cx.waker().clone();
            board = self.board.lock();
            old = board.waker.replace(fresh);
        }
        let is_quiet = board.rung.is_empty();
        board.is_away = is_quiet;
        drop(board);
        drop(old);
        is_quiet
    }

    /// Rings again for those of a block whose turn has not come.
    fn put_back(&mut self, number: usize, bits: u64) {
        let block = &self.blocks[number];
        let mut board = self.board.lock();
        if bits != 0 && block.rung.fetch_or(bits, Ordering::AcqRel) == 0 {
            board.rung.push(number);
        }
        board.rung.append(&mut self.rung);
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.lanes.len() < self.limit
    }

    /// Takes an item from the intake, and gives it a lane.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let Admitted { item, pass } = match self.intake.poll(true, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Taken::Full) => return Poll::Ready(None),
            Poll::Ready(Taken::End) => {
                self.may_have_more = false;
                return Poll::Ready(None);
            }
            Poll::Ready(Taken::Item(admitted)) => admitted,
        };
        let lane = self.free.pop().unwrap_or_else(|| self.add_lane());
        let future = (self.function)(item);
        if let Some(progress) = &self.progress {
            progress.start();
        }
        self.lanes[lane].pass = pass;
        self.lanes[lane].future.set(Some(future));
        Poll::Ready(Some(lane))
    }

    /// X1.
    fn add_lane(&mut self) -> usize {
        let lane = self.lanes.len();
        if lane % 64 == 0 {
            self.blocks.push(PlainArc::new(Block {
                number: lane / 64,
                rung: AtomicU64::new(0),
                board: self.board.clone(),
            }));
        }
        let bell = Bell {
            block: self.blocks[lane / 64].clone(),
            bit: (lane % 64) as u32,
        };
        self.lanes.push(Lane {
            future: Box::pin(None),
            pass: Pass::default(),
            waker: Waker::from(PlainArc::new(bell)),
        });
        lane
    }

    /// Polls the item of a lane, and as long as they are ready at once, the items after it. Continues with whether to go on.
    fn run<B>(
        &mut self,
        lane: usize,
        cx: &mut Context<'_>,
        step: &mut impl FnMut(usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> Step<B, bool> {
        let mut lane = lane;
        loop {
            let Lane {
                future,
                pass,
                waker,
            } = &mut self.lanes[lane];
            let Some(running) = future.as_mut().as_pin_mut() else {
                return Step::Continue(true); // a wake from an item that has ended
            };
            let Poll::Ready(output) = running.poll(&mut Context::from_waker(waker)) else {
                return Step::Continue(true);
            };
            future.set(None);
            let result = output.into_item();
            let Pass { index, permit, key } = std::mem::take(pass);
            if let Some(permit) = permit {
                match &result {
                    Ok(_) => permit.succeeded(),
                    Err(_) => permit.overloaded(),
                }
            }
            if let Some(key) = key {
                self.intake.done(key);
            }
            self.free.push(lane);
            if let Some(progress) = &self.progress {
                progress.end(if result.is_ok() {
                    End::Done
                } else {
                    End::Failed
                });
            }
            if let Step::Break(end) = step(index, result) {
                return Step::Break(end);
            }
            if self.pace.step() {
                return Step::Continue(false);
            }
            if !self.may_have_more {
                return Step::Continue(true);
            }
            match self.fill(cx) {
                Poll::Ready(Some(next)) => lane = next,
                Poll::Ready(None) | Poll::Pending => return Step::Continue(true),
            }
        }
    }

    /// Drops what runs (X4). What it throws then goes to the observer.
    fn clear(&mut self) {
        for lane in &mut self.lanes {
            if lane.future.is_none() {
                continue;
            }
            if let Some(progress) = &self.progress {
                progress.end(End::Cancelled);
            }
            if let Err(panic) = catch(|| lane.future.set(None)) {
                let observer = crate::context::current();
                let observer = observer.as_ref().and_then(|(core, _)| core.observer());
                displace(observer, None, DisplacedWhat::Panic(panic));
            }
            lane.pass = Pass::default();
        }
    }
}

/// Cancels what runs, also when it is dropped.
struct Guarded<S, F, Fut>(Engine<S, F, Fut>)
where
    S: Source,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: ItemOutput>;

impl<S, F, Fut> Drop for Guarded<S, F, Fut>
where
    S: Source,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: ItemOutput>,
{
    fn drop(&mut self) {
        self.0.clear();
    }
}

type Place = &'static Location<'static>;
/// An error with the place of its item.
type Failed<E> = (usize, E);

impl<S: Source> LocalFanOut<S> {
    #[track_caller]
    pub(crate) fn new(options: FanOut<S>) -> Self {
        Self {
            options,
            location: Location::caller(),
        }
    }

    /// Runs all items; `step` is told of each result, and may end it.
    async fn run<F, Fut, B>(
        self,
        function: F,
        mut step: impl FnMut(usize, Result<Value<Fut>, Error<Fut>>) -> Step<B>,
    ) -> Result<Option<B>, CancelReason>
    where
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput>,
    {
        let mut engine = Guarded(Engine::new(self.options, function));
        let ended = poll_fn(|cx| {
            catch(|| engine.0.poll(cx, &mut step)).unwrap_or_else(|panic| {
                engine.0.clear();
                panic.resume()
            })
        })
        .await;
        engine.0.clear();
        match (ended, engine.0.intake.why_cut()) {
            (None, Some(reason)) => Err(reason),
            (ended, _) => Ok(ended),
        }
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
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = (), Error = E>>,
    {
        self.all(function, |_, ()| {}).await
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
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let mut out = with_room(self.options.source.size_hint());
        let mut ordered = Ordered::new();
        self.all(function, |index, value| {
            ordered.put(index, value, |value| out.push(value));
        })
        .await?;
        Ok(out)
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
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let mut out = with_room(self.options.source.size_hint());
        self.all(function, |_, value| out.push(value)).await?;
        Ok(out)
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
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
        C: FnMut(A, V) -> A,
    {
        let mut made = Some(init);
        self.all(function, |_, value| {
            made = made.take().map(|so_far| combine(so_far, value));
        })
        .await?;
        match made {
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
    /// was asked to end.
    ///
    /// # Panics
    ///
    /// As [`for_each`](Self::for_each).
    pub async fn first_success<F, Fut, V, E>(self, function: F) -> Result<Option<V>, GroupError<E>>
    where
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let (mut errors, location) = (Vec::new(), self.location);
        let won = self.run(function, |index, result| match result {
            Ok(value) => Step::Break(value),
            Err(error) => {
                errors.push((index, error));
                Step::Continue(())
            }
        });
        match won.await {
            Ok(None) if !errors.is_empty() => Err(failed(errors, location)),
            Ok(won) => Ok(won),
            Err(reason) => Err(cancelled(reason, errors, location)),
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
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let mut out = with_room(self.options.source.size_hint());
        let mut ordered = Ordered::new();
        let location = self.location;
        let run = self.run(function, |index, result| {
            ordered.put(index, result, |result| out.push(result));
            Step::<()>::Continue(())
        });
        match run.await {
            Ok(_) => Ok(out),
            Err(reason) => Err(cancelled(reason, Vec::new(), location)),
        }
    }

    /// Runs all items; the first failure ends it.
    async fn all<F, Fut, V, E>(
        self,
        function: F,
        mut each: impl FnMut(usize, V),
    ) -> Result<(), GroupError<E>>
    where
        F: FnMut(S::Item) -> Fut,
        Fut: Future<Output: ItemOutput<Value = V, Error = E>>,
    {
        let location = self.location;
        let run = self.run(function, |index, result| match result {
            Ok(value) => {
                each(index, value);
                Step::Continue(())
            }
            Err(error) => Step::Break((index, error)),
        });
        match run.await {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(failed(vec![error], location)),
            Err(reason) => Err(cancelled(reason, Vec::new(), location)),
        }
    }
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

impl<S: Source> fmt::Debug for LocalFanOut<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFanOut")
            .field("options", &self.options)
            .finish()
    }
}
