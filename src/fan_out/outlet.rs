//! Where results go: one type for each form.
//!
//! Z1. Results move under the lock of the outlet, and nothing of theirs runs there. Z2. A worker keeps up to [`BATCH`] results
//! and hands them over together, where nobody looks before the end; and when it lets others run, so that theirs do not pile up behind
//! them. Z3. `put` never waits: an
//! outlet whose taker may be slow has its bound kept at the intake. Z4. An outlet that keeps errors until the end gives them
//! back when it is cut, and all that come later: they are the group's then.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::task::{Context, Poll, Waker};

use crate::calm::{Each, calmly};
use crate::fan_out::ordered::Ordered;
use crate::observe::wake;
use crate::sync::Lock;

/// How many results a worker keeps.
const BATCH: usize = 4;

/// Whether there is to be more. A break says that there is not: for an error that is the group's, or, without one, because it
/// has all that it needs.
pub(crate) type Put<E> = ControlFlow<Option<E>>;

/// Where results go.
pub(crate) trait Outlet<V, E>: Send + Sync + 'static {
    /// What a worker keeps.
    type Kept: Default + Send;

    /// Takes the result of an item.
    fn put(&self, kept: &mut Self::Kept, index: usize, result: Result<V, E>) -> Put<E>;

    /// Takes what a worker has kept, because it ends or lets others run; gives back errors that are the group's.
    fn flush(&self, _: &mut Self::Kept) -> Vec<(usize, E)> {
        Vec::new()
    }

    /// Gives away the errors that do not matter, because something else has won.
    fn overlooked(&self) -> Vec<(usize, E)> {
        Vec::new()
    }

    /// Gives back the errors it keeps: nobody will take them (Z4).
    fn cut(&self) -> Vec<(usize, E)> {
        Vec::new()
    }

    /// Notes that the last worker has ended.
    fn close(&self) {}
}

/// Nowhere: the results are `()`.
pub(crate) struct Nowhere;

impl<E: Send + 'static> Outlet<(), E> for Nowhere {
    type Kept = ();

    #[inline]
    fn put(&self, (): &mut (), _: usize, result: Result<(), E>) -> Put<E> {
        match result {
            Ok(()) => Put::Continue(()),
            Err(error) => Put::Break(Some(error)),
        }
    }
}

/// All of them, in input order.
pub(crate) struct InOrder<R> {
    state: Lock<Sorted<R>>,
}

struct Sorted<R> {
    ordered: Each<Ordered<R>>,
    out: Each<Vec<R>>,
    is_cut: bool,
}

impl<R> InOrder<R> {
    pub(crate) fn new(hint: (usize, Option<usize>)) -> Self {
        Self {
            state: Lock::new(Sorted {
                ordered: Each(Ordered::new()),
                out: Each(with_room(hint)),
                is_cut: false,
            }),
        }
    }

    pub(crate) fn take(&self) -> Vec<R> {
        std::mem::take(&mut self.state.lock().out.0)
    }

    /// Returns whether it is time to hand over.
    #[inline]
    fn keep(kept: &mut Vec<(usize, R)>, index: usize, result: R) -> bool {
        kept.push((index, result));
        kept.len() == BATCH
    }

    /// Takes what was kept. Cut off, it leaves it.
    fn hand_over(&self, kept: &mut Vec<(usize, R)>) {
        let Sorted {
            ordered,
            out,
            is_cut,
        } = &mut *self.state.lock();
        if !*is_cut {
            for (index, result) in kept.drain(..) {
                ordered.0.put(index, result, |result| out.0.push(result));
            }
        }
    }

    /// Gives back all it has, and takes nothing any more.
    fn cut(&self) -> Vec<(usize, R)> {
        let mut state = self.state.lock();
        state.is_cut = true;
        let out = std::mem::take(&mut state.out.0);
        let rest = state.ordered.0.take_rest();
        drop(state);
        out.into_iter().enumerate().chain(rest).collect()
    }
}

/// Room for all, if the input knows how many; a lie about that costs nothing but speed.
pub(crate) fn with_room<R>((least, most): (usize, Option<usize>)) -> Vec<R> {
    let mut out = Vec::new();
    if most == Some(least) {
        let _ = out.try_reserve_exact(least);
    }
    out
}

