//! Structured concurrency on tokio: task groups whose tasks cannot outlive them.
//!
//! Three promises. **Nothing outlives its scope**: when a [`scope`] comes back, by value, error, or panic, every task spawned
//! into it has ended and been dropped with all that it captured. **Nothing is lost**: every error and every panic reaches
//! the caller, or the [`Observer`] where there is no caller. **Nothing hangs in silence**: what is cancelled ends, and
//! whoever holds it up is named.
//!
//! # A scope
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # async fn fetch_user(id: u32) -> std::io::Result<u32> { Ok(id) }
//! # async fn fetch_posts(id: u32) -> std::io::Result<Vec<u32>> { Ok(vec![id]) }
//! use ringfence::scope;
//!
//! let (user, posts) = scope(async |group| {
//!     let user = group.spawn(fetch_user(7)); // starts now, runs in parallel
//!     let posts = group.spawn(fetch_posts(7));
//!     Ok((user.await, posts.await)) // a handle awaited in the body yields the value itself
//! })
//! .await?;
//! # assert_eq!((user, posts), (7, vec![7]));
//! # Ok(())
//! # }
//! ```
//!
//! If either fails, the other is cancelled and waited for, the body ends where it stands, and the [`GroupError`] lists what
//! happened. There is no handle to forget, no `JoinError` to unwrap, and nothing left behind.
//!
//! # Cancelling
//!
//! Five things cancel a group: a failure in it, [`cancel`](TaskGroup::cancel), its [deadline](Scope::deadline), dropping its
//! future, and awaiting the value of a child that was cancelled alone, since there is none. Cancelled tasks are dropped where
//! they are parked, and the scope waits until they are gone. To let them say goodbye first, give it a [grace](Scope::grace):
//! then the [`token`] of each task fires, and force comes after.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use ringfence::{Cause, Scope, TaskGroup, token};
//!
//! let error = Scope::new()
//!     .grace(Duration::from_secs(5))
//!     .run(async |group: &TaskGroup| {
//!         group.spawn(async { token().cancelled().await }); // listens: ends within the grace
//!         group.named("deaf").spawn(std::future::pending::<()>()); // has to be forced
//!         group.cancel_with("maintenance");
//!         Ok(())
//!     })
//!     .await
//!     .unwrap_err();
//!
//! assert!(matches!(error.cause(), Cause::Cancelled(_)));
//! assert_eq!(error.forced()[0].name(), Some("deaf"));
//! # }
//! ```
//!
//! A scope is an ordinary future: put it under a [`timeout`], into a `select!`, inside another scope. Dropped half-way, it
//! cancels its children at once, and the task that was awaiting it does not end before they are gone.
//!
//! # Errors
//!
//! A child returns `()` or `Result<T, E>`, with the one `E` of its group; convert inside the child where it differs:
//! `group.spawn(async { Ok(fetch().await?) })`. Where nothing tells `E` (*type annotations needed*, says the compiler), write
//! `async |group: &TaskGroup|` for [`BoxError`].
//! [`GroupError<E>`](GroupError) has the same shape for one failure or many: its [cause](GroupError::cause), each failure
//! with its task's name and place in the order in which they happened, and [`into_first`](GroupError::into_first) for the
//! error itself. It goes through `?` into `anyhow` and into boxed errors.
//!
//! A panic cancels the others, waits for them, and goes on in the caller; [by option](Scope::panics_as_errors) it is an entry
//! of the error instead.
//!
//! # Where to look
//!
//! | for | look at |
//! |---|---|
//! | a scope with a name, a grace, a deadline, an observer | [`Scope`] |
//! | spawning from children, callbacks, other threads; into whatever group a library is lent | [`TaskGroup::spawner`], [`Spawn`] |
//! | what serves the others and ends with them | [`TaskGroup::spawn_background`] |
//! | children that borrow, or are not `Send`, in one task | [`borrow_scope`], [`local_scope`] |
//! | the first that succeeds, all of a tuple, a staggered start | [`TaskGroup::first_ok`], [`TaskGroup::try_join`], [`TaskGroup::staggered`] |
//! | how one child ended; cancelling one child | [`TaskHandle`], [`Outcome`] |
//! | handing work over, with backpressure, fairly | [`queue`] |
//! | so many workers on a queue or a broker | [`Workers`] |
//! | many items, so many at once | [`fan_out`] |
//! | so many at once, so many in a time | [`Limiter`], [`KeyedLimiter`], [`RateLimiter`] |
//! | so many children of a group at once | [`TaskGroup::limit`], [`Slots`] |
//! | a group in a struct, shut down with a report | [`OwnedGroup`], [`Report`] |
//! | children that block, or say when they are ready | [`TaskGroup::spawn_blocking`], [`TaskGroup::start`] |
//! | what must finish although it is cancelled | [`shield`] |
//! | trying again, with delays, deadlines, budgets; hedging | [`retry`] |
//! | limits in time | [`timeout`], [`move_on_after`], [`Deadline`] |
//! | work every so often, or so long after the last time | [`Periodic`] |
//! | the same call, wanted by many at once | [`SingleFlight`] |
//! | parts that are restarted when they fail | [`Supervisor`], [`supervise`] |
//! | a process that stops in order on a signal | [`run`], [`Process`] (feature `signal`) |
//! | what happens at the very outside | [`root`] |
//! | what is alive just now, and what it waits for; counters; who is slow | [`snapshot`], [`inspect`] |
//! | tests: nothing left alive, a cut at every await | [`testing`], behind its feature |
//!
//! The [guide] has the pages of `docs/`: [which form for what](guide::choosing), [the cookbook](guide::cookbook),
//! [cancellation](guide::cancellation), [errors](guide::errors), [testing](guide::testing), [limits](guide::limits), and where one
//! comes from: [`JoinSet`](guide::migrating), [asyncio](guide::from_asyncio).
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | for |
//! |---|---|
//! | `signal` | `run` and `Process`: a process that stops in order on SIGINT or SIGTERM |
//! | `testing` | the module `testing` |
//! | `stream` | `Stream` and `Sink` of `futures` for what yields or takes many values |
//! | `tokio-util` | to and from its `CancellationToken` |
//! | `tracing` | displaced panics, forced children and lifecycle edges as events; children in the current span |
//!
//! # What it does not do
//!
//! A task that never awaits cannot be stopped, only waited for. A scope future that is leaked (`mem::forget`) is never
//! cancelled. When a runtime is shut down, its tasks are dropped in whatever order it likes, and scopes elsewhere learn that it is gone. With
//! `panic = "abort"` a panic ends the process; all else holds. [More of that](guide::limits).
//!

