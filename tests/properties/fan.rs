//! Fan-outs with random limits, weights, keys, rates, failures, panics and cancels, in lock-step with a plain model: after each step
//! just those items run that the model says, just so many were taken and wait, permits are where they belong; and at the
//! end each item has had one fate, and all that was failed with comes out.

mod plain;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::{
    GroupError, Input, IntoInput, Limiter, OwnedPermit, Progress, Rate, RateLimiter, Scope,
    TaskGroup, fan_out,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::plain::{CELL, Model, Shape};
use crate::agreement::same;
use crate::support::{DropGuard, Drops, PATIENCE, Watchdog, caught, paused_runtime, settle, spawn};
use crate::{cases, figures, try_cases};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    End(u8, bool),
    Feed(u8),
    SetPermits(u8),
    Come(u8),
    Go(u8),
    Throw(u8),
    Pass(u8),
    TryRate,
    Signal,
    Drop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (any::<u8>(), any::<bool>()).prop_map(|(at, is_ok)| Op::End(at, is_ok)),
        8 => (1..4_u8).prop_map(Op::Feed),
        4 => (1..5_u8).prop_map(Op::SetPermits),
        4 => (1..4_u8).prop_map(Op::Come),
        6 => any::<u8>().prop_map(Op::Go),
        1 => any::<u8>().prop_map(Op::Throw),
        8 => (0..5_u8).prop_map(Op::Pass),
        2 => Just(Op::TryRate),
        1 => Just(Op::Signal),
        1 => Just(Op::Drop),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let key = prop_oneof![1 => Just(None), 2 => (0..3_u8).prop_map(Some)];
    let permits = prop_oneof![1 => Just(None), 3 => (1..5_usize).prop_map(Some)];
    let burst = prop_oneof![1 => Just(None), 1 => (1..4_u64).prop_map(Some)];
    (
        1..5_usize,
        any::<bool>(),
        permits,
        burst,
        vec((key, 0..4_u32), 0..16),
        0..16_usize,
    )
        .prop_map(|(limit, is_local, permits, burst, items, fed)| Shape {
            limit,
            is_local,
            permits,
            burst,
            items,
            fed,
        })
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Ok,
    Fail,
    Throw,
}

/// What the test and the items share.
#[derive(Default)]
struct Board {
    fed: usize,
    taken: usize,
    input: Option<Waker>,
    items: BTreeMap<usize, (Option<Fate>, Option<Waker>)>,
}

type Shared = Arc<Mutex<Board>>;

fn on<R>(board: &Shared, change: impl FnOnce(&mut Board) -> R) -> R {
    change(&mut board.lock().expect("no poison"))
}

/// The input: as many items as were fed so far.
struct Source {
    board: Shared,
    shape: Shape,
    drops: Drops,
}

type Item = (usize, Option<u8>, u32, DropGuard);

impl Input for Source {
    type Item = Item;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        on(&self.board, |board| {
            let at = board.taken;
            if at == self.shape.items.len() {
                return Poll::Ready(None);
            }
            if at == board.fed {
                board.input = Some(cx.waker().clone());
                return Poll::Pending;
            }
            board.taken += 1;
            let (key, weight) = self.shape.items[at];
            Poll::Ready(Some((at, key, weight, self.drops.guard())))
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.shape.items.len() - on(&self.board, |board| board.taken);
        (left, Some(left))
    }
}

/// The marker of the source.
struct Ours;

impl IntoInput<Ours> for Source {
    type Item = Item;
    type Input = Self;