/// The values of all, in input order; the first error ends it.
pub(crate) struct Values<V>(pub(crate) InOrder<V>);

impl<V: Send + 'static, E: Send + 'static> Outlet<V, E> for Values<V> {
    type Kept = Vec<(usize, V)>;

    #[inline]
    fn put(&self, kept: &mut Self::Kept, index: usize, result: Result<V, E>) -> Put<E> {
        match result {
            Ok(value) => {
                if InOrder::keep(kept, index, value) {
                    self.0.hand_over(kept);
                }
                Put::Continue(())
            }
            Err(error) => Put::Break(Some(error)),
        }
    }

    #[inline]
    fn flush(&self, kept: &mut Self::Kept) -> Vec<(usize, E)> {
        if !kept.is_empty() {
            self.0.hand_over(kept);
        }
        Vec::new()
    }
}

/// The values and errors of all, in input order.
pub(crate) struct Outcomes<V, E>(pub(crate) InOrder<Result<V, E>>);

impl<V: Send + 'static, E: Send + 'static> Outlet<V, E> for Outcomes<V, E> {
    type Kept = Vec<(usize, Result<V, E>)>;

    #[inline]
    fn put(&self, kept: &mut Self::Kept, index: usize, result: Result<V, E>) -> Put<E> {
        if InOrder::keep(kept, index, result) {
            self.0.hand_over(kept);
        }
        Put::Continue(())
    }

    #[inline]
    fn flush(&self, kept: &mut Self::Kept) -> Vec<(usize, E)> {
        if kept.is_empty() {
            return Vec::new();
        }
        self.0.hand_over(kept);
        errors(std::mem::take(kept))
    }

    fn cut(&self) -> Vec<(usize, E)> {
        errors(self.0.cut())
    }
}

/// Picks the errors out. What the destructors of the values throw costs none of them.
pub(crate) fn errors<V, E>(
    results: impl IntoIterator<Item = (usize, Result<V, E>)>,
) -> Vec<(usize, E)> {
    let errors = results
        .into_iter()
        .filter_map(|(index, result)| match result {
            Ok(value) => {
                calmly(|| drop(value));
                None
            }
            Err(error) => Some((index, error)),
        });
    errors.collect()
}

/// The values of all, as they come.
pub(crate) struct AsFinished<V>(pub(crate) Lock<Each<Vec<V>>>);

impl<V: Send + 'static, E: Send + 'static> Outlet<V, E> for AsFinished<V> {
    type Kept = ();

    #[inline]
    fn put(&self, (): &mut (), _: usize, result: Result<V, E>) -> Put<E> {
        match result {
            Ok(value) => {
                self.0.lock().0.push(value);
                Put::Continue(())
            }
            Err(error) => Put::Break(Some(error)),
        }
    }
}

/// One value after the other, for somebody who takes them while the work goes on.
pub(crate) struct Channel<V> {
    state: Lock<Flow<V>>,
}

struct Flow<V> {
    ordered: Option<Each<Ordered<V>>>,
    ready: Each<VecDeque<V>>,
    is_closed: bool,
    taker: Option<Waker>,
}

impl<V> Channel<V> {
    pub(crate) fn new(is_ordered: bool) -> Self {
        Self {
            state: Lock::new(Flow {
                ordered: is_ordered.then(Each::default),
                ready: Each(VecDeque::new()),
                is_closed: false,
                taker: None,
            }),
        }
    }

    /// Takes what is ready into `into`, which is empty; `false` once there will be nothing more.
    pub(crate) fn poll_take(&self, into: &mut VecDeque<V>, cx: &mut Context<'_>) -> Poll<bool> {
        let fresh = cx.waker().clone();
        let mut flow = self.state.lock();
        if !flow.ready.0.is_empty() {
            std::mem::swap(&mut flow.ready.0, into);
            return Poll::Ready(true);
        }
        if flow.is_closed {
            return Poll::Ready(false);
        }
        let old = flow.taker.replace(fresh);
        drop(flow);
        drop(old);
        Poll::Pending
    }

    /// Takes what nobody will ask for.
    pub(crate) fn take_rest(&self) -> impl Iterator<Item = V> + use<V> {
        let mut flow = self.state.lock();
        let ready = std::mem::take(&mut flow.ready.0);
        let rest = flow.ordered.as_mut().map(|ordered| ordered.0.take_rest());
        let rest = rest.into_iter().flatten().map(|(_, value)| value);
        ready.into_iter().chain(rest)
    }

