//! How a run nests with limits, deadlines and other runs.

use std::{cell::Cell, future::pending, time::Duration};

use ringfence::{Deadline, Retry, RetryReason, Verdict, timeout};
use tokio::{sync::Semaphore, time::sleep};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::paused;

#[test]
fn a_permit_inside_is_not_held_in_a_pause() {
    paused(async || {
        let (permits, taken) = (Semaphore::new(1), Cell::new(0));
        let run = STEADY.retry(|_| async {
            let _permit = permits.acquire().await.unwrap();
            taken.set(taken.get() + 1);
            sleep(ms(10)).await;
            Err::<(), _>(Oops(0))
        });
        let look = async {
            sleep(ms(5)).await;
            assert_eq!(permits.available_permits(), 0);
            sleep(ms(50)).await;
            assert_eq!(permits.available_permits(), 1);
        };
        let (ended, ()) = tokio::join!(run.into_future(), look);
        assert!(ended.is_err());
        assert_eq!(taken.get(), 3);
    });
}

#[test]
fn a_permit_outside_is_held_through_pauses() {
    paused(async || {
        let permits = Semaphore::new(1);
        let limited = async {
            let _permit = permits.acquire().await.unwrap();
            STEADY.retry(|_| async { Err::<(), _>(Oops(0)) }).await
        };
        let look = async {
            sleep(ms(150)).await;
            assert_eq!(permits.available_permits(), 0);
        };
        let (ended, ()) = tokio::join!(limited, look);
        assert!(ended.is_err());
        assert_eq!(permits.available_permits(), 1);
    });
}

#[test]
fn a_deadline_around_attempt_timeouts_holds() {
    paused(async || {
        for limit in 1..400 {
            let flaky = Flaky::new(0);
            let op = async |attempt: ringfence::Attempt| {
                sleep(ms(u64::from(attempt.number) * 37)).await;
                Err::<(), _>(Oops(0))
            };
            let run = STEADY.retry(op).attempt_timeout(ms(60));
            assert!(run.deadline(Deadline::after(ms(limit))).await.is_err());
            assert!(flaky.now() <= u128::from(limit), "{limit}: {}", flaky.now());
        }
    });
}

#[test]
fn a_wait_for_a_limiter_counts_where_it_stands() {
    paused(async || {
        let limited = async |limit: Duration, inner: bool| {
            let op = async |_| {
                sleep(ms(80)).await; // the limiter
                let work = sleep(ms(30));
                let done = if inner {
                    timeout(ms(50), work).await.is_ok()
                } else {
                    {
                        work.await;
                        true
                    }
                };
                if done { Ok(()) } else { Err(Oops(0)) }
            };
            let policy = STEADY.attempts(1);
            let run = policy.retry(op);
            let run = if inner {
                run
            } else {
                run.attempt_timeout(ms(50))
            };
            run.deadline(Deadline::after(limit))
                .await
                .map_err(|error| error.reason())
        };
        assert_eq!(limited(ms(1000), true).await, Ok(()));
        assert_eq!(
            limited(ms(1000), false).await,
            Err(RetryReason::AttemptsExhausted)
        );
        assert_eq!(limited(ms(100), true).await, Err(RetryReason::Deadline));
    });
}

#[test]
fn a_breaker_is_asked_again_when_it_may_close() {
    paused(async || {
        let breaker = async |limit: Duration| {
            let flaky = Flaky::new(1);
            let run = STEADY
                .retry(|_| flaky.call())
                .deadline(Deadline::after(limit));
            let run = run.classify(|outcome| match outcome {
                Ok(_) => Verdict::Done,
                Err(_) => Verdict::RetryAfter(ms(5000)),
            });
            (run.await.map_err(|error| error.reason()), flaky.now())
        };
        assert_eq!(breaker(ms(6000)).await, (Ok(2), 5000));
        assert_eq!(breaker(ms(4000)).await, (Err(RetryReason::Deadline), 0));
    });
}

#[test]
fn runs_nest_as_calls_do() {
    paused(async || {
        let calls = Cell::new(0);
        let inner = |_| async {
            let policy = STEADY.attempts(2);
            let run = policy.retry(|_| async {
                calls.set(calls.get() + 1);
                Err::<(), _>(Oops(calls.get()))
            });
            run.await.map_err(|error| error.into_error().unwrap())
        };
        let error = Retry::constant(ms(7))
            .attempts(3)
            .retry(inner)
            .await
            .unwrap_err();
        assert_eq!((calls.get(), error.into_error()), (6, Some(Oops(6))));
        let hanging = STEADY.retry(|_| pending::<Result<(), Oops>>());
        assert!(timeout(ms(20), hanging).await.is_err());
    });
}
