//! Panics, and policies that make no sense.

use std::{
    cell::Cell,
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::poll;
use ringfence::{Jitter, Retry, RetryBudget, RetryEvent};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{Drops, PanicOnDrop, caught, message, paused};

fn purse() -> RetryBudget {
    RetryBudget::new(0.0).capacity(5).reserve(0)
}

#[test]
fn a_panic_of_the_operation_goes_through() {
    paused(async || {
        for in_call in [true, false] {
            let (budget, drops, calls) = (purse(), Drops::new(), Cell::new(0));
            let op = |attempt: ringfence::Attempt| {
                calls.set(calls.get() + 1);
                let guard = drops.guard();
                assert!(!in_call || attempt.number < 2, "the closure");
                async move {
                    let _guard = guard;
                    tokio::task::yield_now().await;
                    assert!(attempt.number < 2, "the future");
                    Err::<(), _>(Oops(0))
                }
            };
            let ended = caught(STEADY.retry(op).budget(&budget).into_future()).await;
            let expected = if in_call { "the closure" } else { "the future" };
            assert_eq!(ended.unwrap_err(), expected);
            assert_eq!(
                (calls.get(), drops.alive(), budget.available()),
                (2, 0, 4.0) // a retry that has begun counts, however it ends
            );
        }
    });
}

#[test]
fn a_panic_of_a_closure_of_the_run_goes_through() {
    paused(async || {
        let budget = purse();
        let op = |_| async { Err::<(), _>(Oops(0)) };
        let ended = caught(
            STEADY
                .retry(op)
                .budget(&budget)
                .when(|_| panic!("rule"))
                .into_future(),
        );
        assert_eq!(ended.await.unwrap_err(), "rule");
        let tell = |_: &RetryEvent<'_, Oops>| panic!("hook");
        let ended = caught(
            STEADY
                .retry(op)
                .budget(&budget)
                .on_event(tell)
                .into_future(),
        );
        assert_eq!(ended.await.unwrap_err(), "hook");
        let op = |_| {
            let bomb = PanicOnDrop("destructor");
            std::future::poll_fn(move |_| {
                let _ = &bomb;
                Poll::Ready(Err::<(), _>(Oops(0)))
            })
        };
        let ended = caught(STEADY.retry(op).budget(&budget).into_future());
        assert_eq!(ended.await.unwrap_err(), "destructor");
        assert_eq!(budget.available(), 5.0);
    });
}

#[test]
fn a_run_that_is_over_calls_nothing() {
    paused(async || {
        let flaky = Flaky::new(0);
        let mut run = pin!(STEADY.retry(|_| flaky.call()).into_future());
        assert!(poll!(run.as_mut()).is_ready());
        let again = catch_unwind(AssertUnwindSafe(|| {
            drop(
                run.as_mut()
                    .poll(&mut Context::from_waker(std::task::Waker::noop())),
            );
        }));
        assert_eq!(
            message(&*again.unwrap_err()),
            "ringfence: a retry was polled after it was over"
        );
        assert_eq!(flaky.calls.get(), 1);
        let mut calls = 0;
        let mut run = pin!(
            STEADY
                .retry(|_| {
                    calls += 1;
                    assert!(calls > 1, "the first");
                    async { Ok::<_, Oops>(()) }
                })
                .into_future()
        );
        for expected in [
            "the first",
            "ringfence: a retry was polled after it was over",
        ] {
            let polled = catch_unwind(AssertUnwindSafe(|| {
                drop(
                    run.as_mut()
                        .poll(&mut Context::from_waker(std::task::Waker::noop())),
                );
            }));
            assert_eq!(message(&*polled.unwrap_err()), expected);
        }
    });
}

#[test]
fn an_attempt_that_never_returns_is_dropped_with_the_run() {
    paused(async || {
        let (drops, budget) = (Drops::new(), purse());
        let op = |attempt: ringfence::Attempt| {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                if attempt.number == 2 {
                    pending::<()>().await;
                }
                Err::<(), _>(Oops(0))
            }
        };
        let run = STEADY.retry(op).budget(&budget);
        assert!(ringfence::timeout(ms(5000), run).await.is_err());
        assert_eq!((drops.made(), drops.alive()), (2, 0));
        assert_eq!(budget.available(), 4.0, "it was sent, and counts");
    });
}

