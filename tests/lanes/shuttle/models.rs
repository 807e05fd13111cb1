//! Whole groups on shuttle's tokio: random schedules, and random trees of groups.
//!
//! `src/lib.rs` includes this file in the shuttle lane. There is no clock here: every timer is due at once, so a grace is
//! over as soon as it is looked at. A panic must not leave a task, and is thrown without the hook, which would take it for
//! a failure of the test.
//!
//! Each test runs `RINGFENCE_SHUTTLE_SCHEDULES` schedules (100,000 if unset), half of them random and half by PCT, from
//! `RINGFENCE_SHUTTLE_SEED`. A failure prints its schedule, for `shuttle::replay`. All orderings count as `SeqCst` here:
//! what depends on them is for loom.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use tokio::task::yield_now;

use crate::{
    Deadline, Ended, Observer, Outcome, OutcomeHandle, Scope, Spawner, TaskGroup, TaskInfo,
};

/// What scripts fail with.
#[derive(Debug, PartialEq)]
struct Failed;

type Script = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>>;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Runs `model` under random schedules, and under those of PCT, which hold one task back at a few random places. It fails
/// unless all `outcomes` are reached, in the order of the alphabet.
fn explore<F>(outcomes: &[&'static str], model: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    fn check<F>(scheduler: impl Scheduler + 'static, model: fn() -> F) -> usize
    where
        F: Future<Output = ()> + 'static,
    {
        let mut config = shuttle::Config::new();
        config.stack_size = 0x4_0000;
        shuttle::Runner::new(scheduler, config).run(move || {
            shuttle::future::block_on(model());
            assert_eq!(WRONG.take(), None);
        })
    }
    // One at a time: shuttle has but one runtime, and so they would share its root.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (schedules, seed) = (
        setting("RINGFENCE_SHUTTLE_SCHEDULES", 100_000),
        setting("RINGFENCE_SHUTTLE_SEED", 1) as u64,
    );
    let random = check(RandomScheduler::new_from_seed(seed, schedules / 2), model);
    let pct = check(PctScheduler::new_from_seed(seed, 3, schedules / 2), model);
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let name = name.trim_start_matches("shuttle_models::");
    // Not `println`, which is lost in a test that passes.
    let tally = TALLY.take();
    let line = format!("{:>8} schedules  {name}  {tally:?}\n", random + pct);
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    let reached: Vec<_> = tally.into_keys().collect();
    assert_eq!(reached, outcomes, "outcomes reached, and expected");
}

thread_local! {
    /// What a task found wrong. An assertion there would be caught, as any panic of a child.
    static WRONG: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// How children ended, over all schedules: a model in which none is ever cancelled says little.
    static TALLY: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

fn tally(what: &'static str) {
    TALLY.with_borrow_mut(|tally| *tally.entry(what).or_default() += 1);
}

fn ensure(holds: bool, or_else: &'static str) {
    if !holds {
        WRONG.set(Some(or_else));
    }
}

/// A number below `end`, by the schedule.
fn pick(end: u32) -> u32 {
    thread_rng().gen_range(0..end)
}

fn one_in(n: u32) -> bool {
    pick(n) == 0
}

// -- what is counted ---------------------------------------------------------------------------------------------------

/// The futures of a scope, and of all that were opened in it: how many are alive.
struct Family {
    alive: AtomicI64,
    parent: Option<Arc<Family>>,
}

impl Family {
    fn new(parent: Option<&Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            alive: AtomicI64::new(0),
            parent: parent.cloned(),
        })
    }

    fn add(&self, n: i64) {
        let mut next = Some(self);
        while let Some(family) = next {
            family.alive.fetch_add(n, Relaxed);
            next = family.parent.as_deref();
        }
    }

    fn ensure_gone(&self) {
        let is_gone = self.alive.load(Relaxed) == 0;
        ensure(is_gone, "a future outlived its scope");
    }
}

/// A future that counts itself, is dropped once, and is never polled if it came too late.
struct Counted<F> {
    inner: Pin<Box<F>>,
    family: Arc<Family>,
    came_late: bool,
    /// Whether its scope has come back.
    is_over: Arc<AtomicBool>,
}

impl<F> Counted<F> {
    fn new(place: &Place, inner: F) -> Self {
        place.family.add(1);
        Self {
            inner: Box::pin(inner),
            family: place.family.clone(),
            came_late: !place.spawner.is_open(),
            is_over: place.is_over.clone(),
        }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        ensure(!self.came_late, "a future was polled that came too late");
        let is_over = self.is_over.load(Relaxed);
        ensure(!is_over, "a future was polled after its scope");
        self.inner.as_mut().poll(cx)
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        self.family.add(-1);
    }
}

/// Counts children and fates.
#[derive(Default)]
struct Fates {
    spawned: AtomicUsize,
    ended: AtomicUsize,
}

