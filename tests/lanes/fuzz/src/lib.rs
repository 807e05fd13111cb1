//! The programs of `tests/properties`, drawn from the bytes of a fuzzer instead of at random, and carried out by the crate and
//! by the model.
//!
//! Those files name `proptest`; here that is this crate, whose strategies draw from bytes (`drawn`).
#![cfg(not(test))] // the tests of those files are not for here
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    reason = "what only the tests of these files use is here, too"
)]

extern crate self as proptest;

mod drawn;

use drawn::{collection, option, prelude, sample, test_runner};

#[path = "../../../properties"]
mod properties {
    pub(crate) mod agreement;
    pub(crate) mod cuts;
    pub(crate) mod fan;
    pub(crate) mod hedge;
    pub(crate) mod limiter;
    pub(crate) mod lockstep;
    pub(crate) mod model;
    pub(crate) mod program;
    pub(crate) mod queue;
    pub(crate) mod rate;
    pub(crate) mod retry;
    pub(crate) mod supervise;
    pub(crate) mod world;
}
#[path = "../../../support/mod.rs"]
mod support;

use properties::{
    agreement, cuts, fan, hedge, limiter, lockstep, model, program, queue, rate, retry, supervise,
    world,
};

use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};

use drawn::{Bytes, Strategy};
use test_runner::TestCaseError;

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Draws a case, and ends the process with it if the crate and the model part.
fn play<S: Strategy<Value: Debug>, T>(
    bytes: &[u8],
    strategy: &S,
    agree: impl FnOnce(&S::Value) -> Result<T, TestCaseError>,
) {
    let case = strategy.draw(&mut Bytes::new(bytes));
    if std::env::var_os("FUZZ_SHOW").is_some() {
        eprintln!("{case:#?}");
    }
    let played = panic::catch_unwind(AssertUnwindSafe(|| agree(&case)));
    let error = match played {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(payload) => format!("it panicked: {}", support::message(&*payload)),
    };
    eprintln!("{case:#?}\n\n{error}");
    std::process::abort();
}

macro_rules! targets {
    ($($name:ident: $room:ident,)*) => {
        $(
            pub fn $name(bytes: &[u8]) {
                play(bytes, &$room::case(), $room::agree);
            }
        )*
    };
}

targets! {
    group: lockstep,
    cuts: cuts,
    queue: queue,
    fan_out: fan,
    retry: retry,
    hedge: hedge,
    limiter: limiter,
    rate: rate,
    supervise: supervise,
}

/// Many programs throw on purpose: only with `FUZZ_SHOW` is it said where.
pub fn be_quiet() {
    if std::env::var_os("FUZZ_SHOW").is_none() {
        panic::set_hook(Box::new(|_| {}));
    }
}

/// The program of a target: libFuzzer's, or one that plays the files that it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        use $crate::libfuzzer_sys;
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(init: $crate::be_quiet(), |bytes: &[u8]| $crate::$name(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::be_quiet();
            for file in std::env::args_os().skip(1) {
                $crate::$name(&std::fs::read(file)?);
            }
            Ok(())
        }
    };
}

// What the tests of those files ask `tests/properties/main.rs` for.

fn figures(_: std::fmt::Arguments<'_>) {}

fn cases(otherwise: u32) -> u32 {
    otherwise
}

fn seed() -> u64 {
    1
}

fn try_cases() {}