    fn into_input(self) -> Self {
        self
    }
}

/// Removes an item from the board when it is dropped.
struct Running(Shared, usize);

impl Drop for Running {
    fn drop(&mut self) {
        on(&self.0, |board| board.items.remove(&self.1));
    }
}

fn item(
    board: &Shared,
    (number, _, _, guard): Item,
) -> impl Future<Output = Result<usize, usize>> + Send + use<> {
    on(board, |board| board.items.insert(number, (None, None)));
    let running = Running(board.clone(), number);
    async move {
        let _guard = guard;
        let fate = poll_fn(|cx| {
            on(&running.0, |board| match board.items.get_mut(&number) {
                Some((Some(fate), _)) => Poll::Ready(*fate),
                Some((None, waker)) => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => unreachable!("it is on the board as long as it lives"),
            })
        })
        .await;
        match fate {
            Fate::Ok => Ok(number),
            Fate::Fail => Err(number),
            Fate::Throw => panic!("thrown"),
        }
    }
}

type Outcomes = Result<Vec<Result<usize, usize>>, GroupError<usize>>;
/// How the fan-out ended; an error is what it threw.
type Ended = Arc<Mutex<Option<Result<Outcomes, String>>>>;

/// What a stranger asks for, and where it keeps it.
type Stranger = (u32, Arc<Mutex<Option<OwnedPermit>>>);

struct Run {
    model: Model,
    board: Shared,
    drops: Drops,
    progress: Progress,
    limiter: Option<Limiter>,
    rate: Option<RateLimiter>,
    strangers: BTreeMap<usize, Stranger>,
    signal: Arc<Notify>,
    task: JoinHandle<()>,
    ended: Ended,
    is_aborted: bool,
    steps: u64,
}

fn at<T: Copy>(list: &[T], number: u8) -> Option<T> {
    list.get(usize::from(number) % list.len().max(1)).copied()
}

impl Run {
    fn start(shape: &Shape) -> Self {
        let board = Shared::default();
        let mut model = Model::new(shape.clone());
        on(&board, |board| board.fed = model.fed);
        let (drops, progress) = (Drops::new(), Progress::new());
        let limiter = shape.permits.map(Limiter::new);
        let rate = |burst| Rate::new(1, Duration::from_millis(CELL)).burst(burst as u32);
        let rate = shape.burst.map(|burst| RateLimiter::new(rate(burst)));
        let source = Source {
            board: board.clone(),
            shape: shape.clone(),
            drops: drops.clone(),
        };
        let fan = fan_out::<_, Ours>(source)
            .limit(shape.limit)
            .key_if(|item: &Item| item.1)
            .progress(&progress);
        let fan = match &limiter {
            Some(limiter) => fan.weighted(limiter, |item: &Item| item.2),
            None => fan,
        };
        let fan = match &rate {
            Some(rate) => fan.rate(rate),
            None => fan,
        };
        let (inner, is_local) = (board.clone(), shape.is_local);
        let (ended, signal) = (Ended::default(), Arc::new(Notify::new()));
        let (told, cancel) = (ended.clone(), signal.clone());
        let task = spawn(async move {
            let grace = Duration::from_secs(3_600);
            let work = move |taken| item(&inner, taken);
            let scope = Scope::new()
                .grace(grace)
                .run(async |group: &TaskGroup<usize>| {
                    group.spawn(async move {
                        let outcomes = async {
                            if is_local {
                                fan.local().outcomes(work).await
                            } else {
                                fan.outcomes(work).await
                            }
                        };
                        *told.lock().expect("no poison") = Some(caught(outcomes).await);
                    });
                    cancel.notified().await;
                    group.cancel();
                    Ok(())
                });
            drop(scope.await);
        });
        model.go_on();
        Self {
            model,
            board,
            drops,
            progress,
            limiter,
            rate,
            strangers: BTreeMap::new(),
            signal,
            task,
            ended,
            is_aborted: false,
            steps: 0,
        }
    }

