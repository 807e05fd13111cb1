//! When attempts begin, and how often.

use std::{
    cell::Cell, cell::RefCell, future::pending, future::poll_fn, rc::Rc, task::Poll, time::Duration,
};

use futures::poll;
use ringfence::{Retry, RetryReason};
use tokio::time::sleep;

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{Drops, Log, paused};

const FOREVER: u32 = u32::MAX;

#[test]
fn a_first_success_costs_no_time() {
    // Outside every runtime a timer would panic.
    let flaky = Flaky::new(0);
    let mut run = std::pin::pin!(STEADY.retry(|_| flaky.call()).report());
    let waker = futures::task::noop_waker();
    let polled = run
        .as_mut()
        .poll(&mut std::task::Context::from_waker(&waker));
    let Poll::Ready(report) = polled else {
        panic!("it was ready at once")
    };
    assert_eq!(report.result.unwrap(), 1);
    assert_eq!(
        (report.attempts, report.elapsed, report.slept),
        (1, Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn three_attempts_are_three_calls_and_two_pauses() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let error = STEADY.retry(|_| flaky.call()).await.unwrap_err();
        assert_eq!(flaky.times(), [0, 100, 200]);
        assert_eq!(flaky.now(), 200, "no pause after the last");
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::AttemptsExhausted, 3)
        );
    });
}

#[test]
fn one_attempt_is_one_call() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let error = STEADY
            .attempts(1)
            .retry(|_| flaky.call())
            .await
            .unwrap_err();
        assert_eq!((flaky.times(), flaky.now()), (vec![0], 0));
        assert_eq!(error.into_error(), Some(Oops(1)));
    });
}

#[test]
fn the_default_is_bounded_and_spread() {
    assert_eq!(Retry::default(), Retry::DEFAULT);
    for _ in 0..1_000 {
        let delays: Vec<_> = Retry::DEFAULT.delays().collect();
        assert_eq!(delays.len(), 2);
        assert!(delays[0] <= ms(100) && delays[1] <= ms(200));
    }
    let longest = Retry::DEFAULT
        .jitter(ringfence::Jitter::None)
        .attempts(50)
        .delays()
        .max();
    assert_eq!(longest, Some(ms(20_000)));
}

#[test]
fn a_run_that_is_never_polled_calls_nothing() {
    paused(async || {
        let flaky = Flaky::new(0);
        drop(STEADY.retry(|_| flaky.call()));
        drop(STEADY.retry(|_| flaky.call()).into_future());
        drop(STEADY.retry(|_| flaky.call()).report());
        drop(
            STEADY
                .retry_with(&mut 0, async |_, _| flaky.call().await)
                .run(),
        );
        assert_eq!(flaky.calls.get(), 0);
    });
}

#[test]
fn the_next_attempt_is_made_when_the_pause_is_over() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let mut run = std::pin::pin!(STEADY.retry(|_| flaky.call()).into_future());
        assert!(poll!(run.as_mut()).is_pending());
        sleep(ms(99)).await;
        assert!(poll!(run.as_mut()).is_pending());
        assert_eq!(flaky.calls.get(), 1);
        sleep(ms(1)).await;
        assert!(poll!(run.as_mut()).is_pending());
        assert_eq!(flaky.calls.get(), 2);
    });
}

#[test]
fn a_failed_attempt_is_gone_before_the_pause() {
    paused(async || {
        let drops = Drops::new();
        let op = |_| {
            let guard = drops.guard();
            async move {
                sleep(ms(10)).await;
                drop(guard);
                Err::<(), _>(Oops(0))
            }
        };
        let mut ready = std::pin::pin!(
            STEADY
                .retry(|_| {
                    let guard = drops.guard();
                    // It keeps what it captured until it is dropped itself.
                    poll_fn(move |_| {
                        let _ = &guard;
                        Poll::Ready(Err::<(), _>(Oops(0)))
                    })
                })
                .into_future()
        );
        assert!(poll!(ready.as_mut()).is_pending());
        assert_eq!((drops.made(), drops.alive()), (1, 0));
        let told = Cell::new(0);
        let run = STEADY
            .retry(op)
            .on_event(|_| told.set(told.get() + drops.alive()));
        assert!(run.await.is_err());
        assert_eq!(told.get(), 0, "gone when the event is told");
    });
}

