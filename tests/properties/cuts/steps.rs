//! Programs as lists of steps, and how they are run.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence::{
    Attempt, BorrowGroup, Deadline, Ended, GroupError, Hedge, Jitter, Observer, OwnedGroup, Ready,
    Retry, RetryBudget, Scope, Slots, StartError, TaskGroup, TaskId, TaskInfo, borrow_scope,
    move_on_after, root, shield, timeout, timeout_at, token,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::support::Drops;

/// What a program does, step by step: in a scope of its own if it spawns.
#[derive(Clone)]
pub(crate) enum Step {
    Yield,
    Sleep(u16),
    /// Spawns so many children that each do this.
    Spawn(usize, Program),
    Background(Program),
    /// Awaits the value of the child spawned last.
    Value,
    Outcome,
    Detached,
    CancelAndWait,
    CancelChildren,
    Scope(Program),
    Timeout(u8, Program),
    TimeoutAt(u8, Program),
    MoveOn(u8, Program),
    /// Waits for the token, for so long.
    Token(u8),
    /// Waits for the root, for so long.
    Root(u8),
    Fail,
    /// Does this three times, as a run of this form: a closure, one that is lent something, a loop.
    Retry(u8, Program),
    /// Does this in up to three copies.
    Hedge(Program),
    /// Runs it through a helper of the group.
    Helped(Helper, Program),
}

/// The rest of what a group can do with a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    /// Waits for a slot of the budget that all of a run share.
    Limited,
    TryLimited,
    Start,
    Eager,
    Blocking,
    /// In a long-lived group that is shut down, with a grace or without.
    Shutdown(u8),
    Wait,
    /// In a long-lived group that is dropped.
    Owned,
    TryJoin,
    TryJoinAll,
    SettleAll,
    First,
    FirstOk,
    Staggered(u8),
    /// Under a shield with that bound.
    Shield(u8),
    /// As children that borrow.
    Borrow,
}

pub(super) const HELPERS: [Helper; 17] = [
    Helper::Limited,
    Helper::TryLimited,
    Helper::Start,
    Helper::Eager,
    Helper::Blocking,
    Helper::Shutdown(0),
    Helper::Shutdown(3),
    Helper::Wait,
    Helper::Owned,
    Helper::TryJoin,
    Helper::TryJoinAll,
    Helper::SettleAll,
    Helper::First,
    Helper::FirstOk,
    Helper::Staggered(1),
    Helper::Shield(2),
    Helper::Borrow,
];

#[derive(Clone)]
pub(crate) struct Program {
    pub(super) has_grace: bool,
    pub(super) steps: Vec<Step>,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yield => f.write_str("yield"),
            Self::Sleep(ms) => write!(f, "sleep({ms})"),
            Self::Spawn(1, program) => write!(f, "spawn{program:?}"),
            Self::Spawn(n, program) => write!(f, "spawn {n} times {program:?}"),
            Self::Background(program) => write!(f, "background{program:?}"),
            Self::Value => f.write_str("value"),
            Self::Outcome => f.write_str("outcome"),
            Self::Detached => f.write_str("detached"),
            Self::CancelAndWait => f.write_str("cancel_and_wait"),
            Self::CancelChildren => f.write_str("cancel_children"),
            Self::Scope(program) => write!(f, "scope{program:?}"),
            Self::Timeout(ms, program) => write!(f, "timeout({ms}){program:?}"),
            Self::TimeoutAt(ms, program) => write!(f, "timeout_at({ms}){program:?}"),
            Self::MoveOn(ms, program) => write!(f, "move_on_after({ms}){program:?}"),
            Self::Token(ms) => write!(f, "token({ms})"),
            Self::Root(ms) => write!(f, "root({ms})"),
            Self::Fail => f.write_str("fail"),
            Self::Retry(form, program) => write!(f, "retry {form}{program:?}"),
            Self::Hedge(program) => write!(f, "hedge{program:?}"),
            Self::Helped(helper, program) => write!(f, "{helper:?}{program:?}"),
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_grace { " with grace " } else { " " })?;
        f.debug_list().entries(&self.steps).finish()
    }
}