impl Fates {
    fn ensure_balance(&self) {
        let [spawned, ended] = [&self.spawned, &self.ended].map(|count| count.load(Relaxed));
        ensure(spawned == ended, "a child has no fate, or two");
    }
}

impl Observer for Fates {
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.fetch_add(1, Relaxed);
    }

    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.fetch_add(1, Relaxed);
        tally(match how {
            Ended::Completed => "completed",
            Ended::Failed => "failed",
            Ended::Panicked => "panicked",
            Ended::Cancelled(_) => "cancelled",
            Ended::RuntimeGone => "runtime gone",
        });
    }
}

// -- random trees ------------------------------------------------------------------------------------------------------

/// Where a script runs.
#[derive(Clone)]
struct Place {
    spawner: Spawner<Failed>,
    family: Arc<Family>,
    is_over: Arc<AtomicBool>,
    depth: u32,
}

impl Place {
    fn child(&self) -> OutcomeHandle<()> {
        let future = Counted::new(self, script(self.deeper()));
        self.spawner.spawn(future)
    }

    fn background(&self) -> OutcomeHandle<()> {
        let future = Counted::new(self, async {
            yield_now().await;
            pending::<()>().await;
        });
        self.spawner.spawn_background(future)
    }

    fn deeper(&self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.clone()
        }
    }
}

/// What a child, or a body, does: a few random things, and then it ends in a random way.
fn script(place: Place) -> Script {
    Box::pin(async move {
        let mut handles = Vec::new();
        for _ in 0..pick(6) {
            match pick(if place.depth < 3 { 10 } else { 2 }) {
                0 => yield_now().await,
                1 => {
                    if let Some(handle) = handles.pop() {
                        let handle: OutcomeHandle<()> = handle;
                        handle.cancel();
                    }
                }
                2 | 3 => handles.push(place.child()),
                4 => drop(place.background()),
                5 => {
                    if let Some(handle) = handles.pop() {
                        drop(handle.await);
                    }
                }
                6 => {
                    if let Some(handle) = handles.pop() {
                        drop(handle.cancel_and_wait().await);
                    }
                }
                7 => {
                    if one_in(4) {
                        place.spawner.cancel();
                    }
                }
                8 => nested(&place).await?,
                _ => {
                    // Dropped mid-await, unless it is quicker.
                    let polls = pick(3);
                    let _cut_or_done = polled(polls, nested(&place)).await;
                }
            }
        }
        match pick(16) {
            0 => Err(Failed),
            1 => resume_unwind(Box::new("panicked")),
            _ => Ok(()),
        }
    })
}

/// Polls a future so many times at most, and drops it.
async fn polled<F: Future>(mut polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A scope in a script. Its own failures are its caller's in one case of two.
fn nested(place: &Place) -> Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>> {
    let (family, depth) = (Family::new(Some(&place.family)), place.depth + 1);
    Box::pin(async move {
        let result = opened(options(), family, depth).await;
        if result || one_in(2) {
            Ok(())
        } else {
            Err(Failed)
        }
    })
}

fn options() -> Scope {
    let mut options = Scope::new();
    if one_in(3) {
        options = options.grace(Duration::from_secs(1));
    }
    if one_in(8) {
        options = options.deadline(Deadline::after(Duration::from_secs(1)));
    }
    if one_in(2) {
        options = options.panics_as_errors();
    }
    options
}

/// Runs a scope with a random body, and looks at what it left behind.
async fn opened(options: Scope, family: Arc<Family>, depth: u32) -> bool {
    let is_over = Arc::new(AtomicBool::new(false));
    let check = Check {
        family: family.clone(),
        is_over: is_over.clone(),
    };
    let result = options
        .run(async move |group: &TaskGroup<Failed>| {
            let place = Place {
                spawner: group.spawner(),
                family,
                is_over,
                depth,
            };
            let handles: Vec<_> = (0..pick(3))
                .map(|_| group.spawn(Counted::new(&place, script(place.deeper()))))
                .collect();
            script(place.clone()).await?;
            for handle in handles {
                match pick(4) {
                    // Ends the body here, if the child has no value to give.
                    0 => handle.await,
                    1 => handle.cancel(),
                    2 => group.cancel_children(),
                    _ => drop(handle),
                }
            }
            Ok(())
        })
        .await;
    check.ensure_gone();
    result.is_ok()
}

/// Looks when the scope is over, also by a panic; not when it was dropped.
struct Check {
    family: Arc<Family>,
    is_over: Arc<AtomicBool>,
}

impl Check {
    fn ensure_gone(&self) {
        self.family.ensure_gone();
        self.is_over.store(true, Relaxed);
    }
}

/// Catches what a scope throws.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(panic) => {
                // An assertion of ours, or a panic of a script?
                match panic.downcast_ref::<&str>() {
                    Some(&"panicked") => Poll::Ready(None),
                    _ => resume_unwind(panic),
                }
            }
        },
    )
    .await
}