#[test]
fn a_report_tells_attempts_and_pauses() {
    paused(async || {
        let flaky = Flaky::new(2);
        let report = STEADY.retry(|_| flaky.call()).report().await;
        assert_eq!(report.result.unwrap(), 3);
        assert_eq!(
            (report.attempts, report.elapsed, report.slept),
            (3, ms(200), ms(200))
        );
        let flaky = Flaky::new(1);
        let slow = async |_| {
            sleep(ms(30)).await;
            flaky.call().await
        };
        let report = STEADY.retry(slow).report().await;
        assert_eq!(
            (report.attempts, report.elapsed, report.slept),
            (2, ms(160), ms(100))
        );
    });
}

#[test]
fn a_dropped_run_makes_no_further_call() {
    paused(async || {
        let drops = Drops::new();
        {
            let mut run = std::pin::pin!(
                STEADY
                    .retry(|_| {
                        let guard = drops.guard();
                        async move {
                            let _guard = guard;
                            pending::<Result<(), Oops>>().await
                        }
                    })
                    .into_future()
            );
            assert!(poll!(run.as_mut()).is_pending());
            assert_eq!(drops.alive(), 1);
        }
        assert_eq!(drops.alive(), 0);
        let flaky = Flaky::new(FOREVER);
        {
            let mut run = std::pin::pin!(STEADY.retry(|_| flaky.call()).into_future());
            assert!(poll!(run.as_mut()).is_pending());
        }
        sleep(ms(1000)).await;
        assert_eq!(flaky.calls.get(), 1);
    });
}

#[test]
fn runs_of_one_policy_share_nothing() {
    paused(async || {
        const GROWING: Retry = Retry::exponential(ms(100))
            .jitter(ringfence::Jitter::None)
            .attempts(4);
        let (a, b) = (Flaky::new(3), Flaky::new(3));
        let later = async {
            sleep(ms(50)).await;
            GROWING.retry(|_| b.call()).await
        };
        let (first, second) = tokio::join!(GROWING.retry(|_| a.call()).into_future(), later);
        assert_eq!((first.unwrap(), second.unwrap()), (4, 4));
        assert_eq!(a.times(), [0, 100, 300, 700]);
        assert_eq!(b.times(), [50, 150, 350, 750]);
    });
}

#[test]
fn streams_keep_seeded_runs_apart() {
    paused(async || {
        const SEEDED: Retry = Retry::DEFAULT.seed(42).attempts(6);
        let times = async |stream| {
            let flaky = Flaky::new(FOREVER);
            let told = RefCell::new(Vec::new());
            let run = SEEDED
                .retry(|_| flaky.call())
                .stream(stream)
                .on_event(|event| {
                    if let ringfence::RetryEvent::Pausing { delay, .. } = event {
                        told.borrow_mut().push(*delay);
                    }
                });
            assert!(run.await.is_err());
            told.into_inner()
        };
        let (a, b, again) = tokio::join!(times(0), times(1), times(1));
        assert_ne!(a, b);
        assert_eq!(b, again);
        assert_eq!(a, SEEDED.delays().collect::<Vec<_>>());
    });
}

#[test]
fn a_million_attempts_run_in_constant_stack() {
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let ran = small.spawn(|| {
        paused(async || {
            let mut calls = 0_u32;
            let policy = Retry::constant(ms(1))
                .jitter(ringfence::Jitter::None)
                .attempts(1_000_000);
            let run = policy.retry(|_| {
                calls += 1;
                std::future::ready(Err::<(), _>(Oops(calls)))
            });
            assert_eq!(run.await.unwrap_err().into_error(), Some(Oops(1_000_000)));
            let policy = policy.without_pauses();
            let run = policy.retry(|_| std::future::ready(Err::<(), _>(Oops(0))));
            assert_eq!(run.await.unwrap_err().attempts(), 1_000_000);
        });
    });
    ran.unwrap().join().unwrap();
}

