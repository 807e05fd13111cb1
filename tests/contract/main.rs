//! The contract: one module for each family of `docs/contract.md`, one test for each of its headings, of the same
//! name. A guard in `tests/house` compares the two both ways.

#[path = "../support/hearing.rs"]
mod hearing;
#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod backoff;
mod bad_input;
mod blocking;
mod borrow;
mod bridge;
mod budget;
mod bug_class;
mod cancel;
mod context;
mod eager;
mod failure;
mod fan_out;
mod fault;
mod group;
mod handle;
mod hedge;
mod inspect;
mod jitter;
mod join;
mod limit;
mod local;
mod owned;
mod panic;
mod periodic;
mod queue;
mod resource;
mod retry;
mod run;
mod runtime;
mod shield;
mod shown;
mod single_flight;
mod slots;
mod start;
mod supervise;
mod testing;
mod time;
mod watchdog;
mod workers;