pub(super) fn ms(ms: u8) -> Duration {
    Duration::from_millis(ms.into())
}

/// Everything that is alive, the ends that were observed, and a budget.
#[derive(Clone)]
pub(super) struct Tally {
    drops: Drops,
    fates: Arc<Mutex<Fates>>,
    purse: Arc<Purse>,
    slots: Slots,
}

/// What retries and hedges are paid with, and how many have begun.
struct Purse {
    budget: RetryBudget,
    begun: AtomicU32,
}

const TOKENS: u32 = 1_000_000;

impl Default for Purse {
    fn default() -> Self {
        Self {
            budget: RetryBudget::new(0.0).capacity(TOKENS).reserve(0),
            begun: AtomicU32::new(0),
        }
    }
}

impl Purse {
    fn begin(&self, attempt: Attempt) {
        self.begun
            .fetch_add(u32::from(attempt.number > 1), Ordering::Relaxed);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            drops: Drops::default(),
            fates: Arc::default(),
            purse: Arc::default(),
            slots: Slots::new(1),
        }
    }
}

#[derive(Default)]
struct Fates {
    spawned: HashSet<TaskId>,
    ended: HashSet<TaskId>,
    wrong: Vec<String>,
}

struct Ear(Arc<Mutex<Fates>>);

impl Observer for Ear {
    fn spawned(&self, task: &TaskInfo) {
        let mut fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fates.spawned.insert(task.id());
    }
    fn ended(&self, task: &TaskInfo, how: &Ended) {
        let mut fates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !fates.ended.insert(task.id()) || *how == Ended::RuntimeGone {
            fates.wrong.push(format!("{} ended as {how:?}", task.id()));
        }
    }
}

impl Tally {
    /// Nothing is alive, and nothing was lost.
    pub(super) fn check(&self) -> Result<(), String> {
        let fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        let (alive, orphans) = (self.drops.alive(), root().orphans());
        if alive > 0 || orphans > 0 {
            return Err(format!(
                "{alive} futures and {orphans} orphaned scopes are alive"
            ));
        }
        if self.slots.free() != 1 {
            return Err("a slot is lost".to_owned());
        }
        if fates.spawned != fates.ended || !fates.wrong.is_empty() {
            let missing: Vec<_> = fates.spawned.symmetric_difference(&fates.ended).collect();
            return Err(format!(
                "ends not observed once: {missing:?} {:?}",
                fates.wrong
            ));
        }
        let begun = self.purse.begun.load(Ordering::Relaxed);
        let spent = f64::from(TOKENS) - self.purse.budget.available();
        if spent != f64::from(begun) {
            return Err(format!("{begun} retries and copies for {spent} tokens"));
        }
        Ok(())
    }
}

pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Runs a program, in a scope if it spawns.
pub(super) fn run(tally: Tally, program: Program) -> Running<'static> {
    Box::pin(async move {
        let _guard = tally.drops.guard();
        let spawns = |step: &Step| {
            matches!(
                step,
                Step::Spawn(..) | Step::Background(_) | Step::Helped(..)
            )
        };
        if !program.steps.iter().any(spawns) {
            return steps(&tally, &program, None).await;
        }
        let mut options = Scope::new().observer(Arc::new(Ear(tally.fates.clone())));
        if program.has_grace {
            options = options.grace(ms(3));
        }
        let result = options
            .run(async |group: &TaskGroup<String>| steps(&tally, &program, Some(group)).await);
        result
            .await
            .map_err(|error: GroupError<String>| error.to_string())
    })
}

