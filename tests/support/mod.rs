//! What the tests share: runtimes of every shape, drop counters, counting wakers, logs, an interruption driver, and
//! a watchdog that turns a hang into a failure with a name.
//!
//! Included by path (`#[path = "../support/mod.rs"] mod support;`), so each test binary uses a part of it.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary includes this file and uses a part of it"
)]

use std::{
    any::Any,
    future::Future,
    io::{self, Write},
    panic::{AssertUnwindSafe, Location},
    pin::Pin,
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};

/// How long a test may take, in real time, before the watchdog ends the process.
pub const PATIENCE: Duration = Duration::from_secs(60);

// ---------------------------------------------------------------------------------------------------------------
// Runtimes
// ---------------------------------------------------------------------------------------------------------------

/// A `current_thread` runtime with its clock running.
pub fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A `current_thread` runtime whose clock stands still and jumps when everybody waits.
pub fn paused_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// A `multi_thread` runtime with so many workers.
pub fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs one test on `current_thread` and on `multi_thread` with 1, 2 and 4 workers.
///
/// The future is driven by `block_on`, so it may hold what is not `Send`; see [`every_runtime_in_a_task`] for the
/// other way.
#[track_caller]
pub fn every_runtime(test: impl AsyncFn()) {
    for (shape, runtime) in shapes() {
        let _watchdog = Watchdog::start(shape, PATIENCE);
        drive(&runtime, Box::pin(test()));
    }
}

/// Boxed, so that the runtime's part is compiled once and not for each test: that is most of a test binary's build.
fn drive(runtime: &Runtime, test: Pin<Box<dyn Future<Output = ()> + '_>>) {
    runtime.block_on(test);
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Like [`every_runtime`], but the test is a task of the runtime: on `multi_thread` it runs on a worker.
#[track_caller]
pub fn every_runtime_in_a_task<F>(test: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for (shape, runtime) in shapes() {
        let _watchdog = Watchdog::start(shape, PATIENCE);
        let test: Boxed = Box::pin(test());
        let in_a_task = async {
            if let Err(error) = spawn(test).await {
                std::panic::resume_unwind(error.into_panic());
            }
        };
        drive(&runtime, Box::pin(in_a_task));
    }
}

/// Runs one test on `current_thread`, clock running.
#[track_caller]
pub fn single_thread(test: impl AsyncFnOnce()) {
    let _watchdog = Watchdog::start("current_thread", PATIENCE);
    drive(&current_thread(), Box::pin(test()));
}

/// Runs one test on `current_thread` with the clock paused: time is exact and costs nothing.
#[track_caller]
pub fn paused(test: impl AsyncFnOnce()) {
    let _watchdog = Watchdog::start("current_thread, paused", PATIENCE);
    drive(&paused_runtime(), Box::pin(test()));
}

fn shapes() -> impl Iterator<Item = (&'static str, Runtime)> {
    type Make = fn() -> Runtime;
    let all: [(&str, Make); 4] = [
        ("current_thread", current_thread),
        ("multi_thread, 1 worker", || multi_thread(1)),
        ("multi_thread, 2 workers", || multi_thread(2)),
        ("multi_thread, 4 workers", || multi_thread(4)),
    ];
    all.into_iter().map(|(shape, make)| (shape, make()))
}

/// A plain tokio task: a stranger that belongs to no group.
#[expect(
    clippy::disallowed_methods,
    reason = "tests need tasks that belong to no group"
)]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}

// ---------------------------------------------------------------------------------------------------------------
// Waiting without sleeping
// ---------------------------------------------------------------------------------------------------------------

/// Lets everybody else who is ready run, on `current_thread`, many times over.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Yields until `condition` holds. A condition that never comes true is the watchdog's business.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// What the future panicked with, as text, or its output.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    AssertUnwindSafe(future)
        .catch_unwind()
        .await
        .map_err(|payload| message(&*payload))
}

/// The text of a panic payload.
pub fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload that is no text".to_owned()
    }
}

pub use ringfence::testing::cut_at_every_await;

