//! Models under loom: every interleaving of a few threads, up to a bound on preemptions, of the crate's own code.
//!
//! `src/lib.rs` includes this file in the loom lane, so models see what is private. Each model is a test of its own, prints
//! how many interleavings it ran, and fails unless every outcome of its race was reached: one that reaches only some of
//! them shows less than it says. What must not happen shows as a failed assertion, as a leak, or as a deadlock (a lost
//! wake-up: the first line of the report counts, what follows is the unwinding of everybody else).

#[path = "models/adoption.rs"]
mod adoption;
#[path = "models/borrow.rs"]
mod borrow;
#[path = "models/budget.rs"]
mod budget;
#[path = "models/cancel.rs"]
mod cancel;
#[path = "models/crew.rs"]
mod crew;
#[path = "models/end.rs"]
mod end;
#[path = "models/limit.rs"]
mod limit;
#[path = "models/loan.rs"]
mod loan;
#[path = "models/owned.rs"]
mod owned;
#[path = "models/pause.rs"]
mod pause;
#[path = "models/queue.rs"]
mod queue;
#[path = "models/single_flight.rs"]
mod single_flight;
#[path = "models/slots.rs"]
mod slots;
#[path = "models/spawn.rs"]
mod spawn;
#[path = "models/start.rs"]
mod start;
#[path = "models/token.rs"]
mod token;
#[path = "models/wait.rs"]
mod wait;
#[path = "models/watched.rs"]
mod watched;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::{Condvar, Mutex};
use tokio::runtime::Handle;

use crate::group::TaskGroup;
use crate::group::driver::{Clock, Driver};
use crate::group::error::GroupError;
use crate::group::handle::Settled;
use crate::group::member::Member;
use crate::group::output::TaskOutput;
use crate::observe::CancelReason;
use crate::state::word::Kind;
use crate::state::{Core, Settings};
use crate::sync::{Arc, AtomicBool, Ordering, PlainArc};

/// The error of the groups here.
type Error = &'static str;
type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which outcomes the interleavings of a model had, and how often. Plain memory: no part of the model.
#[derive(Default)]
struct Seen(std::sync::Mutex<BTreeMap<&'static str, usize>>);

impl Seen {
    fn note(&self, outcome: &'static str) {
        *self.0.lock().unwrap().entry(outcome).or_default() += 1;
    }
}

/// Runs `model` in every interleaving. It has to note one of the `outcomes` each time, and to reach all of them.
fn explore(outcomes: &[&'static str], model: impl Fn(&Seen) + Send + Sync + 'static) {
    explore_within(2, outcomes, model); // below that a lost wake-up goes unseen
}

/// The same with so many preemptions at least.
fn explore_within(
    preemptions: usize,
    outcomes: &[&'static str],
    model: impl Fn(&Seen) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    // A limit on time or number ends a model early, and green.
    builder.preemption_bound = builder.preemption_bound.max(Some(preemptions));
    builder.max_branches = builder.max_branches.max(20_000);
    builder.max_duration = None;
    builder.max_permutations = None;
    let seen = PlainArc::new(Seen::default());
    let noted = seen.clone();
    builder.check(move || model(&noted));

    let seen = seen.0.lock().unwrap();
    let all: usize = seen.values().sum();
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let name = name.trim_start_matches("loom_models::");
    // Not `println`, which is lost in a test that passes.
    let line = format!("{all:>8} interleavings  {name}  {seen:?}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    let reached: Vec<_> = seen.keys().copied().collect();
    let mut expected = outcomes.to_vec();
    expected.sort_unstable();
    assert_eq!(reached, expected, "outcomes reached, and expected");
    assert!(all > 1, "one interleaving is no model");
}

/// A thread that sleeps until it is woken: a small executor, and a waker that counts.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    fn new() -> PlainArc<Self> {
        PlainArc::default()
    }

    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }

    /// Polls once.
    fn poll<F: Future + Unpin>(self: &PlainArc<Self>, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(self.clone());
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }

    /// Polls whenever woken, until the future is ready. Returns also how many polls that took.
    fn run<F: Future + Unpin>(self: &PlainArc<Self>, mut future: F) -> (F::Output, usize) {
        for polls in 1.. {
            if let Poll::Ready(output) = self.poll(&mut future) {
                return (output, polls);
            }
            self.wait();
        }
        unreachable!("polls are counted without end")
    }
}

impl Wake for Parker {
    fn wake(self: PlainArc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// Runs a future on this thread, as the runtime would its task. Returns also how many polls that took.
fn run<F: Future>(future: F) -> (F::Output, usize) {
    Parker::new().run(Box::pin(future))
}

fn group() -> Arc<Core> {
    Core::new(Settings::default(), None)
}

fn group_with_grace() -> Arc<Core> {
    let settings = Settings {
        has_grace: true,
        ..Settings::default()
    };
    Core::new(settings, None)
}

fn group_in(parent: &Arc<Core>) -> Arc<Core> {
    Core::new(Settings::default(), Some(parent.clone()))
}

/// A child that has been counted in, with its serial.
fn child<F>(core: &Arc<Core>, future: F) -> Result<(u64, Member<F, Error>), CancelReason>
where
    F: Future<Output: TaskOutput<Error, Value: Send + 'static>>,
{
    child_of_kind(core, Kind::Normal, future)
}

fn child_of_kind<F>(
    core: &Arc<Core>,
    kind: Kind,
    future: F,
) -> Result<(u64, Member<F, Error>), CancelReason>
where
    F: Future<Output: TaskOutput<Error, Value: Send + 'static>>,
{
    let serial = core.enter(kind)?;
    let location = Location::caller();
    let member = Member::new(core.clone(), serial, kind, false, location, future);
    Ok((serial, member))
}

/// The scope of a group, with a body.
fn scope<F>(
    core: &Arc<Core>,
    runtime: Option<&Handle>,
    body: F,
) -> Pinned<Result<(), GroupError<Error>>>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let group = TaskGroup::new(core.clone(), runtime.cloned());
    Box::pin(async move {
        let clock = Clock::new(Duration::ZERO, None, None);
        Driver::new(&group, || body, clock, false).await
    })
}

/// The same, polled once, by nobody in particular; the body has to be one that waits.
fn opened<F>(
    core: &Arc<Core>,
    runtime: Option<&Handle>,
    body: F,
) -> Pinned<Result<(), GroupError<Error>>>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut opened = scope(core, runtime, body);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(opened.as_mut().poll(&mut cx).is_pending());
    opened
}

/// A body that has nothing to do.
async fn ready() -> Result<(), Error> {
    Ok(())
}

/// A body that only ends by force.
fn endless() -> impl Future<Output = Result<(), Error>> + Send + 'static {
    std::future::pending()
}

/// Pending once, and woken at once.
fn turn() -> impl Future<Output = ()> + Send + 'static {
    let mut turned = false;
    poll_fn(move |cx| {
        if turned {
            return Poll::Ready(());
        }
        turned = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Says that something has been dropped. Relaxed on purpose: that others see it is up to the crate.
#[derive(Clone)]
struct Gone(Arc<AtomicBool>);

impl Gone {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// A value whose drop is what is meant.
    fn guard(&self) -> Guard {
        Guard(self.clone())
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Guard(Gone);

impl Drop for Guard {
    fn drop(&mut self) {
        let Gone(flag) = &self.0;
        flag.store(true, Ordering::Relaxed);
    }
}

fn is_cancelled<T>(settled: &Settled<T>) -> bool {
    matches!(settled, Settled::Cancelled(_))
}

fn requested() -> CancelReason {
    CancelReason::Requested {
        note: None,
        by: None,
    }
}