fn steps<'a>(
    tally: &'a Tally,
    program: &'a Program,
    group: Option<&'a TaskGroup<String>>,
) -> Running<'a> {
    Box::pin(async move {
        let _guard = tally.drops.guard();
        let mut handles = Vec::new();
        let child = |program: &Program| {
            let (guard, running) = (tally.drops.guard(), run(tally.clone(), program.clone()));
            async move {
                let _guard = guard;
                running.await
            }
        };
        for step in &program.steps {
            let inner = |program: &Program| run(tally.clone(), program.clone());
            match step {
                Step::Yield => yield_now().await,
                Step::Sleep(time) => sleep(Duration::from_millis((*time).into())).await,
                Step::Spawn(times, program) => {
                    handles.extend(group.into_iter().flat_map(|group| {
                        let spawned = (0..*times).map(|_| group.spawn(child(program)));
                        spawned.collect::<Vec<_>>()
                    }));
                }
                Step::Background(program) => {
                    let running = child(program);
                    if let Some(group) = group {
                        drop(group.spawn_background(async move {
                            running.await?;
                            std::future::pending::<Result<(), String>>().await
                        }));
                    }
                }
                Step::Value => {
                    if let Some(handle) = handles.pop() {
                        handle.await;
                    }
                }
                Step::Outcome => {
                    if let Some(handle) = handles.pop() {
                        drop(handle.outcome().await);
                    }
                }
                Step::Detached => {
                    if let Some(handle) = handles.pop() {
                        drop(handle.detached().await);
                    }
                }
                Step::CancelAndWait => {
                    if let Some(handle) = handles.pop() {
                        drop(handle.cancel_and_wait().await);
                    }
                }
                Step::CancelChildren => group.into_iter().for_each(TaskGroup::cancel_children),
                Step::Scope(program) => inner(program).await?,
                Step::Timeout(limit, program) => drop(timeout(ms(*limit), inner(program)).await),
                Step::TimeoutAt(limit, program) => {
                    drop(timeout_at(Deadline::after(ms(*limit)), inner(program)).await);
                }
                Step::MoveOn(limit, program) => {
                    drop(move_on_after(ms(*limit), inner(program)).await);
                }
                Step::Token(limit) => drop(timeout(ms(*limit), token().cancelled()).await),
                Step::Root(limit) => drop(root().wait(ms(*limit)).await),
                Step::Fail => return Err("failed".to_owned()),
                Step::Retry(form, program) => retry(tally, *form, &|| inner(program)).await?,
                Step::Hedge(program) => {
                    let run = Hedge::after(ms(1)).copies(3).run(|copy| {
                        tally.purse.begin(copy);
                        inner(program)
                    });
                    let ended = run.budget(&tally.purse.budget).await;
                    ended.map_err(|error| error.to_string())?;
                }
                Step::Helped(helper, program) => {
                    if let Some(group) = group {
                        let boxed = |_| Box::pin(child(program)) as Running<'static>;
                        helped(tally, group, *helper, (0..3).map(boxed).collect()).await?;
                    }
                }
            }
        }
        Ok(())
    })
}

const PATIENT: Retry = Retry::constant(Duration::from_millis(2))
    .jitter(Jitter::None)
    .attempts(3);

/// What an attempt needs.
struct Lent<'a> {
    tally: &'a Tally,
    op: &'a (dyn Fn() -> Running<'static> + Sync),
}

impl Lent<'_> {
    fn attempt(&self, attempt: Attempt) -> Running<'static> {
        self.tally.purse.begin(attempt);
        let running = (self.op)();
        Box::pin(async move {
            running.await?;
            if attempt.number < 3 {
                return Err("again".to_owned());
            }
            Ok(())
        })
    }
}

