//! Histories of a limiter, fixed and adaptive: waits, tries, permits that come back in every way, changes of the limit and a
//! cancel, carried out poll by poll by the real one and by a plain model of it.
//!
//! The model is what the documentation says, without atomics, seats or wakers: a number of permits that are out, and a list of
//! those who wait. It says who has a permit after each step, so none is lost, none is there twice, and nobody overtakes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::{Limiter, OwnedPermit, Scope, TaskGroup};
use tokio::task::yield_now;

use crate::agreement::{at, same};
use crate::support::{CountingWaker, paused_runtime};
use crate::{cases, figures, try_cases};

/// How a permit comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    Dropped,
    Succeeded,
    Overloaded,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Acquire(u32),
    Try(u32),
    Poll(u8),
    /// Drops a wait, granted or not.
    Leave(u8),
    Give(u8, Back),
    SetLimit(u64),
    /// All who wait are asked to end.
    Cancel,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    limit: u64,
    /// How much more it may grow to, if it is adaptive.
    grows: Option<u64>,
}

pub(crate) fn case() -> impl Strategy<Value = (Shape, Vec<Op>)> {
    let back = prop_oneof![
        Just(Back::Dropped),
        Just(Back::Succeeded),
        Just(Back::Overloaded)
    ];
    let op = prop_oneof![
        10 => (0..6_u32).prop_map(Op::Acquire),
        4 => (0..6_u32).prop_map(Op::Try),
        8 => any::<u8>().prop_map(Op::Poll),
        3 => any::<u8>().prop_map(Op::Leave),
        12 => (any::<u8>(), back).prop_map(|(at, back)| Op::Give(at, back)),
        2 => (1..6_u64).prop_map(Op::SetLimit),
        1 => Just(Op::Cancel),
    ];
    let shape = (1..5_u64, option::of(0..6_u64)).prop_map(|(limit, grows)| Shape { limit, grows });
    (shape, vec(op, 1..100))
}

/// An adaptive limit: between which bounds, and what it has learnt.
struct Learnt {
    least: u64,
    most: u64,
    rounds: u64,
    successes: u64,
}

struct Model {
    limit: u64,
    learnt: Option<Learnt>,
    /// How many permits are out.
    out: u64,
    /// Who waits, and for how many.
    line: VecDeque<(usize, u32)>,
    /// Who has been given permits, and has not seen it.
    granted: Vec<usize>,
    is_cancelled: bool,
}

impl Model {
    fn new(shape: Shape) -> Self {
        let learnt = |grows| Learnt {
            least: shape.limit,
            most: shape.limit + grows,
            rounds: 0,
            successes: 0,
        };
        Self {
            limit: shape.limit,
            learnt: shape.grows.map(learnt),
            out: 0,
            line: VecDeque::new(),
            granted: Vec::new(),
            is_cancelled: false,
        }
    }

    /// More than the limit run alone.
    fn fits(&self, n: u32) -> bool {
        self.out + u64::from(n) <= self.limit || self.out == 0
    }

    fn takes(&mut self, n: u32) -> bool {
        let takes = n == 0 || (self.line.is_empty() && self.fits(n));
        if takes {
            self.out += u64::from(n);
        }
        takes
    }

    fn serve(&mut self) {
        while let Some((id, n)) = self.line.front().copied() {
            if !self.fits(n) {
                return;
            }
            self.line.pop_front();
            self.out += u64::from(n);
            self.granted.push(id);
        }
    }

    /// What a poll returns: permits, the end of the wait, or nothing yet.
    fn poll(&mut self, id: usize, n: u32, is_first: bool) -> Option<bool> {
        if let Some(at) = self.granted.iter().position(|granted| *granted == id) {
            self.granted.remove(at);
            return Some(true);
        }
        if is_first {
            if self.takes(n) {
                return Some(true);
            }
            self.line.push_back((id, n));
        }
        if self.is_cancelled {
            self.line.retain(|(waits, _)| *waits != id);
            self.serve();
            return Some(false);
        }
        None
    }

    fn leave(&mut self, id: usize, n: u32) {
        if let Some(at) = self.granted.iter().position(|granted| *granted == id) {
            self.granted.remove(at);
            self.out -= u64::from(n);
        }
        self.line.retain(|(waits, _)| *waits != id);
        self.serve();
    }

    fn round(&self) -> u64 {
        self.learnt.as_ref().map_or(0, |learnt| learnt.rounds)
    }

    fn give(&mut self, n: u32, round: u64, back: Back) {
        if n == 0 {
            return;
        }
        if let Some(learnt) = &mut self.learnt {
            match back {
                Back::Dropped => {}
                Back::Succeeded => learnt.successes += u64::from(self.out * 2 >= self.limit),
                Back::Overloaded => {
                    learnt.successes = 0;
                    if round == learnt.rounds {
                        learnt.rounds += 1;
                        self.limit = (self.limit / 2).max(learnt.least);
                    }
                }
            }
            if learnt.successes == self.limit {
                learnt.successes = 0;
                self.limit = (self.limit + 1).min(learnt.most);
                self.serve();
            }
        }
        self.out -= u64::from(n);
        self.serve();
    }

    fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        if let Some(learnt) = &mut self.learnt {
            learnt.successes = 0;
            self.limit = limit.clamp(learnt.least, learnt.most);
        }
        self.serve();
    }
}

