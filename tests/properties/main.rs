//! Properties: random programs and runs against models, cuts at every await, chaos on real threads.
//!
//! `RINGFENCE_CASES` sets how many random programs there are, `RINGFENCE_SEED` which ones.

mod agreement;
mod chaos;
mod cuts;
mod fan;
mod hedge;
mod limiter;
mod lockstep;
mod model;
mod program;
mod queue;
mod rate;
mod retry;
mod supervise;
#[path = "../support/mod.rs"]
mod support;
mod world;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Shows figures to whoever runs with `--nocapture`.
#[expect(clippy::print_stdout, reason = "it is what the run has to say")]
fn figures(text: std::fmt::Arguments<'_>) {
    println!("{text}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many random programs to run.
fn cases(otherwise: u32) -> u32 {
    number("RINGFENCE_CASES")
        .and_then(|cases| u32::try_from(cases).ok())
        .unwrap_or(otherwise)
}

/// Which random programs to run.
fn seed() -> u64 {
    number("RINGFENCE_SEED").unwrap_or(1)
}

/// Draws so many cases, and fails with the smallest one that does not agree.
fn try_cases<S: Strategy>(
    count: u32,
    strategy: &S,
    agree: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases: count,
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(strategy, agree) {
        panic!("{error}");
    }
}