    fn decide(&self, number: usize, fate: Fate) {
        let waker = on(&self.board, |board| {
            let (place, waker) = board.items.get_mut(&number)?;
            *place = Some(fate);
            waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn act(&mut self, op: Op) -> Result<(), TestCaseError> {
        let running: Vec<usize> = self.model.running.iter().copied().collect();
        match op {
            Op::End(number, is_ok) => {
                if let Some(item) = at(&running, number) {
                    self.decide(item, if is_ok { Fate::Ok } else { Fate::Fail });
                    self.model.end(item, is_ok);
                }
            }
            Op::Throw(number) => {
                if let Some(item) = at(&running, number) {
                    self.decide(item, Fate::Throw);
                    self.model.cut();
                }
            }
            Op::Feed(n) => {
                self.model.feed(n.into());
                let waker = on(&self.board, |board| {
                    board.fed = self.model.fed;
                    board.input.take()
                });
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Op::SetPermits(n) => {
                if let Some(limiter) = &self.limiter {
                    limiter.set_limit(n.into());
                    self.model.set_permits(n.into());
                }
            }
            Op::Come(weight) => {
                let Some(limiter) = self.limiter.clone() else {
                    return Ok(());
                };
                let (id, weight) = (self.steps as usize, u32::from(weight));
                let place = Arc::new(Mutex::new(None));
                self.strangers.insert(id, (weight, place.clone()));
                spawn(async move {
                    let permit = limiter.acquire_many(weight).await.expect("no cancel");
                    *place.lock().expect("no poison") = Some(permit.into_owned());
                });
                self.model.stranger_comes(id, weight);
            }
            Op::Go(number) => {
                let there: Vec<usize> = self.model.strangers.iter().copied().collect();
                if let Some(id) = at(&there, number) {
                    if let Some((weight, place)) = self.strangers.remove(&id) {
                        drop(place.lock().expect("no poison").take());
                        self.model.stranger_goes(id, weight);
                    }
                }
            }
            Op::Pass(n) => {
                let time = u64::from(n) * CELL / 2;
                tokio::time::advance(Duration::from_millis(time)).await;
                self.model.pass(time);
            }
            Op::TryRate => {
                let tried = self.rate.as_ref().map(|rate| rate.try_acquire().is_ok());
                same("tried", &self.model.try_rate(), &tried)?;
            }
            Op::Signal => {
                self.signal.notify_one();
                if !self.model.is_over {
                    self.model.signal();
                }
            }
            Op::Drop => {
                self.task.abort();
                if !self.model.is_over {
                    self.is_aborted = true;
                    self.model.cut();
                }
            }
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<(), TestCaseError> {
        settle().await;
        self.steps += 1;
        let model = &self.model;
        let running = on(&self.board, |board| board.items.keys().copied().collect());
        same("running", &model.running, &running)?;
        let taken = on(&self.board, |board| board.taken);
        same("taken", &model.taken, &taken)?;
        same("alive", &model.held(), &self.drops.alive())?;
        let limiter = self.limiter.as_ref();
        let permits = limiter.map_or((0, 0), |it| (it.in_flight(), it.waiting()));
        same("permits", &model.permits(), &permits)?;
        let unrated = self.rate.as_ref().map_or(0, RateLimiter::waiting);
        same("at the rate", &model.unrated(), &unrated)?;
        let has = |(_, place): &Stranger| place.lock().expect("no poison").is_some();
        let served = self.strangers.iter().filter(|(_, it)| has(it));
        same(
            "served",
            &model.strangers,
            &served.map(|(id, _)| *id).collect(),
        )?;
        let done = model.ended.values().filter(|is_ok| **is_ok).count();
        let counts = [
            done,
            model.ended.len() - done,
            model.cancelled,
            model.running.len(),
        ];
        let progress = &self.progress;
        let real = [
            progress.done(),
            progress.failed(),
            progress.cancelled(),
            progress.in_flight(),
        ];
        same("progress", &counts, &real.map(|n| n as usize))?;
        let is_over = self.ended.lock().expect("no poison").is_some() || self.is_aborted;
        same("over", &model.is_over, &is_over)
    }

    /// What came out of it.
    fn verdict(&self) -> Result<(), TestCaseError> {
        let ended = self.ended.lock().expect("no poison").take();
        let failed = |(item, is_ok): (&usize, &bool)| (!is_ok).then_some(*item);
        let mut failed: Vec<usize> = self.model.ended.iter().filter_map(failed).collect();
        match ended {
            None => same("aborted", &true, &self.is_aborted),
            Some(Err(thrown)) => same("thrown", &"thrown", &&*thrown),
            Some(Ok(Ok(outcomes))) => {
                same("whole", &true, &self.model.is_whole())?;
                let expected = self.model.ended.iter();
                let expected = expected.map(|(n, is_ok)| if *is_ok { Ok(*n) } else { Err(*n) });
                same("outcomes", &expected.collect(), &outcomes)
            }
            Some(Ok(Err(error))) => {
                same("cut off", &false, &self.model.is_whole())?;
                same("reason", &true, &error.is_cancelled())?;
                let mut told: Vec<usize> =
                    error.iter().filter_map(|it| it.error().copied()).collect();
                told.sort_unstable();
                failed.sort_unstable();
                same("errors", &failed, &told)
            }
        }
    }
}

async fn run(shape: &Shape, ops: &[Op]) -> Result<u64, TestCaseError> {
    let mut run = Run::start(shape);
    run.check().await?;
    for op in ops {
        run.act(*op).await?;
        run.check().await?;
    }
    // Everything is fed, strangers go, items end: then it has to be over.
    let rest = [Op::Feed(255), Op::Go(0), Op::Pass(4), Op::End(0, true)];
    for op in rest.iter().cycle().take(200) {
        if run.model.is_over {
            break;
        }
        run.act(*op).await?;
        run.check().await?;
    }
    same("the end", &true, &run.model.is_over)?;
    run.verdict()?;
    Ok(run.steps)
}

pub(crate) fn case() -> impl Strategy<Value = (Shape, Vec<Op>)> {
    (shape(), vec(op(), 0..30))
}

/// How many steps it took.
pub(crate) fn agree((shape, ops): &(Shape, Vec<Op>)) -> Result<u64, TestCaseError> {
    paused_runtime().block_on(run(shape, ops))
}

#[test]
fn fan_outs_do_what_the_model_does() {
    let steps = std::cell::Cell::new(0);
    try_cases(
        cases(if cfg!(debug_assertions) {
            1_000
        } else {
            10_000
        }),
        &case(),
        |case| {
            let _watchdog = Watchdog::start("a fan-out", PATIENCE);
            steps.set(steps.get() + agree(&case)?);
            Ok(())
        },
    );
    figures(format_args!("{} steps of fan-outs", steps.get()));
}
