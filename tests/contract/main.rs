//! The contract: one module for each family of `docs/contract.md`, one test for each of its headings, of the same
//! name. A guard in `tests/house` compares the two both ways.

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod backoff;
mod bad_input;
mod borrow;
mod budget;
mod cancel;
mod context;
mod failure;
mod fault;
mod group;
mod handle;
mod hedge;
mod jitter;
mod join;
mod local;
mod panic;
mod resource;
mod retry;
mod time;