type Acquired = Option<OwnedPermit>;

struct Wait {
    id: usize,
    n: u32,
    future: Pin<Box<dyn Future<Output = Acquired>>>,
    waker: Arc<CountingWaker>,
    polled_at: usize,
}

/// A permit, of how many, and in which round it was taken.
type Held = (OwnedPermit, u32, u64);

struct Run {
    model: Model,
    limiter: Limiter,
    waits: Vec<Wait>,
    held: Vec<Held>,
    next: usize,
}

impl Run {
    fn new(shape: Shape) -> Self {
        let limit = shape.limit as usize;
        Self {
            model: Model::new(shape),
            limiter: match shape.grows {
                None => Limiter::new(limit),
                Some(grows) => Limiter::adaptive(limit, limit + grows as usize),
            },
            waits: Vec::new(),
            held: Vec::new(),
            next: 0,
        }
    }

    fn poll(&mut self, at: usize, is_first: bool) -> Result<(), TestCaseError> {
        let wait = &mut self.waits[at];
        wait.polled_at = wait.waker.wakes();
        let waker = wait.waker.waker();
        let polled = wait.future.as_mut().poll(&mut Context::from_waker(&waker));
        let (id, n) = (wait.id, wait.n);
        let expected = self.model.poll(id, n, is_first);
        let real = match &polled {
            Poll::Pending => None,
            Poll::Ready(acquired) => Some(acquired.is_some()),
        };
        same("a wait", &expected, &real)?;
        if let Poll::Ready(acquired) = polled {
            drop(self.waits.remove(at));
            let round = self.model.round();
            self.held.extend(acquired.map(|permit| (permit, n, round)));
        }
        Ok(())
    }

    fn step(&mut self, op: Op, group: &TaskGroup<String>) -> Result<(), TestCaseError> {
        match op {
            Op::Acquire(n) => {
                let limiter = self.limiter.clone();
                let wait = async move { Some(limiter.acquire_many(n).await.ok()?.into_owned()) };
                self.next += 1;
                self.waits.push(Wait {
                    id: self.next,
                    n,
                    future: Box::pin(wait),
                    waker: CountingWaker::new(),
                    polled_at: 0,
                });
                self.poll(self.waits.len() - 1, true)?;
            }
            Op::Try(n) => {
                let permit = self.limiter.try_acquire_many(n);
                let permit = permit.map(|permit| permit.into_owned());
                same("a try", &self.model.takes(n), &permit.is_some())?;
                let round = self.model.round();
                self.held.extend(permit.map(|permit| (permit, n, round)));
            }
            Op::Poll(number) => {
                if let Some(at) = at(&self.waits, number) {
                    self.poll(at, false)?;
                }
            }
            Op::Leave(number) => {
                if let Some(at) = at(&self.waits, number) {
                    let wait = self.waits.remove(at);
                    self.model.leave(wait.id, wait.n);
                }
            }
            Op::Give(number, back) => {
                if let Some(at) = at(&self.held, number) {
                    let (permit, n, round) = self.held.remove(at);
                    match back {
                        Back::Dropped => drop(permit),
                        Back::Succeeded => permit.succeeded(),
                        Back::Overloaded => permit.overloaded(),
                    }
                    self.model.give(n, round, back);
                }
            }
            Op::SetLimit(limit) => {
                self.limiter.set_limit(limit as usize);
                self.model.set_limit(limit);
            }
            Op::Cancel => {
                group.cancel();
                self.model.is_cancelled = true;
            }
        }
        self.check()
    }

    /// What holds between any two steps.
    fn check(&self) -> Result<(), TestCaseError> {
        let Self { model, limiter, .. } = self;
        same("the limit", &(model.limit as usize), &limiter.limit())?;
        same("in flight", &(model.out as usize), &limiter.in_flight())?;
        same("waiting", &model.line.len(), &limiter.waiting())?;
        for wait in &self.waits {
            if model.granted.contains(&wait.id) || model.is_cancelled {
                let is_woken = wait.waker.wakes() > wait.polled_at;
                same("who can go on is woken", &true, &is_woken)?;
            }
        }
        Ok(())
    }

    /// When all permits are back and nobody waits, nothing is out.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.waits.clear();
        self.held.clear();
        let left = (self.limiter.in_flight(), self.limiter.waiting());
        same("at the end", &(0, 0), &left)
    }
}

/// How many steps it took.
pub(crate) fn agree((shape, ops): &(Shape, Vec<Op>)) -> Result<usize, TestCaseError> {
    let mut result = Ok(());
    let scope = Scope::new().grace(Duration::from_secs(3_600));
    let program = scope.run(async |group: &TaskGroup<String>| {
        let mut run = Run::new(*shape);
        for op in ops {
            yield_now().await; // a turn of its own: it has so many polls
            result = run.step(*op, group);
            if result.is_err() {
                return Ok(());
            }
        }
        result = run.end();
        Ok(())
    });
    drop(paused_runtime().block_on(program));
    result.map(|()| ops.len())
}

#[test]
fn random_histories_agree_with_the_plain_limiter() {
    let steps = std::cell::Cell::new(0);
    try_cases(cases(2_000), &case(), |case| {
        steps.set(steps.get() + agree(&case)?);
        Ok(())
    });
    figures(format_args!("{} steps of limiters", steps.get()));
}
