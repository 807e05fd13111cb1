//! Retry: trying again, without making things worse.
//!
//! A [`Retry`] is a policy; a run of it is a closure ([`Retry::retry`]), a closure with something lent to it
//! ([`Retry::retry_with`]) or a loop ([`Retry::tries`]), all driven by one engine. A [`RetryBudget`] bounds what runs
//! cost together.
//!
//! # How the pieces nest
//!
//! There are no layers; calls nest as functions do, and the order says what holds:
//!
//! ```text
//! deadline( retry( rate limit → concurrency permit → timeout( hedge( operation ) ) ) )
//! ```
//!
//! A permit taken inside the closure is not held during a pause; one taken around the run is. A wait for a limiter inside the
//! closure counts against the deadline, and not against a [`timeout`](crate::timeout) that stands inside as well; it counts against the
//! [attempt timeout](Run::attempt_timeout), which is around the whole closure. A retry and the hedge inside it share one budget. Retry at one level
//! only: three attempts at each of three levels are twenty-seven.

mod attempts;
pub(crate) mod backoff;
pub(crate) mod budget;
mod copies;
mod error;
mod event;
mod future;
mod hedge;
mod histogram;
mod jitter;
mod latency;
pub(crate) mod listen;
mod policy;
mod race;
mod run;
mod seed;
mod tries;
mod verdict;
mod waiting;

pub use attempts::Attempt;
pub use budget::RetryBudget;
pub use error::{RetryError, RetryReason};
pub use event::{Hook, NoHook, OnEvent, RetryEvent};
pub use future::{Reporting, RetryFuture, RetryReport};
pub use hedge::{Hedge, HedgeEvent, HedgeHook, HedgeRun};
pub use jitter::Jitter;
pub use latency::Latency;
pub use policy::{Delays, InvalidPolicy, Retry};
pub use race::{HedgeError, HedgeFuture, HedgeReport, HedgeReporting};
pub use run::{Run, RunWith};
pub use tries::Tries;
pub use verdict::{AnyError, Classify, Judge, Judged, Until, Verdict, When};