// What a feature hides is linked to where it can be read.
#![cfg_attr(feature = "signal", doc = "[`run`]: fn@run\n[`Process`]: Process")]
#![cfg_attr(
    not(feature = "signal"),
    doc = "[`run`]: https://docs.rs/ringfence/latest/ringfence/fn.run.html\n[`Process`]: https://docs.rs/ringfence/latest/ringfence/struct.Process.html"
)]
#![cfg_attr(feature = "testing", doc = "[`testing`]: mod@testing")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "[`testing`]: https://docs.rs/ringfence/latest/ringfence/testing/index.html"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod bridge;
mod calm;
mod cancel;
mod context;
mod detail;
mod fan_out;
mod group;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod inspect;
mod limit;
mod observe;
mod panic;
mod pulse;
pub mod queue;
pub mod retry;
mod root;
#[cfg(feature = "signal")]
mod run;
mod runtime;
mod shield;
mod single_flight;
#[cfg_attr(not(feature = "testing"), path = "smallest/off.rs")]
mod smallest;
mod sorted_map;
mod state;
pub mod supervise;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod trace;
mod watched;
mod workers;

pub use bridge::{BoxedTask, Spawn};
pub use cancel::{Cancelled, Token, token};
#[cfg(feature = "stream")]
pub use fan_out::input::Streamed;
pub use fan_out::input::{Input, IntoInput, Iterated};
pub use fan_out::local::LocalFanOut;
pub use fan_out::output::ItemOutput;
pub use fan_out::progress::Progress;
pub use fan_out::results::Results;
pub use fan_out::{FanOut, fan_out};
pub use group::borrow::{
    BorrowGroup, BorrowNamed, BorrowSpawner, LocalGroup, LocalNamed, LocalSpawner, borrow_scope,
    local_scope,
};
pub use group::error::{
    BoxError, Cause, Failure, FailureKind, GroupError, SpawnError, StartError, TrySpawnError,
};
pub use group::handle::{Outcome, OutcomeHandle, TaskHandle};
pub use group::join::{AsCompleted, IntoResult, TryJoin};
pub use group::limited::{Limited, LimitedNamed, LimitedSpawner};
pub use group::options::Scope;
pub use group::output::{FnReturn, Never, TaskOutput};
pub use group::owned::OwnedGroup;
pub use group::report::Report;
pub use group::slots::Slots;
pub use group::spawn::{Guard, Named, Spawner};
pub use group::start::Ready;
pub use group::{ScopeBody, TaskGroup, scope};
pub use inspect::{Snapshot, snapshot};
pub use limit::concurrency::{Acquire, Limiter, OwnedPermit, Permit, WaitCancelled};
pub use limit::keyed::{KeyedLimiter, KeyedPermit};
pub use limit::rate::{AcquireRate, Rate, RateError, RateLimiter};
pub use observe::{
    CancelReason, Displaced, DisplacedWhat, Ended, Observer, Straggler, TaskId, TaskInfo, observe,
};
pub use panic::PanicPayload;
pub use retry::{
    Attempt, Hedge, Jitter, Latency, Retry, RetryBudget, RetryError, RetryEvent, RetryReason,
    RetryReport, Verdict,
};
pub use root::{Root, root};
#[cfg(feature = "signal")]
pub use run::{Nag, Phased, Process, RunReport, StopSignal, run};
pub use shield::{Shield, shield};
pub use single_flight::{FlightError, SingleFlight};
pub use supervise::{Child, Periodic, Supervisor};
pub use time::{Deadline, Elapsed, Limit, MoveOn, Timeout, move_on_after, timeout, timeout_at};
pub use workers::{Deliverable, Source, Tally, WorkFailure, Workers};

// The models of the lanes: they see what is private, and are part of no other build.
#[cfg(all(test, ringfence_loom))]
#[cfg_attr(ringfence_loom, path = "../tests/lanes/loom/models.rs")]
mod loom_models;
#[cfg(all(test, ringfence_shuttle))]
#[cfg_attr(ringfence_shuttle, path = "../tests/lanes/shuttle/models.rs")]
mod shuttle_models;
