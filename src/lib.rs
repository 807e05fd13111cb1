//! Structured concurrency on tokio.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod cancel;
mod context;
mod group;
#[cfg(any(doc, doctest))]
pub mod guide;
mod observe;
mod panic;
mod root;
mod runtime;
mod state;
mod sync;
mod time;
mod trace;

pub use cancel::{Cancelled, Token, token};
pub use group::error::{BoxError, Cause, Failure, FailureKind, GroupError, SpawnError};
pub use group::handle::{Outcome, OutcomeHandle, TaskHandle};
pub use group::options::Scope;
pub use group::output::{FnReturn, Never, TaskOutput};
pub use group::{Named, ScopeBody, Spawner, TaskGroup, scope};
pub use observe::{
    CancelReason, Displaced, DisplacedWhat, Ended, Observer, Straggler, TaskId, TaskInfo, observe,
};
pub use panic::PanicPayload;
pub use root::{Root, root};
pub use time::{Deadline, Elapsed, Limit, MoveOn, Timeout, move_on_after, timeout, timeout_at};

// The models of the lanes: they see what is private, and are part of no other build.
#[cfg(all(test, ringfence_loom))]
#[cfg_attr(ringfence_loom, path = "../tests/lanes/loom/models.rs")]
mod loom_models;
#[cfg(all(test, ringfence_shuttle))]
#[cfg_attr(ringfence_shuttle, path = "../tests/lanes/shuttle/models.rs")]
mod shuttle_models;