// ---------------------------------------------------------------------------------------------------------------
// Counting drops, polls and wakes
// ---------------------------------------------------------------------------------------------------------------

/// Counts values that were made and dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<[AtomicUsize; 2]>);

impl Drops {
    /// A fresh pair of counters.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that counts itself, now and when it is dropped.
    pub fn guard(&self) -> DropGuard {
        self.0[0].fetch_add(1, Ordering::SeqCst);
        DropGuard(self.clone())
    }

    /// How many guards were made.
    pub fn made(&self) -> usize {
        self.0[0].load(Ordering::SeqCst)
    }

    /// How many guards were dropped.
    pub fn dropped(&self) -> usize {
        self.0[1].load(Ordering::SeqCst)
    }

    /// How many guards are alive.
    pub fn alive(&self) -> usize {
        // Read the drops first: a guard made and dropped in between must not count below zero.
        let dropped = self.dropped();
        self.made() - dropped
    }
}

/// Made by [`Drops::guard`].
#[derive(Debug)]
pub struct DropGuard(Drops);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.0[1].fetch_add(1, Ordering::SeqCst);
    }
}

/// A count that many tasks add to.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// A count of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one and returns the number before.
    pub fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// The number now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A value that panics when it is dropped.
#[derive(Debug)]
pub struct PanicOnDrop(pub &'static str);

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

/// Calls a closure when it is dropped.
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    /// Keeps `run` for the drop.
    pub fn new(run: F) -> Self {
        Self(Some(run))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// A future that counts its polls and its drop, and is pending for ever.
#[derive(Debug)]
pub struct Parked {
    polls: Count,
    _guard: DropGuard,
}

impl Parked {
    /// Counts polls in `polls` and itself in `drops`.
    pub fn new(polls: &Count, drops: &Drops) -> Self {
        Self {
            polls: polls.clone(),
            _guard: drops.guard(),
        }
    }
}

impl Future for Parked {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polls.add();
        Poll::Pending
    }
}

/// A waker that only counts.
#[derive(Debug, Default)]
pub struct CountingWaker {
    wakes: AtomicUsize,
}

impl CountingWaker {
    /// A fresh one; `Waker::from(it.clone())` makes the waker.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A waker that counts here.
    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// How often it was woken.
    pub fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A list of things that happened, in order, written from anywhere.
#[derive(Debug)]
pub struct Log<T = &'static str>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Log<T> {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes one entry.
    pub fn push(&self, entry: T) {
        lock(&self.0).push(entry);
    }

    /// A value that writes `entry` when it is dropped.
    pub fn on_drop(&self, entry: T) -> OnDrop<impl FnOnce() + use<T>> {
        let log = self.clone();
        OnDrop::new(move || log.push(entry))
    }

    /// All entries so far.
    pub fn entries(&self) -> Vec<T> {
        lock(&self.0).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---------------------------------------------------------------------------------------------------------------
// Hangs
// ---------------------------------------------------------------------------------------------------------------

/// Ends the process, naming the test, unless it is dropped in time. Real time: it also sees a worker that is blocked.
#[derive(Debug)]
pub struct Watchdog(Arc<(Mutex<bool>, Condvar)>);

impl Watchdog {
    /// Starts to watch the test that runs on this thread.
    #[track_caller]
    pub fn start(what: &str, patience: Duration) -> Self {
        let place = Location::caller();
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("{name} ({what}, {place}) took longer than {patience:?}: a hang");
        let done: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let seen = Arc::clone(&done);
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let (flag, wake) = &*seen;
                let (ended, _) = wake
                    .wait_timeout_while(lock(flag), patience, |ended| !*ended)
                    .unwrap_or_else(PoisonError::into_inner);
                if !*ended {
                    give_up(&line);
                }
            })
            .expect("a thread for the watchdog");
        Self(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }
}

fn give_up(line: &str) -> ! {
    // Not `eprintln`: the test harness would capture it, and lose it with the process.
    drop(writeln!(io::stderr(), "\nwatchdog: {line}"));
    process::abort()
}