#[test]
fn a_zero_delay_lets_others_run_and_takes_no_time() {
    paused(async || {
        let log = Log::new();
        let busy = async {
            let policy = Retry::constant(Duration::ZERO);
            let run = policy.retry(|_| {
                log.push("attempt");
                std::future::ready(Err::<(), _>(Oops(0)))
            });
            assert!(run.await.is_err());
        };
        let flaky = Flaky::new(0);
        let other = async {
            for _ in 0..3 {
                log.push("other");
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(busy, other);
        let entries = log.entries();
        assert_eq!(entries.len(), 6);
        // `join!` takes turns at going first, so two of one may follow one another, and no more.
        assert!(
            !entries
                .windows(3)
                .any(|three| three.iter().all(|entry| *entry == three[0]))
        );
        assert_eq!(flaky.now(), 0);
    });
}

#[test]
fn an_empty_pause_takes_the_time_that_others_take() {
    paused(async || {
        let policy = Retry::constant(Duration::ZERO);
        for is_plain in [true, false] {
            let seen = RefCell::new(Vec::new());
            let run = policy.retry(|attempt| {
                seen.borrow_mut().push(attempt.elapsed);
                std::future::ready(Err::<(), _>(Oops(0)))
            });
            let run = if is_plain { run } else { run.history(0) };
            let mut run = std::pin::pin!(run.into_future());
            for _ in 0..2 {
                assert!(poll!(run.as_mut()).is_pending());
                tokio::time::advance(ms(1000)).await;
            }
            assert_eq!(run.await.unwrap_err().elapsed(), ms(2000));
            assert_eq!(seen.into_inner(), [ms(0), ms(1000), ms(2000)]);
        }
    });
}

#[test]
fn a_pause_counts_for_as_long_as_it_was() {
    paused(async || {
        // The clock jumps in one; another is cut short; empty ones wait for others.
        let jump = async |by: u64| {
            sleep(ms(10)).await;
            tokio::time::advance(ms(by)).await;
        };
        let flaky = Flaky::new(1);
        let run = STEADY.retry(|_| flaky.call()).report();
        let (report, ()) = tokio::join!(run, jump(5000));
        assert_eq!((report.slept, report.elapsed), (ms(5010), ms(5010)));
        let empty = Retry::constant(Duration::ZERO);
        let mut run = std::pin::pin!(empty.retry(|_| flaky.call()).report());
        flaky.calls.set(0);
        assert!(poll!(run.as_mut()).is_pending());
        jump(90).await;
        assert_eq!(run.await.slept, ms(100));
    });
}

#[test]
fn without_pauses_nothing_is_waited_for() {
    const PATIENT: Retry = Retry::constant(ms(10_000)).attempts(5);
    // Outside every runtime.
    let mut calls = 0;
    let policy = PATIENT.attempts(4).without_pauses();
    let run = policy.retry(|_| {
        calls += 1;
        std::future::ready(Err::<(), _>(Oops(calls)))
    });
    let run = run.classify(|_| ringfence::Verdict::RetryAfter(ms(50)));
    let mut run = std::pin::pin!(run.into_future());
    let waker = futures::task::noop_waker();
    let Poll::Ready(error) = run
        .as_mut()
        .poll(&mut std::task::Context::from_waker(&waker))
    else {
        panic!("it waited")
    };
    assert_eq!(error.unwrap_err().into_error(), Some(Oops(4)));
}

#[test]
fn without_pauses_every_delay_is_zero() {
    paused(async || {
        let policy = STEADY.without_pauses();
        assert_eq!(policy.delays().collect::<Vec<_>>(), [Duration::ZERO; 2]);
        for is_plain in [true, false] {
            let seen = RefCell::new(Vec::new());
            let run = policy.retry(|attempt| {
                seen.borrow_mut().push(attempt.previous_delay);
                std::future::ready(Err::<(), _>(Oops(0)))
            });
            let run = if is_plain { run } else { run.history(0) };
            assert!(run.await.is_err());
            let zero = Some(Duration::ZERO);
            assert_eq!(seen.into_inner(), [None, zero, zero], "{is_plain}");
        }
    });
}

#[test]
fn an_attempt_knows_its_place() {
    paused(async || {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let policy = Retry::linear(ms(100), ms(100)).jitter(ringfence::Jitter::None);
        let run = policy.retry(|attempt| {
            seen.borrow_mut().push(attempt);
            async {
                sleep(ms(10)).await;
                Err::<(), _>(Oops(0))
            }
        });
        assert!(run.await.is_err());
        let seen = seen.borrow();
        let told =
            |field: fn(&ringfence::Attempt) -> u128| seen.iter().map(field).collect::<Vec<_>>();
        assert_eq!(told(|attempt| attempt.number.into()), [1, 2, 3]);
        assert_eq!(told(|attempt| attempt.elapsed.as_millis()), [0, 110, 320]);
        let pauses: Vec<_> = seen.iter().map(|attempt| attempt.previous_delay).collect();
        assert_eq!(pauses, [None, Some(ms(100)), Some(ms(200))]);
        assert!(
            seen.iter()
                .all(|attempt| attempt.deadline == ringfence::Deadline::NEVER)
        );
    });
}
