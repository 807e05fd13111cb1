//! Limits: how many at once, and how many in a time.
//!
//! Everything here is a handle to shared state: clones are the same limit. All waits are first come, first served, cost
//! nothing when they are given up, and end on the signal of a cancel. The engines are apart: `permits` (one atomic word),
//! `waiters` (the queue), `gcra` and `aimd` decide; `gate` and `rate` wait.

pub(crate) mod aimd;
pub(crate) mod concurrency;
pub(crate) mod gate;
pub(crate) mod gcra;
pub(crate) mod keyed;
pub(crate) mod loan;
pub(crate) mod permits;
pub(crate) mod rate;
pub(crate) mod waiters;
