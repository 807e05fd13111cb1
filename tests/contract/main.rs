//! The contract: one module for each family of `docs/contract.md`, one test for each of its headings, of the same
//! name. A guard in `tests/house` compares the two both ways.

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod bad_input;
mod blocking;
mod cancel;
mod context;
mod eager;
mod failure;
mod fault;
mod group;
mod handle;
mod local;
mod owned;
mod panic;
mod resource;
mod shield;
mod slots;
mod start;
mod time;