async fn retry(
    tally: &Tally,
    form: u8,
    op: &(dyn Fn() -> Running<'static> + Sync),
) -> Result<(), String> {
    async fn step(lent: &mut Lent<'_>, attempt: Attempt) -> Result<(), String> {
        lent.attempt(attempt).await
    }
    let mut lent = Lent { tally, op };
    let budget = &tally.purse.budget;
    let ended = match form {
        0 => {
            let run = PATIENT.retry(|attempt| lent.attempt(attempt));
            run.budget(budget).await
        }
        1 => {
            let run = PATIENT.retry_with(&mut lent, step);
            run.budget(budget).run().await
        }
        _ => {
            let mut tries = PATIENT.tries().budget(budget);
            loop {
                let error = match tries.begin() {
                    Ok(attempt) => match lent.attempt(attempt).await {
                        Ok(()) => {
                            tries.succeeded(());
                            break Ok(());
                        }
                        Err(error) => error,
                    },
                    Err(over) => break Err(over),
                };
                if let Err(over) = tries.failed(error, |_| true).await {
                    break Err(over);
                }
            }
        }
    };
    ended.map_err(|error| error.to_string())
}

/// Runs children through a helper.
fn helped<'a>(
    tally: &'a Tally,
    group: &'a TaskGroup<String>,
    helper: Helper,
    children: Vec<Running<'static>>,
) -> Running<'a> {
    Box::pin(async move { help(tally, group, helper, children).await })
}

async fn help(
    tally: &Tally,
    group: &TaskGroup<String>,
    helper: Helper,
    children: Vec<Running<'static>>,
) -> Result<(), String> {
    let refused = |error: StartError<String>| error.to_string();
    let list = |errors: Vec<String>| errors.join(", ");
    match helper {
        Helper::Limited => {
            let limited = group.limit(&tally.slots);
            for child in children {
                drop(limited.spawn(child).await);
            }
        }
        Helper::TryLimited => {
            let limited = group.limit(&tally.slots);
            children
                .into_iter()
                .for_each(|child| drop(limited.try_spawn(child)));
        }
        Helper::Start => {
            for (place, child) in children.into_iter().enumerate() {
                let started = group.start(|ready: Ready<()>| async move {
                    if place == 1 {
                        child.await?;
                        ready.set(());
                        return Ok(());
                    }
                    yield_now().await;
                    ready.set(());
                    child.await
                });
                started.await.map_err(refused)?;
            }
        }
        Helper::Eager => children
            .into_iter()
            .for_each(|child| drop(group.spawn_eager(child))),
        Helper::Blocking => {
            for _ in 0..2 {
                let guard = tally.drops.guard();
                let handle = group.spawn_blocking(move || drop(guard));
                handle.await;
            }
        }
        Helper::Shutdown(_) | Helper::Wait | Helper::Owned => {
            let owned = OwnedGroup::<String>::new();
            children
                .into_iter()
                .for_each(|child| drop(owned.spawn(child)));
            yield_now().await;
            match helper {
                Helper::Shutdown(grace) => drop(owned.shutdown(ms(grace)).await),
                Helper::Wait => owned
                    .wait()
                    .await
                    .into_result()
                    .map_err(|e| e.to_string())?,
                _ => drop(owned),
            }
        }
        Helper::TryJoin => {
            let mut all = children.into_iter();
            if let (Some(a), Some(b)) = (all.next(), all.next()) {
                group.try_join((a, b)).await?;
            }
        }
        Helper::TryJoinAll => drop(group.try_join_all(children).await?),
        Helper::SettleAll => drop(group.settle_all(children).await),
        Helper::First => drop(group.first(children).await),
        Helper::FirstOk => group.first_ok(children).await.map_err(list)?,
        Helper::Staggered(delay) => {
            let staggered = group.staggered(ms(delay), children);
            staggered.await.map_err(list)?;
        }
        Helper::Shield(bound) => {
            for child in children {
                shield(ms(bound), child).await?;
            }
        }
        Helper::Borrow => {
            let inner = borrow_scope(|inner: BorrowGroup<'_, String>| async move {
                let spawned = children.into_iter().map(|child| inner.spawn(child));
                if let Some(handle) = spawned.last() {
                    handle.await;
                }
                Ok(())
            });
            inner.await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