/// Waits until no orphan of the runtime is left.
async fn no_orphans() {
    let id = tokio::runtime::Handle::current().id();
    let root = crate::root::of(Some(id));
    root.emptied().await;
}

#[test]
fn a_random_tree_of_groups() {
    explore(
        &["cancelled", "completed", "failed", "panicked"],
        || async {
            let (fates, family) = (Arc::new(Fates::default()), Family::new(None));
            let options = options().observer(fates.clone());
            caught(opened(options, family.clone(), 0)).await;
            family.ensure_gone();
            fates.ensure_balance();
            no_orphans().await;
        },
    );
}

#[test]
fn a_random_tree_that_is_dropped() {
    explore(
        &["cancelled", "completed", "failed", "panicked"],
        || async {
            let (fates, family) = (Arc::new(Fates::default()), Family::new(None));
            let options = options().observer(fates.clone());
            let polls = pick(5);
            caught(polled(polls, opened(options, family.clone(), 0))).await;
            no_orphans().await;
            family.ensure_gone();
            fates.ensure_balance();
        },
    );
}

#[test]
fn strangers_that_spawn_while_the_group_ends() {
    explore(&["cancelled", "completed"], || async {
        let (fates, family) = (Arc::new(Fates::default()), Family::new(None));
        let strangers = Arc::new(Mutex::new(Vec::new()));
        let kept = strangers.clone();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let inside = family.clone();
        let result = Scope::new()
            .observer(fates.clone())
            .run(async move |group: &TaskGroup<Failed>| {
                let place = Place {
                    spawner: group.spawner(),
                    family: inside,
                    is_over,
                    depth: 9,
                };
                for _ in 0..3 {
                    let place = place.clone();
                    let stranger = shuttle::thread::spawn(move || {
                        let was_open = place.spawner.is_open();
                        let future = Counted::new(&place, async { yield_now().await });
                        let is_refused = place.spawner.try_spawn(future).is_err();
                        ensure(was_open || is_refused, "closed is final");
                        ensure(!is_refused || !place.spawner.is_open(), "closed is final");
                    });
                    kept.lock().unwrap().push(stranger);
                }
                if one_in(2) {
                    group.cancel();
                }
                Ok(())
            })
            .await;
        // A stranger may hold a future in its hands that it is about to offer.
        over.store(true, Relaxed);
        drop(result);
        let strangers = std::mem::take(&mut *strangers.lock().unwrap());
        for stranger in strangers {
            stranger.join().unwrap();
        }
        family.ensure_gone();
        fates.ensure_balance();
    });
}

#[test]
fn cancel_and_wait_covers_grandchildren() {
    explore(&["cancelled"], || async {
        let (fates, family) = (Arc::new(Fates::default()), Family::new(None));
        let inside = family.clone();
        Scope::new()
            .observer(fates.clone())
            .run(async move |group: &TaskGroup<Failed>| {
                let child = group.spawn(async move {
                    let result = Scope::new()
                        .run(async |inner: &TaskGroup<Failed>| {
                            let place = Place {
                                spawner: inner.spawner(),
                                family: inside,
                                is_over: Arc::default(),
                                depth: 9,
                            };
                            for _ in 0..2 {
                                inner.spawn(Counted::new(&place, pending::<()>()));
                            }
                            pending::<Result<(), Failed>>().await
                        })
                        .await;
                    result.map_err(|_| Failed)
                });
                for _ in 0..pick(3) {
                    yield_now().await;
                }
                assert!(matches!(
                    child.cancel_and_wait().await,
                    Outcome::Cancelled(_)
                ));
                family.ensure_gone();
                Ok(())
            })
            .await
            .unwrap();
        fates.ensure_balance();
        no_orphans().await;
    });
}

#[test]
fn a_value_awaited_in_the_body_comes_or_the_scope_ends() {
    explore(&["cancelled", "failed", "value"], || async {
        let result = Scope::new()
            .run(async |group: &TaskGroup<Failed>| {
                let fails = one_in(2);
                let a = group.spawn(async {
                    yield_now().await;
                    Ok(1)
                });
                let b = group.spawn(async move { if fails { Err(Failed) } else { Ok(2) } });
                if one_in(3) {
                    a.cancel();
                }
                Ok(a.await + b.await)
            })
            .await;
        match result {
            Ok(3) => tally("value"),
            Err(error) if error.is_cancelled() => tally("cancelled"),
            Err(error) if error.first() == Some(&Failed) => tally("failed"),
            _ => tally("something else"),
        }
    });
}
