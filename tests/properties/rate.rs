//! Histories of a rate limit: waits with and without a deadline, tries, leaves, time, changes of the rate and a cancel, carried
//! out poll by poll by the real one and by a plain model of it, on whole numbers and the paused clock.
//!
//! The model is a debt that is paid off as time goes by, and a line. Beside it, all that went through is written down, and as
//! long as the rate is not changed, every span of time has had its burst and its share at most.

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
use ringfence::{Deadline, Rate, RateError, RateLimiter, Scope, TaskGroup};
use tokio::task::yield_now;
use tokio::time::{Instant, advance};

use crate::agreement::{at, same};
use crate::support::{CountingWaker, paused_runtime};
use crate::{cases, figures, try_cases};

/// One in so many milliseconds, a power of two, and how many at once: so all times are whole in 64ths of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    spread: u8,
    burst: u32,
}

/// Of a millisecond.
const PARTS: u64 = 64;

impl Pace {
    fn cell(self) -> u64 {
        PARTS << self.spread
    }

    fn rate(self) -> Rate {
        Rate::new(1, Duration::from_millis(1 << self.spread)).burst(self.burst)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// So many, and until when at most.
    Acquire(u32, Option<u64>),
    Try(u32),
    Poll(u8),
    Leave(u8),
    Pass(u64),
    SetRate(Pace),
    Cancel,
}

pub(crate) fn case() -> impl Strategy<Value = (Pace, Vec<Op>)> {
    fn pace() -> impl Strategy<Value = Pace> {
        (0..6_u8, 1..5_u32).prop_map(|(spread, burst)| Pace { spread, burst })
    }
    let op = prop_oneof![
        10 => (0..5_u32, option::of(0..200_u64)).prop_map(|(n, limit)| Op::Acquire(n, limit)),
        4 => (0..5_u32).prop_map(Op::Try),
        10 => any::<u8>().prop_map(Op::Poll),
        3 => any::<u8>().prop_map(Op::Leave),
        8 => (0..40_u64).prop_map(Op::Pass),
        2 => pace().prop_map(Op::SetRate),
        1 => Just(Op::Cancel),
    ];
    (pace(), vec(op, 1..100))
}

/// What a poll or a try comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Through,
    TooMany,
    TooLate,
    Cancelled,
}

fn said(result: &Result<(), RateError>) -> Said {
    match result {
        Ok(()) => Said::Through,
        Err(RateError::InsufficientCapacity { .. }) => Said::TooMany,
        Err(RateError::TooLate { .. }) => Said::TooLate,
        Err(_) => Said::Cancelled,
    }
}

struct Waiting {
    id: usize,
    n: u32,
    deadline: Option<u64>,
    /// It was told to look since it looked.
    has_news: bool,
}

struct Model {
    pace: Pace,
    /// All times and debts in parts.
    now: u64,
    debt: u64,
    line: VecDeque<Waiting>,
    is_cancelled: bool,
    /// When how many went through, since the rate was changed.
    through: Vec<(u64, u32)>,
}

impl Model {
    /// When `n` would go through, if so many go before.
    fn time_of(&self, before: u32, n: u32) -> u64 {
        let owed = self.debt + u64::from(before + n) * self.pace.cell();
        self.now + owed.saturating_sub(u64::from(self.pace.burst) * self.pace.cell())
    }

    fn weight(&self, end: usize) -> u32 {
        self.line.range(..end).map(|waiting| waiting.n).sum()
    }

    fn go(&mut self, n: u32) -> Said {
        self.debt += u64::from(n) * self.pace.cell();
        self.through.push((self.now, n));
        Said::Through
    }

    fn takes(&mut self, n: u32) -> Said {
        if n > self.pace.burst {
            Said::TooMany
        } else if n == 0 || (self.line.is_empty() && self.time_of(0, n) == self.now) {
            self.go(n)
        } else {
            Said::TooLate
        }
    }

    fn start(&mut self, id: usize, n: u32, deadline: Option<u64>) -> Option<Said> {
        let said = self.takes(n);
        let at = self.time_of(self.weight(self.line.len()), n);
        if said != Said::TooLate || deadline.is_some_and(|deadline| at > deadline) {
            return Some(said);
        }
        self.line.push_back(Waiting {
            id,
            n,
            deadline,
            has_news: false,
        });
        self.poll(id)
    }

    fn poll(&mut self, id: usize) -> Option<Said> {
        let at = self.line.iter().position(|waiting| waiting.id == id)?;
        let has_news = std::mem::take(&mut self.line[at].has_news);
        let Waiting { n, deadline, .. } = self.line[at];
        let time = self.time_of(self.weight(at), n);
        let looks = at == 0 || (has_news && deadline.is_some());
        let said = if looks && n > self.pace.burst {
            Some(Said::TooMany)
        } else if at == 0 && time == self.now {
            Some(self.go(n))
        } else if looks && deadline.is_some_and(|deadline| time > deadline) {
            Some(Said::TooLate)
        } else {
            self.is_cancelled.then_some(Said::Cancelled)
        };
        if said.is_some() {
            self.leave(id);
        }
        said
    }

    fn leave(&mut self, id: usize) {
        self.line.retain(|waiting| waiting.id != id);
    }

    /// Whether this one would be through or refused if it looked now.
    fn is_due(&self, id: usize) -> bool {
        let first = self.line.front().filter(|waiting| waiting.id == id);
        self.is_cancelled
            || first.is_some_and(|it| it.n > self.pace.burst || self.time_of(0, it.n) == self.now)
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        self.debt = self.debt.saturating_sub(time);
    }