    fn change(&self, change: impl FnOnce(&mut Flow<V>)) {
        let waker = {
            let mut flow = self.state.lock();
            change(&mut flow);
            if flow.ready.0.is_empty() && !flow.is_closed {
                None
            } else {
                flow.taker.take()
            }
        };
        wake(waker);
    }
}

impl<V: Send + 'static, E: Send + 'static> Outlet<V, E> for Channel<V> {
    type Kept = ();

    fn put(&self, (): &mut (), index: usize, result: Result<V, E>) -> Put<E> {
        let value = match result {
            Ok(value) => value,
            Err(error) => return Put::Break(Some(error)),
        };
        self.change(|flow| match &mut flow.ordered {
            Some(ordered) => ordered
                .0
                .put(index, value, |value| flow.ready.0.push_back(value)),
            None => flow.ready.0.push_back(value),
        });
        Put::Continue(())
    }

    fn close(&self) {
        self.change(|flow| flow.is_closed = true);
    }
}

/// The first value; the errors before it.
pub(crate) struct First<V, E> {
    state: Lock<Race<V, E>>,
}

struct Race<V, E> {
    value: Option<V>,
    errors: Vec<(usize, E)>,
    phase: Phase,
    taker: Option<Waker>,
}

/// | phase  | a value | an error                 | left when                   |
/// |--------|---------|--------------------------|-----------------------------|
/// | open   | wins    | is kept                  | it is won, closed, or cut   |
/// | won    | late    | is overlooked            |                             |
/// | closed |         |                          |                             |
/// | cut    | late    | is the group's           |                             |
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Won,
    Closed,
    Cut,
}

/// How a race ended: with a value, or with the errors of all.
pub(crate) type Won<V, E> = Result<V, Vec<(usize, E)>>;

impl<V, E> First<V, E> {
    pub(crate) fn new() -> Self {
        Self {
            state: Lock::new(Race {
                value: None,
                errors: Vec::new(),
                phase: Phase::Open,
                taker: None,
            }),
        }
    }

    pub(crate) fn poll_won(&self, cx: &mut Context<'_>) -> Poll<Won<V, E>> {
        let fresh = cx.waker().clone();
        let mut race = self.state.lock();
        if let Some(value) = race.value.take() {
            return Poll::Ready(Ok(value));
        }
        if race.phase == Phase::Closed {
            return Poll::Ready(Err(std::mem::take(&mut race.errors)));
        }
        let old = race.taker.replace(fresh);
        drop(race);
        drop(old);
        Poll::Pending
    }
}

impl<V: Send + 'static, E: Send + 'static> Outlet<V, E> for First<V, E> {
    type Kept = ();

    fn put(&self, (): &mut (), index: usize, result: Result<V, E>) -> Put<E> {
        let mut race = self.state.lock();
        match (result, race.phase) {
            (Ok(value), Phase::Open) => {
                race.value = Some(value);
                race.phase = Phase::Won;
                let taker = race.taker.take();
                drop(race);
                wake(taker);
                Put::Break(None)
            }
            (Err(error), Phase::Open | Phase::Won) => {
                race.errors.push((index, error));
                Put::Continue(())
            }
            (Err(error), Phase::Cut) => Put::Break(Some(error)),
            (late, _) => {
                drop(race);
                calmly(|| drop(late));
                Put::Continue(())
            }
        }
    }

    fn overlooked(&self) -> Vec<(usize, E)> {
        let mut race = self.state.lock();
        if race.phase != Phase::Won {
            return Vec::new();
        }
        std::mem::take(&mut race.errors)
    }

    fn cut(&self) -> Vec<(usize, E)> {
        let mut race = self.state.lock();
        if race.phase == Phase::Won {
            return Vec::new(); // a winner that nobody took is dropped with the outlet
        }
        race.phase = Phase::Cut;
        std::mem::take(&mut race.errors)
    }

    fn close(&self) {
        let taker = {
            let mut race = self.state.lock();
            if race.phase == Phase::Open {
                race.phase = Phase::Closed;
            }
            race.taker.take()
        };
        wake(taker);
    }
}