/// What building a policy panics with.
fn refusal(build: impl FnOnce() -> Retry) -> String {
    let built = catch_unwind(AssertUnwindSafe(build));
    message(&*built.expect_err("it should be refused"))
}

#[test]
fn zero_attempts_are_refused() {
    let message = "ringfence: 0 attempts are none; for ever is spelled `unlimited()`";
    assert_eq!(refusal(|| STEADY.attempts(0)), message);
    assert_eq!(
        STEADY.attempts(u32::MAX).delays().take(1_000).count(),
        1_000
    );
}

#[test]
fn an_endless_loop_without_delay_is_refused() {
    let message = "ringfence: unlimited attempts need delays that are not all zero";
    assert_eq!(
        refusal(|| Retry::constant(Duration::ZERO).unlimited()),
        message
    );
    assert_eq!(
        refusal(|| Retry::DEFAULT.unlimited().cap(Duration::ZERO)),
        message
    );
    assert_eq!(
        refusal(|| Retry::exponential(Duration::ZERO).unlimited()),
        message
    );
    assert_eq!(
        refusal(|| Retry::decorrelated(Duration::ZERO).unlimited()),
        message
    );
    assert_eq!(refusal(|| STEADY.unlimited().without_pauses()), message);
    assert_eq!(refusal(|| STEADY.without_pauses().unlimited()), message);
    let _ = Retry::linear(Duration::ZERO, ms(1)).unlimited();
    let _ = Retry::constant(Duration::ZERO).floor(ms(1)).unlimited();
}

#[test]
fn a_factor_that_makes_no_sense_is_refused() {
    for factor in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.999,
        0.0,
        -1.0,
        -0.0,
    ] {
        let message =
            "ringfence: the factor of an exponential delay is a finite number of at least 1";
        assert_eq!(refusal(|| Retry::DEFAULT.factor(factor)), message);
        let error = Retry::DEFAULT.try_factor(factor).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{factor} is not a factor for this delay")
        );
    }
    assert!(Retry::DEFAULT.try_factor(1.0).is_ok() && Retry::DEFAULT.try_factor(f64::MAX).is_ok());
    assert!(STEADY.try_factor(2.0).is_err());
}

#[test]
fn a_proportion_outside_zero_to_one_is_refused() {
    for share in [f64::NAN, f64::INFINITY, 1.000_001, -0.1] {
        let jitter = Jitter::Proportional(share);
        let message = "ringfence: a proportion of jitter is from 0 to 1, and a decorrelated delay has its own";
        assert_eq!(refusal(|| Retry::DEFAULT.jitter(jitter)), message);
        let error = Retry::DEFAULT.try_jitter(jitter).unwrap_err();
        assert!(error.to_string().starts_with(&share.to_string()), "{error}");
    }
    assert!(
        Retry::decorrelated(ms(1))
            .try_jitter(Jitter::Equal)
            .is_err()
    );
    assert!(Retry::decorrelated(ms(1)).try_jitter(Jitter::None).is_ok());
}

#[test]
fn a_floor_above_the_cap_is_refused() {
    let message = "ringfence: the floor of a delay is not above its cap";
    assert_eq!(refusal(|| STEADY.floor(ms(20_001))), message);
    assert_eq!(refusal(|| STEADY.floor(ms(50)).cap(ms(49))), message);
    let _ = STEADY.floor(ms(50)).cap(ms(50));
    let _ = STEADY.cap(Duration::from_nanos(1));
}

#[test]
fn a_pause_outside_a_runtime_panics() {
    let ended = catch_unwind(|| {
        futures::executor::block_on(
            STEADY
                .retry(|_| async { Err::<(), _>(Oops(0)) })
                .into_future(),
        )
    });
    let text = message(&*ended.unwrap_err());
    assert_eq!(
        text,
        "ringfence: cannot wait for time outside a tokio runtime"
    );
}