    fn set(&mut self, pace: Pace) {
        let (old, new) = (self.pace.cell(), pace.cell());
        self.debt = self.debt / old * new + self.debt % old * new / old;
        self.pace = pace;
        self.through.clear();
        self.line
            .iter_mut()
            .for_each(|waiting| waiting.has_news = true);
    }

    /// Any span has had its burst and its share.
    fn is_fair(&self) -> bool {
        let cell = self.pace.cell();
        self.through.iter().enumerate().all(|(from, (began, _))| {
            let mut sum = 0;
            self.through[from..].iter().all(|(at, n)| {
                sum += u64::from(*n);
                sum * cell <= u64::from(self.pace.burst) * cell + (at - began)
            })
        })
    }
}

struct Wait {
    id: usize,
    future: Pin<Box<dyn Future<Output = Result<(), RateError>>>>,
    waker: Arc<CountingWaker>,
    polled_at: usize,
}

struct Run {
    model: Model,
    limiter: RateLimiter,
    start: Instant,
    waits: Vec<Wait>,
    next: usize,
}

impl Run {
    fn new(pace: Pace) -> Self {
        Self {
            model: Model {
                pace,
                now: 0,
                debt: 0,
                line: VecDeque::new(),
                is_cancelled: false,
                through: Vec::new(),
            },
            limiter: RateLimiter::new(pace.rate()),
            start: Instant::now(),
            waits: Vec::new(),
            next: 0,
        }
    }

    fn poll(&mut self, at: usize) -> Option<Said> {
        let wait = &mut self.waits[at];
        wait.polled_at = wait.waker.wakes();
        let waker = wait.waker.waker();
        let polled = wait.future.as_mut().poll(&mut Context::from_waker(&waker));
        let Poll::Ready(result) = polled else {
            return None;
        };
        drop(self.waits.remove(at));
        Some(said(&result))
    }

    #[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
    async fn step(&mut self, op: Op, group: &TaskGroup<String>) -> Result<(), TestCaseError> {
        match op {
            Op::Acquire(n, limit) => {
                self.next += 1;
                let deadline = limit.map(|limit| self.model.now + limit * PARTS);
                let until = deadline.map_or(Deadline::NEVER, |parts| {
                    Deadline::at(self.start + Duration::from_millis(parts / PARTS))
                });
                let limiter = self.limiter.clone();
                self.waits.push(Wait {
                    id: self.next,
                    future: Box::pin(async move { limiter.acquire_by(n, until).await }),
                    waker: CountingWaker::new(),
                    polled_at: 0,
                });
                let real = self.poll(self.waits.len() - 1);
                same("a wait", &self.model.start(self.next, n, deadline), &real)?;
            }
            Op::Try(n) => {
                let at = self
                    .model
                    .time_of(self.model.weight(self.model.line.len()), n);
                let result = self.limiter.try_acquire_many(n);
                same("a try", &self.model.takes(n), &said(&result))?;
                if let Err(RateError::TooLate { at: Some(told) }) = result {
                    let parts = (told - self.start).as_nanos() as u64 * PARTS / 1_000_000;
                    same("a try would go through", &at, &parts)?;
                }
            }
            Op::Poll(number) => {
                if let Some(at) = at(&self.waits, number) {
                    let id = self.waits[at].id;
                    let real = self.poll(at);
                    same("a wait", &self.model.poll(id), &real)?;
                }
            }
            Op::Leave(number) => {
                if let Some(at) = at(&self.waits, number) {
                    let id = self.waits.remove(at).id;
                    self.model.leave(id);
                }
            }
            Op::Pass(ms) => {
                advance(Duration::from_millis(ms)).await;
                self.model.pass(ms * PARTS);
            }
            Op::SetRate(pace) => {
                self.limiter.set_rate(pace.rate());
                self.model.set(pace);
            }
            Op::Cancel => {
                group.cancel();
                self.model.is_cancelled = true;
            }
        }
        yield_now().await; // timers go off, and the next step has a turn of its own
        self.check()
    }

    /// What holds between any two steps.
    fn check(&self) -> Result<(), TestCaseError> {
        same("waiting", &self.model.line.len(), &self.limiter.waiting())?;
        for wait in self.waits.iter().filter(|wait| self.model.is_due(wait.id)) {
            let is_woken = wait.waker.wakes() > wait.polled_at;
            same("who can go on is woken", &true, &is_woken)?;
        }
        same("each span has its share", &true, &self.model.is_fair())
    }
}

/// How many steps it took.
pub(crate) fn agree((pace, ops): &(Pace, Vec<Op>)) -> Result<usize, TestCaseError> {
    let mut result = Ok(());
    let scope = Scope::new().grace(Duration::from_secs(3_600));
    let program = scope.run(async |group: &TaskGroup<String>| {
        let mut run = Run::new(*pace);
        for op in ops {
            result = run.step(*op, group).await;
            if result.is_err() {
                return Ok(());
            }
        }
        run.waits.clear();
        result = same("at the end", &0, &run.limiter.waiting());
        Ok(())
    });
    drop(paused_runtime().block_on(program));
    result.map(|()| ops.len())
}

#[test]
fn random_histories_agree_with_the_plain_rate() {
    let steps = std::cell::Cell::new(0);
    try_cases(cases(2_000), &case(), |case| {
        steps.set(steps.get() + agree(&case)?);
        Ok(())
    });
    figures(format_args!("{} steps of rates", steps.get()));
}
